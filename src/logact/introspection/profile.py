"""What introspection counts of a log, as plain structs that a checkpoint can carry. Shapes only.

``profiling`` changes them, entry by entry; ``signals`` and ``performance`` read them. Everything has a limit, so that
a profile stays small however long the log is; what is forgotten is only detail, never a sum.
"""

from __future__ import annotations

import msgspec

STEPS_KEPT = 40
"""How many of a run's latest calls are remembered one by one."""

RUNS_DETAILED = 32
"""How many runs (the latest active ones) keep their steps; older ones keep their sums."""

RUNS_KEPT = 1000
REPEATS_KEPT = 64
TOP_KEPT = 10
TOPIC_KEPT = 8
TURNS_KEPT = 24
OPEN_KEPT = 2000
POSITIONS_KEPT = 8
NAMES_KEPT = 500
NAMES_OF_A_RUN = 60
ERRORS_OF_A_RUN = 16
AGAIN_KEPT = 16
ASKED_KEPT = 3000
"""How many inputs of models are remembered, to know one that comes again."""

HEARD_KEPT = 200
SAID_CHARS = 160


class Tally(msgspec.Struct, array_like=True):
    """Sums over one name (a model, a tool, a voter). Times in ms; ``priced`` counts answers with a price.

    ``failed`` are failures of a tool, rejections of a voter, errors of a model's provider that were survived.
    ``held_ms`` is how long actions waited for a voter that was the last to come.
    """

    count: int = 0
    failed: int = 0
    ms: float = 0.0
    ms_max: float = 0.0
    at_max: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    priced: int = 0
    held_ms: float = 0.0

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class Small(msgspec.Struct, array_like=True):
    """The short and simple turns of one model that went well: few tokens out, at most one call, a small context."""

    turns: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    positions: list[int] = []


class Silence(msgspec.Struct, array_like=True):
    """For how many decisions in a row a voter's vote did not come, and the latest of them."""

    count: int = 0
    positions: list[int] = []


class Again(msgspec.Struct, array_like=True):
    """One question that a model was asked again although the log held its answer: the same input to the same model.

    ``first`` is the inference that answered it first. The sums are those of the repetitions alone.
    """

    model: str
    first: int
    count: int = 0
    tokens: int = 0
    ms: float = 0.0
    cost_usd: float = 0.0
    priced: int = 0
    positions: list[int] = []


class Step(msgspec.Struct, omit_defaults=True):
    """One call of a run: its intent's position, what was called, what came of it (digests), when (wall ms)."""

    position: int
    tool: str
    call: str
    effect: str
    at_ms: int
    status: str = "proposed"
    result: str = ""
    result_tokens: int = 0
    retry_of: int = 0
    said: str = ""
    got: str = ""
    ms: float = 0.0
    settled_ms: int = 0


class Repeat(msgspec.Struct, omit_defaults=True):
    """One call (tool and arguments) that was made several times. ``same`` counts results equal to the one before,
    with nothing but reads of the run in between; ``tokens`` is about what the repeated results cost as context.
    """

    tool: str
    effect: str
    count: int = 0
    same: int = 0
    run: int = 0
    result: str = ""
    changes: int = 0
    tokens: int = 0
    ms: float = 0.0
    positions: list[int] = []


class Cluster(msgspec.Struct, omit_defaults=True):
    """Failures that say the same of the same tool (or model), numbers and quoted parts aside."""

    tool: str
    kind: str
    message: str
    count: int = 0
    last_ms: int = 0
    positions: list[int] = []


class Open(msgspec.Struct, omit_defaults=True):
    """An action that is not decided or not settled: since when, and which voters were heard."""

    at_ms: int
    run: int
    agent: str
    heard: list[str] = []
    late: str = ""
    decided_ms: int = 0


class Sums(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What was used and what went wrong, by name; the best lists are the slowest, dearest and largest.

    ``kinds`` counts each model's turns by the tools that they called, ``called`` the proposals of each tool.
    """

    models: dict[str, Tally] = {}
    tools: dict[str, Tally] = {}
    voters: dict[str, Tally] = {}
    kinds: dict[str, dict[str, int]] = {}
    small: dict[str, Small] = {}
    called: dict[str, int] = {}
    errors: dict[str, Cluster] = {}
    again: dict[str, Again] = {}
    slowest: list[tuple[float, int, str]] = []
    dearest: list[tuple[float, int, str]] = []
    largest: list[tuple[int, int, str]] = []


class RunProfile(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One run. ``contexts`` are the input tokens of its latest turns; ``wasted_tokens`` those of turns that settled
    nothing new: every call was broken, refused, failed, or told what the call before had told.

    ``retries`` counts actions that try an earlier one again; ``streak`` rejections in a row. ``loop`` is the longest
    loop that ``core.watching`` saw, ``idle_max`` the most actions in a row that brought nothing. ``heard`` are
    digests of what came into its context since the latest turn, ``asked`` is that of what this turn was shown and
    said. ``runs`` is how many runs this is the sum of. ``again_tokens`` went to questions whose answer the log held.
    """

    id: int
    agent: str
    title: str = ""
    status: str = "running"
    ok: bool = True
    imported: bool = False
    started_ms: int = 0
    last_ms: int = 0
    last: int = 0
    entries: int = 0
    runs: int = 1
    progress_ms: int = 0
    progress: int = 0
    turns: int = 0
    actions: int = 0
    done: int = 0
    failed: int = 0
    rejected: int = 0
    streak: int = 0
    streak_at: list[int] = []
    retries: int = 0
    chain: int = 0
    chain_max: int = 0
    chain_at: list[int] = []
    model: Tally = msgspec.field(default_factory=Tally)
    side_tokens: int = 0
    side_usd: float = 0.0
    side_unpriced: int = 0
    tool_ms: float = 0.0
    wait_ms: float = 0.0
    retry_ms: float = 0.0
    again_tokens: int = 0
    wasted_tokens: int = 0
    wasted_usd: float = 0.0
    wasted_at: list[int] = []
    turn_at: int = 0
    turn_tokens: int = 0
    turn_usd: float = 0.0
    turn_useful: bool = True
    turn_model: str = ""
    context_first: int = 0
    contexts: list[int] = []
    contexts_at: list[int] = []
    compactions: int = 0
    changes: int = 0
    loop: str = ""
    loop_at: list[int] = []
    idle_max: int = 0
    topic: list[str] = []
    steps: list[Step] = []
    repeats: dict[str, Repeat] = {}
    sums: Sums = msgspec.field(default_factory=Sums)
    heard: dict[int, str] = {}
    asked: str = ""

    @property
    def tokens(self) -> int:
        """What the run used, its voters and compactions too."""
        return self.model.tokens + self.side_tokens

    @property
    def priced(self) -> bool:
        """Whether the price of everything that the run used is known."""
        return self.model.priced == self.model.count and not self.side_unpriced


class Applied(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One change in force for an agent."""

    agent: str
    kind: str = ""


class Profile(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A log up to ``position``. ``since`` is where counting began, if that was not at the log's beginning.

    Everything is counted in its run; ``older`` holds, by agent, what was counted in runs that are not kept one by
    one any more, ``aside`` what belongs to no run. ``asked`` says for each input of a model where it was answered
    first, ``offered`` about how many tokens each of an agent's tools takes in a request. ``models`` holds by agent
    the name that its model is set up by, ``named`` that name by the one that answers came under. ``applied`` holds
    the changes in force, by position.
    """

    position: int = 0
    since: int = 0
    entries: int = 0
    first_ms: int = 0
    last_ms: int = 0
    runs: dict[int, RunProfile] = {}
    older: dict[str, RunProfile] = {}
    aside: dict[str, Sums] = {}
    open: dict[int, Open] = {}
    silence: dict[str, dict[str, Silence]] = {}
    asked: dict[str, int] = {}
    offered: dict[str, dict[str, int]] = {}
    models: dict[str, str] = {}
    named: dict[str, str] = {}
    imported: dict[str, str] = {}
    applied: dict[int, Applied] = {}
