"""``python -m benchmarks.failover``: the server that everything goes through is killed, under load.

Each engine is one small module here with a ``KIND`` (see ``base.Failover``); ``measure`` is the same for all.
"""
