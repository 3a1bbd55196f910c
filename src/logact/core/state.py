"""The folded state: everything that a log's entries add up to, as plain structs that a checkpoint can carry.

Shapes and small read-only questions only; what changes them is ``machine.apply``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from logact.entry import Failure, Heartbeat, Intent, Limits, Policy, Vote

Status = Literal[
    "proposed",
    "validated",
    "rejected",
    "executing",
    "in_doubt",
    "executed",
    "failed",
    "undone",
    "skipped",
    "failed_final",
    "superseded",
]
OPEN: frozenset[str] = frozenset({"proposed", "validated", "executing", "in_doubt"})
"""The statuses in which an action is not settled."""


class Attempt(msgspec.Struct, omit_defaults=True):
    """One start of an action: by whom (incarnation), in which epoch, and where its ``Started`` stands.

    ``reported``: a result of it came, in time or late; only the first counts. ``lease_ms``: while it runs, its
    incarnation gives a sign of life at least so often (0: it promised nothing).
    """

    number: int
    incarnation: str
    epoch: int
    position: int
    reported: bool = False
    lease_ms: int = 0


class Action(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One action's life so far; its id is its intent's position. ``marks`` are the last relevant positions, by
    scope, that stood before the intent: a vote that depends on history counts only if it had seen them.

    Of an action that is tried again: ``retries`` counts the earlier tries, ``scheduled`` those of them that failed
    with a schedule (``waited`` those of these that waited for the tool's circuit), ``first_ms`` is when the first was
    proposed. ``key_of`` is the earlier try whose external key it
    uses, since that one may have happened (0: a key of its own). ``retry_at_ms`` and ``retry_delay_ms`` are its own
    schedule; ``shut``: it waits for the tool's circuit. ``undo_begun``: a recoverer takes it back, whether or not it
    happened; a result that was still on its way does not count.
    """

    id: int
    intent: Intent
    status: Status = "proposed"
    policy: int = 0
    proposed_ms: int = 0
    marks: dict[str, int] = {}
    votes: dict[str, Vote] = {}
    decided_at: int = 0
    reason: str = ""
    code: str = ""
    hint: str = ""
    start_by_ms: int = 0
    attempts: list[Attempt] = []
    restart_allowed: bool = False
    undo_begun: bool = False
    settled_at: int = 0
    error: Failure | None = None
    happened: bool | None = None
    retried_by: int = 0
    retries: int = 0
    scheduled: int = 0
    first_ms: int = 0
    key_of: int = 0
    retry_at_ms: int = 0
    retry_delay_ms: int = 0
    waited: int = 0
    shut: bool = False
    undone_by: int = 0
    conflict: bool = False
    cancel_wanted: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the action still needs somebody to do something."""
        return self.status in OPEN

    @property
    def current(self) -> Attempt | None:
        """The latest attempt, if the action was ever started."""
        return self.attempts[-1] if self.attempts else None


class CallState(msgspec.Struct, omit_defaults=True):
    """What became of one call of an inference: its latest action, and the entry that settled it (0: none yet)."""

    action: int = 0
    settled_at: int = 0


class End(msgspec.Struct, array_like=True):
    """How one action of a run ended. ``key`` is its tool and arguments; ``outcome`` a digest, where the key came
    before (""); ``bad``: it failed or was refused."""

    action: int
    key: str
    end: str
    outcome: str = ""
    bad: bool = False


class Held(msgspec.Struct, array_like=True):
    """A claim that holds a sub-task: whose it is, the life that wrote it, where its latest renewal stands, and the
    lease (ms) that the holder promised to renew it within."""

    agent: str
    incarnation: str
    position: int
    lease_ms: int = 0


class RunState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One run: where its driver stands, what it used, and which entries make up the model's context.

    ``moved`` is the other log that has what it had left (see ``core/forking.py``).

    ``trace`` are the last ends of its actions, ``idle`` how many in a row brought nothing new, ``noticed`` what was
    found about it and where (see ``core/watching.py``); all three begin anew when a person speaks, or it ends.
    ``held`` are its sub-tasks that somebody holds, ``lives`` how many lives took up each that is not complete,
    ``done`` those that are complete, with where the result stands, and ``parent`` is the run whose sub-task it works
    on. ``life`` is the incarnation with which it ends, if it is no task that the next one would go on with. ``hole``
    is where its first entry stands that is gone (0: it is whole), ``lost`` where the last record was lost that may
    have spoken of it: nothing of it begins any more (see ``core/holes.py``).
    """

    id: int
    agent: str
    title: str = ""
    status: Literal["running", "finished", "stopped"] = "running"
    limits: Limits = Limits()
    dry_run: bool = False
    started_ms: int = 0
    turn: int = 0
    inference: int = 0
    calls: dict[int, CallState] = {}
    context: list[int] = []
    inbox: list[int] = []
    actions: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    context_tokens: int = 0
    output: int = 0
    ok: bool = True
    digest: str = ""
    last: int = 0
    rejected: dict[str, int] = {}
    expired: int = 0
    trace: list[End] = []
    idle: int = 0
    noticed: dict[str, int] = {}
    parent: int = 0
    held: dict[str, Held] = {}
    lives: dict[str, int] = {}
    done: dict[str, int] = {}
    claimed: bool = False
    life: str = ""
    hole: int = 0
    lost: int = 0
    moved: str = ""

    @property
    def waiting_calls(self) -> list[int]:
        """The calls of the present turn that are not settled, in order (``calls`` is built in that order)."""
        return [index for index, call in self.calls.items() if not call.settled_at]

    @property
    def is_waiting(self) -> bool:
        """Whether any call of the present turn is not settled."""
        return not all(call.settled_at for call in self.calls.values())


class AgentState(msgspec.Struct, omit_defaults=True):
    """Who may start an agent's actions: the epoch, its holder (empty: anyone), and where the fence stands."""

    epoch: int = 0
    holder: str = ""
    fence: int = 0


class Incarnation(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One life of one writer: its chain so far, which process it was, and its last sign of life."""

    role: str = ""
    name: str = ""
    agent: str = ""
    number: int = 0
    hash: str = ""
    birth: Heartbeat | None = None
    last: int = 0
    last_ms: int = 0
    left: bool = False


class Circuit(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What is known of a tool whose environment failed: how often in a row, and until when it is left alone.

    ``until_ms`` (wall clock) and ``delay_ms`` are of the latest opening, which stands at ``at`` (0: it is closed,
    and only counts). ``opened`` counts openings in a row, ``since_ms`` is when the first was. ``trial`` is the action
    that tries whether the environment is back; nothing else of the tool starts meanwhile.
    """

    failures: int = 0
    opened: int = 0
    at: int = 0
    until_ms: int = 0
    delay_ms: int = 0
    since_ms: int = 0
    trial: int = 0


class Ignored(msgspec.Struct):
    """An entry that took no effect, and why."""

    position: int
    kind: str
    why: str


def circuit_key(agent: str, tool: str) -> str:
    """Under what a tool's circuit is kept."""
    return f"{agent} {tool}"


class State(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The fold of a log up to ``position``. ``verdict`` says why the last entry took no effect ("": it did).

    ``chain`` is the digest of all records so far, in order. ``halted`` names a critical entry that this version
    does not understand (read on, never act); ``broken`` the first place where a writer's chain does not fit.
    ``keep`` holds on to settled actions of finished runs, for views; agents let them go. ``undoing`` names, by the
    action that is to be undone, the open action that undoes it; ``undone`` where those were undone that were let go.
    ``fenced`` are incarnations that were found hung, and where; nothing that they begin takes effect any more.
    ``circuits`` are tools whose environment failed, by agent and tool. ``forgotten`` counts lives that were let go
    although they never said goodbye. ``lost`` are the numbers of records that are gone, until a repair has closed
    what rests on them.
    ``forking``: this is a fork that is not complete. ``budgets_at`` is where the
    voters' budgets went to another log, and ``budgets_in`` which one that is. ``paused_why``: the
    reasons that were given.
    """

    log: str = ""
    position: int = 0
    chain: str = ""
    verdict: str = ""
    halted: str = ""
    broken: str = ""
    sealed: bool = False
    keep: bool = False
    policy_at: dict[str, int] = {}
    binding_at: dict[str, int] = {}
    policies: dict[int, Policy] = {}
    paused: dict[str, int] = {}
    stopped: dict[str, int] = {}
    agents: dict[str, AgentState] = {}
    incarnations: dict[str, Incarnation] = {}
    runs: dict[int, RunState] = {}
    actions: dict[int, Action] = {}
    open_actions: dict[int, None] = {}
    scopes: dict[str, int] = {}
    keys: dict[str, int] = {}
    claims: dict[str, str] = {}
    undoing: dict[int, int] = {}
    undone: dict[int, int] = {}
    fenced: dict[str, int] = {}
    circuits: dict[str, Circuit] = {}
    forgotten: int = 0
    checkpoint: int = 0
    counted_at_checkpoint: int = 0
    duplicate: int = 0
    counts: dict[str, int] = {}
    ignored_count: int = 0
    ignored: list[Ignored] = []
    conflicts: list[int] = []
    lost: dict[int, None] = {}
    forking: str = ""
    paused_why: dict[str, str] = {}
    budgets_at: int = 0
    budgets_in: str = ""

    def torn(self, run: int) -> bool:
        """Whether entries are gone that what is written about a run may rest on."""
        known = self.runs.get(run)
        return known is not None and known.hole > 0

    def policy_position(self, agent: str) -> int:
        """Where the policy stands that is in force now for an agent: its own, or the log's (0: none)."""
        return self.policy_at.get(agent) or self.policy_at.get("", 0)

    def policy_of(self, agent: str) -> Policy | None:
        """The policy in force now for an agent."""
        return self.policies.get(self.policy_position(agent))

    def bound_since(self, agent: str) -> int:
        """Where the newest binding policy for an agent stands (0: none); it stops commits of older intents."""
        return max(self.binding_at.get(agent, 0), self.binding_at.get("", 0))

    def policy_for(self, action: Action) -> Policy | None:
        """The policy in force at an action's intent."""
        return self.policies.get(action.policy)

    def epoch(self, agent: str) -> int:
        """The epoch of an agent's executor role."""
        held = self.agents.get(agent)
        return held.epoch if held else 0

    def circuit(self, intent: Intent) -> Circuit | None:
        """The open circuit of an intent's tool, if it is open."""
        found = self.circuits.get(circuit_key(intent.agent, intent.tool)) if self.circuits else None
        return found if found is not None and found.at else None

    def undecided(self) -> list[Action]:
        """Actions that wait for a decision, in order."""
        return [self.actions[key] for key in self.open_actions if self.actions[key].status == "proposed"]

    def startable(self) -> list[Action]:
        """Actions that are committed and not started (or may start again), in order."""
        return [
            action
            for action in map(self.actions.__getitem__, self.open_actions)
            if action.status == "validated" or action.restart_allowed
        ]

    def unfinished(self) -> list[Action]:
        """Actions that were started and have no result, in order."""
        return [
            action
            for action in map(self.actions.__getitem__, self.open_actions)
            if action.status in ("executing", "in_doubt") and not action.restart_allowed
        ]

    def doubtful(self) -> list[Action]:
        """Actions in doubt, in order."""
        return [action for action in self.unfinished() if action.status == "in_doubt"]

    def blocked(self, action: Action) -> str:
        """Why an action may not start because of control entries ("" if it may)."""
        return self.control_over(action.intent.agent, action.intent.run, action.id)

    def control_over(self, agent: str, run: int = 0, action: int = 0) -> str:
        """The control that holds something back: ``paused (scope)``, ``stopped (scope)`` or ""."""
        if not self.paused and not self.stopped:
            return ""
        for scope in ("log", f"agent:{agent}", f"run:{run}", f"action:{action}"):
            if scope in self.stopped:
                return f"stopped ({scope})"
            if scope in self.paused:
                return f"paused ({scope})"
        return ""
