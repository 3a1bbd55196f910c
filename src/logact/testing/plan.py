"""A fault plan: explicit data that says what goes wrong in one simulated run, and when.

A plan from a seed (``Plan.random``) and one written by hand, or by Hypothesis, are the same thing, so what one
finds can be kept as the other.
"""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from logact.core.supervising import Strategy

Form = Literal["inline", "decoupled", "own", "swarm", "supervised"]
Fate = Literal["lost", "committed_then_error", "error_then_committed", "slow", "unavailable"]
Cut = Literal["cut", "mute", "deaf", "unheard"]
EventKind = Literal[
    "kill",
    "stop",
    "hang",
    "cut",
    "mute",
    "deaf",
    "unheard",
    "jump",
    "pause",
    "forge",
    "cancel",
    "policy",
    "second",
    "takeover",
    "ill",
    "twin",
]

FATES: tuple[Fate, ...] = ("lost", "committed_then_error", "error_then_committed", "slow", "unavailable")
CUTS: tuple[Cut, ...] = ("cut", "mute", "deaf", "unheard")
"""Partitions between a process and the log: whole, or one way only. ``mute``: what it appends does not arrive, and it
reads. ``deaf``: what it appends arrives, and it reads nothing. ``unheard``: it arrives, and no answer comes back."""

MODEL_FAULTS = ("never", "slow", "asleep")
"""``never``: no answer comes until somebody gives it up. ``slow``: it takes longer than a lease. ``asleep``: whoever
asked is stopped meanwhile for longer than a lease, so that the answer comes after it may have been replaced."""

VOTER_FAULTS = ("raise", "nonsense", "silent", "slow")
BALLOT_FAULTS = (*VOTER_FAULTS, "late")
"""``late``: the vote comes when the time for a decision is over, and before the voter is given up."""
ASLEEP = "asleep"
"""What a voter meets only where it has a twin: whoever asked it is stopped meanwhile for longer than a lease."""

CALM_AT_S = 12.0
"""From this moment on nothing goes wrong any more, and everything has to come to an end."""

HANG_POINTS = ("before_effect", "after_effect", "before_started", "after_started", "before_result")
FOR_EVER_S = 2_000.0
"""Longer than a run may take: who hangs for so long goes on only if somebody does something about it."""

PROCESSES: dict[Form, tuple[str, ...]] = {
    "inline": ("agent", "person"),
    "own": ("agent", "person"),
    "decoupled": (
        "driver",
        "voter-guard",
        "voter-budget",
        "decider-1",
        "decider-2",
        "executor-1",
        "executor-2",
        "recoverer",
        "checkpointer",
        "person",
    ),
    "swarm": ("ann", "bob", "eve", "max", "person"),
}


PARTS = PROCESSES["decoupled"][:-1]
"""The parts of an agent, in the order in which a supervisor starts them."""

PROCESSES["supervised"] = ("supervisor", *PARTS, "person")


TWINS: dict[str, tuple[str, ...]] = {
    "driver": ("before_inference", "before_intent"),
    "voter-guard": ("before_vote",),
    "voter-budget": ("before_vote",),
    "decider-1": ("before_commit", "before_abort"),
    "decider-2": ("before_commit", "before_abort"),
    "executor-1": ("before_started",),
}
"""The parts that a second process may play, and in front of which append one of the two is stopped."""

TWIN = "-twin"


class Event(msgspec.Struct, frozen=True):
    """Something that happens at a moment: to a process (``who``), for a while or by an amount.

    A ``twin`` is a second process for a part, on another host: no supervisor starts it, or ends it.
    For ``forge`` it may name the forgery instead (see ``forging``).
    """

    at_s: float
    kind: EventKind
    who: str
    amount: float = 0.5


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``schedule`` seeds the order of steps and all delays; 0 is first in first out, with no delay.

    ``appends`` are (process, its n-th append over all lives, fate), ``reads`` (process, n-th read) that fail,
    ``points`` (process, n-th named point, restart after seconds) at which it dies, ``steps`` (process, life, step)
    at which it dies, ``voters`` (voter, n-th question, fault). ``in_flight`` says what becomes of the requests of a
    process that dies. ``models`` are (n-th question to the model, fault), ``deadline_s`` is the run's time limit (0:
    none). ``policy`` names a form of policy over three judges (see ``ballots``); without it, the guard
    and the budget must both approve.
    """

    schedule: int = 0
    form: Form = "inline"
    menu: int = 0
    appends: tuple[tuple[str, int, Fate], ...] = ()
    reads: tuple[tuple[str, int], ...] = ()
    points: tuple[tuple[str, int, float], ...] = ()
    steps: tuple[tuple[str, int, int], ...] = ()
    events: tuple[Event, ...] = ()
    voters: tuple[tuple[str, int, str], ...] = ()
    hangs: tuple[tuple[str, str, int, float], ...] = ()
    away: tuple[tuple[float, float], ...] = ()
    models: tuple[tuple[int, str], ...] = ()
    deadline_s: int = 0
    in_flight: Literal["arrives", "dropped", "either"] = "arrives"
    checkpoint_every: int = 0
    engine: Literal["memory", "sqlite", "arbitrated"] = "memory"
    policy: str = ""
    strategy: Strategy = "one_for_one"
    restarts: int = 10

    @property
    def has_faults(self) -> bool:
        """Whether anything goes wrong."""
        at_the_log = self.appends or self.reads
        in_processes = self.points or self.steps or self.events or self.hangs
        return bool(at_the_log or in_processes or self.away or self.voters or self.models)

    @property
    def has_twins(self) -> bool:
        """Whether two processes play one part."""
        return any(event.kind == "twin" for event in self.events)

    @classmethod
    def random(cls, seed: int, form: Form | None = None) -> Plan:
        """The plan of a seed: a form, a workload, and some faults of every kind."""
        dice = random.Random(f"plan {seed}")
        drawn: Form = dice.choices(("inline", "decoupled", "own"), (5, 4, 1))[0]
        form = form or drawn
        names = PROCESSES[form]
        eager = names[0] if form in ("inline", "own") else ""  # one process does nearly all of it

        def who() -> str:
            return eager if eager and dice.random() < 0.85 else dice.choice(names)

        rough = dice.choice((0, 1, 2, 4))  # a quarter of the plans are nearly free of faults
        kinds: tuple[EventKind, ...] = (
            "kill",
            "kill",
            "stop",
            "cut",
            "jump",
            "pause",
            "forge",
            "cancel",
            "policy",
            "hang",
        )
        later = random.Random(f"later {seed}")  # what was added to plans later changes nothing of what they were
        chaos = random.Random(f"supervised {seed}")
        plan = cls(
            schedule=1 + dice.randrange(2**31),
            form=form,
            menu=dice.randrange(2**31),
            appends=tuple(
                (name, nth, fate)
                for (name, nth), fate in sorted(
                    {(who(), dice.randrange(40)): dice.choice(FATES) for _ in range(rough * 2)}.items()
                )
            ),
            reads=tuple(sorted({(who(), dice.randrange(60)) for _ in range(rough)})),
            points=tuple(
                (name, nth, after)
                for (name, nth), after in sorted(
                    {(who(), dice.randrange(60)): round(0.1 + dice.random() * 3, 2) for _ in range(rough)}.items()
                )
            ),
            steps=tuple(sorted({(who(), 1 + dice.randrange(2), 1 + dice.randrange(600)) for _ in range(rough // 2)})),
            events=tuple(
                Event(
                    round(dice.random() * 8, 3),
                    _one_way(later, dice.choice(kinds)),
                    who(),
                    round(0.1 + dice.random() * 4, 2),
                )
                for _ in range(rough * 2)
            ),
            voters=tuple(
                (name, nth, fault)
                for (name, nth), fault in sorted(
                    {
                        (dice.choice(("guard", "budget")), dice.randrange(12)): dice.choice(VOTER_FAULTS)
                        for _ in range(rough // 2)
                    }.items()
                )
            ),
            hangs=tuple(
                (name, dice.choice(HANG_POINTS), nth, round(dice.choice((3.0, 9.0, 14.0, FOR_EVER_S)), 1))
                for name, nth in sorted({(who(), dice.randrange(3)) for _ in range(rough // 2)})
            ),
            away=tuple(
                (round(dice.random() * 6, 2), round(0.5 + dice.random() * 5, 2))
                for _ in range(dice.choice((0, rough)))
            ),
            in_flight=dice.choice(("arrives", "dropped", "either")),
            checkpoint_every=dice.choice((0, 0, 20, 40)),
            models=tuple(
                (nth, later.choice(MODEL_FAULTS)) for nth in sorted({later.randrange(6) for _ in range(rough // 2)})
            ),
            deadline_s=later.choice((0, 0, 0, 10)) if rough else 0,
        )
        plan = _under_a_supervisor(plan, chaos) if form == "supervised" else plan
        twins = random.Random(f"twins {seed}")
        return with_a_twin(plan, twins) if form in ("decoupled", "supervised") and twins.random() < 0.3 else plan


def _under_a_supervisor(plan: Plan, dice: random.Random) -> Plan:
    """The same, with what can happen to a supervisor and its parts."""

    def some(kind: EventKind, who: str, low: float, high: float) -> Event:
        return Event(round(dice.random() * 9, 3), kind, who, round(low + (high - low) * dice.random(), 2))

    events = [
        *(some("kill", "supervisor", 0.1, 4.0) for _ in range(dice.choice((0, 1, 1, 3)))),
        *(some("hang", dice.choice(PARTS), 1.0, 500.0) for _ in range(dice.choice((0, 1, 2)))),
        *(some("hang", "supervisor", 0.3, 5.0) for _ in range(dice.choice((0, 0, 1)))),
        *(some(dice.choice(CUTS), "supervisor", 0.3, 4.0) for _ in range(dice.choice((0, 0, 1)))),
        *(some("ill", dice.choice(PARTS), 0.5, 9.0) for _ in range(dice.choice((0, 0, 1, 2)))),
        *(some(dice.choice(("second", "takeover")), "supervisor", 0.1, 1.0) for _ in range(dice.choice((0, 0, 1)))),
    ]
    steps = [("supervisor", 1 + dice.randrange(3), 1 + dice.randrange(900)) for _ in range(dice.choice((0, 1, 2)))]
    return msgspec.structs.replace(
        plan,
        events=(*plan.events, *events),
        steps=(*plan.steps, *steps),
        strategy=dice.choice(("one_for_one", "one_for_one", "one_for_all", "rest_for_one")),
        restarts=dice.choice((3, 6, 10, 30)),
    )


def with_a_twin(plan: Plan, dice: random.Random, who: str = "") -> Plan:
    """The same, with a second process for one part; one of the two is stopped, and wakes up when the other works.

    Under a supervisor it is the twin, since the supervisor ends its own.
    """
    who = who or dice.choice(tuple(TWINS))
    stopped = who + TWIN if plan.form == "supervised" or dice.random() < 0.4 else who
    hang = (stopped, dice.choice(TWINS[who]), dice.randrange(3), dice.choice((3.0, 9.0, 16.0, 22.0)))
    voters = plan.voters
    if who.startswith("voter-") and dice.random() < 0.5:
        voters = (*voters, (who.removeprefix("voter-"), dice.randrange(4), ASLEEP))
    at_s = dice.random() * (0.5 if stopped != who else 18.0)
    return msgspec.structs.replace(
        plan, events=(*plan.events, Event(round(at_s, 3), "twin", who)), hangs=(*plan.hangs, hang), voters=voters
    )


def _one_way(dice: random.Random, kind: EventKind) -> EventKind:
    """The same, but for a partition: three in four are of one way only."""
    return dice.choice(CUTS) if kind == "cut" else kind
