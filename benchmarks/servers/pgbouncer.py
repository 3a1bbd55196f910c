"""PgBouncer in transaction mode, in front of a PostgreSQL server: a Debian package, not a wheel."""

from __future__ import annotations

import shutil

from benchmarks.servers import Server, free_ports, listens
from benchmarks.servers.postgres import SUPERUSER, PostgresServer

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


class PgBouncer(Server):
    """Few connections to the server, shared by all clients from transaction to transaction."""

    def __init__(self, behind: PostgresServer, *, connections: int = 3) -> None:
        super().__init__("bouncer")
        self.port = free_ports(1)[0]
        users = self.write("users.txt", f'"{SUPERUSER}" ""\n')
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": users,
            "pool_mode": "transaction",
            "default_pool_size": connections,
            "max_client_conn": 200,
        }
        text = "".join(f"{name} = {value}\n" for name, value in lines.items())
        place = f"* = host=127.0.0.1 port={behind.port}"
        self.configuration = self.write("pgbouncer.ini", f"[databases]\n{place}\n\n[pgbouncer]\n{text}")

    def command(self) -> list[str]:
        return [PROGRAM or "pgbouncer", str(self.configuration)]

    def ready(self) -> bool:
        return listens(self.port)

    def url(self, database: str, log: str = "main") -> str:
        """A log's URL through the pooler."""
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}?log={log}"
