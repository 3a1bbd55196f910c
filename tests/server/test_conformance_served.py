"""The served log keeps the engine contract: a real server process over SQLite, this process its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from logact.logs.base import Engine
from logact.logs.remote import RemoteEngine
from logact.testing.conformance import EngineConformance
from tests.server.kit import ServerProcess, engine, token_file


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server, and the file of a token that may relay."""
    home = tmp_path_factory.mktemp("served")
    server = ServerProcess(f"sqlite:///{home}/logs.db", "--requests", "100000")
    try:
        yield server, token_file(home, server.token(relay=True))
    finally:
        code, said = server.stop()
        assert (code, said) == (0, "")


class TestServed(EngineConformance):
    @pytest.fixture(autouse=True)
    def _place(self, served: tuple[ServerProcess, Path], request: pytest.FixtureRequest) -> None:
        self.server, self.token = served
        self.names: list[str] = []
        self.name = request.node.name

    async def make_engine(self) -> Engine:
        self.names.append(f"{self.name}-{len(self.names)}")
        return engine(self.server, self.token, self.names[-1])

    async def another(self, engine_: Engine) -> Engine:
        assert isinstance(engine_, RemoteEngine)
        return engine(self.server, self.token, engine_.url.log)

    async def reopen(self, engine_: Engine) -> Engine:
        await engine_.close()
        again = await self.another(engine_)
        await again.open()
        return again
