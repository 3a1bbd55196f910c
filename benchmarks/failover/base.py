"""What an engine with several servers has to do so that its leader can be killed again and again.

To add one, write ``benchmarks/failover/NAME.py`` with a subclass of :class:`Failover` and ``KIND = ThatClass``, and
its name in ``ENGINES``. What it shares with the measured servers is in ``benchmarks.engines``.
"""

from __future__ import annotations

import abc

from benchmarks.engines.base import S, Servers

ENGINES = ("postgres", "nats", "kafka")


class Failover(Servers[S]):
    """A cluster. By the URLs that it gives, clients must find their way whichever server dies."""

    @abc.abstractmethod
    def kill_leader(self, log: str) -> None:
        """SIGKILL to the server that leads this log, and whatever an operator's script does next (promote)."""

    @abc.abstractmethod
    def mend(self) -> None:
        """Full strength again, so that the next leader can be killed. Returns when the cluster is healthy."""
