"""The tables of a specification file, as types: what may be written, and what it means if left out."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from logact.core.leasing import LEASE_S
from logact.entry import Effect

DEFAULT_URL = "sqlite:///agent.db"
CHECKPOINT_EVERY = 2000


class Table(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The base of all tables: unknown keys are mistakes."""


class LimitsTable(Table, frozen=True, kw_only=True):
    """What one run may use; 0 means no limit."""

    turns: int = 0
    actions: int = 0
    tokens: int = 0
    seconds: int = 0


class AgentTable(Table, frozen=True, kw_only=True):
    """``[agent]``: its name, its model, what it is told, and its limits.

    ``hide_tools`` are not offered to the model. Reads are answered from the log for ``reuse_reads_s`` seconds, while
    nothing changed what they read. ``try_models`` may be proposed to be tried instead of ``model``; each of them, and
    ``model``, has a price in ``[prices]``.
    """

    name: str
    model: str = ""
    system: str = ""
    limits: LimitsTable = LimitsTable()
    context_tokens_max: int = 0
    model_timeout_s: float = 0
    decide_within_s: float = 0
    lease_s: float = LEASE_S
    end_hung: bool = True
    hide_tools: list[str] = []
    reuse_reads_s: float = 0
    try_models: list[str] = []


class PriceTable(Table, frozen=True, kw_only=True):
    """One of ``[prices]``, under a model's name: what it costs, in US dollars per million tokens."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = None


class LogTable(Table, frozen=True, kw_only=True):
    """``[log]``: where the shared log is, and where its heads are written down for the case that it loses some.

    ``witness`` is a file or the URL of another log, ``signing_key`` the file of the key that signs the
    heads. ``author_key`` is the file of the key that signs what is appended, ``keyring`` that of the keys that
    readers accept.
    """

    url: str = DEFAULT_URL
    witness: str = ""
    signing_key: str = ""
    author_key: str = ""
    keyring: str = ""


class PolicyTable(Table, frozen=True, kw_only=True):
    """``[policy]``: how votes combine, where "all of them must approve" is not what is wanted."""

    need: dict[str, Any] = {}
    binding: bool = False
    start_within_s: float = 0


class CheckpointsTable(Table, frozen=True, kw_only=True):
    """``[checkpoints]``: after how many entries, bytes or seconds one is written; 0 is not by this measure."""

    every: int = CHECKPOINT_EVERY
    bytes: int = 0
    seconds: float = 0


class BackoffTable(Table, frozen=True, kw_only=True):
    """How failed actions are tried again. Times are in seconds; ``max_retries = 0`` switches a class off."""

    max_retries: int = 3
    base_delay: float = 0.5
    max_delay: float = 60.0
    total_s: float = 600.0
    jitter: float = 0.25


class SemanticTable(Table, frozen=True, kw_only=True):
    """``[recovery.semantic]``: how ``logact recover --semantic`` asks a model, within limits. See SemanticRecovery.

    ``model`` is the agent's own where none is named, ``tools`` are all that only read where none are.
    ``check`` is a function, ``package.module:name`` or ``file.py:name``.
    """

    model: str = ""
    tools: list[str] | None = None
    check: str = ""
    turns_max: int = 12
    tokens_max: int = 100_000
    seconds_max: int = 600
    plan_actions_max: int = 100
    history_chars_max: int = 24_000


class RecoveryTable(BackoffTable, frozen=True, kw_only=True):
    """``[recovery]``: failed actions again; ``by_class`` says otherwise for a class of failures.

    With the ``mode`` ``skip`` or ``exact`` they are not tried again. ``semantic`` asks a model where somebody wants
    it, and what ``mode`` says is its fallback.
    """

    mode: Literal["retry", "skip", "exact"] = "retry"
    by_class: dict[str, BackoffTable] = {}
    semantic: SemanticTable | None = None


class BreakerTable(Table, frozen=True, kw_only=True):
    """``[breaker]``: a tool whose environment is gone is left alone. Times are in seconds."""

    failures: int = 3
    delay_s: float = 1.0
    delay_s_max: float = 60.0
    wait_s: float = 3600.0


WatchAct = Literal["off", "warn", "pause", "ask", "stop"]


class WatchTable(Table, frozen=True, kw_only=True):
    """``[watch]``: what is done about loops, stalls, rising errors and limits that come near, and when they are."""

    loop: WatchAct = "warn"
    stall: WatchAct = "warn"
    errors: WatchAct = "warn"
    budget: WatchAct = "warn"
    repeats: int = 5
    idle: int = 12
    failures: int = 6
    window: int = 10
    share: float = 0.8


class SuperviseTable(Table, frozen=True, kw_only=True):
    """``[supervise]``: which parts are processes of their own, and what is done when one of them ends.

    ``parts`` are started in this order: ``decider``, ``voter`` (all in one process), ``voter:NAME``, ``executor``,
    ``recoverer``, ``checkpointer``, ``driver``; or ``agent``, the whole agent in one process. ``count`` says how
    many of a part there are, where it is more than one.
    """

    parts: list[str] = msgspec.field(
        default_factory=lambda: ["decider", "voter", "executor", "recoverer", "checkpointer", "driver"]
    )
    count: dict[str, int] = {}
    strategy: Literal["one_for_one", "one_for_all", "rest_for_one"] = "one_for_one"
    restarts: int = 10
    within_s: float = 60
    backoff_s: float = 0.5
    backoff_max_s: float = 30
    stop_s: float = 20
    hang_s: float = 30
    on_limit: Literal["stop", "pause"] = "stop"


class HealthTable(Table, frozen=True, kw_only=True):
    """``[health]``: how often the agent's health is checked, and what follows from each verdict.

    ``on`` maps a verdict (degraded, stuck, runaway, unsafe) to ``nothing``, ``notify``, ``ask``, ``pause``,
    ``recover`` or ``stop``; ``notify`` where it says nothing. ``model`` is asked for its judgement, if one is named.
    """

    cron: str
    missed: Literal["once", "skip"] = "once"
    zone: str = "UTC"
    model: str = ""
    on: dict[
        Literal["degraded", "stuck", "runaway", "unsafe"],
        Literal["nothing", "notify", "ask", "pause", "recover", "stop"],
    ] = {}
    thresholds: dict[str, float] = {}


class FilesTools(Table, frozen=True, kw_only=True):
    """``use = "files"``: read, list, search and change the files beneath ``root``."""

    use: str
    root: str
    read_only: bool = False
    hide: list[str] = []
    effects: dict[str, Effect] = {}


class CodeTools(Table, frozen=True, kw_only=True):
    """``use = "shell"`` or ``"python"``: run code in the sandbox, in the directory ``root``.

    A command may take ``timeout_s`` seconds.
    """

    use: str
    root: str = "."
    readable: list[str] = []
    network: bool = False
    unsandboxed: str = ""
    timeout_s: float = 60.0
    effects: dict[str, Effect] = {}


class WebTools(Table, frozen=True, kw_only=True):
    """``use = "web"``: read from the hosts that ``allow`` lists, each time within ``timeout_s``."""

    use: str
    allow: list[str]
    allow_private: bool = False
    timeout_s: float = 30.0
    effects: dict[str, Effect] = {}


class ObjectTools(Table, frozen=True, kw_only=True):
    """``use = "package.module:object"`` or ``"file.py:object"``: a tool, function, list, or object with .tools."""

    use: str
    options: dict[str, Any] = {}
    effects: dict[str, Effect] = {}


ToolsTable = FilesTools | CodeTools | WebTools | ObjectTools
TOOL_TABLES: dict[str, type[FilesTools] | type[CodeTools] | type[WebTools]] = {
    "files": FilesTools,
    "shell": CodeTools,
    "python": CodeTools,
    "web": WebTools,
}


class VoterTable(Table, frozen=True, kw_only=True):
    """One of ``[[voters]]``: ``safety``, ``rules``, or ``package.module:object`` with ``options``."""

    use: str
    name: str = ""
    rules: list[dict[str, Any]] = []
    file: str = ""
    options: dict[str, Any] = {}
    on_failure: Literal["reject", "abstain", "approve"] | None = None
    placement: Literal["inline", "async"] | None = None
    timeout_s: float | None = None
    shadow: bool = False
