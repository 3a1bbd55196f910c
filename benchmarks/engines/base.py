"""What an engine has to say of itself to be measured.

To add one, write ``benchmarks/engines/NAME.py`` with a subclass of :class:`Adapter` and ``ADAPTER = ThatClass``, and
its name in ``ENGINES``. ``start`` starts real servers (see ``benchmarks.servers``); ``raw`` gives the engine's own
client doing the plainest durable insert or publish of some bytes, with the same guarantees as LogAct asks for.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path

Insert = Callable[[bytes], Awaitable[object]]

ENGINES = ("sqlite", "postgres", "nats", "kafka")


class Adapter(abc.ABC):
    """One engine with its servers. ``directory`` is the run's own, removed afterwards."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = ""
        self.notes: list[str] = []

    @abc.abstractmethod
    def start(self) -> None:
        """Start what is needed, and set ``version``. Blocks."""

    @abc.abstractmethod
    def close(self) -> None:
        """End what was started; also called after a ``start`` that failed."""

    @abc.abstractmethod
    def url(self, log: str) -> str:
        """The URL of a log of this name (small letters, digits, ``-``)."""

    @abc.abstractmethod
    def raw(self, name: str) -> AbstractAsyncContextManager[Insert]:
        """A fresh connection that inserts into (or publishes to) something plain of this name.

        Called several times with one name: concurrent clients of the same table, stream or topic.
        """


def adapter_of(name: str) -> type[Adapter] | None:
    """The adapter of an engine; None if it is not written."""
    try:
        module = import_module(f"benchmarks.engines.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"benchmarks.engines.{name}":
            return None
        raise
    found: type[Adapter] = module.ADAPTER
    return found
