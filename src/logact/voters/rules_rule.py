"""One rule: which actions it speaks of, and what it decides about them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from logact.core.views import Action, LogEntry
from logact.entry import EFFECTS, Intent
from logact.errors import SpecError
from logact.voters import rules_history as history
from logact.voters.rules_conditions import ArgumentCondition, default_root, refuse, text_list

Decision = Literal["allow", "deny", "ask"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)

KEYS = (
    "name", "decision", "tool", "effect", "agent", "arguments", "more_than", "at_most", "after", "not_after",
    "same", "not_same", "cel", "hint", "reason",
)  # fmt: skip
"""Every key that a rule's table may hold."""
MATCHER_KEYS = ("tool", "effect", "agent", "arguments", "within")


class Matcher:
    """What an action must be like: tool, effect, agent and arguments. Also what ``after`` speaks of."""

    def __init__(
        self, rule: str, tool: Any, effect: Any, agent: Any, arguments: Any, *, strict: bool, root: str, key: str = ""
    ) -> None:
        self.tools = text_list(rule, f"{key}tool", tool)
        self.effects = text_list(rule, f"{key}effect", effect) if effect is not None else ()
        self.agents = text_list(rule, f"{key}agent", agent) if agent is not None else ()
        for one in self.effects:
            if one not in EFFECTS:
                raise refuse(rule, f"{key}effect", "no such effect", received=repr(one), expected=", ".join(EFFECTS))
        if arguments is not None and not isinstance(arguments, Mapping):
            raise refuse(rule, f"{key}arguments", "not a table", received=repr(arguments))
        self.strict = strict
        self.arguments = [
            ArgumentCondition(rule, name, given, strict=strict, root=root)
            for name, given in (arguments or {}).items()
        ]
        self._plain = frozenset(one for one in self.tools if not set(one) & set("*?["))
        self._globs = tuple(one for one in self.tools if one not in self._plain)

    def speaks_of(self, tool: str) -> bool:
        """Whether the tool's name is one of its names or globs."""
        return tool in self._plain or any(fnmatchcase(tool, one) for one in self._globs)

    def matches(self, tool: str, effect: str, agent: str | None, arguments: Any, resolve: bool = True) -> bool:
        """Whether an action is like that. An unknown agent (None) counts as what permits less."""
        if not self.speaks_of(tool) or (self.effects and effect not in self.effects):
            return False
        if self.agents:
            if agent is None:
                if not self.strict:
                    return False
            elif not any(fnmatchcase(agent, one) for one in self.agents):
                return False
        return all(condition.holds(arguments, resolve) for condition in self.arguments)

    def of_intent(self, intent: Intent) -> bool | None:
        """Whether an earlier intent was like that; None if its arguments are not at hand. Does no I/O."""
        if intent.arguments_blob is not None and self.arguments:
            seen = self.speaks_of(intent.tool) and (not self.effects or intent.effect in self.effects)
            return None if seen else False
        return self.matches(intent.tool, intent.effect, intent.agent, intent.arguments, resolve=False)


class ActionRule:
    """Stops, allows or hands on actions. All conditions must hold.

    ``tool``, ``effect`` and ``agent`` are a name, a glob or a list of them; ``arguments`` maps an argument
    (``a.b`` reaches into objects) to a value, a list of values, or a table of operators. ``more_than``,
    ``at_most``, ``after``, ``not_after``, ``same`` and ``not_same`` look at the history, ``cel`` is an expression,
    ``when`` a function of the action. ``hint`` is told to the model when the rule denies. Paths are relative to
    ``root``.

    Raises SpecError, naming the rule and the key, for a condition that can never match or is not understood.
    """

    def __init__(
        self,
        name: str,
        decision: Decision = "deny",
        *,
        tool: str | Iterable[str] = "*",
        effect: str | Iterable[str] | None = None,
        agent: str | Iterable[str] | None = None,
        arguments: Mapping[str, Any] | None = None,
        more_than: Mapping[str, Any] | None = None,
        at_most: Mapping[str, Any] | None = None,
        after: Any = None,
        not_after: Any = None,
        same: Any = None,
        not_same: Any = None,
        cel: str = "",
        when: Callable[[Action], bool] | None = None,
        hint: str = "",
        reason: str = "",
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(name, str) or not name.strip():
            raise SpecError("a rule needs a name", received=repr(name), todo='add name = "..."')
        if decision not in DECISIONS:
            raise refuse(name, "decision", "no such decision", received=repr(decision), expected=", ".join(DECISIONS))
        self.name = name
        self.decision: Decision = decision
        self.strict = decision != "allow"
        self.hint = hint
        self.reason = reason
        self.when = when
        self.root = default_root(root)
        for key, text in (("hint", hint), ("reason", reason), ("cel", cel)):
            if not isinstance(text, str):
                raise refuse(name, key, "not a text", received=repr(text))
        self.matcher = Matcher(name, tool, effect, agent, arguments, strict=self.strict, root=self.root)
        looking = {"more_than": more_than, "at_most": at_most, "after": after, "not_after": not_after}
        self.history = self._history({**looking, "same": same, "not_same": not_same})
        self.expression = None
        if cel:
            from logact.voters.rules_cel import Expression

            self.expression = Expression(name, cel)
        given = {"tool": tool, "effect": effect, "agent": agent, "arguments": arguments, "more_than": more_than}
        given |= {"at_most": at_most, "after": after, "not_after": not_after, "same": same, "not_same": not_same}
        given |= {"cel": cel, "hint": hint, "reason": reason}
        self.table: dict[str, Any] = {"name": name, "decision": decision}
        self.table |= {key: plain(value) for key, value in given.items() if value not in (None, "")}

    def _history(self, given: Mapping[str, Any]) -> list[history.Condition]:
        found: list[history.Condition] = []
        for key, value in given.items():
            if value is None:
                continue
            slot = f"{self.name}/{key}"
            if key in ("more_than", "at_most"):
                found.append(history.limit_of(self.name, key, value, slot))
            elif key in ("after", "not_after"):
                found.append(self._earlier(key, value))
            else:
                found.append(history.same_of(self.name, key, value, slot))
        return found

    def _earlier(self, key: str, given: Any) -> history.Earlier:
        table = dict(given) if isinstance(given, Mapping) else {"tool": given}
        unknown = [one for one in table if one not in MATCHER_KEYS]
        if unknown:
            raise refuse(self.name, key, f"unknown key {unknown[0]!r}", expected=", ".join(MATCHER_KEYS))
        within = table.get("within", "run")
        if within not in history.WITHIN:
            raise refuse(self.name, f"{key}.within", "not a scope", received=repr(within), expected="run, agent, log")
        # "after X" forbids, so X in doubt counts; "not after Y" demands Y, so only a sure one counts
        strict = self.strict is (key == "after")
        matcher = Matcher(
            self.name,
            table.get("tool", "*"),
            table.get("effect"),
            table.get("agent"),
            table.get("arguments"),
            strict=strict,
            root=self.root,
            key=f"{key}.",
        )
        return history.Earlier(f"{self.name}/{key}", matcher, within, key == "not_after")

    @property
    def should_stop(self) -> bool:
        """Whether an action that it matches is stopped."""
        return self.decision == "deny"

    @property
    def unconditional(self) -> bool:
        """Whether tool, effect and agent alone decide."""
        return not (self.matcher.arguments or self.history or self.expression or self.when)

    def matches(self, action: Action | LogEntry) -> bool:
        """Whether it speaks of this action. A bare action has no agent and no history: that counts as unknown."""
        if isinstance(action, LogEntry):
            return self.matches_entry(action)
        if not self.matcher.matches(action.tool, action.effect, None, action.arguments):
            return False
        if self.history:
            return self.strict
        return self._expressions(action, "", 0, "")

    def matches_entry(self, entry: LogEntry) -> bool:
        """Whether it speaks of this proposed action, with the asking voter's memory of what came before."""
        action = entry.action
        if not self.matcher.matches(action.tool, action.effect, entry.agent_id, action.arguments):
            return False
        if self.history:
            memory = entry.memory or history.EMPTY
            for condition in self.history:
                if not history.holds(
                    condition,
                    memory,
                    run=entry.run,
                    agent=entry.agent_id,
                    arguments=action.arguments,
                    now_ms=entry.timestamp,
                    strict=self.strict,
                ):
                    return False
        return self._expressions(action, entry.agent_id, entry.run, entry.task)

    def _expressions(self, action: Action, agent: str, run: int, task: str) -> bool:
        if self.expression is not None:
            told = self.expression.holds(
                {
                    "tool": action.tool,
                    "effect": action.effect,
                    "agent": agent,
                    "run": run,
                    "task": task,
                    "reasoning": action.reasoning,
                    "arguments": action.arguments,
                }
            )
            if not (self.strict if told is None else told):
                return False
        return self.when is None or bool(self.when(action))

    def watchers(self) -> list[tuple[history.Condition, Callable[[Intent], bool | None]]]:
        """Which of its conditions look back, each with the test of what they count."""
        return [
            (one, one.matcher.of_intent if isinstance(one, history.Earlier) else self._counts) for one in self.history
        ]

    def _counts(self, intent: Intent) -> bool | None:
        told = self.matcher.of_intent(intent)
        if told is not False and (self.expression is not None or self.when is not None):
            action = Action(tool=intent.tool, arguments=intent.arguments, effect=intent.effect)
            return told if self._expressions(action, intent.agent, intent.run, "") else False
        return told

    def describe(self) -> str:
        """Its conditions in words."""
        said = [one.describe() for one in self.matcher.arguments]
        looking = ("more_than", "at_most", "after", "not_after", "same", "not_same", "cel")
        said.extend(f"{word.replace('_', ' ')} {self.table[word]!r}" for word in looking if word in self.table)
        if self.when is not None:
            said.append(f"the function {getattr(self.when, '__name__', 'when')} says so")
        return " and ".join(said)

    def config(self) -> dict[str, Any]:
        """Everything it judges by, as plain data."""
        found = {**self.table, "root": self.root}
        if self.when is not None:
            found["when"] = source_of(self.when)
        return found

    def __repr__(self) -> str:
        return f"<ActionRule {self.name}: {self.decision} {', '.join(self.matcher.tools)}>"


def source_of(thing: Any) -> str:
    """The source of a function or class, for digests; its name where there is none."""
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', repr(type(thing)))}"


def plain(value: Any) -> Any:
    """Nested tables as plain, sorted data that JSON holds."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((plain(one) for one in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def rule_of(table: Any, *, root: str | os.PathLike[str] | None = None, place: int = 0) -> ActionRule:
    """A rule from a table of a TOML file. Raises SpecError for unknown keys and whatever ActionRule refuses."""
    if not isinstance(table, Mapping):
        raise SpecError(f"rule {place + 1} is not a table", received=repr(table))
    name = table.get("name")
    if not isinstance(name, str) or not name.strip():
        raise SpecError(f"rule {place + 1} needs a name", received=repr(name), todo='add name = "..."')
    unknown = [key for key in table if key not in KEYS]
    if unknown:
        raise refuse(name, str(unknown[0]), "unknown key", expected=", ".join(KEYS), todo=nearest(unknown[0], KEYS))
    if "decision" not in table:
        raise refuse(name, "decision", "missing", expected=", ".join(DECISIONS))
    return ActionRule(root=root, **dict(table))


def nearest(name: str, known: Iterable[str]) -> str:
    """ "Did you mean", or nothing."""
    import difflib

    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {found[0]!r}?" if found else ""
