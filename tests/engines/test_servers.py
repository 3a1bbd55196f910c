"""The kit that starts real servers: it starts, kills without a goodbye, restarts, and leaves nothing behind."""

from __future__ import annotations

from benchmarks.servers import children, free_ports, lives
from benchmarks.servers.postgres import PostgresServer


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
