"""What an engine has to say of itself to be measured, and how all engines are, one after the other.

To add one, write ``benchmarks/engines/NAME.py`` with a subclass of :class:`Adapter` and ``KIND = ThatClass``, and
its name in ``ENGINES``. ``begin`` starts real servers (see ``benchmarks.servers``); ``raw`` gives the engine's own
client doing the plainest durable insert or publish of some bytes, with the same guarantees as LogAct asks for.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from benchmarks.common import Benchmark, work_directory

Insert = Callable[[bytes], Awaitable[object]]

ENGINES = ("sqlite", "postgres", "nats", "kafka")


class Closable(Protocol):
    """Servers that can be ended."""

    def close(self) -> None:
        """End them and remove what they wrote."""


S = TypeVar("S", bound=Closable)


class Servers(abc.ABC, Generic[S]):
    """One engine's servers, from ``start`` to ``close``. ``directory`` is the run's own, removed afterwards."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = ""
        self.notes: list[str] = []
        self._running: S | None = None

    @abc.abstractmethod
    def begin(self) -> S:
        """Start what is needed, and set ``version``. Blocks. Ends what it has started if it fails."""

    @abc.abstractmethod
    def url(self, log: str) -> str:
        """The URL of a log of this name (small letters, digits, ``-``)."""

    def start(self) -> None:
        """Start all of it."""
        self._running = self.begin()

    @property
    def running(self) -> S:
        """What was started."""
        if self._running is None:
            raise RuntimeError("not started")
        return self._running

    def close(self) -> None:
        """End what was started; also called after a ``start`` that failed."""
        if self._running is not None:
            self._running.close()


class Adapter(Servers[S]):
    """Servers that are measured against their own client."""

    @abc.abstractmethod
    def raw(self, name: str) -> AbstractAsyncContextManager[Insert]:
        """A fresh connection that inserts into (or publishes to) something plain of this name.

        Called several times with one name: concurrent clients of the same table, stream or topic.
        """


def kind_of(package: str, name: str) -> Any:
    """The class that a package has for an engine. SystemExit if there is none."""
    try:
        return import_module(f"{package}.{name}").KIND
    except ModuleNotFoundError as error:
        if error.name == f"{package}.{name}":
            raise SystemExit(f"{package} has no engine {name}") from error
        raise


def only(engines: Sequence[str]) -> dict[str, Any]:
    """The option ``--only``."""
    return {"default": "", "metavar": "NAME,…", "help": f"of {', '.join(engines)}"}


def chosen(bench: Benchmark, engines: Sequence[str]) -> list[str]:
    """The engines that ``--only`` names, or all."""
    return [name for name in bench.options.only.split(",") if name] or list(engines)


def by_engine(
    bench: Benchmark, package: str, names: Sequence[str], measure: Callable[[Any, Path], dict[str, Any]]
) -> dict[str, Any]:
    """What ``measure`` finds about each engine's servers; None, with a note, if they are not here or fail."""
    figures: dict[str, Any] = {}
    for name in names:
        with work_directory() as directory:
            servers = kind_of(package, name)(directory)
            try:
                servers.start()
                figures[name] = measure(servers, directory)
            except Exception as error:  # one engine that fails does not take the others' figures along
                bench.notes.append(f"{name}: {type(error).__name__}: {error}")
                figures[name] = None
            finally:
                bench.notes += [f"{name}: {note}" for note in servers.notes]
                servers.close()
        bench.progress(f"{name}: {figures[name]}")
    return figures
