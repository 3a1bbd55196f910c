"""What must hold of any record and any entry: chains, duplicates, keys, roles, unknown and damaged payloads."""

from __future__ import annotations

import msgspec
import pytest

from logact import codec
from logact.core import machine
from logact.entry import (
    KINDS,
    MAY_APPEND,
    Abort,
    Cancel,
    Commit,
    Control,
    Entry,
    Fence,
    Heartbeat,
    Intent,
    Mail,
    NewEntry,
    Notice,
    Payload,
    Policy,
    Role,
    Run,
    Vote,
)
from tests.core.build import Log, new

ROLES = tuple(MAY_APPEND)


def note(text: str = "n") -> Notice:
    return Notice(code="test", message=text)


def sample(kind: str) -> Payload:
    """A payload of a kind, with wild references."""
    plain: dict[str, Payload] = {
        "Run": Run(agent="ann"),
        "Policy": Policy(version=1),
        "Control": Control(verb="pause"),
        "Fence": Fence(agent="ann", epoch=1),
        "Vote": Vote(approved=True, intent=1, voter="v"),
        "Mail": Mail(to="*", sender="x", body="hi"),
        "Notice": note(),
    }
    return plain[kind] if kind in plain else msgspec.convert(_filled(kind), KINDS[kind])


def _filled(kind: str) -> dict[str, object]:
    fields = msgspec.structs.fields(KINDS[kind])
    given: dict[str, object] = {}
    for field in fields:
        if not field.required:
            continue
        given[field.encode_name] = {
            "run": 1,
            "intent": 1,
            "attempt": 1,
            "turn": 1,
            "upto": 1,
            "target": 1,
            "before": 1,
            "settlement": "skip",
            "state": {"digest": "d", "size": 1},
            "epoch": 1,
            "at": 1,
        }.get(field.name, "x")
    return given


def test_positions_never_go_back() -> None:
    """An entry at or before the fold's position changes nothing at all, its counts included."""
    log = Log()
    log.say(note())
    log.say(note())
    before = msgspec.json.encode(log.state)
    log.state = machine.apply(log.state, log.entries[0])
    assert msgspec.json.encode(log.state) == before


def test_a_record_that_stands_twice_counts_once() -> None:
    """A writer's last record, repeated by an engine that forgot it, takes no effect; all its entries say so."""
    log = Log()
    log.run()
    log.store(log.bodies[-1])
    assert log.verdicts[-2:] == ["the record is a duplicate"] * 2
    assert len(log.state.runs) == 1
    assert not log.state.broken
    log.say(note())
    assert not log.why


def test_a_repeated_key_takes_no_effect_by_whoever() -> None:
    """A second record under an idempotency key takes no effect, also from another writer, and breaks no chain."""
    log = Log()
    log.record(new(Run(agent="ann"), "client"), key="once")
    log.record(new(Run(agent="ann"), "client"), new(note(), "client"), key="once", writer="other")
    assert log.verdicts[-2:] == ["its idempotency key was used before", "the record is a duplicate"]
    assert len(log.state.runs) == 1
    log.say(note(), writer="other")
    assert not log.why
    assert not log.state.broken


def test_keys_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fold remembers the latest keys, and lets the oldest go."""
    monkeypatch.setattr(machine, "KEYS_KEPT", 3)
    log = Log()
    for place in range(5):
        log.record(new(note(), "client"), key=f"k{place}")
    assert list(log.state.keys) == ["k2", "k3", "k4"]


def test_a_missing_record_of_a_writer_shows() -> None:
    """A gap in one writer's numbers is named; the fold reads on."""
    log = Log()
    log.say(note())
    dropped = Log()
    dropped.say(note())
    dropped.say(note("lost"))
    dropped.say(note("third"))
    log.store(dropped.bodies[2])
    assert "record 3 of writer w does not follow its record 1" in log.state.broken
    assert not log.why


def test_a_changed_predecessor_shows() -> None:
    """A record that names another predecessor than the one that stands there is named as broken."""
    log, other = Log(), Log()
    log.say(note("a"))
    other.say(note("b"))
    other.say(note("c"))
    log.store(other.bodies[1])
    assert log.state.broken.startswith("position 2000")


def test_only_the_first_break_is_named() -> None:
    """Later breaks don't overwrite the first, which is where to look."""
    log, other = Log(), Log()
    for text in "abc":
        other.say(note(text))
    log.store(other.bodies[1])
    first = log.state.broken
    log.store(other.bodies[0])
    assert log.state.broken == first


def test_writers_have_chains_of_their_own() -> None:
    """Interleaved writers break nothing."""
    log = Log()
    for place in range(6):
        log.say(note(), writer=f"w{place % 3}")
    assert not log.state.broken
    assert log.state.incarnations["w2"].number == 2


def test_the_digest_of_the_whole_covers_order() -> None:
    """Two logs with the same records in another order have other digests."""
    first, second = Log(), Log()
    first.say(note("a"), writer="a")
    first.say(note("b"), writer="b")
    second.store(first.bodies[1])
    second.store(first.bodies[0])
    assert first.state.chain != second.state.chain


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("role", ROLES)
def test_who_may_append_what(role: Role, kind: str) -> None:
    """An entry by a role that the table does not name for its kind takes no effect; every role, every kind."""
    log = Log()
    log.record(new(sample(kind), role))
    refused = log.why == f"the role {role!r} may not append a {kind}"
    assert refused == (kind not in MAY_APPEND[role])
    assert log.state.counts[kind] == 1


def test_a_role_that_does_not_exist_may_append_nothing() -> None:
    """A made-up role has no effect."""
    log = Log()
    body = msgspec.json.decode(_encoded(Run(agent="ann")))
    body["head"]["entries"][0]["role"] = "emperor"
    body["hash"] = codec.digest(msgspec.json.encode(body["head"]))
    log.store(msgspec.json.encode(body))
    assert log.why == "the role 'emperor' may not append a Run"


def _encoded(payload: Payload, role: Role = "client", log: str = "testlog") -> bytes:
    return codec.encode_record(
        [NewEntry(payload=payload, role=role, name=role)],
        log=log,
        writer="w",
        number=1,
        previous="",
        time_ms=1,
        randomness=b"0" * 12,
    ).body


def test_an_entry_of_another_log_takes_no_effect() -> None:
    """A record copied over from another log is kept and changes nothing."""
    log = Log()
    log.forge(Run(agent="ann"), log="elsewhere")
    assert log.why == "it was written for another log (elsewhere)"
    assert not log.state.runs


def test_an_unknown_kind_is_kept_and_counted() -> None:
    """A kind that this version does not know changes nothing and stops nothing."""
    log = Log()
    log.forge(note(), kind="Teleport")
    assert log.why == "this version does not know Teleport version 1"
    assert log.state.counts["Teleport"] == 1
    assert not log.state.halted
    log.run()
    assert not log.why


def test_an_unknown_critical_kind_halts_acting_but_not_reading() -> None:
    """A must-understand kind that is unknown halts this version; it reads on."""
    log = Log()
    log.forge(note(), kind="Teleport", critical=True)
    assert log.state.halted == "Teleport version 1 at position 1000"
    run = log.run()
    assert run in log.state.runs


def test_a_newer_version_of_a_known_kind_is_not_guessed_at() -> None:
    """A newer version of a kind is not read as the old one; a critical one halts."""
    log = Log()
    log.forge(Run(agent="ann"), version=2)
    assert (len(log.state.runs), log.state.halted) == (0, "")
    log.forge(Control(verb="pause"), role="operator", version=9, critical=True)
    assert log.state.halted == "Control version 9 at position 2000"
    assert not log.state.paused


def test_only_the_first_halt_is_named() -> None:
    """The first critical entry that is not understood stays named."""
    log = Log()
    log.forge(note(), kind="One", critical=True)
    log.forge(note(), kind="Two", critical=True)
    assert log.state.halted.startswith("One")


def test_a_malformed_payload_takes_no_effect() -> None:
    """A payload that does not fit its kind is kept as it is and changes nothing."""
    log = Log()
    log.forge(Run(agent="ann"), data={"agent": 7})
    assert log.why == "its payload does not fit a Run"
    assert not log.state.runs
    log.run()
    assert len(log.state.runs) == 1


def test_an_erased_payload_takes_no_effect_and_breaks_no_chain() -> None:
    """After an erasure the rest of the log folds as before, and the chain still fits."""
    log = Log()
    log.say(note("personal"))
    log.run()
    again = Log()
    again.store(codec.erase_payload(log.bodies[0], 0))
    assert again.why == "its payload was erased"
    again.store(log.bodies[1])
    assert not again.state.broken
    assert len(again.state.runs) == 1
    assert again.state.chain == log.state.chain


def test_what_took_no_effect_is_remembered_within_bounds() -> None:
    """The latest ineffective entries are kept for people, all of them are counted."""
    log = Log()
    for _ in range(machine.IGNORED_KEPT + 5):
        log.say(Abort(intent=77))
    assert len(log.state.ignored) == machine.IGNORED_KEPT
    assert log.state.ignored_count == machine.IGNORED_KEPT + 5
    assert log.state.ignored[-1].why == "there is no open action 77"


def test_a_life_is_known_from_its_first_heartbeat() -> None:
    """The first heartbeat with a host says which process it is; later ones don't change that."""
    log = Log()
    log.say(Heartbeat(agent="ann", host="h", pid=1))
    log.say(Heartbeat(agent="ann", host="other", pid=2))
    life = log.state.incarnations["w"]
    assert life.birth is not None
    assert (life.birth.host, life.birth.pid, life.left) == ("h", 1, False)
    log.say(Heartbeat(leaving=True))
    assert log.state.incarnations["w"].left
    assert log.state.incarnations["w"].agent == "ann"


def test_lives_that_ended_are_forgotten_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only lives that said goodbye are forgotten: one that may write again keeps its chain."""
    monkeypatch.setattr(machine, "INCARNATIONS_KEPT", 4)
    log = Log()
    log.say(note(), writer="silent")
    for place in range(8):
        log.say(Heartbeat(leaving=True), writer=f"w{place}")
    assert "silent" in log.state.incarnations
    assert len(log.state.incarnations) <= 6
    log.say(note(), writer="silent")
    assert not log.state.broken


def test_a_life_that_holds_an_open_action_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever settles an open action must still find that its executor said goodbye (it was forgotten before)."""
    monkeypatch.setattr(machine, "INCARNATIONS_KEPT", 4)
    log = Log()
    log.open_policy()
    log.started(log.run(), writer="executor")
    log.say(Heartbeat(leaving=True), writer="executor")
    for place in range(9):
        log.say(Heartbeat(leaving=True), writer=f"w{place}")
    assert log.state.incarnations["executor"].left


def test_the_second_entry_of_a_record_alone_raises_nothing() -> None:
    """The fold is total also for a record whose first entry never came (it raised KeyError for a heartbeat)."""
    entries = codec.decode_record(
        codec.encode_record(
            [new(note(), "client"), new(Heartbeat(agent="ann"), "executor")],
            log="testlog",
            writer="w",
            number=1,
            previous="",
            time_ms=1,
            randomness=b"0" * 24,
        ).body,
        1,
    )
    second: Entry = entries[1]
    state = machine.apply(machine.initial("testlog"), second)
    assert state.position == 1001


def test_a_state_folds_the_name_of_its_log_from_the_first_entry() -> None:
    """A fold that does not know its log yet takes the first entry's."""
    log = Log(log="named")
    log.state = machine.initial()
    log.say(note())
    assert log.state.log == "named"


def test_fold_applies_in_order() -> None:
    """``fold`` is ``apply`` for each entry."""
    log = Log()
    log.run()
    log.say(Cancel(scope="log"))
    again = machine.fold(machine.initial("testlog"), log.entries)
    assert msgspec.json.encode(again) == msgspec.json.encode(log.state)


def test_intents_and_commits_are_counted() -> None:
    """Every kind is counted, effective or not."""
    log = Log()
    log.say(Intent(run=5, agent="ann", tool="t"))
    log.say(Commit(intent=5))
    assert log.state.counts == {"Intent": 1, "Commit": 1}
    assert log.state.ignored_count == 2
