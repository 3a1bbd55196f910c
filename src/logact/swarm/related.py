"""Which sub-tasks of a plan belong together, computed from its graph and its log: what they wait for, name and read.

It folds what agents did for the plan, and says which ready task suits an agent best. It claims nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from logact.core.settling import ANSWER
from logact.entry import Claim, Entry, Input, Intent, Run
from logact.introspection.token_reading import changes, named_in, objects_of, touches
from logact.swarm.tasks import SubTask, part_of
from logact.voters.conflict import same_object

KEPT, WAITED_FOR, BESIDE, READ, NAMED = 8, 4, 2, 2, 1
"""What ties two tasks: one ``keep``; one waits for the other; both wait for a third; what one read, the other names
or read; both name it."""

NAMED_MAX = 3
CHANGES_KEPT = 2000
READS_KEPT = 100

TASKS_LOOKED_AT = 4
"""An agent is known by so many of its latest tasks."""

_WORD = re.compile(r"\w(?:[\w./-]{1,}\w)")
_LIKE_A_NAME = re.compile(r"[./_\d]|\w[A-Z]")
"""Words that name something (a path, an identifier); others tie tasks only where somebody read what they name."""


class Related:
    """What belongs together in the plan of one run, as far as its log was read."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.who: dict[str, str] = {}
        """The agent that holds a task, or held it last."""
        self.reads: dict[str, list[str]] = {}
        """The objects that were read for a task."""
        self.told: dict[int, list[str]] = {}
        """By run: the tasks that it was told to do, in order."""
        self._changes: list[tuple[int, str, list[str]]] = []
        self._names: dict[str, frozenset[str]] = {}

    def take(self, entry: Entry) -> None:
        """One more effective entry of the log."""
        said = entry.payload
        if isinstance(said, Claim) and said.run == self.run and not said.release and not said.lapses:
            if self.who.get(said.task) != said.agent:
                self.who.pop(said.task, None)  # the latest stand last
                self.who[said.task] = said.agent
        elif isinstance(said, Run) and said.parent == self.run:
            self.told[entry.position] = []
        elif isinstance(said, Input) and entry.run in self.told:
            self.told[entry.run] += [part_of(said.text)] * bool(part_of(said.text))
        elif isinstance(said, Intent) and said.tool != ANSWER:
            self._intent(entry, said)

    def _intent(self, entry: Entry, said: Intent) -> None:
        if changes(said):
            self._changes.append((entry.position, said.agent, objects_of(said)))
            del self._changes[:-CHANGES_KEPT]
            return
        told = self.told.get(said.run)
        if told and said.effect == "read" and said.arguments_blob is None:
            read = self.reads.setdefault(told[-1], [])
            read += [one for one in named_in(said.arguments) if one not in read][: READS_KEPT - len(read)]

    # --- what belongs together -----------------------------------------------------------------------------------

    def tie(self, one: SubTask, other: SubTask, tasks: Collection[SubTask]) -> int:
        """How much two tasks have to do with each other (0: nothing that can be seen)."""
        if one.name == other.name:
            return 0
        found = KEPT * (bool(one.keep) and one.keep == other.keep)
        found += WAITED_FOR * (one.name in other.after or other.name in one.after)
        found += BESIDE * len({*one.after} & {*other.after})
        mine, theirs = self._named(one, tasks), self._named(other, tasks)
        found += NAMED * min(NAMED_MAX, sum(1 for word in mine & theirs if _LIKE_A_NAME.search(word)))
        read, read_too = self.reads.get(one.name, []), self.reads.get(other.name, [])
        found += READ * sum(1 for what in read if what in read_too or _names(theirs, what))
        found += READ * sum(1 for what in read_too if what not in read and _names(mine, what))
        return found

    def _named(self, task: SubTask, tasks: Collection[SubTask]) -> frozenset[str]:
        """The words of a task's text that not most tasks of the plan use too."""
        if len(self._names) != len(tasks):
            words = {one.name: frozenset(_WORD.findall(one.text)) for one in tasks}
            count = Counter(word for found in words.values() for word in found)
            usual = {word for word, often in count.items() if often > max(2, len(tasks) // 2)}
            self._names = {name: found - usual for name, found in words.items()}
        return self._names.get(task.name, frozenset())

    def suits(self, agent: str, task: SubTask, tasks: Mapping[str, SubTask]) -> tuple[int, int]:
        """How much a task has to do with what an agent did, and with what any other agent did."""
        ties: Counter[str] = Counter()
        looked: Counter[str] = Counter()
        for name, who in reversed(self.who.items()):
            if name in tasks and looked[who] < TASKS_LOOKED_AT:
                looked[who] += 1
                ties[who] += self.tie(task, tasks[name], tasks.values())
        mine = ties.pop(agent, 0)
        return mine, max(ties.values(), default=0)

    def chosen(self, agent: str, ready: Sequence[SubTask], tasks: Mapping[str, SubTask]) -> SubTask:
        """The ready task that suits an agent best. Nobody waits: what suits another better is taken last."""
        ranked = []
        for place, task in enumerate(ready):
            mine, others = self.suits(agent, task, tasks)
            strange = 0 if mine or others else self._strange(agent, task, ready)
            ranked.append((others > mine, others - mine, strange, place))
        return ready[min(ranked)[3]]

    def _strange(self, agent: str, task: SubTask, ready: Sequence[SubTask]) -> int:
        """Spreads agents over tasks that nobody has begun anything of, or all but one would ask in vain."""
        place = next(at for at, one in enumerate(ready) if one is task)
        return (place - sum(map(ord, agent))) % len(ready)

    # --- what has changed ----------------------------------------------------------------------------------------

    def changed(self, names: Collection[str], agent: str, after: int) -> list[str]:
        """The objects that were read for these tasks, and that others may have changed after a position."""
        read = [what for name in names for what in self.reads.get(name, ())]
        since = [objects for at, who, objects in self._changes if at > after and who != agent]
        return [what for what in dict.fromkeys(read) if any(touches(one, {"object": what}) for one in since)]


def _names(words: Collection[str], what: str) -> bool:
    return any(same_object(word, what) for word in words)
