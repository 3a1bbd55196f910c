"""Who makes a log on a server: an operator, or whoever has a token for that log by name; reading makes none."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logact import open_log
from logact.entry import Notice
from logact.errors import LogMissing, NotPermitted
from logact.logs import wire
from logact.server import hub
from logact.server.guard import check_create
from logact.server.limits import Limits
from logact.server.tokens import new_token
from tests.cli_help import here
from tests.server.kit import ALL_ROLES, Hand, ServerProcess, engine, token_file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server over a file."""
    process = ServerProcess(f"sqlite:///{tmp_path_factory.mktemp('making')}/logs.db")
    yield process
    assert process.stop() == (0, "")


def names(server: ServerProcess) -> set[str]:
    """The logs that are there, as the engine below the server has them."""
    connection = sqlite3.connect(server.engine_url.removeprefix("sqlite:///"))
    try:
        return {row[0] for row in connection.execute("SELECT name FROM logs")}
    finally:
        connection.close()


def test_no_request_but_one_makes_a_log(server: ServerProcess) -> None:
    """Whatever is asked of a log that is not there, by a token that may do everything, none is there afterwards."""
    hand = Hand(server, server.token("root", ALL_ROLES, relay=True), "nowhere", make=False)
    before = names(server)
    answers = [
        *(
            hand.get(path)
            for path in ("", "/tail", "/entries", "/wait", "/follow", "/checkpoint", f"/blobs/{43 * 'a'}")
        ),
        hand.post("/read", {}),
        hand.post("/append", wire.AppendRequest([wire.WireDraft(body=b"{}")])),
        hand.post("/trim", {"before": 1}),
        hand.post("/erase", {"record": 1, "index": 0}),
    ]
    assert {(one.status_code, one.json()["error"]["code"]) for one in answers} == {(404, "log_missing")}
    assert names(server) == before
    assert hand.client.put(hand.base).json()["tail"] == 0
    assert names(server) == before | {"nowhere"}
    assert hand.client.put(hand.base).json()["log_id"] == hand.log_id  # again is no other


MAKERS: list[tuple[str, dict[str, Any], int]] = [
    ("part", {"roles": ["driver"]}, 403),
    ("pattern", {"roles": ["client"], "logs": ["patter*"]}, 403),
    ("by-name", {"roles": ["driver"], "logs": ["by-name"]}, 200),
    ("operator", {"roles": ["operator"]}, 200),
    ("others-operator", {"roles": ["operator"], "logs": ["other"]}, 403),
    ("relay", {"roles": ["driver"], "relay": True}, 200),
    ("reader", {"roles": ["reader"]}, 404),
    ("named-reader", {"roles": ["reader"], "logs": ["named-reader"]}, 404),
]


@pytest.mark.parametrize(("name", "token", "status"), MAKERS, ids=[name for name, _, _ in MAKERS])
def test_who_makes_a_log(server: ServerProcess, name: str, token: dict[str, Any], status: int) -> None:
    """An operator, a relay, or whoever's token names that log word by word and writes; nobody else."""
    hand = Hand(server, server.token("ann", **token), name, make=False)
    answer = hand.client.put(hand.base)
    assert answer.status_code == status, answer.text
    assert (name in names(server)) is (status == 200)


def test_a_refusal_is_noted_where_there_is_a_log(tmp_path: Path) -> None:
    """Many tries at logs that are not there make none, and stand in the server's own log, a few of them."""

    async def play() -> None:
        logs = hub.Hub(f"sqlite:///{tmp_path}/logs.db", Limits(notices_per_s=0.1))
        token, _ = new_token(name="eve", roles=["driver"])
        for number in range(30):
            with pytest.raises(NotPermitted) as refused:
                check_create(token, f"try-{number}")
            await logs.note(f"try-{number}", token, refused.value, "here")
        assert not logs.logs and set(logs.left_out) <= {""}
        notes = [entry async for entry in logs.book.log.read(limit=100)]
        assert len(notes) == 1  # a burst of one: ten seconds' worth
        await logs.close()

    asyncio.run(play())


def test_a_client_that_only_looks_makes_none(server: ServerProcess, tmp_path: Path) -> None:
    """Commands that look at a log say that there is none; a part with a token for the log makes it."""
    text = server.token("ann", ["client"], logs=["later"])
    url = server.url("later", token_file=token_file(tmp_path, text))
    shown = here("log", "show", url)
    assert shown.returncode == 5
    assert "There is no log of this name on the server" in shown.stderr
    assert "later" not in names(server)

    async def play() -> None:
        looking = engine(server, token_file(tmp_path, text), "later")
        looking.create = False
        with pytest.raises(LogMissing):
            await looking.open()
        async with open_log(url) as log:
            await log.append(Notice(code="note", message="hello"))

    asyncio.run(play())
    assert here("log", "show", url).returncode == 0
