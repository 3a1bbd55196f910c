"""Rules that stop actions before they run: the voter, and what is asked of it.

Deny goes before allow, allow before ask, ask before the default. A rule that could never match is refused when it
is loaded. Rules read arguments as values (paths, URLs, addresses, numbers), see ``rules_conditions``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from logact.core.views import Action, LogEntry, log_entry
from logact.entry import Entry, Intent, ToolSpec, Vote
from logact.errors import SpecError
from logact.voters import rules_history as history
from logact.voters.base import Voter
from logact.voters.rules_check import Problem, check_rules, refuse_problems, specs_of
from logact.voters.rules_rule import DECISIONS, KEYS, ActionRule, Decision, nearest, rule_of, source_of

__all__ = ["ActionInterceptor", "ActionRule", "Explanation", "Problem", "check_rules", "explain", "rule_of"]

TABLE_KEYS = ("name", "default", "ask", "root", "rules")
TOOLS_CACHED_MAX = 10_000


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Which rule decides about an action, and why. ``rule`` is "" where the default decides.

    ``matched`` names every rule that speaks of the action with its decision, in order of force.
    """

    decision: str
    rule: str = ""
    reason: str = ""
    hint: str = ""
    matched: tuple[tuple[str, str], ...] = ()


class ActionInterceptor(Voter):
    """Votes by rules: deny over allow over ask over ``default``.

    ``rules`` are :class:`ActionRule` objects, or any objects with ``name``, ``matches(action)`` and
    ``should_stop``. With ``tools`` every rule is checked against their specifications. "ask" rejects,
    since nobody is asked, unless ``ask="abstain"`` says that the policy goes on to a person (``escalate``): an
    abstention alone never approves, but beside another voter's approval it does not stop either.

    Raises SpecError, naming rule and key, for rules that are unknown, contradict themselves or can never match.
    """

    quick = True

    kind = "rules"

    def __init__(
        self,
        rules: Iterable[Any] = (),
        default: Decision = "allow",
        name: str = "rules",
        *,
        tools: Iterable[Any] | None = None,
        ask: Literal["abstain", "reject"] = "reject",
    ) -> None:
        super().__init__(name)
        self.rules = list(rules)
        if default not in DECISIONS:
            raise SpecError("default is no decision", received=repr(default), expected=", ".join(DECISIONS))
        if ask not in ("abstain", "reject"):
            raise SpecError("ask is not usable", received=repr(ask), expected="abstain or reject")
        self.default: Decision = default
        self.ask = ask
        for rule in self.rules:
            usable = all(hasattr(rule, one) for one in ("name", "matches", "should_stop"))
            if isinstance(rule, type) or not usable:
                raise SpecError(
                    "This is not a rule",
                    received=repr(rule),
                    expected="an ActionRule, or an object with name, matches(action) and should_stop",
                )
        self.specs: tuple[ToolSpec, ...] | None = specs_of(tools) if tools is not None else None
        refuse_problems(check_rules(self.rules, self.specs))
        looking = [one for rule in self.rules if isinstance(rule, ActionRule) for one in rule.watchers()]
        self._watchers = looking
        self.scope = history.scope_of([condition for condition, _ in looking])
        self._by_tool: dict[str, list[tuple[Decision, Any]]] = {}

    @classmethod
    def from_toml(
        cls, table_or_path: Mapping[str, Any] | str | os.PathLike[str], *, tools: Iterable[Any] | None = None
    ) -> ActionInterceptor:
        """From a table (``default``, ``name``, ``ask``, ``root``, ``rules``) or a file with one.

        ``root`` is where relative paths start; in a file it is relative to the file. Raises SpecError.
        """
        table, base = _read(table_or_path)
        unknown = [key for key in table if key not in TABLE_KEYS]
        if unknown:
            todo = f"{unknown[0]} belongs into [[rules]]" if unknown[0] in KEYS else nearest(unknown[0], TABLE_KEYS)
            if {"agent", "log"} <= set(table):
                todo = "this is a specification: put its rules into a file of their own, and name it there by file ="
            raise SpecError(f"unknown key {unknown[0]!r}", expected=", ".join(TABLE_KEYS), todo=todo)
        listed = table.get("rules", [])
        if not isinstance(listed, list | tuple):
            raise SpecError("rules is not a list of tables", received=repr(listed), expected="[[rules]]")
        default = table.get("default", "allow")
        if not listed and default == "allow":
            raise SpecError(
                "these rules can stop nothing", received="no rules, default allow", todo="add [[rules]], or a default"
            )
        root = table.get("root")
        if root is not None and not isinstance(root, str):
            raise SpecError("root is not a path", received=repr(root))
        place = Path(base, root) if root is not None else (base or None)
        rules = [rule_of(one, root=place, place=number) for number, one in enumerate(listed)]
        name = table.get("name", "rules")
        if not isinstance(name, str) or not name:
            raise SpecError("name is not a text", received=repr(name))
        return cls(rules, default, name, tools=tools, ask=table.get("ask", "reject"))

    # --- the vote ------------------------------

    def check(self, entry: LogEntry) -> Vote:
        """The vote of the strongest rule that speaks of this action."""
        decision, rule = self._decide(entry)
        return self._vote(decision, rule, entry.action)

    def _decide(self, entry: LogEntry) -> tuple[Decision, Any]:
        tool = entry.action.tool
        candidates = self._by_tool.get(tool)
        if candidates is None:
            candidates = self._candidates(tool)
        for decision, rule in candidates:
            if _speaks(rule, entry):
                return decision, rule
        return self.default, None

    def _candidates(self, tool: str) -> list[tuple[Decision, Any]]:
        """The rules that may speak of a tool, strongest first."""
        found: list[tuple[Decision, Any]] = []
        for rule in self.rules:
            if not isinstance(rule, ActionRule):
                found.append(("deny", rule))  # whether it stops is asked when it matches
            elif rule.matcher.speaks_of(tool):
                found.append((rule.decision, rule))
        found.sort(key=lambda one: ("deny", "allow", "ask").index(one[0]))
        if len(self._by_tool) >= TOOLS_CACHED_MAX:
            self._by_tool.clear()
        self._by_tool[tool] = found
        return found

    def _vote(self, decision: Decision, rule: Any, action: Action) -> Vote:
        if rule is None:
            if decision == "allow":
                return Vote(approved=True, reason="no rules matched")
            if decision == "ask":
                return self._ask("no rules matched, and the default asks a person", "")
            return Vote(
                approved=False, reason="no rules matched, and the default denies", hint=self._acceptable(action)
            )
        said = f" ({rule.reason})" if getattr(rule, "reason", "") else ""
        if decision == "allow":
            return Vote(approved=True, reason=f"allowed by rule: {rule.name}{said}")
        if decision == "ask":
            return self._ask(f"rule {rule.name} asks a person{said}", rule.hint)
        why = f"stopped by rule: {rule.name}{said}"
        return Vote(approved=False, reason=why, hint=_hint(rule, action), code=rule.name)

    def _ask(self, reason: str, hint: str) -> Vote:
        if self.ask == "reject":
            return Vote(
                approved=False, reason=f"{reason}, and there is none", hint=hint or "Do not retry; ask the user."
            )
        return Vote(approved=None, reason=reason, hint=hint)

    def _acceptable(self, action: Action) -> str:
        """What the rules would allow, for the model."""
        same = [
            rule
            for rule in self.rules
            if isinstance(rule, ActionRule) and rule.decision == "allow" and rule.matcher.speaks_of(action.tool)
        ]
        if same:
            said = "; or ".join(rule.describe() or f"what rule {rule.name} allows" for rule in same[:3])
            return f"{action.tool} is acceptable with: {said}"
        return f"Do not retry: no rule allows {action.tool}."

    # --- history ------------------------------

    def initial(self) -> Any:
        return history.EMPTY if self._watchers else None

    def observe(self, memory: Any, entry: Entry) -> Any:
        """Counts what earlier actions did, for the rules that look back."""
        return history.observe(memory, entry, self._watchers) if self._watchers else memory

    def config(self) -> dict[str, Any]:
        return {
            "default": self.default,
            "ask": self.ask,
            "rules": [
                rule.config()
                if type(rule) is ActionRule
                else {"name": rule.name, "source": source_of(type(rule)), "state": repr(sorted(_state(rule)))}
                for rule in self.rules
            ],
        }

    def explain(self, action: Action | LogEntry, *, agent: str = "", memory: Any = None) -> Explanation:
        """Which rule decides about an action, and why. Changes nothing."""
        entry = action if isinstance(action, LogEntry) else _entry_of(action, agent, memory)
        decision, rule = self._decide(entry)
        vote = self._vote(decision, rule, entry.action)
        matched = tuple((one.name, what) for what, one in self._candidates(entry.action.tool) if _speaks(one, entry))
        reason = vote.reason
        if isinstance(rule, ActionRule) and rule.describe():
            reason += f": {rule.describe()}"
        return Explanation(
            decision=decision,
            rule=rule.name if rule is not None else "",
            reason=reason,
            hint=vote.hint,
            matched=matched,
        )


def explain(rules: ActionInterceptor | Iterable[Any], action: Action | LogEntry, **options: Any) -> Explanation:
    """Which of these rules decides about an action, and why. ``options`` are those of :class:`ActionInterceptor`."""
    voter = rules if isinstance(rules, ActionInterceptor) else ActionInterceptor(rules, **options)
    return voter.explain(action)


def _speaks(rule: Any, entry: LogEntry) -> bool:
    if type(rule) is ActionRule:
        return rule.matches_entry(entry)
    if isinstance(rule, ActionRule):
        return bool(rule.matches(entry.action if type(rule).matches is not ActionRule.matches else entry))
    stop = rule.should_stop
    return bool(rule.matches(entry.action)) and bool(stop(entry.action) if callable(stop) else stop)


def _hint(rule: Any, action: Action) -> str:
    if getattr(rule, "hint", ""):
        return str(rule.hint)
    described = rule.describe() if isinstance(rule, ActionRule) else ""
    if not described:
        return f"Do not retry: {action.tool} is stopped by a rule, whatever its arguments."
    if rule.history:
        return f"Do not retry as it is: stopped where {described}."
    return f"{action.tool} is acceptable unless {described}."


def _entry_of(action: Action, agent: str, memory: Any) -> LogEntry:
    intent = Intent(
        run=0,
        agent=agent,
        tool=action.tool,
        arguments=action.arguments,
        effect=action.effect,
        reasoning=action.reasoning,
    )
    return log_entry(intent, memory=memory)


def _state(rule: Any) -> list[tuple[str, str]]:
    return [
        (key, repr(value))
        for key, value in getattr(rule, "__dict__", {}).items()
        if isinstance(value, str | int | float | bool | list | tuple | dict | set | None)
    ]


def _read(given: Mapping[str, Any] | str | os.PathLike[str]) -> tuple[dict[str, Any], str]:
    if isinstance(given, Mapping):
        return dict(given), ""
    import tomllib

    path = Path(given)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"The rules {path} cannot be read", received=str(error)) from error
    return table, str(path.parent.resolve())
