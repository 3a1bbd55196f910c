"""From a specification's tables to tools, voters, a policy and secrets. Imports the user's modules.

The log, its neighbours and the specification itself are kept out of reach of the tools that work on files.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from logact.entry import Effect, Policy
from logact.env_guest import guest, said
from logact.errors import LogActError, SpecError
from logact.runtime.entering import expanded, policy_for
from logact.spec import SpecFile
from logact.spec_tables import CodeTools, FilesTools, ObjectTools, ToolsTable, VoterTable, WebTools
from logact.tools import Tool, ToolError, as_tools
from logact.voters.base import FunctionVoter, Voter
from logact.voters.registry import voter_class

BESIDE_A_LOG = ("", "-wal", "-shm", "-journal", ".lock", ".bell")
"""What stands beside a SQLite file under its name; out of reach of tools, like the file itself."""


# --- tools -----------------------------------------------------------------------------------------------------


def tools_of(spec: SpecFile, log_url: str = "") -> list[Tool]:
    """All tools of a specification, with the effects that it declares for them."""
    found: list[Tool] = []
    for table in spec.tools:
        given = _tools(spec, table, _kept_away(spec, log_url))
        names = {one.name for one in given}
        unknown = sorted(set(table.effects) - names)
        if unknown:
            raise SpecError(
                f"{_file(spec)}: effects names a tool that use = {table.use!r} does not give",
                received=", ".join(unknown),
                expected="some of " + ", ".join(sorted(names)),
            )
        found.extend(_with_effect(one, table.effects.get(one.name), spec) for one in given)
    return found


def _tools(spec: SpecFile, table: ToolsTable, kept_away: list[Path]) -> list[Tool]:
    if isinstance(table, FilesTools):
        from logact.tools import Workspace

        hide = [*kept_away, *(spec.at(table.root) / path for path in table.hide)]
        try:
            return Workspace(spec.at(table.root), hide=hide, read_only=table.read_only).tools
        except ToolError as error:
            raise SpecError(
                f"{_file(spec)}: the files tools have no workspace",
                received=f"root = {table.root!r}, which is no directory",
                todo=f"make it: mkdir -p {spec.at(table.root)}",
            ) from error
    if isinstance(table, CodeTools):
        return _code_tools(spec, table, kept_away)
    if isinstance(table, WebTools):
        from logact.tools import Web

        return Web(table.allow, allow_private=table.allow_private, timeout_s=table.timeout_s).tools
    return _object_tools(spec, table)


def _code_tools(spec: SpecFile, table: CodeTools, kept_away: list[Path]) -> list[Tool]:
    from logact.tools import Shell
    from logact.tools.sandbox import Limits

    root = spec.at(table.root).resolve()
    inside = [path for path in kept_away if path.resolve().is_relative_to(root)]
    if inside:
        raise SpecError(
            f"{_file(spec)}: code that use = {table.use!r} runs could change the log or this file",
            received=f"{inside[0].name} lies inside root = {table.root!r}",
            expected="a workspace of its own",
            todo='for example root = "workspace"',
        )
    shell = Shell(
        root,
        readable=[spec.at(path) for path in table.readable],
        network=table.network,
        unsandboxed=table.unsandboxed,
        limits=Limits(seconds=table.timeout_s),
    )
    if shell.why_off:
        raise SpecError(f"{_file(spec)}: use = {table.use!r} needs a sandbox", received=shell.why_off)
    return [one for one in shell.tools if one.name == f"run_{table.use}"]


def _object_tools(spec: SpecFile, table: ObjectTools) -> list[Tool]:
    found = load_object(table.use, spec)
    if isinstance(found, type) or (table.options and callable(found) and not isinstance(found, Tool)):
        found = _called(found, table.options, table.use, spec)
    elif table.options:
        raise SpecError(f"{_file(spec)}: {table.use} takes no options", received=", ".join(table.options))
    items = list(found) if isinstance(found, list | tuple) else [found]
    return as_tools(items)


def _with_effect(one: Tool, effect: Effect | None, spec: SpecFile) -> Tool:
    """The tool under an operator's declaration of its effect."""
    if effect is None or effect == one.effect:
        return one
    if effect == "reversible" and not one.has_undo:
        raise SpecError(
            f"{_file(spec)}: {one.name} cannot be declared reversible",
            received="a tool without an undo",
            expected="read, idempotent or irreversible",
        )
    if effect == "read" and one.has_undo:
        raise SpecError(f"{_file(spec)}: {one.name} has an undo, so it does more than read")
    changed = copy.copy(one)
    changed.effect, changed.declared = effect, True
    return changed


def _kept_away(spec: SpecFile, log_url: str) -> list[Path]:
    paths = [Path(spec.path).absolute()] if spec.path else []
    file = file_of(log_url or spec.log_url)
    if file is not None:
        paths += [file.with_name(file.name + ending) for ending in BESIDE_A_LOG]
    return paths


def file_of(url: str) -> Path | None:
    """The file of a ``sqlite:`` URL; None for other logs."""
    return Path(unquote(urlsplit(url).path[1:])).absolute() if url[:7].lower() == "sqlite:" else None


# --- voters and the policy -------------------------------------------------------------------------------------


def voters_of(spec: SpecFile, tools: Iterable[Any] | None = None) -> list[Voter]:
    """All voters of a specification. With ``tools``, rules about tools that there are not are refused."""
    found: list[Voter] = []
    for table in spec.voters:
        found.extend(_set_up(voter, table, spec) for voter in _voters(spec, table, tools))
    return found


def _workspace(spec: SpecFile) -> str | None:
    """Where the agent works: the root of its first tools that have one."""
    roots = [table.root for table in spec.tools if isinstance(table, FilesTools | CodeTools)]
    return str(spec.at(roots[0])) if roots else None


def _voters(spec: SpecFile, table: VoterTable, tools: Iterable[Any] | None) -> list[Voter]:
    if table.use == "safety":
        safety = _built_in("SafetyVoter", table, spec)
        given = table.options.get("workspace")
        options = {**table.options, "workspace": str(spec.at(given)) if given else _workspace(spec)}
        return [_called(safety, options, table.use, spec)]
    if table.use == "rules":
        rules = _built_in("ActionInterceptor", table, spec)
        try:
            return [rules.from_toml(_rules_table(spec, table), tools=tools)]
        except SpecError as error:
            message = f"{table.file or _file(spec)}: {error.message}"
            raise SpecError(message, received=error.received, expected=error.expected, todo=error.todo) from error
    if ":" not in table.use:
        return [_named(spec, table, tools)]
    found = load_object(table.use, spec)
    if isinstance(found, type):
        found = _called(found, table.options, table.use, spec)
    elif table.options:
        raise SpecError(
            f"{_file(spec)}: the voter {table.use} takes no options",
            received=", ".join(table.options),
            expected="a class, which is called with them",
        )
    items = list(found) if isinstance(found, list | tuple) else [found]
    voters = [FunctionVoter(one) if callable(one) and not isinstance(one, Voter) else one for one in items]
    for one in voters:
        if not isinstance(one, Voter):
            raise SpecError(
                f"{_file(spec)}: {table.use} is not a voter",
                received=type(one).__name__,
                expected="a Voter, a class of voters, a function that takes an entry, or a list of these",
            )
    return voters


def _named(spec: SpecFile, table: VoterTable, tools: Iterable[Any] | None) -> Voter:
    """A voter that is registered under a name; paths in its options are relative to the file."""
    from logact.spec_model import at_home

    options = dict(table.options)
    for key in ("prompt_file", "manifest", "disk"):
        if isinstance(options.get(key), str):
            options[key] = str(spec.at(options[key]))
    if table.use == "semantic" and isinstance(options.get("model"), str):
        options["model"] = at_home(options["model"], spec.directory)
    if table.use == "provenance":
        options["tools"] = list(tools or ())
    if table.use == "conflict":
        root = options.get("root")
        options["root"] = _workspace(spec) if root is None else str(spec.at(root)) if root else None
    try:
        found = _called(voter_class(table.use), options, table.use, spec)
    except SpecError as error:
        raise SpecError(
            f"{_file(spec)}: {error.message}", received=error.received, expected=error.expected, todo=error.todo
        ) from error
    if not isinstance(found, Voter):
        raise SpecError(f"{_file(spec)}: {table.use} is not a voter", received=type(found).__name__)
    return found


def _rules_table(spec: SpecFile, table: VoterTable) -> dict[str, Any]:
    if not table.file:
        workspace = _workspace(spec)
        home = {"root": workspace} if workspace is not None else {}
        return {**home, **table.options, "rules": table.rules}
    import tomllib

    path = spec.at(table.file)
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"The rules {path} cannot be read", received=str(error)) from error
    # as where the rules are read from a file themselves, its relative paths are relative to it
    root = str(path.parent / str(found.get("root", _workspace(spec) or ".")))
    return {**found, "root": root, **table.options}


def _built_in(name: str, table: VoterTable, spec: SpecFile) -> Any:
    import logact.voters

    try:
        return getattr(logact.voters, name)
    except ImportError as error:
        raise SpecError(
            f"{_file(spec)}: this installation lacks the voter {table.use!r}", received=str(error)
        ) from error


def _set_up(voter: Voter, table: VoterTable, spec: SpecFile) -> Voter:
    if table.name:
        voter.name = table.name
    if table.on_failure is not None:
        voter.on_failure = table.on_failure
    if table.placement is not None:
        voter.placement = table.placement
    if table.timeout_s is not None:
        if not table.timeout_s > 0:
            raise SpecError(f"{_file(spec)}: a voter's timeout_s is above 0", received=str(table.timeout_s))
        voter.timeout_s = table.timeout_s
    if table.shadow:
        voter.shadow = True
    return voter


def policy_of(spec: SpecFile, voters: Iterable[Voter], agent: str) -> Policy | None:
    """The policy: all voters must approve, unless ``[policy]`` says otherwise."""
    from logact.core.voting import problems

    voters = list(voters)
    base = policy_for(voters, agent)
    table = spec.policy
    if table is None or (base is None and not table.need):
        return base
    policy = base or Policy(version=1, agent=agent)
    changes: dict[str, Any] = {"binding": table.binding}
    if table.need:
        changes["need"] = expanded(table.need, {voter.name: voter.expression() for voter in voters})
    if table.start_within_s:
        changes["start_within_ms"] = int(table.start_within_s * 1000)
    policy = msgspec.structs.replace(policy, **changes)
    wrong = problems(policy)
    if wrong:
        names = ", ".join(policy.voters) or "none"
        raise SpecError(
            f"{_file(spec)}: [policy] cannot be used", received="; ".join(wrong), expected=f"voters: {names}"
        )
    return policy


# --- secrets and objects ---------------------------------------------------------------------------------------


def secrets_of(spec: SpecFile) -> dict[str, str]:
    """The secrets' values, from where the specification says. SpecError names what is missing."""
    return {name: secret_at(spec, name, source) for name, source in spec.secrets.items()}


def secrets_there(spec: SpecFile) -> dict[str, str]:
    """Those secrets whose values are there: what a part that doesn't act can know, and need not."""
    found = {}
    for name, source in spec.secrets.items():
        try:
            found[name] = secret_at(spec, name, source)
        except SpecError:
            continue
    return found


def secret_at(spec: SpecFile, name: str, source: str) -> str:
    """The value at ``env:VARIABLE`` or ``file:PATH``. SpecError if it is not there."""
    kind, _, place = source.partition(":")
    if kind == "env":
        if not os.environ.get(place):
            raise SpecError(
                f"{_file(spec)}: the secret {name!r} is not there",
                received=f"no environment variable {place}",
                todo=f"set {place}, or correct the file",
            )
        return os.environ[place]
    try:
        return spec.at(place).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(
            f"{_file(spec)}: the secret {name!r} cannot be read",
            received=f"{spec.at(place)}: {getattr(error, 'strerror', None) or error}",
            todo="correct the file",
        ) from error


def load_object(target: str, spec: SpecFile) -> Any:
    """What ``package.module:object`` or ``file.py:object`` names; modules beside the file are found too."""
    place, _, name = target.partition(":")
    try:
        with guest():
            module = _file_module(spec.at(place)) if place.endswith(".py") else _module(place, spec.directory)
    except LogActError:
        raise
    except Exception as error:
        raise SpecError(
            f"{_file(spec)}: {place} cannot be imported",
            received=said(error),
            todo="a module is looked for beside the specification and where Python looks; a file is named FILE.py",
        ) from error
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            known = [key for key in vars(module) if not key.startswith("_")]
            raise SpecError(
                f"{_file(spec)}: {place} has no {name!r}", expected="one of " + ", ".join(known[:20])
            ) from error
    return found


def _module(name: str, directory: Path) -> Any:
    home = str(directory)
    if home not in sys.path:
        sys.path.insert(0, home)  # as Python itself does for a script's directory
    return importlib.import_module(name)


def _file_module(path: Path) -> Any:
    """The module of a file, loaded once for each file, so that two tables share what it holds."""
    name = "logact_file_" + re.sub(r"\W", "_", str(path.resolve()))
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # before it runs: its own structs and dataclasses look there
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _called(kind: Any, options: dict[str, Any], use: str, spec: SpecFile) -> Any:
    try:
        with guest():
            return kind(**options)
    except TypeError as error:
        raise SpecError(
            f"{_file(spec)}: use = {use!r} does not take these options",
            received=", ".join(options) or "none",
            expected=str(error),
        ) from error


def _file(spec: SpecFile) -> str:
    return spec.path or "the specification"
