"""What a log holds: one frozen struct per kind of entry, the entry around it, and who may append what.

An *entry* is a header (who, when, caused by what) and a payload. Entries travel in *records*: a record is one
atomic batch by one writer. A position folds (record, index) into one integer, ``record * 1000 + index``, so
positions are unique, stable and strictly increasing, but not gap-free.

References between entries are positions. Inside a record that is still being built, an entry refers to its
neighbours by negative numbers: ``-1`` is the record's first entry, ``-2`` the second. The stored bytes keep
that form (hashes cover it); decoding turns it into positions. Each struct names such fields in ``REFERENCES``.

This module owns shapes only: it never reads a clock, computes a status, or does I/O.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

RECORD_ENTRIES_MAX = 1000
"""The most entries that one record may hold; also the factor between record numbers and positions."""

Effect = Literal["read", "idempotent", "reversible", "irreversible"]
EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "reversible", "irreversible")
"""From the mildest to the strictest. Undeclared means ``irreversible``."""

Role = Literal[
    "client",
    "driver",
    "voter",
    "decider",
    "executor",
    "recoverer",
    "supervisor",
    "checkpointer",
    "operator",
    "reader",
]


def position_of(record: int, index: int = 0) -> int:
    """The position of the ``index``-th entry of a record."""
    return record * RECORD_ENTRIES_MAX + index


def record_of(position: int) -> int:
    """The record in which a position lies."""
    return position // RECORD_ENTRIES_MAX


def end_of(record: int) -> int:
    """The last position that a record can have: what comes after it is the next record's."""
    return position_of(record, RECORD_ENTRIES_MAX - 1)


def record_before(position: int) -> int:
    """The record after which to read for all that stands behind a position: more of its own record may."""
    return max(0, record_of(position + 1) - 1)


def own(index: int) -> int:
    """The batch-relative reference to the ``index``-th entry of the record being built."""
    return -1 - index


def stricter(first: Effect, second: Effect) -> Effect:
    """The stricter of two effects."""
    return max(first, second, key=EFFECTS.index)


class BlobRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A large value, stored by content next to the log. ``size`` is in bytes."""

    digest: str
    size: int
    media_type: str = "application/json"
    preview: str = ""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of a message: a text, or (where ``blob`` is set) an image that is stored as a blob."""

    text: str = ""
    blob: BlobRef | None = None


class Payload(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The base of all payloads. ``VERSION`` is the schema version that this code writes."""

    VERSION: ClassVar[int] = 1
    CRITICAL: ClassVar[bool] = False
    REFERENCES: ClassVar[tuple[str, ...]] = ()


# --- runs and inputs ------------------------------


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a run may use; 0 means no limit. ``seconds`` counts from the run's start by wall clock."""

    turns: int = 0
    actions: int = 0
    tokens: int = 0
    seconds: int = 0


class Run(Payload, frozen=True, kw_only=True):
    """A task from input to answer begins. The run's id is this entry's position.

    ``ends_with_life``: it is no task to be resumed (a caller's own loop, an undo, a recovery's analysis), and ends
    with the life that began it, if not before.
    """

    agent: str
    title: str = ""
    limits: Limits = Limits()
    dry_run: bool = False
    answer_schema: dict[str, Any] | None = None
    parent: int = 0
    ends_with_life: bool = False
    REFERENCES: ClassVar[tuple[str, ...]] = ("parent",)


class ToolSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One tool as declared at a moment: what the model sees, and what its effect is."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    effect: Effect = "irreversible"
    version: str = ""
    probe: bool = False
    undo: bool = False
    safe_undo: bool = False
    timeout_ms: int = 0


class Spec(Payload, frozen=True, kw_only=True):
    """The agents, tools and voters that are in force from here on; for people and for voters to read."""

    agent: str
    model: str = ""
    system: str = ""
    tools: tuple[ToolSpec, ...] = ()
    voters: dict[str, str] = {}
    digest: str = ""


class Input(Payload, frozen=True, kw_only=True):
    """The user's words. An input to a finished run continues it."""

    run: int
    text: str = ""
    parts: tuple[Part, ...] = ()
    REFERENCES: ClassVar[tuple[str, ...]] = ("run",)


# --- the driver ------------------------------


class Call(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One tool call of a model's answer. ``broken`` says why the call cannot be an action, if it cannot."""

    id: str
    tool: str
    arguments: dict[str, Any] = {}
    raw: str = ""
    broken: str = ""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Tokens and money of one inference; ``cost_usd`` is None where the price is not known."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float | None = None


class Retried(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Errors of one sort that were survived by asking a provider again: an error's ``code``, the HTTP status if there
    was one, how often, and how long was waited before asking again."""

    kind: str
    status: int = 0
    count: int = 1
    waited_ms: float = 0.0


class Inference(Payload, frozen=True, kw_only=True):
    """One answer of the model, stored before anything follows from it, so that it is never asked again.

    What the model saw is an ordered list of positions of entries and digests of blobs: that of the inference at
    ``base``, then ``base`` itself, then ``context``; with no base, ``context`` alone. So a log stays linear in size.
    """

    run: int
    turn: int
    model: str = ""
    base: int = 0
    context: tuple[int | str, ...] = ()
    tools_digest: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()
    stop: str = ""
    usage: Usage = Usage()
    latency_ms: float = 0.0
    raw: BlobRef | None = None
    retried: tuple[Retried, ...] = ()
    REFERENCES: ClassVar[tuple[str, ...]] = ("run",)


class Compaction(Payload, frozen=True, kw_only=True):
    """Replaces the older part of a run's context by a summary. ``upto`` is the last position it replaces."""

    run: int
    upto: int
    summary: str
    model: str = ""
    usage: Usage = Usage()
    retried: tuple[Retried, ...] = ()
    REFERENCES: ClassVar[tuple[str, ...]] = ("run",)


class Pin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that an approval depends on beyond the arguments: a file's digest, checked again at the start."""

    path: str
    digest: str


class Intent(Payload, frozen=True, kw_only=True):
    """Proposes one action. Its position is the action's id and its place in the order of everything.

    ``arguments_digest`` binds votes to exactly these arguments. ``key`` names the call of an inference that
    this intent carries out, so that a crash between two intents never asks the model again.
    """

    run: int
    agent: str
    tool: str
    arguments: dict[str, Any] = {}
    arguments_blob: BlobRef | None = None
    arguments_digest: str = ""
    reasoning: str = ""
    effect: Effect = "irreversible"
    tool_version: str = ""
    probe: bool = False
    undo: bool = False
    safe_undo: bool = False
    inference: int = 0
    call: int = 0
    deadline_ms: int = 0
    pins: tuple[Pin, ...] = ()
    state_before: str = ""
    retry_of: int = 0
    undoes: int = 0
    external: bool = False
    REFERENCES: ClassVar[tuple[str, ...]] = ("run", "inference", "retry_of", "undoes")


# --- voters and deciders ------------------------------


class Vote(Payload, frozen=True, kw_only=True):
    """A voter's judgement of an intent. ``approved`` is None for an abstention.

    A voter returns ``Vote(approved=..., reason=...)``; its host fills in the rest. ``seen`` and ``scope`` are
    for votes that depend on history: the vote counts only if nothing in that scope lies between ``seen`` and
    the intent. A ``shadow`` vote is logged and never counts. ``code`` is the class of a rejection, which a policy
    may let another voter overturn; ``usage`` what the judgement itself cost.
    """

    approved: bool | None
    reason: str = ""
    hint: str = ""
    confidence: float | None = None
    intent: int = 0
    voter: str = ""
    config: str = ""
    arguments_digest: str = ""
    seen: int = 0
    scope: str = ""
    shadow: bool = False
    duration_ms: float = 0.0
    code: str = ""
    usage: Usage | None = None
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent", "seen")


class Commit(Payload, frozen=True, kw_only=True):
    """The action may run. Not after ``start_by_ms`` (wall clock; enforced through an ``Expiry`` entry)."""

    intent: int
    reason: str = ""
    policy: int = 0
    start_by_ms: int = 0
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent", "policy")


class Abort(Payload, frozen=True, kw_only=True):
    """The action will not run."""

    intent: int
    reason: str = ""
    code: str = "rejected"
    hint: str = ""
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


class Expiry(Payload, frozen=True, kw_only=True):
    """A deadline passed: of the decision (undecided until now) or of the start (committed, never started)."""

    intent: int
    reason: str = ""
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


class Cancel(Payload, frozen=True, kw_only=True):
    """Takes back what has not started: one action (``intent``), or all of a ``scope``, whose runs then end.

    An action that runs is asked to stop; its result says what became of it.
    """

    intent: int = 0
    scope: str = ""
    reason: str = ""
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


# --- the executor ------------------------------


class Started(Payload, frozen=True, kw_only=True):
    """An executor is about to act. It acts only once it has folded up to this entry and seen it take effect.

    While the action runs, some entry of this incarnation comes at least every ``lease_ms`` (0: it promises nothing).
    """

    intent: int
    attempt: int = 1
    epoch: int = 0
    lease_ms: int = 0
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why an action failed. ``definite`` says that its effect certainly did not happen."""

    kind: str
    message: str = ""
    definite: bool = False
    retry_after_s: float | None = None


class Result(Payload, frozen=True, kw_only=True):
    """What happened. Either ``error`` is set, or the value is (in place, or as a blob).

    Of a failure, ``retry_at_ms`` (wall clock) says when the action is tried again, as a new intent; until then the
    call is not settled. ``gave_up`` says why it is not tried again any more. ``shut_until_ms`` (wall clock): the
    tool's environment is gone, and its circuit is open until then.
    """

    intent: int
    attempt: int = 1
    value: Any = None
    blob: BlobRef | None = None
    parts: tuple[Part, ...] = ()
    error: Failure | None = None
    duration_ms: float = 0.0
    state_after: str = ""
    truncated: bool = False
    retry_at_ms: int = 0
    gave_up: str = ""
    shut_until_ms: int = 0
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


class Undone(Payload, frozen=True, kw_only=True):
    """The action's undo ran; ``intent`` is the action that was undone."""

    intent: int
    detail: str = ""
    error: Failure | None = None
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


class Output(Payload, frozen=True, kw_only=True):
    """The answer of a run, released to the caller. ``intent`` is the answer's own, committed action."""

    run: int
    intent: int
    text: str = ""
    value: Any = None
    ok: bool = True
    reason: str = ""
    REFERENCES: ClassVar[tuple[str, ...]] = ("run", "intent")


# --- recovery, control ------------------------------


Settlement = Literal["restart", "undo", "happened", "not_happened", "superseded", "skip", "failed_final"]


class Recovery(Payload, frozen=True, kw_only=True):
    """Settles an action in doubt, or gives a failed one up.

    ``restart`` allows a further attempt (``read`` and ``idempotent`` only), ``undo`` says that a safe undo begins
    (no result counts any more; ``Undone`` follows), ``happened`` and ``not_happened`` state the effect,
    ``superseded`` closes it with the effect unknown, ``skip`` and ``failed_final`` give up. ``evidence`` says how it
    is known: ``probe``, ``effect`` (the declared one), ``undo``, or a person's name.
    """

    intent: int
    attempt: int
    settlement: Settlement
    evidence: str = ""
    reason: str = ""
    value: Any = None
    cites: tuple[int, ...] = ()
    REFERENCES: ClassVar[tuple[str, ...]] = ("intent",)


class VoterInPolicy(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A voter as the policy knows it. ``on_failure`` is what counts when it crashes, hangs or answers nonsense."""

    kind: str = ""
    config: str = ""
    timeout_ms: int = 0
    on_failure: Literal["reject", "abstain", "approve"] = "reject"
    placement: Literal["inline", "async"] = "inline"
    shadow: bool = False


class Policy(Payload, frozen=True, kw_only=True):
    """Which voters must be heard and how their votes combine; replaces the policy before it.

    Takes effect only if ``expected`` is the version in force (compare-and-set) and ``version`` is greater.
    ``agent`` limits it to one agent's actions; an agent without a policy of its own is under the log's (empty).
    ``need`` is an expression (see ``core/voting.py``). A ``binding`` policy also stops commits of older intents.
    """

    version: int
    expected: int = 0
    agent: str = ""
    voters: dict[str, VoterInPolicy] = {}
    need: dict[str, Any] = {}
    binding: bool = False
    decide_within_ms: int = 60_000
    start_within_ms: int = 600_000
    note: str = ""
    CRITICAL: ClassVar[bool] = True


class Control(Payload, frozen=True, kw_only=True):
    """Pause, resume or stop: effective on every part before the next ``Started``.

    ``scope`` is ``log``, ``agent:NAME``, ``run:POSITION`` or ``action:POSITION``. A ``resume`` of a run may set what
    it may use in all (``limits``; 0: as it was), and one of the log may say that voters' ``budgets`` are here again.
    """

    verb: Literal["pause", "resume", "stop"]
    scope: str = "log"
    reason: str = ""
    limits: Limits | None = None
    budgets: bool = False
    CRITICAL: ClassVar[bool] = True


class Fence(Payload, frozen=True, kw_only=True):
    """A new holder takes over a role of an agent: from here on only ``holder`` may start its actions.

    Effective only if ``epoch`` is the epoch in force plus one. An empty ``holder`` opens the role again.
    """

    agent: str
    epoch: int
    holder: str = ""
    reason: str = ""
    CRITICAL: ClassVar[bool] = True


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """What one agent used of one tool in one run: actions, the numbers among their arguments, the models' tokens."""

    agent: str
    run: int
    tool: str = ""
    actions: int = 0
    sums: dict[str, float] = {}
    tokens: int = 0
    usd: float | None = 0.0


class Fork(Payload, frozen=True, kw_only=True):
    """The log ``fork`` goes on from position ``at`` of ``parent``, and budgets are where ``step`` says.

    ``begun`` stands at the end of the new log's first record, ``done`` behind its copied past: in between nothing
    acts there. ``moved`` stands at home: what the runs in ``empty``, and with ``voters`` what the voters' budgets had
    left, went to the fork. In ``done`` both are what is not here, ``limits`` (by run) is what is, and ``spent`` what
    was used at home after ``at``.
    """

    step: Literal["begun", "moved", "done"] = "begun"
    fork: str
    parent: str
    at: int
    empty: tuple[int, ...] = ()
    voters: bool = False
    limits: dict[str, Limits] = {}
    spent: tuple[Spent, ...] = ()
    CRITICAL: ClassVar[bool] = True


class Claim(Payload, frozen=True, kw_only=True):
    """An agent takes a task; the first claim of a task wins while it is held (see ``core/claiming.py``).

    ``run``: it is a sub-task of this run. Claiming it again renews the lease. A ``release`` that names its ``result``
    (an ``Output`` of a run of the holder) completes the task for ever; one without gives it back. ``lapses`` is the
    position of another's claim that ends here, since its holder is gone.
    """

    task: str
    agent: str
    lease_ms: int = 0
    release: bool = False
    run: int = 0
    result: int = 0
    lapses: int = 0
    REFERENCES: ClassVar[tuple[str, ...]] = ("run", "result", "lapses")


class Checkpoint(Payload, frozen=True, kw_only=True):
    """The folded state up to ``upto``, so that replay can start here; ``chain`` is the digest of the whole.

    ``profile`` is the fold of what introspection counts, so that a health check need not read the whole log.
    """

    upto: int
    chain: str
    state: BlobRef
    voters: dict[str, BlobRef] = {}
    profile: BlobRef | None = None


class Trim(Payload, frozen=True, kw_only=True):
    """What lies before ``before`` was dropped (and kept in ``archive``, if it names one)."""

    before: int
    archive: str = ""
    CRITICAL: ClassVar[bool] = True


class Seal(Payload, frozen=True, kw_only=True):
    """The segment ends here; the log goes on at ``next``, in the segment whose engine has the id ``segment``."""

    next: str = ""
    reason: str = ""
    segment: str = ""
    CRITICAL: ClassVar[bool] = True


class Erased(Payload, frozen=True, kw_only=True):
    """The payload at ``target`` was erased; its header and digest stay, so the chain still verifies."""

    target: int
    reason: str = ""


# --- talk and observation ------------------------------


class Mail(Payload, frozen=True, kw_only=True):
    """A message from one agent or person to another; ``to`` may be ``*``."""

    to: str
    sender: str
    body: str
    in_reply_to: int = 0
    REFERENCES: ClassVar[tuple[str, ...]] = ("in_reply_to",)


class Heartbeat(Payload, frozen=True, kw_only=True):
    """A sign of life of an incarnation; its first one says which process it is, which ``part`` it plays, and the
    lease that it keeps: while it works, something of it comes at least every ``lease_ms`` (0: it promises nothing).
    """

    agent: str = ""
    part: str = ""
    lease_ms: int = 0
    host: str = ""
    pid: int = 0
    started: int = 0
    boot: str = ""
    leaving: bool = False


class Finding(Payload, frozen=True, kw_only=True):
    """Something that was noticed about the log's history, with the positions that support it.

    ``key`` tells occurrences of one code apart; ``holder`` is the incarnation that it is about, if it is about one.
    ``data`` is the same for machines; ``model`` and ``usage`` say who was asked for it, and what that cost.
    """

    code: str
    message: str
    cites: tuple[int, ...] = ()
    agent: str = ""
    run: int = 0
    key: str = ""
    holder: str = ""
    data: dict[str, Any] = {}
    model: str = ""
    usage: Usage | None = None


class Notice(Payload, frozen=True, kw_only=True):
    """Something that an operator may want to know; changes nothing."""

    code: str
    message: str
    agent: str = ""
    run: int = 0
    data: dict[str, Any] = {}
    REFERENCES: ClassVar[tuple[str, ...]] = ("run",)


class Unknown(Payload, frozen=True, kw_only=True):
    """A payload of a kind or version that this code does not know. Kept, shown, never fatal."""

    kind: str
    data: Any = None


class ErasedPayload(Payload, frozen=True, kw_only=True):
    """Stands where a payload was erased."""

    kind: str


KINDS: dict[str, type[Payload]] = {
    cls.__name__: cls
    for cls in (
        Run,
        Spec,
        Input,
        Inference,
        Compaction,
        Intent,
        Vote,
        Commit,
        Abort,
        Cancel,
        Started,
        Result,
        Undone,
        Recovery,
        Policy,
        Control,
        Fence,
        Fork,
        Claim,
        Expiry,
        Checkpoint,
        Trim,
        Seal,
        Erased,
        Mail,
        Output,
        Heartbeat,
        Finding,
        Notice,
    )
}

_EVERYONE = {"Notice", "Heartbeat"}
MAY_APPEND: dict[Role, frozenset[str]] = {
    "client": frozenset(_EVERYONE | {"Run", "Input", "Mail", "Vote", "Cancel"}),
    "driver": frozenset(_EVERYONE | {"Inference", "Compaction", "Intent", "Mail", "Recovery", "Claim", "Cancel"}),
    "voter": frozenset(_EVERYONE | {"Vote"}),
    "decider": frozenset(_EVERYONE | {"Commit", "Abort", "Expiry"}),
    "executor": frozenset(_EVERYONE | {"Started", "Result", "Undone", "Output", "Spec", "Cancel"}),
    "recoverer": frozenset(_EVERYONE | {"Recovery", "Fence", "Claim", "Control", "Cancel", "Finding", "Undone"}),
    "supervisor": frozenset(_EVERYONE | {"Recovery", "Fence", "Claim", "Control", "Cancel", "Finding"}),
    "checkpointer": frozenset(_EVERYONE | {"Checkpoint", "Trim"}),
    "operator": frozenset(
        _EVERYONE
        | {"Policy", "Control", "Cancel", "Recovery", "Erased", "Seal", "Trim", "Spec", "Finding", "Fence", "Fork"}
    ),
    "reader": frozenset(),
}
"""Who may append what. The fold, the served log, the documentation and the tests all read this table; what limits a
right further (a vote only in one's own name) stands in ``core/rights.py``."""


class Author(msgspec.Struct, frozen=True):
    """Who wrote an entry: a role, the component's name, and the one life of the process that wrote it."""

    role: str
    name: str
    incarnation: str


class NewEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that is about to be appended: a payload, and who says it.

    ``agent``, ``run``, ``action`` and ``tool`` say what it is about; filters and conditions match on them. They
    are taken from the payload where it has them.
    """

    payload: Payload
    role: Role
    name: str
    agent: str = ""
    run: int = 0
    tool: str = ""
    causes: tuple[int, ...] = ()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as read back from a log. ``time_ms`` is wall time, for display only.

    ``agent``, ``run``, ``action`` and ``tool`` say what the entry is about ("" and 0: nothing in particular).

    ``key``, ``number`` and ``record_hash`` belong to the record that carried it: its caller's idempotency key, its
    place in its writer's chain, and the digest that the writer's next record names as ``previous``. ``forged`` says
    why its record counts as forged, where signatures are checked.
    """

    position: int
    kind: str
    payload: Payload
    author: Author
    time_ms: int
    log: str = ""
    agent: str = ""
    run: int = 0
    action: int = 0
    tool: str = ""
    causes: tuple[int, ...] = ()
    critical: bool = False
    version: int = 1
    key: str = ""
    number: int = 0
    previous: str = ""
    record_hash: str = ""
    size: int = 0
    forged: str = ""
