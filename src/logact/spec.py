"""Agent specifications in files: TOML read into typed tables, built into an agent, and written back.

A mistake is one :class:`SpecError` that names the file, the line, what stood there, what was expected, and what to
do. Unknown keys are refused with the nearest known one. Secrets are never literal: they name where they are.

This module owns the file form. What a specification means is the agent's; ``spec_parts`` makes its tools and
voters. Paths in a file are relative to the file.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from logact.entry import Limits
from logact.errors import SpecError
from logact.spec_model import model_of
from logact.spec_tables import (
    TOOL_TABLES,
    AgentTable,
    BreakerTable,
    CheckpointsTable,
    HealthTable,
    LogTable,
    ObjectTools,
    PolicyTable,
    PriceTable,
    RecoveryTable,
    SuperviseTable,
    Table,
    ToolsTable,
    VoterTable,
    WatchTable,
)
from logact.spec_toml import line_of, pairs
from logact.voters.registry import BUILT_IN, known

if TYPE_CHECKING:
    from logact.agent import LogActAgent

T = TypeVar("T")
Steps: TypeAlias = Sequence[str | int]

_SECRET = re.compile(r"(env|file):(.+)")
_PATH = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


class SpecFile(Table, frozen=True, kw_only=True):
    """A specification as read. ``path`` is where it came from ("" if it was made in code)."""

    agent: AgentTable
    log: LogTable = LogTable()
    tools: list[Any] = msgspec.field(default_factory=list)  # of ToolsTable: which one, their ``use`` says
    voters: list[VoterTable] = msgspec.field(default_factory=list)
    policy: PolicyTable | None = None
    secrets: dict[str, str] = msgspec.field(default_factory=dict)
    checkpoints: CheckpointsTable = CheckpointsTable()
    supervise: SuperviseTable = SuperviseTable()
    recovery: RecoveryTable | None = None
    breaker: BreakerTable | None = None
    watch: WatchTable | None = None
    health: HealthTable | None = None
    prices: dict[str, PriceTable] = msgspec.field(default_factory=dict)
    path: str = ""

    @property
    def directory(self) -> Path:
        """What relative paths are relative to."""
        return Path(self.path).absolute().parent if self.path else Path.cwd()

    @property
    def log_url(self) -> str:
        """The log's URL, a relative file path made absolute."""
        return absolute_url(self.log.url, self.directory)

    @property
    def keys(self) -> dict[str, str]:
        """The files of the author's key and of the key ring, where the file names them, for ``open_log``."""
        named = {"author_key": self.log.author_key, "keyring": self.log.keyring}
        return {name: str(self.at(path)) for name, path in named.items() if path}

    def at(self, path: str) -> Path:
        """A path of the file, made absolute."""
        return self.directory / Path(path).expanduser()


# --- reading ---------------------------------------------------------------------------------------------------


def load_spec(path: str | os.PathLike[str]) -> SpecFile:
    """Read and check a specification. Nothing is imported, opened or asked. Raises SpecError."""
    source = Path(path)
    try:
        if source.is_dir():
            source = source / "logact.toml"
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SpecError(
            "There is no such specification", received=str(source), todo="write one with `logact init`"
        ) from error
    except UnicodeDecodeError as error:
        raise SpecError(
            "This is no specification",
            received=str(path),
            expected="a text, not a log",
            todo="name the file that `logact init` writes, such as logact.toml",
        ) from error
    except OSError as error:
        raise SpecError(
            "The specification cannot be read", received=f"{path}: {error.strerror}", todo="check the path"
        ) from error
    return parse_spec(text, path=str(source))


def parse_spec(text: str, *, path: str = "") -> SpecFile:
    """A specification from its text; see :func:`load_spec`."""
    shown = path or "the specification"
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(
            f"{shown} is not valid TOML", received=str(error), todo="texts stand in quotes, lists in [ ]"
        ) from error
    if "path" in raw:
        raise _unknown("path", SpecFile, shown, line_of(text, ["path"]))
    tools = raw.pop("tools", [])
    if isinstance(tools, dict):
        raise SpecError(
            f"{shown}{_where(line_of(text, ['tools']))}: tools is one table",
            received="[tools]",
            expected="a list of tables",
            todo="write [[tools]] with two brackets",
        )
    if isinstance(raw.get("voters"), dict):
        raise SpecError(
            f"{shown}{_where(line_of(text, ['voters']))}: voters is one table",
            received="[voters]",
            expected="a list of tables",
            todo="write [[voters]] with two brackets",
        )
    spec = _convert(raw, SpecFile, text, shown, [])
    if not isinstance(tools, list):
        raise SpecError(f"{shown}: tools is no list", received=repr(tools), todo="write [[tools]] tables")
    found = [_tools_table(table, text, shown, place) for place, table in enumerate(tools)]
    spec = msgspec.structs.replace(spec, tools=found, path=path)
    _check(spec, text, shown)
    return spec


def _tools_table(table: Any, text: str, shown: str, place: int) -> ToolsTable:
    at: Steps = ["tools", place]
    use = table.get("use") if isinstance(table, dict) else None
    if not isinstance(use, str):
        raise SpecError(
            f"{shown}{_where(line_of(text, at))}: a [[tools]] table needs use",
            received=repr(table)[:80],
            expected=_expected_tools(),
        )
    kind: type[ToolsTable] | None = TOOL_TABLES.get(use)
    if kind is None and ":" in use:
        kind = ObjectTools
    if kind is None:
        near = difflib.get_close_matches(use, TOOL_TABLES, n=1)
        raise SpecError(
            f"{shown}{_where(line_of(text, [*at, 'use']))}: there are no tools of this name",
            received=repr(use),
            expected=_expected_tools(),
            todo=f'did you mean "{near[0]}"?' if near else "for tools of your own write module:object",
        )
    found: ToolsTable = _convert(table, kind, text, shown, at)
    return found


def _expected_tools() -> str:
    return ", ".join(f'"{name}"' for name in TOOL_TABLES) + ', "package.module:object" or "file.py:object"'


def _convert(raw: Any, kind: type[T], text: str, shown: str, prefix: Steps) -> T:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        found = _PATH.search(message)
        steps: list[str | int] = list(prefix) + [
            name if name else int(index) if index.isdigit() else 0
            for name, index in _STEP.findall(found.group(1) if found else "")
        ]
        said = message[: found.start()] if found else message
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", said)
        if unknown:
            inner = _type_at(kind, steps[len(prefix) :])
            raise _unknown(
                unknown.group(1), inner, shown, line_of(text, [*steps, unknown.group(1)]), steps
            ) from error
        missing = re.fullmatch(r"Object missing required field `(.*)`", said)
        if missing:
            raise SpecError(
                f"{shown}{_where(line_of(text, steps))}: {_dotted(steps) or 'the file'} lacks {missing.group(1)}",
                todo=f"add {missing.group(1)} = ...",
            ) from error
        said = said.replace("`", "").replace("object", "table").replace("array", "list").replace(" | null", "")
        expected, _, got = said.partition(", got ")
        got, expected = _WORDS.get(got, got), " ".join(_WORDS.get(word, word) for word in expected.split())
        raise SpecError(
            f"{shown}{_where(line_of(text, steps))}: {_dotted(steps)} has a value that does not fit",
            received=got or repr(_value_at(raw, steps[len(prefix) :])),
            expected=expected.removeprefix("Expected ") if got else said,
        ) from error


_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}


def _unknown(key: str, kind: Any, shown: str, line: int, steps: Steps | None = None) -> SpecError:
    known = [field for field in getattr(kind, "__struct_fields__", ()) if field != "path"]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    where = f"[{_dotted(steps)}]" if steps else "a specification"
    return SpecError(
        f"{shown}{_where(line)}: {where} has no key {key!r}",
        expected="one of " + ", ".join(known),
        todo=f"did you mean {near[0]!r}?" if near else "remove it",
    )


def _type_at(kind: Any, steps: Steps) -> Any:
    """The struct type that stands at a path of another one."""
    for step in steps:
        if isinstance(step, int):
            continue
        for field in msgspec.structs.fields(kind):
            if field.name == step:
                kind = field.type
        for inner in (kind, *getattr(kind, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                kind = inner
    return kind


def _value_at(raw: Any, steps: Steps) -> Any:
    for step in steps:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _dotted(steps: Steps | None) -> str:
    text = ""
    for step in steps or ():
        text += f" number {step + 1}" if isinstance(step, int) else ("." if text else "") + step
    return text


def _where(line: int) -> str:
    return f", line {line}" if line else ""


def _check(spec: SpecFile, text: str, shown: str) -> None:
    """What types cannot say."""
    for name, source in spec.secrets.items():
        if not _SECRET.fullmatch(source):
            raise SpecError(
                f"{shown}{_where(line_of(text, ['secrets', name]))}: the secret {name!r} is given literally",
                received="(not shown)",
                expected='"env:VARIABLE" or "file:PATH"',
                todo="move the value out of this file, and name where it is",
            )
    for place, voter in enumerate(spec.voters):
        at = f"{shown}{_where(line_of(text, ['voters', place, 'use']))}"
        if voter.use not in BUILT_IN and ":" not in voter.use and voter.use not in known():
            near = difflib.get_close_matches(voter.use, known(), n=1)
            raise SpecError(
                f"{at}: there is no voter of this name",
                received=repr(voter.use),
                expected=", ".join(f'"{name}"' for name in known()) + ', "package.module:object" or "file.py:object"',
                todo=f'did you mean "{near[0]}"?' if near else "for a voter of your own write module:object",
            )
        if voter.use == "rules" and bool(voter.rules) == bool(voter.file):
            raise SpecError(f"{at}: rules are given in the table or in a file, exactly one of the two")
        if voter.use != "rules" and (voter.rules or voter.file):
            raise SpecError(f'{at}: only use = "rules" takes rules or file', received=f"use = {voter.use!r}")
    unpriced = [name for name in (spec.agent.model, *spec.agent.try_models) if name not in spec.prices]
    if spec.agent.try_models and unpriced:
        raise SpecError(
            f"{shown}{_where(line_of(text, ['agent', 'try_models']))}: a model that is tried needs a price",
            received=", ".join(unpriced),
            expected="each model of try_models, and the agent's own, in [prices]",
            todo='for example [prices] "openai:gpt-4o-mini" = { input_usd = 0.15, output_usd = 0.6 }',
        )
    from logact.spec_supervision import check_tables

    check_tables(spec, lambda *steps: f"{shown}{_where(line_of(text, steps))}")


def absolute_url(url: str, directory: Path) -> str:
    """A log URL with a relative file path made absolute against ``directory``."""
    scheme, separator, rest = url.partition(":///")
    if scheme != "sqlite" or not separator or rest.startswith("/"):
        return url
    path, mark, options = rest.partition("?")
    return f"sqlite:///{directory.absolute() / path}{mark}{options}"


# --- building --------------------------------------------------------------------------------------------------


def build_agent(spec: SpecFile, **overrides: Any) -> LogActAgent:
    """The agent that a specification describes. Opens nothing and asks nobody.

    ``overrides`` are arguments of :class:`~logact.agent.LogActAgent`; ``model`` may be a name, and ``log`` a URL.
    LOGACT_MODEL goes before the file's model. Raises SpecError, MissingExtra, ToolDefinitionError.
    """
    from logact.agent import LogActAgent
    from logact.logs.url import open_log
    from logact.spec_parts import policy_of, secrets_of, tools_of, voters_of
    from logact.spec_supervision import supervision, witnessed

    options: dict[str, Any] = {
        "system": spec.agent.system,
        "limits": Limits(**msgspec.structs.asdict(spec.agent.limits)),
        "context_tokens_max": spec.agent.context_tokens_max,
        "decide_within_s": spec.agent.decide_within_s,
        **supervision(spec),
        **witnessed(spec),
    }
    if spec.agent.model_timeout_s:
        options["model_timeout_s"] = spec.agent.model_timeout_s
    options |= {name: value for name, value in overrides.items() if value is not None}
    agent_id = options.pop("agent_id", spec.agent.name)
    log = options.pop("log", None) or spec.log_url
    if isinstance(log, str):
        log = open_log(absolute_url(log, Path.cwd()), **spec.keys)
    if "tools" not in options:
        options["tools"] = tools_of(spec, log.url)
    if "voters" not in options:
        options["voters"] = voters_of(spec, options["tools"])
    if "policy" not in options and spec.policy is not None:
        options["policy"] = policy_of(spec, options["voters"], agent_id)
    if "secrets" not in options:
        options["secrets"] = secrets_of(spec)
    if isinstance(options.get("model"), str | None):
        options["model"] = model_of(spec, options.get("model") or "")
    if "try_models" not in options:
        options["try_models"] = [model_of(spec, name) for name in spec.agent.try_models]
    return LogActAgent(agent_id, log=log, **options)


# --- writing ---------------------------------------------------------------------------------------------------


def save_spec(spec: SpecFile, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a specification as TOML. SpecError if the file exists (unless ``force``)."""
    target = Path(path)
    if target.exists() and not force:
        raise SpecError("The file exists", received=str(path), todo="choose another name, or force=True")
    try:
        target.write_text(dump_spec(spec), encoding="utf-8")
    except OSError as error:
        raise SpecError("The specification cannot be written", received=f"{path}: {error.strerror}") from error
    return target


def dump_spec(spec: SpecFile) -> str:
    """A specification as TOML text; reading it gives an equal one."""
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    plain.pop("path", None)
    lines: list[str] = []
    for section, table in plain.items():
        if isinstance(table, list):
            for one in table:
                lines += [f"[[{section}]]", *pairs(one), ""]
        else:
            lines += [f"[{section}]", *pairs(table), ""]
    return "\n".join(lines)


__all__ = ["SpecFile", "build_agent", "dump_spec", "load_spec", "model_of", "parse_spec", "save_spec"]
