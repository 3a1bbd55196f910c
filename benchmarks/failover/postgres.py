"""PostgreSQL: a primary with a synchronous standby; the primary dies, a script promotes the standby."""

from __future__ import annotations

from benchmarks.failover.base import Failover
from benchmarks.servers import close_all
from benchmarks.servers.postgres import SUPERUSER, PostgresServer

DATABASE = "failover"


class Pair:
    """Two servers that change places."""

    def __init__(self) -> None:
        self.primary = PostgresServer().start()
        try:
            self.primary.database(DATABASE)
            self.standby = self._stand_by()
        except BaseException:
            self.primary.close()
            raise

    def _stand_by(self) -> PostgresServer:
        """A standby that every commit of the primary waits for."""
        standby = self.primary.standby()
        try:
            self.primary.make_synchronous()
        except BaseException:
            standby.close()
            raise
        return standby

    def mend(self) -> None:
        """What was promoted is the primary from now on, and gets a standby."""
        dead, self.primary = self.primary, self.standby
        dead.close()
        self.standby = self._stand_by()

    def close(self) -> None:
        """End both."""
        close_all([self.primary, self.standby])


class PostgresFailover(Failover[Pair]):
    """PostgreSQL elects nobody by itself: ``kill_leader`` is the script that does."""

    def begin(self) -> Pair:
        pair = Pair()
        self.version = f"PostgreSQL {pair.primary.sql('SHOW server_version')}"
        self.notes.append("the standby is promoted by a script as soon as the primary is dead")
        return pair

    def url(self, log: str) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (self.running.primary, self.running.standby))
        return f"postgresql://{SUPERUSER}@{hosts}/{DATABASE}?log={log}"

    def kill_leader(self, log: str) -> None:
        self.running.primary.kill()
        self.running.standby.promote()

    def mend(self) -> None:
        self.running.mend()


KIND = PostgresFailover
