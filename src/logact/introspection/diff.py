"""What differs between two points of a log, or between two forks of one past. Read-only."""

from __future__ import annotations

import msgspec

from logact.core.state import Action, RunState, State
from logact.entry import Entry, Fork, end_of
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.logs.verify import first_kept


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two: a log, up to a position."""

    log: str
    position: int
    entries: int


class ActionChange(msgspec.Struct, frozen=True, kw_only=True):
    """An action that one side has and the other has not ("" there), or that came to something else."""

    action: int
    tool: str
    a: str = ""
    b: str = ""


class RunChange(msgspec.Struct, frozen=True, kw_only=True):
    """A run that differs. Each side is (status, turns, actions, tokens), or None where it does not know the run."""

    run: int
    title: str
    a: tuple[str, int, int, int] | None = None
    b: tuple[str, int, int, int] | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What differs. ``common`` is the last position up to which both tell the same (0: nothing in common).

    ``since``: the beginning of a trimmed log is gone, so the two were compared from this position on (0: whole).
    ``settings`` names other things in force that differ: policies, pauses, holders, claims.
    """

    a: Side
    b: Side
    common: int
    since: int = 0
    actions: tuple[ActionChange, ...] = ()
    runs: tuple[RunChange, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs but how far the two were read."""
        return not (self.actions or self.runs or self.settings)


async def diff(a: SharedLog, b: SharedLog, *, a_upto: int | None = None, b_upto: int | None = None) -> Difference:
    """Compare two logs by position, each up to one. Raises what reading them raises."""
    told, marks, folded = [], [], []
    for log, upto in ((a, a_upto), (b, b_upto)):
        seen: dict[int, tuple[str, str, int]] = {}

        def note(_: State, entry: Entry, seen: dict[int, tuple[str, str, int]] = seen) -> None:
            if not (isinstance(entry.payload, Fork) and entry.payload.step == "begun"):  # that one a fork adds
                seen[entry.position] = _mark(entry)

        one = await history(log, upto, observer=note)
        for position in [position for position in seen if position <= one.begins_after]:
            del seen[position]  # of what stands before the damage the rest is not known
        folded.append(min(seen, default=one.state.position + 1) if one.trimmed else 0)
        if one.trimmed and not one.damaged:  # the fold began at a checkpoint, and what was kept begins before it
            start = end_of(await first_kept(log))
            seen.update({entry.position: _mark(entry) async for entry in log.read(start, upto=one.state.position)})
        told.append(one)
        marks.append(seen)
    since = max(min(seen, default=0) if one.trimmed else 0 for one, seen in zip(told, marks, strict=True))
    common = _common(marks[0], marks[1], since)
    first, second = told[0].state, told[1].state
    sides = [Side(log=each.state.log, position=each.state.position, entries=each.entries) for each in told]
    return Difference(
        a=sides[0],
        b=sides[1],
        common=common,
        since=since,
        actions=tuple(_actions(first, second, common, folded)),
        runs=tuple(_runs(first, second)),
        settings=tuple(_settings(first, second)),
    )


def _mark(entry: Entry) -> tuple[str, str, int]:
    """What tells an entry from all others, in a log and in its forks."""
    return entry.kind, entry.author.incarnation, entry.number


def _common(one: dict[int, tuple[str, str, int]], two: dict[int, tuple[str, str, int]], since: int) -> int:
    """The last position up to which both hold the same entries, from ``since`` on."""
    common = 0
    for position in sorted(key for key in {*one, *two} if key >= since):
        if one.get(position) != two.get(position):
            break
        common = position
    return common


def _actions(one: State, two: State, common: int, folded: list[int]) -> list[ActionChange]:
    """``folded``: where each side's fold began; what was settled before that it has let go, so it says nothing."""
    found = []
    for key in sorted({*one.actions, *two.actions}):
        first, second = one.actions.get(key), two.actions.get(key)
        if first is not None and second is not None and key <= common:
            if _told(first) != _told(second):
                found.append(ActionChange(action=key, tool=first.intent.tool, a=_told(first), b=_told(second)))
            continue
        if key <= common and key < folded[0 if first is None else 1]:
            continue
        for action, side in ((first, "a"), (second, "b")):  # beyond what is common, equal positions mean nothing
            if action is not None:
                found.append(ActionChange(action=key, tool=action.intent.tool, **{side: _told(action)}))
    return found


def _told(action: Action) -> str:
    return action.status + (", tried again" if action.retried_by else "")


def _runs(one: State, two: State) -> list[RunChange]:
    found = []
    for key in sorted({*one.runs, *two.runs}):
        first, second = one.runs.get(key), two.runs.get(key)
        if first is not None and second is not None and _figures(first) == _figures(second):
            continue
        known = first or second
        found.append(
            RunChange(
                run=key,
                title=known.title if known is not None else "",
                a=_figures(first) if first is not None else None,
                b=_figures(second) if second is not None else None,
            )
        )
    return found


def _figures(run: RunState) -> tuple[str, int, int, int]:
    return run.status, run.turn, run.actions, run.input_tokens + run.output_tokens


def _settings(one: State, two: State) -> list[str]:
    found = []
    for agent in sorted({*one.policy_at, *two.policy_at}):
        first, second = (state.policies.get(state.policy_at.get(agent, 0)) for state in (one, two))
        if first != second:
            versions = [policy.version if policy is not None else "none" for policy in (first, second)]
            found.append(f"policy of {agent or 'the log'}: version {versions[0]} and {versions[1]}")
    for name, first_set, second_set in (
        ("paused", set(one.paused), set(two.paused)),
        ("stopped", set(one.stopped), set(two.stopped)),
        ("claims", set(one.claims.items()), set(two.claims.items())),
    ):
        if first_set != second_set:
            apart = [sorted(map(str, side)) for side in (first_set - second_set, second_set - first_set)]
            sides = [f"only {side}: {', '.join(names)}" for side, names in zip("ab", apart, strict=True) if names]
            found.append(f"{name} {'; '.join(sides)}")
    return found
