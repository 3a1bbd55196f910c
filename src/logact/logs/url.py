"""Log URLs: ``open_log("sqlite:///ops.db")``. Engines register by scheme; third parties by an entry point."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from logact.errors import MissingExtra, UnknownLogUrl
from logact.logs.base import Engine, Keyring, SharedLog, Signer
from logact.logs.network_url import redacted

BUILT_IN = {
    "memory": "logact.logs.memory:engine_from_url",
    "sqlite": "logact.logs.sqlite:engine_from_url",
    "postgresql": "logact.logs.postgres:engine_from_url",
    "postgres": "logact.logs.postgres:engine_from_url",
    "nats": "logact.logs.nats:engine_from_url",
    "kafka": "logact.logs.kafka:engine_from_url",
    "logact+http": "logact.logs.remote:engine_from_url",
    "logact+https": "logact.logs.remote:engine_from_url",
}
EXTRAS = {
    "postgresql": ("postgres", "psycopg"),
    "postgres": ("postgres", "psycopg"),
    "nats": ("nats", "nats"),
    "kafka": ("kafka", "confluent_kafka"),
    "logact+http": ("http", "httpx2"),
    "logact+https": ("http", "httpx2"),
}
"""What has to be installed for a scheme: ``pip install 'logact[postgres]'`` brings ``psycopg``."""

GROUP = "logact.engines"


def open_log(url: str, *, author_key: str = "", keyring: str = "") -> SharedLog:
    """The log behind a URL; it is opened (and created if missing) on first use.

    ``memory:`` · ``sqlite:///relative.db`` · ``sqlite:////absolute.db`` · ``sqlite:///ops.db?log=NAME`` for one
    of many logs in a file · ``postgresql://HOST/DATABASE?log=NAME`` · ``logact+https://HOST/?log=NAME``.

    ``author_key`` is the file of the key that signs what is appended, ``keyring`` the file of the keys that readers
    check; without them LOGACT_AUTHOR_KEY and LOGACT_KEYRING name them.

    Raises UnknownLogUrl, MissingExtra, SpecError.
    """
    author_key = author_key or os.environ.get("LOGACT_AUTHOR_KEY", "")
    keyring = keyring or os.environ.get("LOGACT_KEYRING", "")
    signer: Signer | None = None
    ring: Keyring | None = None
    if author_key or keyring:
        from logact.logs import signing

        signer = signing.load_key(author_key) if author_key else None
        ring = signing.load_keyring(keyring) if keyring else None
    return SharedLog(engine_for(url), redacted(url), signer=signer, keyring=ring)


def engine_for(url: str) -> Engine:
    """The engine that serves a URL; with ``?local=FILE`` behind a local copy (see ``local_copy``)."""
    url, local = _without_local(url)
    if local:
        from logact.logs.local_copy import LocalCopy

        return LocalCopy(engine_for(url), Path(local).absolute())
    scheme = urlsplit(url).scheme.lower() if "://" not in url else url.partition("://")[0].lower()
    target = BUILT_IN.get(scheme)
    if target is not None:
        return _built_in(scheme, target, url)
    for point in entry_points(group=GROUP):
        if point.name == scheme:
            found: Callable[[str], Engine] = point.load()
            return found(url)
    hint = f"sqlite:///{redacted(url)}" if not scheme and url else "sqlite:///ops.db"
    raise UnknownLogUrl(
        "No engine serves this log URL",
        received=repr(redacted(url)),
        expected="one of " + ", ".join(f"{name}:" for name in sorted(BUILT_IN)),
        todo=f"for a file write {hint}",
    )


def _without_local(url: str) -> tuple[str, str]:
    """The URL without its option ``local``, and that option's value."""
    base, mark, query = url.partition("?")
    options = [one for one in query.split("&") if one]
    found = [unquote(one.partition("=")[2]) for one in options if one.startswith("local=")]
    if not mark or not found:
        return url, ""
    if len(found) > 1 or not found[0]:
        raise UnknownLogUrl("local= names one file", received=redacted(url), todo="correct the URL")
    kept = "&".join(one for one in options if not one.startswith("local="))
    return base + ("?" + kept if kept else ""), found[0]


def _built_in(scheme: str, target: str, url: str) -> Engine:
    extra, needed = EXTRAS.get(scheme, ("", ""))
    if needed and not _installed(needed):
        raise MissingExtra(
            f"The {scheme}: engine needs a package that is not installed",
            received=f"{redacted(url)}, without {needed}",
            todo=f"pip install 'logact[{extra}]'",
        )
    module, _, name = target.partition(":")
    build: Callable[[str], Engine] = getattr(import_module(module), name)
    return build(url)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:
        return False  # somebody took it out of sys.modules
