"""Log URLs: ``open_log("sqlite:///ops.db")``. Engines register by scheme; third parties by an entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from logact.errors import MissingExtra, UnknownLogUrl
from logact.logs.base import Engine, SharedLog

BUILT_IN = {
    "memory": "logact.logs.memory:engine_from_url",
    "sqlite": "logact.logs.sqlite:engine_from_url",
}
PLANNED_EXTRAS = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "nats": "nats",
    "kafka": "kafka",
    "logact+http": "http",
    "logact+https": "http",
}
GROUP = "logact.engines"


def open_log(url: str) -> SharedLog:
    """The log behind a URL; it is opened (and created if missing) on first use.

    ``memory:`` · ``sqlite:///relative.db`` · ``sqlite:////absolute.db`` · ``sqlite:///ops.db?log=NAME`` for one
    of many logs in a file. Raises UnknownLogUrl, MissingExtra.
    """
    return SharedLog(engine_for(url), url)


def engine_for(url: str) -> Engine:
    """The engine that serves a URL."""
    scheme = urlsplit(url).scheme.lower()
    target = BUILT_IN.get(scheme)
    if target is not None:
        module, _, name = target.partition(":")
        build: Callable[[str], Engine] = getattr(import_module(module), name)
        return build(url)
    for point in entry_points(group=GROUP):
        if point.name == scheme:
            found: Callable[[str], Engine] = point.load()
            return found(url)
    if scheme in PLANNED_EXTRAS:
        raise MissingExtra(
            f"The {scheme} engine is not part of this installation",
            received=url,
            todo="use sqlite:///FILE.db, or install a package that provides the engine",
        )
    hint = f"sqlite:///{url}" if not scheme and url else "sqlite:///ops.db"
    raise UnknownLogUrl(
        "No engine serves this log URL",
        received=repr(url),
        expected="one of " + ", ".join(f"{name}:" for name in sorted(BUILT_IN)),
        todo=f"for a file write {hint}",
    )
