"""Signatures: what is not signed by its author's key takes no effect and is shown, whoever wrote it into the log."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from logact import LogActAgent, ScriptedModel, codec, open_log, tool
from logact.core.state import State
from logact.entry import Checkpoint, Commit, Entry, Input, NewEntry, Notice, Policy, Run, Vote, own
from logact.errors import SpecError, UsageError
from logact.logs.base import Draft, SharedLog
from logact.logs.queries import folded
from logact.logs.signing import SigningKey, create_key, load_key, load_keyring
from logact.logs.verify import verify
from logact.models import call, say
from logact.runtime.moving import move
from logact.runtime.tail import Tail
from tests.cli_help import inside


def ring_file(path: Path, *keys: tuple[SigningKey, Sequence[str], Sequence[str]]) -> Path:
    """A key ring with these keys, each for roles and names."""
    lines = []
    for key, roles, names in keys:
        lines += ["[[keys]]", f'public = "{key.public}"', f"roles = {list(roles)!r}"]
        lines += [f"names = {list(names)!r}"] if names else []
    path.write_text("\n".join(lines).replace("'", '"'))
    return path


class Stage:
    """A log with four authors, each with a key, and a reader that knows the keys."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = f"sqlite:///{home}/log.db"
        self.keys = {
            role: create_key(home / f"{role}.key") for role in ("client", "driver", "voter", "decider", "operator")
        }
        self.ring = ring_file(
            home / "keys.toml",
            *((key, [role], ["safety"] if role == "voter" else []) for role, key in self.keys.items()),
        )
        self.numbers: dict[str, tuple[int, str]] = {}

    def log(self) -> SharedLog:
        """The log, as a reader opens it."""
        return open_log(self.url, keyring=str(self.ring))

    async def say(self, *entries: NewEntry, key: SigningKey | None, writer: str = "") -> int:
        """Append a record below all checks, as who owns the database can."""
        writer = writer or entries[0].role
        number, previous = self.numbers.get(writer, (0, codec.GENESIS))
        async with open_log(self.url) as log:
            encoded = codec.encode_record(
                entries,
                log=log.log_id,
                writer=writer,
                number=number + 1,
                previous=previous,
                time_ms=1,
                randomness=b"0123456789ab" * len(entries),
                sign=key.sign if key is not None else None,
            )
            draft = Draft(
                writer=writer, number=number + 1, body=encoded.body, content=encoded.content, heads=encoded.heads
            )
            record, _ = await log.engine.append(draft)
        self.numbers[writer] = (number + 1, encoded.hash)
        return record * 1000

    async def propose(self) -> int:
        """A run with one intent under a policy that wants the safety voter: the intent's position."""
        from logact.entry import Intent, VoterInPolicy

        policy = Policy(version=1, voters={"safety": VoterInPolicy()}, need={"all": ["safety"]})
        await self.say(by("operator", "op", policy), key=self.keys["operator"])
        run = await self.say(
            by("client", "ann", Run(agent="ops")),
            by("client", "ann", Input(run=own(0), text="pay")),
            key=self.keys["client"],
        )
        intent = Intent(run=run, agent="ops", tool="pay", arguments_digest=codec.digest_of({}))
        return await self.say(by("driver", "driver", intent), key=self.keys["driver"])

    async def state(self) -> State:
        """The fold as a reader with the ring has it."""
        async with self.log() as log:
            tail = Tail(log, keep=True)
            return await tail.start()


def by(role: str, name: str, payload: object) -> NewEntry:
    """An entry as somebody says it."""
    return NewEntry(payload=payload, role=role, name=name)  # type: ignore[arg-type]


def vote(intent: int, *, approved: bool = True) -> NewEntry:
    """The safety voter's vote."""
    return by("voter", "safety", Vote(approved=approved, intent=intent, voter="safety"))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A fresh stage."""
    return Stage(tmp_path)


def test_signed_votes_count(stage: Stage) -> None:
    """With every author's signature the log means what it meant without, and verifies."""

    async def play() -> None:
        intent = await stage.propose()
        await stage.say(vote(intent), key=stage.keys["voter"])
        await stage.say(by("decider", "decider", Commit(intent=intent)), key=stage.keys["decider"])
        state = await stage.state()
        assert state.actions[intent].status == "validated"
        assert (state.ignored_count, state.broken) == (0, "")
        async with stage.log() as log:
            assert (await verify(log)).sound

    asyncio.run(play())


FORGERIES: dict[str, Callable[[Stage], SigningKey | None]] = {
    "it is not signed": lambda stage: None,
    "not in the ring": lambda stage: create_key(stage.home / "mine.key"),
    "does not stand for": lambda stage: stage.keys["driver"],
}


@pytest.mark.parametrize("said", FORGERIES)
@pytest.mark.parametrize("writer", ["voter", "another"])
def test_a_forged_vote_takes_no_effect_and_is_shown(stage: Stage, said: str, writer: str) -> None:
    """Whoever owns the database writes a vote, in a life of their own or in the voter's.

    It changes nothing, is shown, and the true voter's word still counts.
    """

    async def play() -> None:
        intent = await stage.propose()
        await stage.say(by("voter", "safety", Notice(code="hello", message="alive")), key=stage.keys["voter"])
        before = stage.numbers["voter"]
        forged = await stage.say(vote(intent), key=FORGERIES[said](stage), writer=writer)
        state = await stage.state()
        assert state.actions[intent].votes == {}
        assert [(one.position, said in one.why) for one in state.ignored] == [(forged, True)]
        async with stage.log() as log:
            report = await verify(log)
        assert [(one.position, said in one.what) for one in report.problems] == [(forged, True)]
        if writer != "voter":  # else the engine itself already refuses the true voter's next number
            stage.numbers["voter"] = before
            await stage.say(vote(intent, approved=False), key=stage.keys["voter"])
            state = await stage.state()
            assert state.actions[intent].votes["safety"].approved is False
        assert state.broken == ""
        async with open_log(stage.url) as log:  # without the ring it counts: that is what signatures are for
            assert (await folded(log)).state.actions[intent].votes

    asyncio.run(play())


def test_a_changed_payload_under_a_good_signature_takes_no_effect(stage: Stage) -> None:
    """A signed rejection that is made an approval in the database is no vote at all."""

    async def play() -> None:
        intent = await stage.propose()
        position = await stage.say(vote(intent, approved=False), key=stage.keys["voter"])
        with sqlite3.connect(stage.home / "log.db") as connection:
            where = f"id & 1099511627775 = {position // 1000}"
            (body,) = connection.execute(f"SELECT body FROM records WHERE {where}").fetchone()
            changed = bytes(body).replace(b'"approved":false', b'"approved":true')
            assert changed != bytes(body)
            crc = zlib.crc32(changed)
            connection.execute(f"UPDATE records SET body = ?, crc = ? WHERE {where}", (changed, crc))
        connection.close()
        state = await stage.state()
        assert state.actions[intent].votes == {}
        assert "not the one that was signed" in state.ignored[0].why
        assert state.broken

    asyncio.run(play())


def test_a_key_is_for_its_names_and_until_its_end(stage: Stage) -> None:
    """A voter's key does not sign for another voter, nor after the position at which it was given up."""

    async def play() -> None:
        intent = await stage.propose()
        other = by("voter", "rules", Vote(approved=True, intent=intent, voter="rules"))
        await stage.say(other, key=stage.keys["voter"])
        first = await stage.say(vote(intent), key=stage.keys["voter"])
        text = stage.ring.read_text().replace('names = ["safety"]', f'names = ["safety"]\nuntil = {first}')
        assert await voted(stage)
        stage.ring.write_text(text)
        assert not await voted(stage)

    async def voted(stage: Stage) -> bool:
        state = await stage.state()
        assert any("does not stand for voter 'rules'" in one.why for one in state.ignored)
        return any(action.votes for action in state.actions.values())

    asyncio.run(play())


def test_a_forged_checkpoint_is_passed_over(stage: Stage) -> None:
    """A checkpoint without its checkpointer's signature is no place to start from."""

    async def play() -> None:
        await stage.propose()
        async with open_log(stage.url) as log:
            from logact.entry import BlobRef
            from logact.runtime.tail import dump_state

            state = await Tail(log).start()
            state.counts["Notice"] = 4711
            data = dump_state(state)
            digest = await log.put_blob(data)
        payload = Checkpoint(upto=state.position, chain=state.chain, state=BlobRef(digest=digest, size=len(data)))
        await stage.say(by("checkpointer", "checkpointer", payload), key=None)
        async with open_log(stage.url) as log:
            assert (await Tail(log).start()).counts["Notice"] == 4711
        async with stage.log() as log:
            tail = Tail(log)
            assert "Notice" not in (await tail.start()).counts
            assert tail.checkpoint is None

    asyncio.run(play())


@pytest.mark.parametrize("copy", [False, True])
def test_a_signed_log_moves_signed(stage: Stage, *, copy: bool) -> None:
    """With a ring the entry that leads on is signed by an operator (it showed as forged), or not made."""
    target = f"sqlite:///{stage.home}/new.db"

    async def play() -> None:
        await stage.say(by("operator", "ops", Policy(version=1, need={"open": "a test"})), key=stage.keys["operator"])
        for key in ("", "voter"):
            named = str(stage.home / f"{key}.key") if key else ""
            async with open_log(stage.url, author_key=named, keyring=str(stage.ring)) as log:
                with pytest.raises(UsageError, match="not be accepted"):
                    await move(log, target, copy=copy, name="ops")
                assert await log.tail() == 1000  # nothing was sealed
        async with open_log(stage.url, author_key=str(stage.home / "operator.key"), keyring=str(stage.ring)) as log:
            await move(log, target, copy=copy, name="ops")
        for url in (stage.url, target):
            async with open_log(url, keyring=str(stage.ring)) as log:
                entries = [entry async for entry in log.read()]
                assert len(entries) == 2
                assert not any(entry.forged for entry in entries)
                assert (await verify(log)).sound

    asyncio.run(play())


def test_unsigned_records_are_byte_for_byte_what_they_were() -> None:
    """Without a key nothing of a record changes, and a signature is not part of what the hash covers."""
    entries = [by("client", "ann", Notice(code="note", message="hello"))]
    more = {"log": "l", "writer": "w", "number": 1, "previous": "", "time_ms": 1, "randomness": b"0123456789ab"}
    plain = codec.encode_record(entries, **more)  # type: ignore[arg-type]
    signed = codec.encode_record(entries, sign=lambda record_hash: f"k:{record_hash}", **more)  # type: ignore[arg-type]
    assert b"signature" not in plain.body
    assert signed.hash == plain.hash and signed.content == plain.content
    assert signed.body.startswith(plain.body[:-1])
    assert codec.signature_of(signed.body) == f"k:{plain.hash}"
    assert codec.signature_of(codec.erase_payload(signed.body, 0)) == f"k:{plain.hash}"
    codec.check_record(signed.body)


def test_an_agent_runs_signed(tmp_path: Path) -> None:
    """A whole run with a key and a ring: everything takes effect, and a reader finds every entry signed."""
    key = create_key(tmp_path / "agent.key")
    roles = ("client", "driver", "voter", "decider", "executor", "recoverer", "checkpointer", "operator")
    ring = ring_file(tmp_path / "keys.toml", (key, roles, ()))

    @tool(effect="irreversible")
    def pay(to: str) -> str:
        """Pay."""
        return f"paid {to}"

    async def play() -> list[Entry]:
        url = f"sqlite:///{tmp_path}/log.db"
        log = open_log(url, author_key=str(tmp_path / "agent.key"), keyring=str(ring))
        model = ScriptedModel([call("pay", to="ann"), say("done")])
        policy = Policy(version=1, agent="ops", need={"open": "a test"})
        async with LogActAgent("ops", log, model=model, tools=[pay], policy=policy) as agent:
            assert (await agent.run("pay ann")).text == "done"
        async with open_log(url, keyring=str(ring)) as reader:
            assert (await verify(reader)).sound
            return [entry async for entry in reader.read()]

    found = asyncio.run(play())
    assert any(entry.kind == "Output" for entry in found)
    assert not any(entry.forged for entry in found)


def test_the_command_makes_keys_that_only_their_owner_reads(tmp_path: Path) -> None:
    """`logact key create` writes a private file, `show` prints what a ring needs, and neither prints the key."""
    file = tmp_path / "a.key"
    made = inside("key", "create", str(file))
    assert made.exit_code == 0, made.output
    assert file.stat().st_mode & 0o777 == 0o600
    secret = "".join(file.read_text().splitlines()[1:-1])
    assert secret not in made.output
    shown = inside("key", "show", str(file))
    public = load_key(file).public
    assert public in made.output and public in shown.output
    assert isinstance(inside("key", "create", str(file)).exception, UsageError)
    assert repr(load_key(file)) == f"SigningKey({load_key(file).ident})"


@pytest.mark.parametrize(
    "text",
    [
        "keys = 3",
        '[[keys]]\npublic = "ed25519:short"\nroles = ["voter"]',
        '[[keys]]\npublic = "rsa:AAAA"\nroles = ["voter"]',
        '[[keys]]\npublic = "PUBLIC"\nroles = ["king"]',
        '[[keys]]\npublic = "PUBLIC"\nroles = []',
        '[[keys]]\npublic = "PUBLIC"\nroles = ["voter"]\nname = "safety"',
        "not toml",
    ],
)
def test_a_ring_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    """A mistake in a key ring is an error, never a ring that accepts nothing or everything in silence."""
    key = create_key(tmp_path / "a.key")
    path = tmp_path / "keys.toml"
    path.write_text(text.replace("PUBLIC", key.public))
    with pytest.raises(SpecError):
        load_keyring(path)


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    """A missing file, a file of something else and another kind of key are refused without showing what they hold."""
    other = tmp_path / "other"
    other.write_text("my secret words")
    for path in (tmp_path / "none", other):
        with pytest.raises(SpecError) as caught:
            load_key(path)
        assert "secret words" not in str(caught.value)
    with pytest.raises(UsageError):
        create_key(other)
