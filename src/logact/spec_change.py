"""Changes of a specification file as a tool: what introspection proposes is applied by an action that is voted on.

It sets one setting of ``introspection.changes.SETTINGS``, or adds one rule that denies. Comments and order of the
file stay. The result holds the file as it was, so the change can be undone, if nobody changed the file since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from logact import codec
from logact.core.views import Action
from logact.errors import SpecError
from logact.introspection.changes import in_the_way, problem
from logact.introspection.performance import Change, Proposal
from logact.runtime.asker import MODEL_TIMEOUT_S
from logact.spec import SpecFile, dump_spec, parse_spec
from logact.spec_edit import ways
from logact.spec_tables import VoterTable
from logact.spec_toml import pairs
from logact.tools import Tool, ToolError

if TYPE_CHECKING:
    from logact.agent import LogActAgent

NAME = "change_specification"


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one proposal: its action, whether the voters let it pass and it ran, and why not."""

    title: str
    action: int
    applied: bool
    reason: str = ""


def changed(text: str, change: Change, *, path: str = "") -> str:
    """A specification's text with a change made. SpecError if the change may not be made, or spoils the file."""
    why = problem(change)
    if why:
        raise SpecError("This change cannot be made", received=why)
    before = parse_spec(text, path=path)
    why = standing(before, change)
    if why:
        raise SpecError("This change is not made", received=why)
    wanted = _wanted(before, change)
    commented = "#" in text
    plain = text.replace("\r\n", "\n")
    texts: list[str] = [*_edited(plain, before, change), *(() if commented else (dump_spec(wanted),))]
    for one in texts:
        made = one.replace("\n", "\r\n") if plain != text else one
        try:
            found = parse_spec(made, path=path)
        except SpecError:
            continue
        if found == wanted:
            return made
    raise SpecError(
        "The change cannot be written into the file without losing its comments",
        received=path or "the specification",
        todo=f"set {change.setting} by hand" if change.setting else "add the rule by hand",
    )


def standing(before: SpecFile, change: Change) -> str:
    """What of a specification is in the way of a change ("" if nothing): it would loosen something, or do nothing."""
    if change.rule is not None:
        there = any(change.rule in table.rules for table in before.voters)
        return "the rule is there already" if there else ""
    now: Any = before
    for step in change.setting.split("."):
        now = getattr(now, step)
    if change.setting == "agent.model_timeout_s":
        now = now or MODEL_TIMEOUT_S
    return in_the_way(change, now)


def _wanted(before: SpecFile, change: Change) -> SpecFile:
    """The specification that the change has to lead to."""
    if change.rule is not None:
        added = VoterTable(use="rules", **_rules(before, change))
        return msgspec.structs.replace(before, voters=[*before.voters, added])
    plain: dict[str, Any] = msgspec.to_builtins(before)
    table = plain
    *steps, last = change.setting.split(".")
    for step in steps:
        table = table.setdefault(step, {})
    table[last] = _value(before, change)
    return msgspec.structs.replace(
        msgspec.convert({**plain, "tools": []}, SpecFile), tools=before.tools, path=before.path
    )


def _value(before: SpecFile, change: Change) -> Any:
    """What the setting holds after the change: names are added to those that are there."""
    if isinstance(change.value, tuple):
        return list(dict.fromkeys([*before.agent.hide_tools, *change.value]))
    return change.value


def _rules(before: SpecFile, change: Change) -> dict[str, Any]:
    names = {table.name or table.use for table in before.voters}
    name = "rules"
    while name in names:
        name += "-more"
    return {"rules": [change.rule], **({"name": name} if name != "rules" else {})}


def _edited(text: str, before: SpecFile, change: Change) -> Iterable[str]:
    """The text with as little changed as possible, in one way or another."""
    if change.rule is None:
        return ways(text, change.setting, _value(before, change))
    table = {"use": "rules", **_rules(before, change)}
    return [text.rstrip() + "\n\n" + "\n".join(["[[voters]]", *pairs(table), ""])]


def change_tool(path: str | os.PathLike[str]) -> Tool:
    """The tool that changes the specification at ``path``."""
    target = Path(path)

    def change_specification(setting: str = "", value: str = "", rule: str = "", why: str = "") -> dict[str, str]:
        """Change one setting of this agent's specification, or add one rule that denies.

        Args:
            setting: The setting, such as agent.limits.actions.
            value: Its new value, as JSON.
            rule: Instead of a setting: the rule, as a JSON object.
            why: What it is good for.
        """
        before = _read(target)
        try:
            given = msgspec.json.decode(value) if value else None
            change = Change(
                setting=setting,
                value=tuple(map(str, given)) if isinstance(given, list) else given,
                rule=msgspec.json.decode(rule, type=dict[str, Any]) if rule else None,
            )
            after = changed(before, change, path=str(target))
        except (SpecError, msgspec.DecodeError) as error:
            raise ToolError(str(error), kind="permanent", definite=True) from error
        _write(target, after)
        return {"before": before, "after": codec.digest(after.encode())}

    def undo(setting: str, value: str, rule: str, why: str, result: Any) -> str:
        if not isinstance(result, dict) or codec.digest(_read(target).encode()) != result.get("after"):
            raise ToolError(
                "the file was changed since; what was changed after it is undone first",
                kind="permanent",
                definite=True,
            )
        _write(target, str(result["before"]))
        return f"{target.name} is as it was"

    return Tool(change_specification, effect="reversible", name=NAME, undo=undo)


def _read(target: Path) -> str:
    try:
        return target.read_bytes().decode()  # as it is, also the ends of its lines
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{target.name} cannot be read: {error}", kind="permanent", definite=True) from error


def _write(target: Path, text: str) -> None:
    """Replace the file as a whole, so that nobody ever reads half of it."""
    beside = target.with_name(f".{target.name}.new")
    beside.write_bytes(text.encode())
    beside.chmod(target.stat().st_mode & 0o777)
    beside.replace(target)


def choose(proposals: Iterable[Proposal], spec: SpecFile) -> tuple[list[Proposal], list[Applied]]:
    """The proposals that can be applied to a specification, and those that are left out, with why.

    Of several numbers for one setting the smallest is taken, of several models the first.
    """
    chosen: dict[str, Proposal] = {}
    left: list[Applied] = []
    for number, one in enumerate(proposals):
        change = one.change
        if change is None:
            continue
        why = problem(change) or standing(spec, change)
        if why:
            left.append(Applied(title=one.title, action=0, applied=False, reason=why))
            continue
        alone = change.rule is None and not isinstance(change.value, tuple)
        key = change.setting if alone else f"{number}"
        other = chosen.get(key)
        if other is not None and other.change is not None:
            new, held = change.value, other.change.value
            tighter = isinstance(new, int | float) and isinstance(held, int | float) and new < held
            kept, dropped = (one, other) if tighter else (other, one)
            chosen[key] = kept
            left.append(Applied(title=dropped.title, action=0, applied=False, reason=f"instead of it: {_what(kept)}"))
        else:
            chosen[key] = one
    return list(chosen.values()), left


def _what(proposal: Proposal) -> str:
    change = proposal.change
    return f"{change.setting} = {change.value}" if change is not None else proposal.title


async def propose(agent: LogActAgent, proposals: Iterable[Proposal], spec: SpecFile) -> list[Applied]:
    """Propose each change that can be applied to a specification, have it voted on, and carry out what passes.

    ``agent`` needs the tool of :func:`change_tool`. Each is an action of its own, with its reasons as reasoning. What
    would loosen something, or do nothing, is not proposed; what became of each comes back.
    """
    wanted, done = choose(proposals, spec)
    if not wanted:
        return done
    async with agent:
        for one in wanted:
            change = one.change or Change()
            arguments = {"setting": change.setting, "value": "", "rule": "", "why": one.title}
            if change.rule is not None:
                arguments["rule"] = msgspec.json.encode(change.rule).decode()
            else:
                arguments["value"] = msgspec.json.encode(change.value).decode()
            cites = " ".join(map(str, one.cites))
            reasoning = f"{one.why} (proposed by {one.by}; positions {cites})"
            entry = await agent.propose_action(Action(tool=NAME, arguments=arguments, reasoning=reasoning))
            judged = await agent.validate_action(entry)
            reason, applied = judged.reason, False
            if judged.approved:
                result = await agent.execute_action(entry)
                applied, reason = result.success, result.error
            done.append(Applied(title=one.title, action=entry.position, applied=applied, reason=reason))
    return done
