"""An agent built in Python as a specification file: what it consists of is found out, written, and proved.

Proved: the specification is built again at once, and its tools, voters and policy have to be equal to the agent's.
What a file cannot say (a closure, a secret's value, a form of answer) is an error that names it, never left out in
silence.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from logact.errors import SpecError
from logact.introspection.semantic_recovery import SemanticRecovery, plain_of
from logact.introspection.trials import price_of
from logact.models.base import Model
from logact.runtime.watcher import Watch
from logact.spec import SpecFile, load_spec, save_spec
from logact.spec_parts import file_of
from logact.spec_proof import prove
from logact.spec_recovery import table_of
from logact.spec_tables import (
    AgentTable,
    BreakerTable,
    CheckpointsTable,
    CodeTools,
    FilesTools,
    HealthTable,
    LimitsTable,
    LogTable,
    ObjectTools,
    PolicyTable,
    PriceTable,
    RecoveryTable,
    SemanticTable,
    SuperviseTable,
    ToolsTable,
    VoterTable,
    WatchTable,
    WebTools,
)
from logact.tools import Shell, Tool, Web, Workspace
from logact.tools.sandbox import Limits
from logact.tools.shell import UNSANDBOXED
from logact.voters.base import FunctionVoter, Voter

if TYPE_CHECKING:
    from logact.agent import LogActAgent

BUILT_IN = {
    "SafetyVoter": "safety",
    "ResourceVoter": "resources",
    "ProvenanceVoter": "provenance",
    "SemanticVoter": "semantic",
    "HumanVoter": "human",
    "ConflictVoter": "conflict",
}


def save_agent(
    agent: LogActAgent,
    path: str | os.PathLike[str],
    *,
    secrets: Mapping[str, str] | None = None,
    health: HealthTable | None = None,
    supervise: SuperviseTable | None = None,
    force: bool = False,
) -> Path:
    """Write an agent as a specification at ``path``, so that ``build_agent(load_spec(path))`` is the same agent.

    ``secrets`` says for each secret of the agent where its value is (``env:NAME`` or ``file:PATH``): values are never
    written, and of keys only the files' names. ``health`` and ``supervise`` are the tables that an agent itself does
    not hold; of a file that is replaced they stay. Raises SpecError for what a file cannot say, and if the file
    exists (unless ``force``).
    """
    target = Path(path)
    found = spec_of(agent, target.parent, secrets=secrets)
    before = load_spec(target) if force and target.exists() else found
    found = msgspec.structs.replace(found, health=health or before.health, supervise=supervise or before.supervise)
    prove(agent, msgspec.structs.replace(found, path=str(target.absolute())))
    return save_spec(found, target, force=force)


def spec_of(
    agent: LogActAgent, directory: str | os.PathLike[str] = ".", *, secrets: Mapping[str, str] | None = None
) -> SpecFile:
    """The specification of an agent; its paths are relative to ``directory``. Raises SpecError."""
    place = Path(directory).absolute()
    _refuse_the_rest(agent)
    names = sorted(agent.secrets.names())
    sources = dict(secrets or {})
    if sorted(sources) != names:
        raise SpecError(
            "Each secret of the agent needs its place in the file",
            received=", ".join(sorted(sources)) or "no places",
            expected=", ".join(names) or "no secrets",
            todo='pass secrets={"NAME": "env:VARIABLE"}',
        )
    default_timeout = inspect.signature(type(agent).__init__).parameters["model_timeout_s"].default
    return SpecFile(
        agent=AgentTable(
            name=agent.agent_id,
            model=_model_name(agent.model),
            system=agent.system,
            limits=LimitsTable(**msgspec.structs.asdict(agent.limits)),
            context_tokens_max=agent.context_tokens_max,
            model_timeout_s=agent.model_timeout_s if agent.model_timeout_s != default_timeout else 0,
            decide_within_s=agent.decide_within_ms / 1000,
            lease_s=agent.lease_s,
            end_hung=agent.end_hung,
            hide_tools=list(agent.hide_tools),
            reuse_reads_s=agent.reuse_reads_s,
            try_models=list(agent.try_models),
        ),
        log=_log(agent, place),
        tools=list(_tools([one.plain() for one in agent.tools.values() if not one.lent], place)),
        voters=[_voter(one, place) for one in agent.voters],
        policy=_policy(agent),
        secrets=sources,
        checkpoints=CheckpointsTable(
            every=agent.checkpoint_every, bytes=agent.checkpoint_bytes, seconds=agent.checkpoint_s
        ),
        recovery=_recovery(agent, place),
        prices=_prices(agent),
        breaker=BreakerTable(**msgspec.structs.asdict(agent.breaker)) if agent.breaker is not None else None,
        watch=WatchTable(**msgspec.structs.asdict(agent.watch)) if agent.watch != Watch() else None,
    )


SAID = frozenset(
    {
        "self", "agent_id", "shared_log", "log", "voters", "model", "tools", "system", "policy", "secrets", "limits",
        "context_tokens_max", "model_timeout_s", "decide_within_s", "checkpoint_every", "checkpoint_bytes",
        "checkpoint_s", "lease_s", "end_hung", "takeover", "recovery", "breaker", "watch", "witness", "signing_key",
        "hide_tools", "reuse_reads_s", "try_models",
    }
)  # fmt: skip
"""What a file says of an agent (but for ``takeover``, which is a matter of the moment)."""


def _refuse_the_rest(agent: LogActAgent) -> None:
    """Whatever else an agent was given is named, so that nothing is lost in silence."""
    usual = type(agent)("usual", agent.log)
    for name in inspect.signature(type(agent).__init__).parameters:
        if name in SAID:
            continue
        mine, theirs = getattr(agent, name, None), getattr(usual, name, None)
        if mine is not theirs and repr(mine) != repr(theirs) and _told(mine) != _told(theirs):
            _refuse(
                f"an agent's {name} from code", f"{name}=...", f"add it to the file, or build_agent(spec, {name}=...)"
            )


def _told(value: Any) -> Any:
    """A value by what it holds, where it can be compared by nothing better."""
    return vars(value) if hasattr(value, "__dict__") else value


def _refuse(what: str, received: str, todo: str) -> NoReturn:
    raise SpecError(f"A specification cannot hold {what}", received=received, todo=todo)


def _log(agent: LogActAgent, place: Path) -> LogTable:
    """Where the log and its witness are. The files of keys are not known any more, only what was in them."""
    for what, there, variable in (
        ("the key of the log's author", agent.log.signer is not None, "LOGACT_AUTHOR_KEY"),
        ("the key ring of the log", agent.log.keyring is not None, "LOGACT_KEYRING"),
    ):
        if there and not os.environ.get(variable):
            _refuse(what, "open_log(url, ...)", f"name its file in {variable}, or in [log] of a file of your own")
    witness = os.fspath(agent.witness or "")
    if witness:
        witness = _url(witness, place) if "://" in witness else _relative(Path(witness), place)
    key = _relative(Path(agent.signing_key), place) if agent.signing_key is not None else ""
    return LogTable(url=_url(agent.log.url, place), witness=witness, signing_key=key)


def _prices(agent: LogActAgent) -> dict[str, PriceTable]:
    """What the agent's models cost, where it was told."""
    recovers = agent.recovers.model if isinstance(agent.recovers, SemanticRecovery) else None
    models = [one for one in (agent.model, recovers, *agent.try_models.values()) if one is not None]
    known = {one.name: price for one in models if (price := price_of(one)) is not None}
    return {name: PriceTable(**msgspec.structs.asdict(price)) for name, price in known.items()}


def _recovery(agent: LogActAgent, place: Path) -> RecoveryTable | None:
    """How the agent recovers as a table, if that leads back to the same."""
    given = agent.recovers
    if given is None:
        return None
    plain = plain_of(given)
    table = table_of(plain)
    if table is None:
        _refuse("an agent's recovery from code", "recovery=...", "build_agent(spec, recovery=...)")
    if not isinstance(given, SemanticRecovery):
        return table
    limits = msgspec.structs.asdict(given.limits)
    semantic = SemanticTable(
        model=_model_name(given.model),
        tools=given.tools,
        check=_reference(given.check, place, None, "the check of a semantic recovery") if given.check else "",
        plan_actions_max=given.plan_actions_max,
        history_chars_max=given.history_chars_max,
        **{f"{name}_max": limits[name] for name in ("turns", "tokens", "seconds")},
    )
    return msgspec.structs.replace(table, semantic=semantic)


def _model_name(model: Model | None) -> str:
    """A model by its name; one that is code has none, so whoever builds the agent names one."""
    name = model.name if model is not None else ""
    return "" if name == "scripted" or name.startswith("ScriptedModel") else name


def _url(url: str, place: Path) -> str:
    file = file_of(url)
    return f"sqlite:///{_relative(file, place)}" if file is not None and "?" not in url else url


def _relative(path: Path, place: Path) -> str:
    """Relative to the file where it lies beneath it, else absolute."""
    real = path.resolve()
    base = place.resolve()
    return str(real.relative_to(base)) if real.is_relative_to(base) else str(real)


# --- tools ------------------------------------------------------------------------------------------------------


def _tools(tools: Iterable[Tool], place: Path) -> Iterable[ToolsTable]:
    """A table for each source of tools, in the order of the first tool of each."""
    groups: dict[Any, list[Tool]] = {}
    for one in tools:
        owner = getattr(one.function, "__self__", None)
        root = getattr(owner, "root", None)
        key: Any = ("files", id(root)) if root is not None and not isinstance(owner, Shell) else id(owner)
        if owner is None:
            key = ("function", one.name)
        elif isinstance(owner, Shell):
            key = ("shell", id(owner), one.name)
        groups.setdefault(key, []).append(one)
    for group in groups.values():
        yield _table(group, place)


def _table(group: list[Tool], place: Path) -> ToolsTable:
    owners = [getattr(one.function, "__self__", None) for one in group]
    owner = next((one for one in owners if isinstance(one, Workspace)), owners[0])
    if isinstance(owner, Workspace):
        root = owner.root
        hidden = [_relative(path, root.path) for path in root._hidden]
        return FilesTools(use="files", root=_relative(root.path, place), read_only=owner.read_only, hide=hidden)
    if isinstance(owner, Shell):
        use = group[0].name.removeprefix("run_")
        if owner.limits != Limits(seconds=owner.limits.seconds):
            _refuse("the limits of a shell but for its seconds", "limits=...", "build_agent(spec, tools=...)")
        return CodeTools(
            use=use,
            root=_relative(owner.workspace, place),
            readable=[_relative(path, place) for path in owner.readable],
            network=owner.network,
            unsandboxed=UNSANDBOXED if owner.unconfined else "",
            timeout_s=owner.limits.seconds,
        )
    if isinstance(owner, Web):
        return WebTools(
            use="web", allow=list(owner.hosts), allow_private=owner.allow_private, timeout_s=owner.timeout_s
        )
    one = group[0]
    if owner is not None:
        _refuse(f"the tool {one.name}", f"a method of {type(owner).__name__}", "make it a function of a module")
    return ObjectTools(use=_reference(one.function, place, one, f"the tool {one.name}"))


def _reference(thing: Any, place: Path, also: Any, what: str) -> str:
    """``module:name`` or ``file.py:name``, if that leads back to the very thing (or to what wraps it)."""
    module = sys.modules.get(getattr(thing, "__module__", "") or "")
    name = getattr(thing, "__qualname__", "")
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if module is None or not name or found is None or (found is not thing and found is not also):
        _refuse(what, name or repr(thing), "define it at the top of a module, under its own name")
    file = getattr(module, "__file__", None)
    top = str(getattr(module, "__name__", ""))
    if file is not None and (top == "__main__" or top.startswith("logact_file_") or _beside(Path(file), place)):
        return f"{_relative(Path(file), place)}:{name}"
    return f"{top}:{name}"


def _beside(file: Path, place: Path) -> bool:
    return file.resolve().parent == place.resolve()


# --- voters and the policy --------------------------------------------------------------------------------------


def _voter(voter: Voter, place: Path) -> VoterTable:
    common = _common(voter)
    kind = type(voter).__name__
    if kind == "ActionInterceptor":
        return _rules(voter, common)
    if isinstance(voter, FunctionVoter):
        use = _reference(voter.function, place, None, f"the voter {voter.name}")
        named: dict[str, Any] = {"name": voter.name} if voter.name != use.rpartition(":")[2] else {}
        return VoterTable(use=use, **named, **common)
    if BUILT_IN.get(kind) and type(voter).__module__.startswith("logact.voters."):
        named = {"name": voter.name} if voter.name != BUILT_IN[kind] else {}
        return VoterTable(use=BUILT_IN[kind], options=_options(voter, place), **named, **common)
    use = _reference(type(voter), place, None, f"the voter {voter.name}")
    return VoterTable(use=use, options=_options(voter, place), **common)


def _common(voter: Voter) -> dict[str, Any]:
    """What every voter may be set to, where it is not its class's own default."""
    kind = type(voter)
    found: dict[str, Any] = {}
    if voter.on_failure != kind.on_failure:
        found["on_failure"] = voter.on_failure
    if voter.placement != kind.placement:
        found["placement"] = voter.placement
    if voter.timeout_s != kind.timeout_s:
        found["timeout_s"] = voter.timeout_s
    if voter.shadow:
        found["shadow"] = True
    return found


def _rules(voter: Any, common: dict[str, Any]) -> VoterTable:
    tables = []
    for rule in voter.rules:
        table = getattr(rule, "table", None)
        if table is None or getattr(rule, "when", None) is not None:
            _refuse(f"the rule {rule.name}", "a rule made of code", 'write it with "cel", or give the voter in code')
        tables.append(msgspec.to_builtins(table))
    options: dict[str, Any] = {}
    if voter.default != "allow":
        options["default"] = voter.default
    if voter.ask != "reject":
        options["ask"] = voter.ask
    roots = {str(rule.root) for rule in voter.rules if getattr(rule, "root", None)}
    if len(roots) == 1:
        options["root"] = roots.pop()
    named = {"name": voter.name} if voter.name != "rules" else {}
    return VoterTable(use="rules", rules=tables, options=options, **named, **common)


def _options(voter: Voter, place: Path) -> dict[str, Any]:
    """The options of a voter's class that differ from its defaults, read back from what it says it judges by."""
    parameters = inspect.signature(type(voter).__init__).parameters
    known = {**voter.config(), "notify": getattr(voter, "notify", "")}
    if type(voter).__name__ == "HumanVoter":
        known["expires_s"] = voter.decide_within_s
    found: dict[str, Any] = {}
    for name, value in known.items():
        if name not in parameters or name in ("name", "tools", "on_failure", "manifest"):
            continue
        plain = msgspec.to_builtins(value)
        default = parameters[name].default
        usual = default is not inspect.Parameter.empty and plain == msgspec.to_builtins(_plain(default))
        if not usual and plain not in (None, "", []):
            found[name] = plain
    if "workspace" in found:
        found["workspace"] = _relative(Path(found["workspace"]), place)
    if type(voter).__name__ == "ConflictVoter":  # with nothing said it would be the workspace
        found["root"] = _relative(Path(found["root"]), place) if "root" in found else ""
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | frozenset | set) else value


def _policy(agent: LogActAgent) -> PolicyTable | None:
    """What the policy says, where it is not simply that all voters must approve."""
    from logact.runtime.entering import policy_for

    usual, own = policy_for(agent.voters, agent.agent_id), agent.policy
    if own == usual or own is None:
        return None
    return PolicyTable(
        need=own.need if usual is None or own.need != usual.need else {},
        binding=own.binding,
        start_within_s=own.start_within_ms / 1000
        if usual is None or own.start_within_ms != usual.start_within_ms
        else 0,
    )
