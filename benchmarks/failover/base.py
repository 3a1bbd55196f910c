"""What an engine with several servers has to do so that its leader can be killed again and again.

To add one, write ``benchmarks/failover/NAME.py`` with a subclass of :class:`Failover` and ``FAILOVER = ThatClass``,
and its name in ``ENGINES``.
"""

from __future__ import annotations

import abc
from importlib import import_module
from pathlib import Path

ENGINES = ("postgres", "nats", "kafka")


class Failover(abc.ABC):
    """A cluster. ``directory`` is the run's own, removed afterwards."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = ""
        self.notes: list[str] = []

    @abc.abstractmethod
    def start(self) -> None:
        """Start all servers, and set ``version``. Blocks."""

    @abc.abstractmethod
    def close(self) -> None:
        """End what was started; also called after a ``start`` that failed."""

    @abc.abstractmethod
    def url(self, log: str) -> str:
        """The URL of a log; its clients must find their way by it whichever server dies."""

    @abc.abstractmethod
    def kill_leader(self, log: str) -> None:
        """SIGKILL to the server that leads this log, and whatever an operator's script does next (promote)."""

    @abc.abstractmethod
    def mend(self) -> None:
        """Full strength again, so that the next leader can be killed. Returns when the cluster is healthy."""


def failover_of(name: str) -> type[Failover] | None:
    """The cluster of an engine; None if it is not written."""
    try:
        module = import_module(f"benchmarks.failover.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"benchmarks.failover.{name}":
            return None
        raise
    found: type[Failover] = module.FAILOVER
    return found
