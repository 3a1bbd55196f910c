"""``python -m benchmarks.engines``: what a log costs on each engine, against the engine's own insert in the same run.

Each engine is one small module here with an ``KIND`` (see ``base.Adapter``); ``measure`` is the same for all.
"""
