"""PostgreSQL: a primary with a synchronous standby; the primary dies, a script promotes the standby."""

from __future__ import annotations

from benchmarks.failover.base import Failover
from benchmarks.servers.postgres import SUPERUSER, PostgresServer

DATABASE = "failover"


class PostgresFailover(Failover):
    """Two servers that change places. PostgreSQL elects nobody by itself: ``kill_leader`` is the script that does."""

    primary: PostgresServer | None = None
    standby: PostgresServer | None = None

    def start(self) -> None:
        self.primary = PostgresServer()
        self.primary.start()
        self.version = f"PostgreSQL {self.primary.sql('SHOW server_version')}"
        self.primary.database(DATABASE)
        self.standby = self.primary.standby()
        self.primary.make_synchronous()
        self.notes.append("the standby is promoted by a script as soon as the primary is dead")

    def close(self) -> None:
        for server in (self.primary, self.standby):
            if server is not None:
                server.close()

    def url(self, log: str) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self.primary, self.standby) if server is not None)
        return f"postgresql://{SUPERUSER}@{hosts}/{DATABASE}?log={log}"

    def kill_leader(self, log: str) -> None:
        if self.primary is None or self.standby is None:
            raise RuntimeError("not started")
        self.primary.kill()
        self.standby.promote()

    def mend(self) -> None:
        dead, self.primary = self.primary, self.standby
        if dead is None or self.primary is None:
            raise RuntimeError("not started")
        dead.close()
        self.standby = self.primary.standby()
        self.primary.make_synchronous()


FAILOVER = PostgresFailover
