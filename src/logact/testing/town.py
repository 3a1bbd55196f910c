"""The simulated outside: a ledger of effects, the tools that write into it, a model, voters, and what they said.

The ledger is the truth about effects. It belongs to the world, not to any process, and every entry of it is judged
the moment it is made. The model is a pure function of the conversation.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from logact.core.views import LogEntry
from logact.entry import Call, Entry, Vote
from logact.errors import LogActError
from logact.models.base import ModelRequest
from logact.models.scripted import Reply, ScriptedModel, call, turn_of
from logact.testing.ballots import JUDGES, Judge
from logact.testing.loop import PROCESS, Choices
from logact.testing.plan import ASLEEP, FOR_EVER_S, Plan
from logact.testing.world import Process, World
from logact.tools import Tool, ToolContext, ToolError
from logact.voters.base import Voter

if TYPE_CHECKING:
    from logact.testing.checks import Checker

TASK = "do the chores"
FORBIDDEN = "wipe"
SLOW_S, ASLEEP_S = 8.0, 9.0
"""How long a slow model takes, and how long one who asked may be stopped: both are longer than a lease."""

BUDGET = 2
"""How many times ``send`` may be proposed before the budget voter refuses."""

MENU = ("look", "put", "stamp", "book", "hold", "pay", "send", "wipe", "fail", "murk", "haze", "drag", "ferry")


class Effect(msgspec.Struct, frozen=True):
    """One line of the ledger: what happened in the world, by whom, for which action. ``delta`` is -1 for an undo."""

    item: str
    tool: str
    action: int
    attempt: int
    key: str
    process: str
    pid: int
    time_s: float
    delta: int = 1


class Town:
    """The outside world of one run."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        world.town = self
        self.plan = plan
        self.ledger: list[Effect] = []
        self.checker: Checker | None = None
        self.inside: dict[int, int] = {}  # action -> pid of the process whose tool works on it right now
        self.asked: Counter[tuple[str, int]] = Counter()
        self.refused: dict[str, float] = {}  # item -> when somebody was told that it was refused
        self.answers: dict[tuple[str, str], set[bool]] = {}  # (voter, item) -> what it truly answered
        self.voter_faults = {(name, nth): fault for name, nth, fault in plan.voters}
        self.questions: Counter[str] = Counter()
        self.model_faults = dict(plan.models)
        self.turns_asked = 0
        self.away = list(plan.away)  # when (from, for so long) the environment of ``ferry`` is gone
        self._luck = Choices(plan.schedule, "luck")

    # --- effects ------------------------------

    def net(self, item: str) -> int:
        """How often the item's effect stands in the world."""
        return sum(effect.delta for effect in self.ledger if effect.item == item)

    def act(self, process: Process, tool: str, item: str, context: ToolContext, delta: int = 1) -> None:
        """The effect itself: one atomic step, judged at once."""
        process.check_alive()
        effect = Effect(
            item=item,
            tool=tool,
            action=context.action,
            attempt=context.attempt,
            key=context.key,
            process=process.name,
            pid=process.pid,
            time_s=round(self.world.loop.time(), 6),
            delta=delta,
        )
        self.ledger.append(effect)
        if self.checker is not None:
            try:
                self.checker.effect(effect)
            except LogActError as error:
                self.world.fail(error)

    async def work(self, process: Process, tool: str, item: str, context: ToolContext) -> str:
        """A tool's run: some time, the effect, some time."""
        self.inside[context.action] = process.pid
        try:
            await asyncio.sleep(self._luck.delay(0.0, 0.01))
            if tool == "ferry":
                self._cross(context)
            if tool == "fail":
                raise ToolError("it is closed today", kind="permanent", definite=True)
            if tool in ("murk", "haze"):
                if self._luck.chance(0.5):
                    self.act(process, tool, item, context)
                raise ToolError("the line went dead", kind="ambiguous")
            if tool == "drag":
                self.act(process, tool, item, context)
                await asyncio.sleep(5.0 if self._luck.chance(0.5) else 0.01)
            elif tool != "look":
                self.act(process, tool, item, context)
            elif self.checker is not None:
                self.checker.reading(context, item)
            await asyncio.sleep(self._luck.delay(0.0, 0.01))
            return f"{tool} {item}: done"
        finally:
            if not process.dead:
                self.inside.pop(context.action, None)

    def _cross(self, context: ToolContext) -> None:
        """A call that needs an environment: judged by what is known of it, then refused while it is gone."""
        if self.checker is not None:
            try:
                self.checker.crossing(context)
            except LogActError as error:
                self.world.fail(error)
        now = self.world.loop.time()
        if any(begins <= now < begins + lasts for begins, lasts in self.away):
            self.world.count("environment_gone")
            raise ToolError("the ferry does not run", kind="environment", definite=True)

    # --- the model ------------------------------

    def model(self, agent: str = "") -> ScriptedModel:
        """A fresh model with the same script, for an agent."""
        return ScriptedModel(self._answer)

    def menu(self, turn: int) -> list[Call]:
        """What the model wants in a turn; nothing after the last one."""
        dice = random.Random(f"menu {self.plan.menu} {turn}")
        if turn >= 3:
            return []
        names = dice.sample(MENU, dice.randint(1, 4))
        return [call(name, item=f"{name}-{turn}-{place}") for place, name in enumerate(names)]

    async def _answer(self, request: ModelRequest) -> Reply:
        process = PROCESS.get()
        if process is not None:
            process.check_alive()
        turn = turn_of(request)
        task = next((message.text for message in request.messages if message.role == "user"), "")
        self.asked[task, turn] += 1
        if self.checker is not None:
            try:
                self.checker.asked(task, turn, process)
                self._heard(request)
            except LogActError as error:
                self.world.fail(error)
        await self._model_fails(process)
        return self.menu(turn) or "all done"

    async def _model_fails(self, process: Process | None) -> None:
        """What becomes of an answer on its way: nothing, as a rule, or a fault of the plan."""
        nth = self.turns_asked
        self.turns_asked += 1
        fault = self.model_faults.pop(nth, "")
        if not fault or process is None:
            return
        self.world.count(f"model_{fault}")
        if fault == "asleep":
            self.world.freeze(process.name, ASLEEP_S)
        await asyncio.sleep({"never": FOR_EVER_S, "slow": SLOW_S}.get(fault, 0.1))
        self.world.count(f"model_{fault}_answered")

    def _heard(self, request: ModelRequest) -> None:
        """What the model is told about its calls has to be in the log."""
        items = {made.id: str(made.arguments.get("item", "")) for said in request.messages for made in said.calls}
        for message in request.messages:
            if message.role == "tool" and message.text.startswith(("REJECTED", "CANCELLED before", "STOPPED before")):
                self.told_refused(items.get(message.call_id, ""))

    def told_refused(self, item: str) -> None:
        """Somebody was told that the item's action will not happen."""
        if item not in self.refused:
            self.refused[item] = self.world.loop.time()
            if self.checker is not None:
                self.checker.told_refused(item)

    # --- voters ------------------------------

    def voters(self) -> list[Voter]:
        """The voters, with fresh memories."""
        if self.plan.policy:
            return [Judge(self, name) for name in JUDGES]
        return [Guard(self), Budget(self)]

    async def question(self, voter: str, item: str) -> Any:
        """What happens to a voter when it is asked: a fault of the plan, or nothing (None)."""
        nth = self.questions[voter]
        self.questions[voter] += 1
        fault = self.voter_faults.pop((voter, nth), "")
        if not fault:
            return None
        self.world.count(f"voter_{fault}")
        if fault == "raise":
            raise RuntimeError("the voter is ill")
        if fault == "nonsense":
            return "perhaps"
        process = PROCESS.get()
        if fault == ASLEEP and process is not None:
            self.world.freeze(process.name, ASLEEP_S)
        await asyncio.sleep({"silent": 100.0, "late": 40.0, ASLEEP: 0.1}.get(fault, 1.0))
        return None

    def answered(self, voter: str, item: str, approved: bool, reason: str) -> Vote:
        """A voter's true answer, remembered."""
        self.answers.setdefault((voter, item), set()).add(approved)
        return Vote(approved=approved, reason=reason)


class Guard(Voter):
    """Refuses the forbidden tool."""

    timeout_s = 2.0

    def __init__(self, town: Town) -> None:
        super().__init__("guard")
        self.town = town

    async def check(self, entry: LogEntry) -> Any:
        item = str(entry.action.arguments.get("item", "answer"))
        strange = await self.town.question(self.name, item)
        if strange is not None:
            return strange
        allowed = entry.action.tool != FORBIDDEN
        return self.town.answered(self.name, item, allowed, "fine" if allowed else "never")


class Budget(Voter):
    """Lets the log hold only so many proposals to send; its vote depends on history."""

    timeout_s = 2.0
    scope = "log"

    def __init__(self, town: Town, limit: int = BUDGET) -> None:
        super().__init__("budget")
        self.town = town
        self.limit = limit

    def initial(self) -> int:
        return 0

    def observe(self, memory: int, entry: Entry) -> int:
        return memory + (entry.kind == "Intent" and entry.tool == "send")

    async def check(self, entry: LogEntry) -> Any:
        item = str(entry.action.arguments.get("item", "answer"))
        strange = await self.town.question(self.name, item)
        if strange is not None:
            return strange
        spent = entry.memory if entry.action.tool == "send" else 0
        return self.town.answered(self.name, item, spent < self.limit, f"{spent} of {self.limit} spent")


def _here() -> tuple[Town, Process]:
    """The town and the process in which this code runs."""
    process = PROCESS.get()
    if process is None or not isinstance(process.world.town, Town):
        raise RuntimeError("a simulated tool ran outside of a simulation")
    return process.world.town, process


def _tool(name: str) -> Tool:
    """One tool of the menu."""

    async def run(item: str, context: ToolContext) -> str:
        town, process = _here()
        return await town.work(process, name, item, context)

    def stamp(item: str, context: ToolContext) -> str:
        town, process = _here()
        town.act(process, name, item, context)
        return f"stamp {item}: done"

    async def probe(item: str) -> bool:
        town, process = _here()
        process.check_alive()
        await asyncio.sleep(0.001)
        return town.net(item) > 0

    async def undo(item: str, context: ToolContext) -> str:
        town, process = _here()
        await asyncio.sleep(0.001)
        if town.net(item) > 0:
            town.act(process, name, item, context, -1)
        return f"{item} taken back"

    if name == "look":
        return Tool(run, name=name, effect="read")
    if name in ("put", "ferry"):
        return Tool(run, name=name, effect="idempotent")
    if name == "stamp":
        return Tool(stamp, name=name, effect="idempotent")
    if name == "book":
        return Tool(run, name=name, effect="reversible", undo=undo, probe=probe)
    if name == "hold":
        return Tool(run, name=name, effect="reversible", undo=undo, safe_undo=True)
    if name in ("pay", "murk", "fail"):
        return Tool(run, name=name, effect="irreversible", probe=probe)
    if name == "drag":
        return Tool(run, name=name, effect="irreversible", probe=probe, timeout_s=1.0)
    return Tool(run, name=name)  # undeclared, so irreversible, and nobody can tell whether it happened


@cache
def tools() -> tuple[Tool, ...]:
    """The tools of the menu. They know by themselves in which process they run, so all runs share them."""
    return tuple(_tool(name) for name in MENU)
