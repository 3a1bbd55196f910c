"""Any sequence of any entries: the fold never raises, is deterministic, and can be taken up again anywhere."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logact import codec
from logact.core import deciding, driving, executing, invariants, machine
from logact.core.state import State
from logact.core.views import view
from logact.entry import (
    KINDS,
    Author,
    Call,
    Entry,
    ErasedPayload,
    Failure,
    Inference,
    Input,
    Intent,
    Payload,
    Policy,
    Result,
    Unknown,
    Vote,
    VoterInPolicy,
)
from logact.runtime.tail import dump_state
from tests.core.build import LOG, ROLE_OF

AGENTS = st.sampled_from(["ann", "bob"])
TOOLS = st.sampled_from(["send", "look", "answer"])
EFFECTS = st.sampled_from(["read", "idempotent", "reversible", "irreversible"])
WRITERS = st.sampled_from(["w1", "w2", "w3"])
VOTERS = st.sampled_from(["v", "w", "boss"])
NEEDS = st.sampled_from(
    [
        {},
        {"open": "x"},
        {"all": ["v"]},
        {"any": ["v", "w"]},
        {"k": 2, "of": ["v", "w", "boss"]},
        {"all": ["nobody"]},
        {"x": 1},
    ]
)
FAILURES = st.none() | st.builds(
    Failure, kind=st.sampled_from(["timeout", "failed", "not_happened", "cancelled"]), definite=st.booleans()
)
SCOPES = st.sampled_from(["", "log", "agent:ann", "run:1000", "tool:send", "action:3000", "planet:x", "run:"])


def _payloads(reference: st.SearchStrategy[int]) -> st.SearchStrategy[Payload]:
    """Payloads of all kinds: valid shapes, references that mostly hit something and sometimes nothing."""
    special: dict[str, st.SearchStrategy[Any]] = {
        "run": reference,
        "intent": reference,
        "inference": st.just(0) | reference,
        "retry_of": st.just(0) | reference,
        "base": st.just(0) | reference,
        "upto": reference,
        "seen": reference,
        "agent": AGENTS,
        "tool": TOOLS,
        "effect": EFFECTS,
        "attempt": st.integers(0, 3),
        "epoch": st.integers(0, 4),
        "turn": st.integers(0, 4),
        "call": st.integers(0, 2),
        "voter": VOTERS,
        "holder": st.sampled_from(["", "w1", "w2"]),
        "scope": SCOPES,
        "error": FAILURES,
        "need": NEEDS,
        "version": st.integers(-1, 4),
        "expected": st.integers(0, 3),
        "voters": st.just(
            {"v": VoterInPolicy(), "w": VoterInPolicy(shadow=False), "boss": VoterInPolicy(kind="human")}
        ),
        "code": st.sampled_from(["", "rejected", "policy_changed", "in_doubt", "expired"]),
        "deadline_ms": st.sampled_from([0, 5]),
        "start_by_ms": st.sampled_from([0, 5]),
        "calls": st.lists(
            st.builds(Call, id=st.just("c"), tool=TOOLS, broken=st.sampled_from(["", "no"])), max_size=3
        ).map(tuple),
        "context": st.lists(reference, max_size=3).map(tuple),
        "cites": st.lists(reference, max_size=2).map(tuple),
        "arguments": st.just({}),
        "arguments_digest": st.sampled_from(["", "x"]),
        "value": st.none(),
        "data": st.just({}),
        "answer_schema": st.none(),
    }
    kinds = []
    for cls in KINDS.values():
        fields = {
            field.name: special[field.name]
            for field in msgspec.structs.fields(cls)
            if field.name in special and not (cls.__name__ in ("Spec",) and field.name == "voters")
        }
        if cls.__name__ != "Policy":
            fields.pop("voters", None)
        if cls.__name__ == "Checkpoint":
            fields.pop("upto", None)
        rest = {
            field.name: st.from_type(field.type) if field.required else None
            for field in msgspec.structs.fields(cls)
            if field.name not in fields and field.required
        }
        strategies: dict[str, st.SearchStrategy[Any]] = {**fields, **{k: v for k, v in rest.items() if v is not None}}
        kinds.append(st.builds(cls, **strategies))
    return st.one_of(*kinds)


REFERENCES = st.sampled_from([0, 1000, 2000, 3000, 4000, 5000, 7000, 9001, 10**9])
PAYLOADS = _payloads(REFERENCES)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Entries at rising positions; authors mostly allowed to say what they say, chains mostly sound."""
    made: list[Entry] = []
    chains: dict[str, int] = {}
    position = 0
    for _ in range(draw(st.integers(1, 25))):
        payload: Payload = draw(PAYLOADS)
        kind = type(payload).__name__
        twist = draw(st.integers(0, 30))
        if twist == 0:
            payload = Unknown(kind=kind, data=None)
        elif twist == 1:
            payload = ErasedPayload(kind=kind)
        elif twist == 2:
            kind = "Teleport"
        position = (position // 1000 + 1) * 1000 if twist > 4 or not position else position + 1
        writer = draw(WRITERS)
        if position % 1000 == 0:
            chains[writer] = chains.get(writer, 0) + (0 if twist == 5 else 1)
        number = chains.get(writer, 1)
        role = ROLE_OF.get(kind, "client") if twist != 6 else draw(st.sampled_from(["reader", "voter", "client"]))
        voter = payload.voter if isinstance(payload, Vote) else role
        if isinstance(payload, Vote) and payload.voter == "boss":
            role = "client"
        made.append(
            Entry(
                position=position,
                kind=kind,
                payload=payload,
                author=Author(role, voter, writer),
                time_ms=position,
                log=LOG if twist != 7 else "elsewhere",
                run=getattr(payload, "run", 0),
                action=getattr(payload, "intent", 0),
                critical=twist == 8,
                version=2 if twist == 9 else 1,
                key="k" if twist in (10, 11) else "",
                number=number,
                previous=f"h{writer}{number - 1}" if number > 1 else "",
                record_hash=f"h{writer}{number}",
            )
        )
    return made


def dumped(state: State) -> bytes:
    """A state's bytes."""
    return dump_state(state)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(entries=logs(), data=st.data())
def test_any_entries_at_all(entries: list[Entry], data: st.DataObject) -> None:
    """For any entries: apply raises nothing, goes only forward, keeps what must hold, is deterministic, and a state
    that was written down and read back goes on as if it never had been."""
    state = machine.initial(LOG)
    cut = data.draw(st.integers(0, len(entries)))
    middle = dumped(state)
    for place, entry in enumerate(entries):
        before = state.position
        state = machine.apply(state, entry)
        assert state.position == max(before, entry.position)
        invariants.check_state(state)
        if place + 1 == cut:
            middle = dumped(state)
    again = machine.fold(machine.initial(LOG), entries)
    assert dumped(again) == dumped(state)
    resumed = machine.fold(msgspec.json.decode(middle, type=State), entries[cut:])
    assert dumped(resumed) == dumped(state)
    assert dumped(machine.fold(msgspec.json.decode(dumped(state), type=State), entries)) == dumped(state)
    for action in list(state.actions.values()):  # the pure questions have an answer in every state
        view(state, action)
        deciding.decide(state, action, 10)
        executing.may_start(state, action, "w1", 10)
    for run in list(state.runs.values()):
        driving.next_step(state, run, 10)
    deciding.overdue(state, 10)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(entries=logs())
def test_keeping_everything_changes_no_verdict(entries: list[Entry]) -> None:
    """A fold that lets go of settled actions gives the same verdicts as one that keeps all (within its bounds)."""
    small, whole = machine.initial(LOG), machine.initial(LOG, keep=True)
    for entry in entries:
        small, whole = machine.apply(small, entry), machine.apply(whole, entry)
        assert small.verdict == whole.verdict
        assert {key: one.status for key, one in small.actions.items()} == {
            key: one.status for key, one in whole.actions.items()
        }


@settings(max_examples=100, deadline=None)
@given(
    need=st.recursive(
        st.sampled_from(["v", "w", "", None, 1, {}, {"open": "x"}, {"open": ""}]),
        lambda inner: st.one_of(
            st.builds(lambda parts: {"all": parts}, st.lists(inner, max_size=3)),
            st.builds(lambda parts: {"any": parts}, st.lists(inner, max_size=3)),
            st.builds(lambda k, parts: {"k": k, "of": parts}, st.integers(-1, 4), st.lists(inner, max_size=3)),
            st.dictionaries(st.sampled_from(["all", "any", "k", "of", "open", "x"]), inner, max_size=2),
        ),
        max_leaves=8,
    )
)
def test_any_policy_at_all(need: Any) -> None:
    """A policy with any expression takes effect or is named as unusable; judging by it never raises (an empty or
    open part of an expression stopped every reader of the log)."""
    if not isinstance(need, dict):
        need = {"all": [need]}
    entries = []
    payloads: list[tuple[Payload, str, str]] = [
        (Policy(version=1, need=need, voters={"v": VoterInPolicy(), "w": VoterInPolicy()}), "operator", "operator"),
        (KINDS["Run"](agent="ann"), "client", "client"),
        (Input(run=2000, text="x"), "client", "client"),
        (Inference(run=2000, turn=1, calls=(Call(id="c", tool="send"),)), "driver", "driver"),
        (
            Intent(run=2000, agent="ann", tool="send", inference=4000, arguments_digest=codec.digest_of({})),
            "driver",
            "d",
        ),
        (Vote(approved=True, intent=5000, voter="v"), "voter", "v"),
        (KINDS["Commit"](intent=5000), "decider", "decider"),
        (KINDS["Started"](intent=5000), "executor", "executor"),
        (Result(intent=5000), "executor", "executor"),
    ]
    for place, (payload, role, name) in enumerate(payloads, 1):
        entries.append(
            Entry(
                position=place * 1000,
                kind=type(payload).__name__,
                payload=payload,
                author=Author(role, name, "w"),
                time_ms=1,
                log=LOG,
                number=place,
                previous=f"h{place - 1}" if place > 1 else "",
                record_hash=f"h{place}",
            )
        )
    state = machine.fold(machine.initial(LOG), entries)
    if state.actions[5000].status == "executed":
        assert state.policy_at, "what is unusable opens nothing"
