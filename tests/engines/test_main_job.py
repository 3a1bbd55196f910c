"""The job of ``make demo`` with parts in processes of their own, killed at random: the same proof on every engine.

What is proven in the end is what the demonstration itself proves: the manifest is what ``sha256sum`` says of a copy
that the agent never saw, no file is lost, changed or moved twice (the kernel counts), what a planted file asked for
never began, and the log verifies.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from benchmarks.servers.kafka import KafkaCluster
from benchmarks.servers.nats import NatsCluster
from benchmarks.servers.postgres import PostgresServer
from examples.main_job.__main__ import main
from examples.main_job.company import PARTS

from logact import open_log
from logact.entry import Entry, NewEntry, Notice
from tests.server.kit import ServerProcess, token_file
from tests.test_examples import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

STRIKES = 2
VOTER = "stay-in-the-task"


def prove(home: Path, url: str, seed: int = 3) -> None:
    """Run it: one part is killed, and all of them at once; the job does not end before."""
    small = ["--files", "60", "--duplicates", "6", "--kills", str(STRIKES), "--seed", str(seed)]
    options = ["--home", str(home / "demo"), *small, "--parts", "--log", url]
    done = run("-m", "examples.main_job", *options, where=home, timeout_s=250)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 8 proofs hold." in done.stdout
    assert "REFUSED delete_file" in done.stdout
    lives = re.search(r"(\d+) processes, (\d+) ended by SIGKILL in (\d+) strikes", done.stdout)
    assert lives is not None, done.stdout
    assert lives.groups() == ("11", "6", str(STRIKES)), "five of them and one twice"


def test_on_sqlite(tmp_path: Path) -> None:
    """Five processes that meet in one file."""
    prove(tmp_path, f"sqlite:///{tmp_path}/demo.db")


def test_on_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    """Five processes that meet in a PostgreSQL database."""
    prove(tmp_path, postgres.url(postgres.database("demo"), "demo"))


def test_on_nats(nats: NatsCluster, tmp_path: Path) -> None:
    """Five processes that meet in a stream on three NATS nodes."""
    prove(tmp_path, nats.url("demo"))


def test_on_kafka(cluster: KafkaCluster, tmp_path: Path) -> None:
    """Five processes that meet in a topic on three Kafka brokers."""
    prove(tmp_path, cluster.url("demo"))


def test_on_a_served_log(tmp_path: Path) -> None:
    """Five processes that meet on a server, each with a token for its own role; everybody kept to it."""
    server = ServerProcess(f"sqlite:///{tmp_path}/served.db")
    try:
        for role in ("client", "operator", *PARTS):
            scope = {"voters": [VOTER]} if role == "voter" else {}
            token_file(tmp_path, server.token(role, [role], logs=["demo"], agents=["tidy"], **scope), role)
        prove(tmp_path, f"logact+{server.address}/?log=demo&token_file={tmp_path}/{{part}}")
    finally:
        assert server.stop() == (0, "")
    entries = asyncio.run(entries_of(f"sqlite:///{tmp_path}/served.db?log=demo"))
    served = [entry for entry in entries if "." in entry.author.incarnation]
    assert {entry.author.role for entry in served} >= {"client", "operator", "driver", "voter", "decider", "executor"}
    for entry in served:
        role = entry.author.role
        assert entry.author.name == (VOTER if role == "voter" else role), entry
    assert not [entry for entry in entries if getattr(entry.payload, "code", "") == "refused"]


async def entries_of(url: str) -> list[Entry]:
    """What a log holds, read from the engine itself."""
    async with open_log(url) as log:
        return [entry async for entry in log.read()]


@pytest.mark.parametrize(
    ("log", "more", "said"),
    [
        ("memory:", ["--parts"], "a log that they can share"),
        ("postgresql://ann:open-sesame@127.0.0.1/agents", [], "ann:***@127.0.0.1"),
        ("logact+http://127.0.0.1/?token_file=/{part}", [], "Give --parts too"),
        ("sqlite:///used.db?log=a", [], "The log is not empty"),
    ],
)
def test_a_log_that_it_cannot_use(
    log: str, more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log that processes cannot share, a password that would be written down, a log with entries: a clear no."""
    asyncio.run(fill(f"sqlite:///{tmp_path}/used.db?log=a"))
    options = ["--home", str(tmp_path / "demo"), "--files", "1", "--log", log.replace("///", f"///{tmp_path}/")]
    assert main([*options, *more]) == 2
    told = capsys.readouterr()
    assert said in told.err and "open-sesame" not in told.out + told.err


async def fill(url: str) -> None:
    """Somebody else's entry."""
    async with open_log(url) as log:
        await log.append(NewEntry(payload=Notice(code="there", message="before"), role="client", name="ann"))
