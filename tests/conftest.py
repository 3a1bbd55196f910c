"""What all tests share: coroutine tests on a loop of their own, and which tests go to one worker together."""

from __future__ import annotations

import asyncio
import inspect
import signal
from typing import Any

import pytest

SERVERS = ("kafka", "nats", "postgres")
"""Fixtures that start a server once a session: their tests go to one worker, so that it is started once."""


def pytest_configure() -> None:
    """Let the tests' child processes hear Ctrl-C, also where a shell in the background has told us to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Run ``async def`` tests to their end."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers, the tests of one server stay together, and so do those of one file."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        used = getattr(item, "fixturenames", ())
        server = next((name for name in SERVERS if name in used), "")
        item.add_marker(pytest.mark.xdist_group(server or item.nodeid.partition("::")[0]))
