"""Arbitration: many processes fold the same messages, and agree with a log that decides exactly; mutants do not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from logact import codec
from logact.entry import NewEntry, Seal, position_of
from logact.errors import ConditionFailed, InvariantViolated, LogError, LogTooNew
from logact.logs import arbitration_state as states
from logact.logs.arbitration import Arbiter, Message, asking, claim_of, pack
from logact.logs.base import Condition, Draft, Filter, where
from logact.testing.arbitrated_base import ArbitratedBase, Messages
from logact.testing.conformance import note
from logact.testing.plan import CUTS, FOR_EVER_S, Cut, Event, Plan
from logact.testing.systems import Simulation

AGENTS = ("ann", "bob")


def draft(
    writer: str, number: int, *, agent: str = "", key: str = "", text: str = "", seal: bool = False, **more: object
) -> Draft:
    """A draft of one notice, for the log ``log``."""
    entries = [NewEntry(payload=note(text or f"{writer} {number}"), role="client", name="x", agent=agent)]
    if seal:
        entries.append(NewEntry(payload=Seal(), role="operator", name="x"))
    encoded = codec.encode_record(
        entries, log="log", writer=writer, number=number, previous="", time_ms=1, randomness=b"s" * 24, key=key
    )
    found = Draft(
        writer=writer, number=number, body=encoded.body, content=encoded.content, heads=encoded.heads, key=key
    )
    return msgspec.structs.replace(found, **more)


def race(seed: int, steps: int = 250) -> Messages:
    """Five processes append what they like: on old conditions, under keys and numbers that may be used."""
    dice = random.Random(seed)
    shared = Messages("log", seed + 1)
    processes = [ArbitratedBase(shared) for _ in range(5)]
    sent: list[Draft] = []
    for step in range(steps):
        at = dice.randrange(5)
        if dice.random() < 0.05:
            processes[at] = ArbitratedBase(shared)
        process = processes[at]
        if dice.random() < 0.1:
            process.tail_now()
        if dice.random() < 0.02:
            process.trim_now(shared.exact.tail - dice.randrange(30))
        if sent and dice.random() < 0.15:
            chosen = dice.choice(sent[-20:])
        else:
            writer = f"w{dice.randrange(6)}"
            number = len(shared.exact.writers.get(writer, [])) + dice.choice((1, 1, 1, 1, 1, 1, 0, 2))
            after = max(0, shared.exact.tail - dice.choice((0, 0, 1, 2, 5, 20)))
            unless = dice.choice((None, Filter(()), where(agents=["ann"]), where(agents=["bob"], kinds=["Notice"])))
            chosen = draft(
                writer,
                max(1, number),
                agent=dice.choice(AGENTS),
                key=dice.choice(("", "", "", f"k{dice.randrange(20)}")),
                text=dice.choice("xyz"),
                seal=step > steps * 0.9 and dice.random() < 0.1,
                condition=Condition(position_of(after), unless) if dice.random() < 0.7 else None,
            )
            sent.append(chosen)
        try:
            process.append_now(chosen)
        except LogError:
            pass
    for process in processes:
        process.tail_now()
    assert len({process.arbiter.digest() for process in processes}) == 1, "the processes do not agree"
    assert [offset + 1 for offset in range(len(shared.messages)) if processes[0].arbiter.winners.has(offset)] == [
        record for record in sorted(shared.bodies) if record >= processes[0].arbiter.first
    ]
    return shared


def test_the_winners_are_those_of_the_exact_log() -> None:
    """Whatever the order, the delays, the repeats and the restarts: one set of winners, and it is the exact one."""
    lost = restored = doubled = won = 0
    for seed in range(40):
        shared = race(seed)
        lost, restored, doubled = lost + shared.lost, restored + shared.restored, doubled + shared.doubled
        won += len(shared.bodies)
    assert lost > 300 and won > 2000 and restored > 300 and doubled > 200, (lost, won, restored, doubled)


def _forgets_conditions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Arbiter, "against", lambda self, condition: "")


def _decides_by_arrival_of_the_writer(patch: pytest.MonkeyPatch) -> None:
    """The last message under a number wins, instead of the first."""
    honest = Arbiter.judge

    def judge(self: Arbiter, claim: object) -> object:
        answer = honest(self, claim)  # type: ignore[arg-type]
        return (0, True) if isinstance(answer, tuple) and not answer[1] else answer

    patch.setattr(Arbiter, "judge", judge)


def _snapshots_without_keys(patch: pytest.MonkeyPatch) -> None:
    honest = states.decode

    def decode(data: bytes) -> Arbiter:
        found = honest(data)
        found.keys = {}
        return found

    patch.setattr(states, "decode", decode)


def _snapshots_without_recent_headers(patch: pytest.MonkeyPatch) -> None:
    honest = states.decode

    def decode(data: bytes) -> Arbiter:
        found = honest(data)
        found.recent.clear()
        return found

    patch.setattr(states, "decode", decode)


def _ignores_the_seal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Arbiter, "sealed", property(lambda self: False, lambda self, value: None), raising=False)


@pytest.mark.parametrize(
    "mutant",
    [
        _forgets_conditions,
        _decides_by_arrival_of_the_writer,
        _snapshots_without_keys,
        _snapshots_without_recent_headers,
        _ignores_the_seal,
    ],
)
def test_a_broken_arbitration_is_caught(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is not vacuous: each way to arbitrate wrongly breaks ``arbitration_is_exact``."""
    mutant(monkeypatch)
    with pytest.raises(InvariantViolated, match="arbitration_is_exact"):
        for seed in range(40):
            race(seed)


@pytest.mark.parametrize(("form", "seeds"), [("inline", 14), ("decoupled", 8), ("own", 5)])
def test_the_whole_agent_on_an_arbitrated_log(form: str, seeds: int) -> None:
    """Every check of the simulation holds on a log whose numbers have gaps and whose appends are arbitrated."""
    lost = marks = 0
    for seed in range(300, 300 + seeds):
        plan = msgspec.structs.replace(Plan.random(seed, form), engine="arbitrated")  # type: ignore[arg-type]
        simulation = Simulation(plan)
        outcome = simulation.run()
        assert outcome.ok, f"seed {seed}: {outcome.broken}: {outcome.error}"
        base = simulation.log.base
        assert isinstance(base, ArbitratedBase)
        lost, marks = lost + base.shared.lost, marks + base.shared.marks
    assert lost > 0 and marks > 0


@pytest.mark.parametrize("cut", CUTS)
def test_deciders_and_executors_that_are_cut_off(cut: Cut) -> None:
    """One decider, then the other, and an executor are cut off from the broker, wholly or one way, and one hangs
    until somebody ends it: what they sent late loses where it must, and every check of the simulation holds.
    """
    events = (
        Event(0.3, cut, "decider-1", 3.0),
        Event(1.0, cut, "executor-1", 2.0),
        Event(2.0, cut, "decider-2", 3.0),
    )
    fired: Counter[str] = Counter()
    for seed in (7, 8, 9):
        plan = Plan(
            schedule=seed,
            form="decoupled",
            menu=seed,
            events=events,
            hangs=(("executor-2", "after_started", 0, FOR_EVER_S),),
            engine="arbitrated",
        )
        outcome = Simulation(plan).run()
        assert outcome.ok, f"seed {seed}: {outcome.broken}: {outcome.error}"
        fired.update(outcome.fired)
    assert fired["cut_off" if cut == "cut" else cut] == 9 and fired["hung_ended"] == 3, fired


def test_a_broken_arbitration_shows_in_the_whole_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent's own races meet a mutant, too."""
    _forgets_conditions(monkeypatch)
    with pytest.raises(InvariantViolated, match="arbitration_is_exact"):
        for seed in range(300, 340):
            Simulation(msgspec.structs.replace(Plan.random(seed, "decoupled"), engine="arbitrated")).run()


def folded(*values: bytes, lookback: int = 20_000) -> Arbiter:
    """An arbiter after these messages."""
    arbiter = Arbiter()
    arbiter.fold(0, pack(Message(kind="begin", log="log", lookback=lookback)))
    for value in values:
        arbiter.fold(arbiter.next, value)
    return arbiter


def test_conditions_look_back_as_far_as_the_log_says() -> None:
    """Beyond the bound a condition fails, unless the last record of each kind rules a match out."""
    arbiter = folded(*(asking(draft("w", number)) for number in range(1, 11)), lookback=4)
    again = states.decode(states.encode(arbiter))
    for one in (arbiter, again):

        def asked(after: int, unless: Filter | None, one: Arbiter = one) -> object:
            condition = Condition(position_of(after), unless)
            return one.judge(claim_of(draft("w", 11, condition=condition)))

        assert asked(8, where(agents=["ann"])) == (0, True)
        assert isinstance(asked(8, where(kinds=["Notice"])), ConditionFailed)
        assert isinstance(asked(3, where(agents=["ann"])), ConditionFailed), "it cannot be known any more"
        assert asked(3, where(kinds=["Vote"], agents=["ann"])) == (0, True), "there was no vote at all"
        assert asked(3, Filter(())) == (0, True)


def test_foreign_messages_change_nothing() -> None:
    """Bytes that are no message, records of another log and damaged ones are as if they were not there."""
    good = asking(draft("w", 1))
    other = asking(draft("w", 1)).replace(b'"log":"log"', b'"log":"LOG"')
    arbiter = folded(b"", b"\xff\x00 what?", b"{}\n", other, b'{"kind":"append"}\n{"hash":', good)
    assert arbiter.tail == 7 and list(arbiter.writers) == ["w"]


def test_a_newer_rule_stops_a_reader() -> None:
    """A message of a newer version is an error, not something to skip: this reader would drop other messages."""
    arbiter = folded()
    with pytest.raises(LogTooNew):
        arbiter.fold(1, b'{"kind":"append","version":2,"surprise":[1]}\n{}')


def test_snapshots_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of two snapshots among each other: whole ones are found, newest first; torn and damaged ones are not."""
    monkeypatch.setattr(states, "PIECE_BYTES_MAX", 50)
    one = folded(asking(draft("w", 1)))
    two = folded(asking(draft("w", 1)), asking(draft("w", 2)))
    first, second = states.pieces(one, "one", "anchor"), states.pieces(two, "two", "anchor")
    mixed = list(enumerate([piece for pair in zip(first, second, strict=False) for piece in pair]))
    rest = [*first[len(second) :], *second[len(first) :]]
    mixed += list(enumerate(rest, len(mixed)))
    found = states.whole_snapshots([*mixed, (999, b"junk"), (1000, b'{"snapshot":')])
    assert [snapshot.head.upto for snapshot in found] == [3, 2]
    restored = states.restore(found[0])
    assert restored is not None and restored.digest() == two.digest()
    torn = [(offset, piece) for offset, piece in mixed if piece != second[1]]
    assert [snapshot.head.snapshot for snapshot in states.whole_snapshots(torn)] == ["one"]
    damaged = [(offset, piece[:-1] + b"?" if piece == second[1] else piece) for offset, piece in mixed]
    assert [snapshot.head.snapshot for snapshot in states.whole_snapshots(damaged)] == ["one"]
