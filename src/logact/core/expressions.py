"""What a policy may say: the shapes of its expression (``Policy.need``), and what is wrong with an unusable one.

An expression is data::

    "safety"                                            one voter
    {"all": ["safety", "rules"]}                        each is heard, none rejects, one approves
    {"any": ["rules", {"all": [...]}]}                  one that approves is enough
    {"k": 2, "of": ["a", "b", "c"]}                     two must approve; with "veto": true one rejection rejects
    {"majority": ["a", "b", "c"]}                       more approve than reject, of those that don't abstain
    {"weighted": {"a": 2, "b": 1}, "threshold": 0.6}    the weighted probability of approval reaches the threshold
    {"veto": ["safety"], "over": "rules"}               ``over`` decides, unless one of ``veto`` rejects
    {"first": ["a", "b"]}                               whoever answers first, in the order of the log
    {"escalate": ["rules", "model", "human"]}           the first that does not abstain; others are asked only then
    {"override": "rules", "by": "model", "classes": ["post-*"]}
                                                        ``by`` may overturn rejections of these classes, no others
    {"cases": [{"tool": "pay_*", "effect": ["irreversible"], "need": ...}], "else": ...}
                                                        the first case that fits the action
    {"open": "the reason, for the record"}              everything passes; opening is explicit and logged
    {}                                                  closed: reads pass, nothing else

Shapes only; ``voting`` says what they mean. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from logact.entry import EFFECTS, Policy

DEPTH_MAX = 20
"""How deep expressions may nest."""

PARTS_MAX = 500
"""How many parts an expression may have in all."""

GROUPS = ("all", "any", "majority", "first", "escalate")
"""The keys that stand alone before a list of parts."""

SHAPES = (
    {"k", "of"},
    {"k", "of", "veto"},
    {"weighted", "threshold"},
    {"veto", "over"},
    {"override", "by", "classes"},
    {"cases"},
    {"cases", "else"},
    {"open"},
)


def parts(need: Any) -> list[Any]:
    """The parts of an expression, in order, one level down. Total: nonsense has none."""
    if not isinstance(need, dict):
        return []
    for key in (*GROUPS, "of"):
        if isinstance(need.get(key), list):
            return list(need[key])
    if isinstance(need.get("weighted"), dict):
        return list(need["weighted"])
    if "over" in need:
        vetoing = need.get("veto")
        return [*(vetoing if isinstance(vetoing, list) else []), need["over"]]
    if "override" in need:
        return [need["override"], need.get("by")]
    if "cases" in need:
        cases = need["cases"] if isinstance(need["cases"], list) else []
        inner = [case.get("need") for case in cases if isinstance(case, dict)]
        return [*inner, need["else"]] if "else" in need else inner
    return []


def names(need: Any, depth: int = 0) -> list[str]:
    """The voters that an expression names, in order, each once."""
    if isinstance(need, str):
        return [need]
    found: dict[str, None] = {}
    if depth <= DEPTH_MAX:
        for part in parts(need):
            found.update(dict.fromkeys(names(part, depth + 1)))
    return list(found)


def fits(case: Any, tool: str, effect: str) -> bool:
    """Whether a case speaks of an action with this tool and effect. Total."""
    if not isinstance(case, Mapping):
        return False
    if "tool" in case and not any(fnmatchcase(tool, one) for one in _texts(case["tool"])):
        return False
    return "effect" not in case or effect in _texts(case["effect"])


def covers(patterns: Any, voter: str, code: str) -> bool:
    """Whether a rejection's class is among those named: by its class alone, or as ``voter/class``."""
    if not code:
        return False
    return any(fnmatchcase(f"{voter}/{code}" if "/" in one else code, one) for one in _texts(patterns))


def _texts(value: Any) -> list[str]:
    listed = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return [one for one in listed if isinstance(one, str)]


# --- what is wrong with one ------------------------------


def problems(policy: Policy) -> list[str]:
    """What is wrong with a policy; a policy with problems never takes effect."""
    found: list[str] = []
    _look(policy.need, policy.voters, "need", found, count=[0])
    if policy.version <= 0:
        found.append(f"version must be positive, not {policy.version}")
    if policy.decide_within_ms <= 0:
        found.append(f"decide_within_ms must be positive, not {policy.decide_within_ms}")
    if policy.start_within_ms < 0:
        found.append(f"start_within_ms must not be negative, not {policy.start_within_ms}")
    found += [
        f"the voter {name!r} approves when it fails, and it is a person"
        for name, voter in policy.voters.items()
        if voter.kind == "human" and voter.on_failure == "approve"
    ]
    return found


def _look(
    need: Any, voters: Mapping[str, Any], where: str, found: list[str], *, count: list[int], depth: int = 0
) -> None:
    count[0] += 1
    if depth > DEPTH_MAX or count[0] > PARTS_MAX:
        limit = f"nests deeper than {DEPTH_MAX} levels" if depth > DEPTH_MAX else f"has more than {PARTS_MAX} parts"
        if f"the expression {limit}" not in found:
            found.append(f"the expression {limit}")
        return
    if isinstance(need, str):
        if need not in voters:
            found.append(f"{where} names the voter {need!r}, which the policy does not list")
        elif voters[need].shadow:
            found.append(f"{where} needs the voter {need!r}, whose votes do not count (shadow)")
        return
    if not isinstance(need, dict):
        found.append(f"{where} is {need!r}; expected a voter's name or an expression")
        return
    if not need:
        return
    keys = set(need)
    group = next((key for key in GROUPS if keys == {key}), "")
    if not group and keys not in SHAPES:
        shapes = "; ".join([*GROUPS, *(" and ".join(sorted(shape)) for shape in SHAPES)])
        found.append(f"{where} has the keys {sorted(map(str, keys))}; expected one of: {shapes}")
        return
    if group:
        listed = _listed(need[group], where, found, empty=depth == 0)
        if group == "first" and not all(isinstance(part, str) for part in listed):
            found.append(f"{where}: first takes the names of voters")
    elif "of" in keys:
        listed = _listed(need["of"], where, found)
        k = need["k"]
        if not _whole(k) or not 0 < k <= len(listed):
            found.append(f"{where}: k is {k!r}; expected 1 to {len(listed)}")
        if not isinstance(need.get("veto", False), bool):
            found.append(f"{where}: veto is {need['veto']!r}; expected true or false")
        if len(set(map(str, listed))) < len(listed):
            found.append(f"{where}: one voter would count twice")
    elif "weighted" in keys:
        _look_at_weights(need, where, found)
    elif "over" in keys:
        _listed(need["veto"], where, found)
    elif "override" in keys:
        classes = need["classes"]
        if not isinstance(classes, list) or not classes or len(_texts(classes)) < len(classes) or "" in classes:
            found.append(f"{where}: classes is {classes!r}; expected a list of the classes that may be overturned")
        if set(names(need["by"])) & set(names(need["override"])):
            found.append(f"{where}: a voter may not overturn its own rejection")
    elif "cases" in keys:
        _look_at_cases(need, where, found)
    elif not (isinstance(need["open"], str) and need["open"].strip()):
        found.append(f"{where}: opening everything needs a reason, received {need['open']!r}")
    for place, part in enumerate(parts(need)):
        _look(part, voters, f"{where}[{place}]", found, count=count, depth=depth + 1)


def _listed(value: Any, where: str, found: list[str], *, empty: bool = False) -> list[Any]:
    if not isinstance(value, list) or not (value or empty):
        found.append(f"{where} lists {value!r}; expected a list" + ("" if empty else " of at least one part"))
        return []
    return value


def _look_at_weights(need: Mapping[str, Any], where: str, found: list[str]) -> None:
    weights, threshold = need["weighted"], need["threshold"]
    if not isinstance(weights, dict) or not weights:
        found.append(f"{where}: weighted is {weights!r}; expected voters with their weights")
    elif not all(_number(weight) and 0 < weight < 1e9 for weight in weights.values()):
        found.append(f"{where}: a weight is a number above 0")
    if not _number(threshold) or not 0 < threshold <= 1:
        found.append(f"{where}: threshold is {threshold!r}; expected a number above 0, up to 1")


def _look_at_cases(need: Mapping[str, Any], where: str, found: list[str]) -> None:
    cases = _listed(need["cases"], where, found)
    for place, case in enumerate(cases):
        at = f"{where}.cases[{place}]"
        if not isinstance(case, dict) or "need" not in case or not set(case) <= {"tool", "effect", "need"}:
            found.append(f"{at} is {case!r}; expected tool, effect or both, and need")
            continue
        if set(case) == {"need"}:
            found.append(f"{at} fits every action, so what follows can never be reached; use else")
        for key in ("tool", "effect"):
            texts = _texts(case.get(key, ["*"]))
            given = case.get(key, "*")
            if not texts or "" in texts or (isinstance(given, list) and len(texts) < len(given)):
                found.append(f"{at}: {key} is {given!r}; expected a text or a list of texts")
        unknown = [one for one in _texts(case.get("effect", [])) if one not in EFFECTS]
        if unknown:
            found.append(f"{at}: there is no effect {unknown[0]!r}; expected some of {', '.join(EFFECTS)}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value  # noqa: PLR0124 - NaN


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
