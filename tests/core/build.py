"""A log in the making, for tests that read like one: each call appends one record and folds it.

Everything goes through ``codec.encode_record`` and ``decode_record``, so that tests see what a reader sees. Nothing
here judges: what took effect is in ``Log.why`` (the fold's verdict on the last entry) and in ``Log.state``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from logact import codec
from logact.core import invariants, machine
from logact.core.state import Action, RunState, State
from logact.entry import (
    Abort,
    Call,
    Commit,
    Control,
    Entry,
    Failure,
    Fence,
    Inference,
    Input,
    Intent,
    NewEntry,
    Output,
    Payload,
    Policy,
    Recovery,
    Result,
    Role,
    Run,
    Started,
    Undone,
    Vote,
    VoterInPolicy,
    own,
)

LOG = "testlog"

ROLE_OF: dict[str, Role] = {
    "Run": "client",
    "Input": "client",
    "Mail": "client",
    "Cancel": "client",
    "Inference": "driver",
    "Compaction": "driver",
    "Intent": "driver",
    "Vote": "voter",
    "Commit": "decider",
    "Abort": "decider",
    "Expiry": "decider",
    "Started": "executor",
    "Result": "executor",
    "Undone": "executor",
    "Output": "executor",
    "Spec": "executor",
    "Recovery": "recoverer",
    "Fence": "recoverer",
    "Claim": "recoverer",
    "Finding": "recoverer",
    "Policy": "operator",
    "Control": "operator",
    "Fork": "operator",
    "Erased": "operator",
    "Seal": "operator",
    "Checkpoint": "checkpointer",
    "Trim": "checkpointer",
    "Heartbeat": "executor",
    "Notice": "client",
}
"""Who says what in these tests, unless told otherwise."""


class Why(str):
    """A verdict; a class of its own, since a type checker takes a text that was once empty for empty ever after."""

    __slots__ = ()


class Log:
    """A log and its fold. ``say`` appends one record; the other verbs are short for common entries."""

    def __init__(self, *, keep: bool = False, log: str = LOG) -> None:
        self.log = log
        self.state: State = machine.initial(log, keep=keep)
        self.bodies: list[bytes] = []
        self.entries: list[Entry] = []
        self.verdicts: list[str] = []
        self._chains: dict[str, tuple[int, str]] = {}

    @property
    def why(self) -> Why:
        """Why the last entry took no effect ("": it did)."""
        return Why(self.state.verdict)

    # --- appending -----------------------------------------------------------------------------------------------

    def record(self, *news: NewEntry, writer: str = "w", key: str = "", time_ms: int = 1000) -> int:
        """Append a record and fold it; the position of its first entry."""
        number, previous = self._chains.get(writer, (0, ""))
        encoded = codec.encode_record(
            news,
            log=self.log,
            writer=writer,
            number=number + 1,
            previous=previous,
            time_ms=time_ms,
            randomness=b"0" * 12 * len(news),
            key=key,
        )
        self._chains[writer] = (number + 1, encoded.hash)
        return self.store(encoded.body)

    def store(self, body: bytes) -> int:
        """Append a record's bytes as they are, and fold them; the position of the first entry."""
        self.bodies.append(body)
        entries = codec.decode_record(body, len(self.bodies))
        for entry in entries:
            self.apply(entry)
        return entries[0].position

    def apply(self, entry: Entry) -> None:
        """Fold one entry and check what must hold of every fold."""
        self.entries.append(entry)
        self.state = machine.apply(self.state, entry)
        self.verdicts.append(self.state.verdict)
        invariants.check_state(self.state)

    def forge(self, payload: Payload, *, writer: str = "w", role: Role = "client", **head: Any) -> int:
        """Append a record whose (only) entry header was changed: kind, version, critical, role, log, ..."""
        number, previous = self._chains.get(writer, (0, ""))
        news = (NewEntry(payload=payload, role=role, name=role),)
        encoded = codec.encode_record(
            news,
            log=self.log,
            writer=writer,
            number=number + 1,
            previous=previous,
            time_ms=1000,
            randomness=b"0" * 12,
        )
        raw = msgspec.json.decode(encoded.body)
        data = head.pop("data", None)
        if "log" in head:
            raw["head"]["log"] = head.pop("log")
        raw["head"]["entries"][0].update(head)
        if data is not None:
            raw["payloads"][0]["data"] = data
            text = raw["payloads"][0]["salt"].encode() + msgspec.json.encode(data)
            raw["head"]["entries"][0]["digest"] = codec.digest(text)
        raw["hash"] = codec.digest(msgspec.json.encode(raw["head"]))
        self._chains[writer] = (number + 1, raw["hash"])
        return self.store(msgspec.json.encode(raw))

    def say(
        self,
        payload: Payload,
        *,
        role: Role | None = None,
        name: str = "",
        writer: str = "w",
        key: str = "",
        time_ms: int = 1000,
    ) -> int:
        """Append one entry as the part that usually says it."""
        role = role or ROLE_OF[type(payload).__name__]
        if not name:
            name = payload.voter if isinstance(payload, Vote) else role
        return self.record(new(payload, role, name), writer=writer, key=key, time_ms=time_ms)

    # --- short forms ---------------------------------------------------------------------------------------------

    def run(self, agent: str = "ann", text: str = "go", **more: Any) -> int:
        """A run with its first input."""
        return self.record(
            new(Run(agent=agent, title=text, **more), "client"), new(Input(run=own(0), text=text), "client")
        )

    def infer(self, run: int, *calls: Call | str, text: str = "", **more: Any) -> int:
        """The run's next inference. A call given as a text is a call of that tool."""
        made = tuple(one if isinstance(one, Call) else call(one, id=f"c{place}") for place, one in enumerate(calls))
        turn = more.pop("turn", self.state.runs[run].turn + 1 if run in self.state.runs else 1)
        return self.say(Inference(run=run, turn=turn, calls=made, text=text, **more))

    def propose(self, run: int, tool: str = "send", *, arguments: dict[str, Any] | None = None, **more: Any) -> int:
        """An intent of the run's agent; its id."""
        return self.say(intent(run, tool, self._agent(run), arguments, **more))

    def vote(self, action: int, voter: str = "v", approved: bool | None = True, **more: Any) -> int:
        """A vote."""
        role: Role = more.pop("role", "voter")
        name: str = more.pop("name", voter)
        return self.say(Vote(approved=approved, intent=action, voter=voter, **more), role=role, name=name)

    def commit(self, action: int, **more: Any) -> int:
        """A commit."""
        return self.say(Commit(intent=action, **more))

    def abort(self, action: int, **more: Any) -> int:
        """An abort."""
        return self.say(Abort(intent=action, **more))

    def start(self, action: int, *, writer: str = "w", **more: Any) -> int:
        """A start of the next attempt in the present epoch, unless told otherwise."""
        known = self.state.actions.get(action)
        more.setdefault("attempt", len(known.attempts) + 1 if known is not None else 1)
        more.setdefault("epoch", self.state.epoch(known.intent.agent) if known is not None else 0)
        return self.say(Started(intent=action, **more), writer=writer)

    def result(
        self, action: int, value: Any = "done", *, error: Failure | None = None, writer: str = "w", attempt: int = 0
    ) -> int:
        """A result of the latest attempt, unless told otherwise."""
        known = self.state.actions.get(action)
        attempt = attempt or (len(known.attempts) if known is not None else 1)
        given = None if error is not None else value
        return self.say(Result(intent=action, attempt=attempt, value=given, error=error), writer=writer)

    def recover(self, action: int, settlement: Any, **more: Any) -> int:
        """A recovery of the latest attempt, unless told otherwise."""
        known = self.state.actions.get(action)
        more.setdefault("attempt", len(known.attempts) if known is not None else 1)
        return self.say(Recovery(intent=action, settlement=settlement, **more))

    def undone(self, action: int, **more: Any) -> int:
        """An undone."""
        return self.say(Undone(intent=action, **more))

    def fence(self, agent: str = "ann", epoch: int = 0, holder: str = "") -> int:
        """The next epoch, unless told otherwise."""
        return self.say(Fence(agent=agent, epoch=epoch or self.state.epoch(agent) + 1, holder=holder))

    def control(self, verb: Any, scope: str = "log") -> int:
        """Pause, resume or stop."""
        return self.say(Control(verb=verb, scope=scope))

    def policy(self, *voters: str, need: Any = None, agent: str = "", version: int = 0, **more: Any) -> int:
        """A policy in which all of these voters must approve, unless ``need`` says otherwise."""
        at = self.state.policy_at.get(agent, 0)
        now = self.state.policies[at].version if at else 0
        more.setdefault("expected", now)
        return self.say(
            Policy(
                version=version or now + 1,
                agent=agent,
                voters=more.pop("listed", {name: VoterInPolicy() for name in voters}),
                need={"all": list(voters)} if need is None else need,
                **more,
            )
        )

    def open_policy(self) -> int:
        """A policy that lets everything pass."""
        return self.policy(need={"open": "a test"})

    def started(self, run: int, tool: str = "send", *, writer: str = "w", **more: Any) -> int:
        """An action from its proposal to its start. Needs an open policy, or the effect ``read``."""
        action = self.propose(run, tool, **more)
        self.commit(action)
        assert not self.why, self.why
        self.start(action, writer=writer)
        assert not self.why, self.why
        return action

    def doubtful(self, run: int, tool: str = "send", **more: Any) -> int:
        """An action whose executor was fenced off while it ran."""
        action = self.started(run, tool, **more)
        self.fence(self._agent(run))
        assert self.status(action) == "in_doubt"
        return action

    def answer(self, run: int, action: int, text: str = "the answer", writer: str = "w") -> int:
        """Start, release and finish a committed answer, in one record."""
        epoch = self.state.epoch(self._agent(run))
        return self.record(
            new(Started(intent=action, epoch=epoch), "executor"),
            new(Output(run=run, intent=action, text=text), "executor"),
            new(Result(intent=action), "executor"),
            writer=writer,
        )

    # --- looking -------------------------------------------------------------------------------------------------

    def action(self, key: int) -> Action:
        """An action's state."""
        return self.state.actions[key]

    def status(self, key: int) -> str:
        """An action's status."""
        return self.state.actions[key].status

    def run_state(self, key: int) -> RunState:
        """A run's state."""
        return self.state.runs[key]

    def kinds(self, positions: list[int]) -> list[str]:
        """The kinds of the entries at these positions."""
        found = {entry.position: entry.kind for entry in self.entries}
        return [found[position] for position in positions]

    def _agent(self, run: int) -> str:
        known = self.state.runs.get(run)
        return known.agent if known is not None else "ann"


def new(payload: Payload, role: Role, name: str = "") -> NewEntry:
    """A payload as a part says it."""
    return NewEntry(payload=payload, role=role, name=name or role)


def call(tool: str, *, id: str = "c0", broken: str = "", **arguments: Any) -> Call:
    """One call of a model."""
    return Call(id=id, tool=tool, arguments=arguments, broken=broken)


def intent(
    run: int, tool: str = "send", agent: str = "ann", arguments: dict[str, Any] | None = None, **more: Any
) -> Intent:
    """An intent whose digest fits its arguments."""
    arguments = {} if arguments is None else arguments
    more.setdefault("arguments_digest", codec.digest_of(arguments))
    return Intent(run=run, agent=agent, tool=tool, arguments=arguments, **more)


def ambiguous(kind: str = "timeout") -> Failure:
    """A failure that leaves open whether it happened."""
    return Failure(kind=kind, message="who knows")


def definite(kind: str = "permanent") -> Failure:
    """A failure after which it certainly did not happen."""
    return Failure(kind=kind, message="certainly not", definite=True)
