"""Runs of a real agent, healthy or with one fault planted, on a clock that the model and the tools move.

Every run is a ``LogActAgent`` with voters on a log in memory; only its model is scripted, and only its clock is made
up, so that a tool that takes a minute takes none. A healthy run and a faulty one of the same seed do the same work
up to the fault.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from logact import LogActAgent, RetryRecovery, ToolError, Vote, Voter, open_log, tool
from logact import env as environment
from logact.core.views import LogEntry
from logact.entry import Usage
from logact.errors import LogActError, ModelUnavailable
from logact.logs.base import SharedLog
from logact.models import ModelAnswer, ModelRequest, ScriptedModel
from logact.models.scripted import call, estimate_usage

KINDS = (
    "slow_tool",
    "retry_storm",
    "loop",
    "growing_context",
    "silent_voter",
    "expensive_model",
    "drift",
    "stuck_wait",
    "repeated_reads",
    "budget_leak",
)
"""The ten faults, under the codes of the signals that have to find them."""

EPOCH_MS = 1_760_000_000_000
CHEAP_USD = 0.6e-6
"""The price of a token of the ordinary model."""

GOODS = ("kettle", "lantern", "tripod", "violin", "saddle", "compass", "teapot", "blanket", "hammock", "skillet")
PEOPLE = ("moreau", "okafor", "lindqvist", "tanaka", "castillo", "novak", "haddad", "brennan", "petrov", "iyer")
ELSEWHERE = ("jazz", "volcano", "chess", "orchid", "glacier", "pasta", "comet", "sonnet", "marathon", "origami")


class Clock(environment.Env):
    """The real clock, and what was added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.added_s = 0.0
        self._began_s = super().monotonic()

    def wall_ms(self) -> int:
        return EPOCH_MS + int((self.monotonic() - self._began_s) * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.added_s


@dataclass
class Shop:
    """What the run is about, and what its tools and its model do."""

    seed: int
    fault: str = ""
    clock: Clock = field(init=False)
    dice: random.Random = field(init=False)
    orders: dict[str, tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.dice = random.Random(f"shop {self.seed}")
        goods = self.dice.sample(GOODS, self.dice.randint(4, 8))
        names = [f"A{self.dice.randint(100, 999)}" for _ in goods]
        people = self.dice.sample(PEOPLE, len(goods))
        self.orders = dict(zip(names, zip(goods, people, strict=True), strict=True))

    @property
    def task(self) -> str:
        """What the user asks for."""
        return f"Check the orders {', '.join(self.orders)} and write to the customers whose parcel is late."

    # --- tools ------------------------------

    def tools(self) -> list[Any]:
        """The agent's tools."""
        shop = self

        @tool(effect="read")
        def list_orders() -> str:
            """All open orders."""
            shop.spend(0.1, 0.6)
            return ", ".join(f"{name}: {what} for {who}" for name, (what, who) in shop.orders.items())

        @tool(effect="read")
        def read_order(order: str) -> str:
            """One order."""
            shop.spend(20, 60) if shop.fault == "slow_tool" else shop.spend(0.2, 3.0)
            what, who = shop.orders.get(order, ("nothing", "nobody"))
            text = f"order {order}: a {what} for {who}, parcel sent, expected yesterday"
            return text + (" scan log " * 2200 if shop.fault == "growing_context" else "")

        @tool(effect="irreversible")
        def write_mail(to: str, text: str) -> str:
            """Write to a customer."""
            shop.spend(0.3, 2.0)
            return f"sent to {to}"

        @tool(effect="idempotent")
        def note(order: str, text: str) -> str:
            """Put a note on an order."""
            shop.spend(0.1, 0.5)
            if shop.fault == "retry_storm":
                raise ToolError("the archive is closed", kind="transient", definite=True)
            return f"noted on {order}"

        @tool(effect="read")
        def look_up(subject: str) -> str:
            """Look a subject up in the encyclopedia."""
            shop.spend(0.2, 1.0)
            return f"an article of {shop.dice.randint(500, 900)} pages about it"

        return [list_orders, read_order, write_mail, note, look_up]

    def spend(self, least_s: float, most_s: float) -> None:
        """Time passes."""
        self.clock.added_s += self.dice.uniform(least_s, most_s)

    # --- the model ------------------------------

    def script(self) -> list[Any]:
        """What the model wants, turn by turn: the work, with the fault in the middle of it."""
        turns: list[Any] = [call("list_orders")] if self.dice.random() < 0.7 else []
        names = list(self.orders)
        for place, name in enumerate(names):
            what, who = self.orders[name]
            turns.append(call("read_order", order=name))
            if self.dice.random() < 0.3:
                turns.append(call("note", order=name, text=f"asked the carrier about the {what}"))
            if self.dice.random() < 0.6:
                turns.append(call("write_mail", to=f"{who}@example.org", text=f"Your {what} ({name}) is late."))
            if place == len(names) // 2:
                turns += self._planted(name)
            if self.dice.random() < 0.2:  # a healthy agent looks twice now and then
                turns.append(call("read_order", order=self.dice.choice(names[: place + 1])))
        return [*turns, "All customers of late parcels have a mail."]

    def _planted(self, name: str) -> list[Any]:
        if self.fault == "loop":
            return [call("write_mail", to="x@example.org", text=f"{name} is late.") for _ in range(7)]
        if self.fault == "repeated_reads":
            return [call("read_order", order=name) for _ in range(4)]
        if self.fault == "drift":
            return [call("look_up", subject=word) for word in self.dice.sample(ELSEWHERE, 8)]
        if self.fault == "budget_leak":
            refused = [call("write_mail", to=f"{word}@forbidden.example", text=name) for word in ELSEWHERE]
            return refused + [call("write_mail", to=f"{word}2@forbidden.example", text=name) for word in ELSEWHERE]
        if self.fault == "retry_storm":
            return [call("note", order=name, text="asked")]
        if self.fault in ("expensive_model", "growing_context"):
            return [call("read_order", order=one) for one in list(self.orders)[:4]]
        return []

    def model(self, *, dear: bool = False) -> ScriptedModel:
        """The scripted model; its answers take time and cost money."""
        script = self.script()
        name = "big" if dear else "small"
        price = CHEAP_USD * (25 if dear else 1)

        def answer(request: ModelRequest) -> ModelAnswer:
            turn = sum(message.role == "assistant" for message in request.messages)
            if self.fault == "stuck_wait" and turn == len(script) // 2:
                raise ModelUnavailable("the provider is gone")
            self.spend(0.8, 6.0)
            said = script[min(turn, len(script) - 1)]
            text, calls = (said, ()) if isinstance(said, str) else ("", (said,))
            used = estimate_usage(request, text, calls)
            cost = (used.input_tokens + 4 * used.output_tokens) * price
            usage = Usage(input_tokens=used.input_tokens, output_tokens=used.output_tokens, cost_usd=cost)
            return ModelAnswer(text=text, calls=calls, usage=usage, model=name)

        return ScriptedModel(answer, name=name)

    # --- voters ------------------------------

    def voters(self) -> list[Any]:
        """Two voters: one that refuses mail to strangers, one that asks elsewhere (and may be silent)."""

        def guard(entry: LogEntry) -> Vote:
            refused = "forbidden" in str(entry.action.arguments.get("to", ""))
            return Vote(approved=not refused, reason="a stranger" if refused else "fine")

        return [guard, Asker(self)]


class Asker(Voter):
    """A voter that asks a service."""

    placement = "inline"
    timeout_s = 0.03

    def __init__(self, shop: Shop) -> None:
        super().__init__("asker")
        self.shop = shop

    async def check(self, entry: LogEntry) -> Vote:
        if self.shop.fault == "silent_voter" and entry.action.tool != "list_orders":
            await asyncio.sleep(60)
        self.shop.spend(0.01, 0.2)
        return Vote(approved=True, reason="the service does not mind")


async def played(seed: int, fault: str = "", *, log: SharedLog | None = None) -> tuple[SharedLog, int]:
    """Play a run; the log, and the wall time (ms) at which it is looked at."""
    shop = Shop(seed, fault)
    environment.use(shop.clock)
    opened = log or open_log("memory:")
    try:
        for dear in (False, True) if fault == "expensive_model" else (False,):
            agent = LogActAgent(
                "clerk",
                opened,
                shop.voters(),
                model=shop.model(dear=dear),
                tools=shop.tools(),
                recovery=RetryRecovery(max_retries=6, base_delay=0.002),
            )
            try:
                await agent.run(shop.task + (" Again." if dear else ""))
            except LogActError:
                pass  # a run that fails is looked at as it stands
        if fault == "stuck_wait":
            shop.clock.added_s += 3600
        return opened, shop.clock.wall_ms()
    finally:
        environment.use(environment.REAL)
