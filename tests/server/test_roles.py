"""Who may append what, on a real server: the table, tokens, scopes, and what is refused."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from logact import open_log
from logact.core import rights
from logact.entry import (
    KINDS,
    MAY_APPEND,
    Cancel,
    Claim,
    Control,
    Erased,
    Input,
    Intent,
    Mail,
    Notice,
    Payload,
    Policy,
    Recovery,
    Result,
    Run,
    Vote,
    own,
)
from logact.errors import TokenRefused
from logact.runtime.tail import Tail
from logact.server.names import OWN, url_of
from logact.server.tokens import TokenBook
from logact.testing.conformance_kit import sample
from tests.server.kit import Hand, ServerProcess, by, record, token_file

NAME = "someone"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of this file; each uses a log of its own."""
    process = ServerProcess(f"sqlite:///{tmp_path_factory.mktemp('roles')}/logs.db", "--requests", "100000")
    yield process
    assert process.stop() == (0, "")


def within(role: str, kind: str) -> Payload:
    """A payload of a kind, within the limit of the role's right if it has one."""
    limited: dict[tuple[str, str], Payload] = {
        ("client", "Vote"): Vote(approved=True, intent=5000, voter=f"human:{NAME}"),
        ("voter", "Vote"): Vote(approved=True, intent=5000, voter=NAME),
        ("driver", "Recovery"): Recovery(intent=5000, attempt=0, settlement="failed_final"),
        ("driver", "Cancel"): Cancel(intent=5000),
        ("executor", "Cancel"): Cancel(intent=5000),
        ("driver", "Claim"): Claim(task="t", agent=NAME, run=5000),
        ("client", "Mail"): Mail(to="bob", sender=NAME, body="hello"),
        ("driver", "Mail"): Mail(to="bob", sender=NAME, body="hello"),
    }
    return limited.get((role, kind)) or sample(kind)


@pytest.mark.parametrize("role", MAY_APPEND)
def test_every_role_and_every_kind(server: ServerProcess, role: str) -> None:
    """A token of a role appends exactly the kinds that the table names; everything else is refused and not there."""
    hand = Hand(server, server.token(NAME, [role]), f"table-{role}")
    kinds = sorted(KINDS, key=lambda kind: kind == "Seal")  # nothing comes after that one
    bodies = [record(hand.log_id, f"{hand.writer}-{kind}", by(role, NAME, within(role, kind))) for kind in kinds]
    if role == "reader":
        answer = hand.post("/append", {"drafts": [{"body": ""}]})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "not_permitted"
        return
    outcomes = dict(zip(kinds, [*hand.append(*bodies[:-1]), *hand.append(bodies[-1])], strict=True))
    allowed = {kind for kind, outcome in outcomes.items() if outcome.get("fresh")}
    assert allowed == MAY_APPEND[role]  # type: ignore[index]
    refused = {kind: outcome["error"]["code"] for kind, outcome in outcomes.items() if "error" in outcome}
    assert set(refused.values()) <= {"not_permitted"}
    found = hand.get("/entries", params={"limit": 1000}).json()["entries"]
    kept = [entry for entry in found if entry["author"]["name"] != "server"]
    assert {entry["kind"] for entry in kept} == allowed
    assert {entry["author"]["role"] for entry in kept} == {role}


def test_the_words_that_matter() -> None:
    """What must never be otherwise, whatever else the table says."""
    assert "Input" not in MAY_APPEND["driver"] and "Run" not in MAY_APPEND["driver"]
    assert [role for role, kinds in MAY_APPEND.items() if "Checkpoint" in kinds] == ["checkpointer"]
    assert [role for role, kinds in MAY_APPEND.items() if "Commit" in kinds] == ["decider"]
    assert [role for role, kinds in MAY_APPEND.items() if "Started" in kinds] == ["executor"]
    assert [role for role, kinds in MAY_APPEND.items() if "Policy" in kinds] == ["operator"]
    assert {role for role, kinds in MAY_APPEND.items() if "Vote" in kinds} == {"client", "voter"}
    assert MAY_APPEND["reader"] == frozenset()


@pytest.mark.parametrize(("role", "kind"), rights.LIMITS)
def test_limited_rights_end_at_their_limit(server: ServerProcess, role: str, kind: str) -> None:
    """A right that reaches less far than its kind is refused beyond that."""
    beyond: dict[tuple[str, str], Payload] = {
        ("client", "Vote"): Vote(approved=True, intent=5000, voter="human:another"),
        ("voter", "Vote"): Vote(approved=True, intent=5000, voter="another"),
        ("driver", "Recovery"): Recovery(intent=5000, attempt=1, settlement="happened"),
        ("driver", "Cancel"): Cancel(scope="run:1000"),
        ("executor", "Cancel"): Cancel(scope="log"),
        ("driver", "Claim"): Claim(task="t", agent=NAME, run=5000, lapses=4000),
    }
    hand = Hand(server, server.token(NAME, [role]), f"limits-{role}")
    outcome = hand.say(by(role, NAME, beyond[role, kind]))
    assert outcome["error"]["code"] == "not_permitted", outcome
    assert outcome["error"]["definite"] is True
    assert hand.say(by(role, NAME, within(role, kind)))["fresh"] is True


@pytest.mark.parametrize("role", ["client", "driver"])
def test_mail_comes_from_its_sender(server: ServerProcess, role: str) -> None:
    """A token writes mail in its own name, or that of an agent that it names; one without agents took any name."""
    for agents in ([], ["ann", "eve"]):
        hand = Hand(server, server.token("post", [role], agents=agents), "mail")
        hand.writer += f"-{role}-{len(agents)}"
        fresh = {
            sender: hand.say(by(role, "post", Mail(to="bob", sender=sender, body="pay")))
            for sender in ("post", "ann", "*", "")
        }
        assert {sender for sender, said in fresh.items() if said.get("fresh")} == {"post", *(agents and ["ann"])}
        refused = fresh["*"]["error"]
        assert (refused["code"], refused["definite"]) == ("not_permitted", True)
        assert "--agent" in refused["todo"]


def test_a_forged_author_is_refused_and_noted(server: ServerProcess) -> None:
    """Another's name, another's role and another's incarnation are refused; the attempts are in the log."""
    hand = Hand(server, server.token("ann", ["client"]), "forged")
    mail = Input(run=5000, text="pay everything")
    others = Hand(server, server.token("bob", ["operator"]), "forged")
    forged = [
        hand.say(by("client", "bob", mail)),
        hand.say(by("operator", "ann", Policy(version=1, need={"open": "me"}))),
        hand.say(by("client", "ann", mail), writer=others.writer),
        hand.say(by("client", "ann", mail), by("operator", "bob", Control(verb="stop"))),
        hand.say(by("client", "ann", mail), writer="free"),
    ]
    assert [outcome["error"]["code"] for outcome in forged] == ["not_permitted"] * 5
    assert hand.say(by("client", "ann", mail))["fresh"] is True
    entries = hand.get("/entries").json()["entries"]
    assert [entry["author"]["name"] for entry in entries if entry["kind"] != "Notice"] == ["ann"]
    notices = hand.notices()
    assert notices and all("ann" in one["message"] and one["data"]["code"] == "not_permitted" for one in notices)


def test_a_lying_header_is_refused(server: ServerProcess) -> None:
    """A header that says something else than its payload would mislead filters and conditions: refused."""
    hand = Hand(server, server.token(NAME, ["driver"]), "lying")
    lies = [
        by("driver", NAME, Intent(run=5000, agent="ann", tool="pay"), tool="look"),
        by("driver", NAME, Intent(run=5000, agent="ann", tool="pay"), agent="bob"),
        by("driver", NAME, Intent(run=5000, agent="ann", tool="pay"), run=6000),
    ]
    for entry in lies:
        assert hand.say(entry)["error"]["code"] == "usage"
    assert hand.say(by("driver", NAME, Intent(run=5000, agent="ann", tool="pay")))["fresh"] is True


def test_scopes_by_agent(server: ServerProcess) -> None:
    """A token for one agent writes about that agent only, also where another is named through a run or an action."""
    boss = Hand(server, server.token("boss", ["client", "driver"]), "agents")
    runs = {}
    intents = {}
    for agent in ("ann", "bob"):
        runs[agent] = boss.say(by("client", "boss", Run(agent=agent)))["record"] * 1000
        intent = Intent(run=runs[agent], agent=agent, tool="pay")
        intents[agent] = boss.say(by("driver", "boss", intent))["record"] * 1000
    scoped = Hand(server, server.token("boss", ["client", "operator", "driver"], agents=["ann"]), "agents")
    scoped.writer += "-scoped"
    mine = [
        by("client", "boss", Input(run=runs["ann"], text="go on")),
        by("driver", "boss", Intent(run=runs["ann"], agent="ann", tool="pay")),
        by("client", "boss", Vote(approved=True, intent=intents["ann"], voter="human:boss")),
        by("operator", "boss", Control(verb="pause", scope="agent:ann")),
        by("operator", "boss", Control(verb="pause", scope=f"run:{runs['ann']}")),
        by("operator", "boss", Policy(version=1, agent="ann", need={"open": "a test"})),
        by("client", "boss", Notice(code="note", message="nobody's")),
        by("client", "boss", Mail(to="bob", sender="ann", body="hello")),
        by("client", "boss", Mail(to="bob", sender="boss", body="hello")),
        by("operator", "boss", Erased(target=runs["ann"])),
    ]
    for entry in mine:
        assert scoped.say(entry).get("fresh") is True, entry
    assert scoped.say(by("client", "boss", Run(agent="ann")), by("client", "boss", Input(run=own(0))))["fresh"]
    others = [
        by("client", "boss", Run(agent="bob")),
        by("client", "boss", Input(run=runs["bob"], text="go on")),
        by("client", "boss", Input(run=runs["bob"], text="go on"), agent="ann"),
        by("driver", "boss", Intent(run=runs["bob"], agent="ann", tool="pay")),
        by("client", "boss", Vote(approved=True, intent=intents["bob"], voter="human:boss")),
        by("client", "boss", Cancel(intent=intents["bob"])),
        by("client", "boss", Cancel(scope="log")),
        by("operator", "boss", Control(verb="stop")),
        by("operator", "boss", Control(verb="stop", scope="agent:bob")),
        by("operator", "boss", Control(verb="stop", scope=f"action:{intents['bob']}")),
        by("operator", "boss", Policy(version=1, need={"open": "everything"})),
        by("client", "boss", Input(run=999_000, text="nobody's run")),
        by("client", "boss", Mail(to="ann", sender="bob", body="in another's name")),
        by("operator", "boss", Erased(target=runs["bob"])),
        by("operator", "boss", Erased(target=0)),
    ]
    for entry in others:
        assert scoped.say(entry)["error"]["code"] == "not_permitted", entry


def test_scopes_by_log_and_voter(server: ServerProcess) -> None:
    """A token is for its logs only, reads included; a voter's token votes only under its voters' names."""
    token = server.token("host", ["voter"], logs=["team-*"], voters=["safety", "rules"])
    assert Hand(server, token, "team-a").get("").status_code == 200
    refused = Hand(server, token, "other").get("/entries")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_permitted")
    hand = Hand(server, token, "team-b")
    for voter in ("safety", "rules"):
        assert hand.say(by("voter", voter, Vote(approved=True, intent=5000, voter=voter)))["fresh"] is True
    for name, voter in (("host", "host"), ("budget", "budget"), ("safety", "rules")):
        outcome = hand.say(by("voter", name, Vote(approved=True, intent=5000, voter=voter)))
        assert outcome["error"]["code"] == "not_permitted"


def test_only_operators_erase_and_only_they_and_checkpointers_trim(server: ServerProcess) -> None:
    """What changes stored bytes needs its role, and a policy is erased by nobody."""
    operator = Hand(server, server.token("op", ["operator"]), "erasing")
    first = operator.say(by("operator", "op", Notice(code="secret", message="a secret")))["record"]
    policy = operator.say(by("operator", "op", Policy(version=1, need={"open": "a test"})))["record"]
    for role in MAY_APPEND:
        hand = Hand(server, server.token(NAME, [role]), "erasing")
        if role != "operator":
            assert hand.post("/erase", {"record": first, "index": 0}).status_code == 403
        if role not in ("operator", "checkpointer"):
            assert hand.post("/trim", {"before": 2}).status_code == 403
    assert "a secret" in operator.get("/entries").text
    assert operator.post("/erase", {"record": first, "index": 0}).status_code == 200
    assert operator.post("/erase", {"record": policy, "index": 0}).status_code == 400
    assert operator.post("/erase", {"record": 999, "index": 0}).status_code == 400
    assert "a secret" not in operator.get("/entries").text


def test_unknown_expired_and_revoked_tokens(server: ServerProcess) -> None:
    """No token, a wrong one, an expired and a revoked one get nothing; a revocation holds at once."""
    good, text = server.make_token("ann", ["reader"])
    hand = Hand(server, text)
    assert hand.get("/tail").status_code == 200
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    _, expired = server.make_token("old", ["reader"], expires_s=0.001)
    for token in ("", "nonsense", "logact_x_y", wrong, expired):
        answer = Hand(server, token).get("/tail")
        assert answer.status_code == 401, token
        assert answer.json()["error"]["code"] == "token_refused"
        assert not token or token not in answer.text

    async def revoke() -> None:
        async with open_log(url_of(server.engine_url, OWN)) as log:
            await TokenBook(log).revoke(good.id, by="op", reason="a test")

    asyncio.run(revoke())
    for _ in range(200):  # the server follows its own log: it learns without being asked
        if hand.get("/tail").status_code == 401:
            break
    answer = hand.get("/tail")
    assert answer.status_code == 401
    assert "revoked" in answer.json()["error"]["message"]


def test_a_stream_ends_when_its_token_is_revoked(server: ServerProcess) -> None:
    """A follower whose token is revoked gets nothing that comes afterwards."""
    good, text = server.make_token("ann", ["client"])
    writer = Hand(server, server.token("bob", ["client"]), "revoked-stream")
    writer.say(by("client", "bob", Notice(code="note", message="before")))
    hand = Hand(server, text, "revoked-stream")
    seen = []
    with hand.client.stream("GET", hand.base + "/follow") as response:
        for line in response.iter_lines():
            seen.append(line)
            if "before" in line:

                async def revoke() -> None:
                    async with open_log(url_of(server.engine_url, OWN)) as log:
                        await TokenBook(log).revoke(good.id)

                asyncio.run(revoke())
                while hand.get("/tail").status_code != 401:
                    pass
                writer.say(by("client", "bob", Notice(code="note", message="afterwards")))
    assert any("not valid any more" in line for line in seen)
    assert not any("afterwards" in line for line in seen)


def test_a_part_whose_token_is_revoked_ends_with_the_first_refusal(server: ServerProcess, tmp_path: Path) -> None:
    """Who follows a log and is refused is told so, and does not ask again (asked for half a minute)."""
    good, text = server.make_token("part", ["driver"], logs=["ended"])

    async def play() -> int:
        async with open_log(server.url("ended", token_file=token_file(tmp_path, text), timeout_s=0.2)) as log:
            await log.append(Notice(code="note", message="hello"))
            asked: list[int] = []
            wait = log.engine.wait

            async def counted(after: int, timeout_s: float) -> bool:
                asked.append(after)
                return await wait(after, 0.1)

            log.engine.wait = counted  # type: ignore[method-assign]
            async with open_log(url_of(server.engine_url, OWN)) as own_log:
                await TokenBook(own_log).revoke(good.id)
            with pytest.raises(TokenRefused):
                while True:
                    await log.engine.tail()
            asked.clear()
            with pytest.raises(TokenRefused):
                await Tail(log).follow()
            return len(asked)

    assert asyncio.run(play()) == 1


def test_secrets_are_hashed_at_rest(server: ServerProcess, tmp_path: Path) -> None:
    """What is stored of a token lets nobody use it."""
    text = server.token("ann", ["operator"])
    file = Path(server.engine_url.removeprefix("sqlite:///"))
    stored = b"".join(path.read_bytes() for path in file.parent.iterdir() if path.is_file())
    assert text.split("_")[1].encode() in stored
    assert text.split("_", 2)[2].encode() not in stored


def test_the_tokens_own_log_is_not_served(server: ServerProcess) -> None:
    """Nobody reaches the log of tokens through the server, whatever the token says."""
    token = server.token("root", list(MAY_APPEND), relay=True)
    for name in (OWN, OWN.upper(), "Logact-Server"):
        answer = Hand(server, token, name).get("/entries")
        assert answer.status_code == 400, name


def test_results_of_a_taken_over_driver(server: ServerProcess) -> None:
    """A driver's token does nothing of what would let it act: vote, commit, start, report, permit, ask as a user."""
    driver = Hand(server, server.token("driver", ["driver"]), "taken-over")
    tries = [
        by("voter", "driver", Vote(approved=True, intent=5000, voter="driver")),
        by("driver", "driver", Vote(approved=True, intent=5000, voter="driver")),
        *(by("driver", "driver", sample(kind)) for kind in ("Commit", "Started", "Result", "Policy", "Input")),
        by("executor", "driver", Result(intent=5000, value="done")),
    ]
    assert {driver.say(entry)["error"]["code"] for entry in tries} == {"not_permitted"}


def test_the_page_is_current() -> None:
    """docs/roles.md is generated from the table, and is the present one."""
    root = Path(__file__).parent.parent.parent
    spec = importlib.util.spec_from_file_location("docs_generate", root / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (root / "docs" / "roles.md").read_text() == module.roles_page(), "run: make docs"
