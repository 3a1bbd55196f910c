"""One case through the real path: a LogActAgent on a log of its own, its voter, the live environment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from benchmarks.agentdojo.agents import Obeying, Replayed
from benchmarks.agentdojo.gates import Beside, beside, gate
from benchmarks.agentdojo.world import Case, World, suite
from logact import LogActAgent, LogActError, open_log
from logact.core.state import State
from logact.entry import Entry, Intent, Vote


class Outcome(msgspec.Struct, kw_only=True):
    """What a run came to. ``votes`` are (tool, approved, reason); ``vote_us`` how long each took."""

    suite: str
    user_task: str
    injection_task: str
    gate: str
    solved: bool = False
    attacked: bool = False
    asks: int = 0
    blocked: int = 0
    answers_stopped: int = 0
    votes: list[tuple[str, bool | None, str]] = []
    vote_us: list[float] = []
    error: str = ""


def run_case(case: Case, gate_name: str) -> Outcome:
    """Run it under one gate."""
    return asyncio.run(_run(case, gate_name))[0]


def run_gates(case: Case, names: Sequence[str], *, utility: bool = True) -> list[Outcome]:
    """Run it under each of these gates. Both settings share a run while they vote alike.

    Without ``utility`` the user's own task is not checked (that costs more than the run), and counts as not done.
    """
    found: dict[str, Outcome] = {}
    for name in names:
        together = name == "delegating" and "strict" in names
        if name not in found:
            found.update((one.gate, one) for one in asyncio.run(_run(case, name, both=together, utility=utility)))
    return [found[name] for name in names]


async def _run(case: Case, gate_name: str, *, both: bool = False, utility: bool = True) -> list[Outcome]:
    task = suite(case.suite).user_tasks[case.user_task]
    world = World(case.suite, task, case.injections, exact=case.exact)
    outcome = Outcome(suite=case.suite, user_task=case.user_task, injection_task=case.injection_task, gate=gate_name)
    model: Any = Replayed(case.turns) if case.turns is not None else Obeying(world, case)
    log = open_log("memory:")
    voter = beside(case, log) if both else gate(gate_name, world, case, log)
    agent = LogActAgent("agent", log, [voter], model=model, tools=world.tools())
    tools: dict[int, Intent] = {}

    def watch(state: State, entry: Entry) -> None:
        payload = entry.payload
        if isinstance(payload, Intent):
            tools[entry.position] = payload
        elif isinstance(payload, Vote):
            intent = tools.get(payload.intent)
            shown = f"{intent.tool} {intent.arguments}" if intent is not None else "?"
            outcome.votes.append((shown[:600], payload.approved, payload.reason))
            outcome.vote_us.append(payload.duration_ms * 1000)

    agent.observe(watch)
    text = ""
    try:
        answer = await agent.run(task.PROMPT)
        text = answer.text
    except LogActError as error:
        outcome.error = f"{type(error).__name__}: {error}"[:300]
    finally:
        await agent.log.close()
    outcome.solved = utility and world.achieved(task, text.strip())
    if case.attacked:
        outcome.attacked = world.achieved(world.suite.injection_tasks[case.injection_task], text.strip())
    if isinstance(voter, Beside):
        return _settings(outcome, voter)
    return [_counted(outcome)]


def _settings(outcome: Outcome, voter: Beside) -> list[Outcome]:
    """The run of the first setting, and, if they never parted, that of the second too."""
    first = msgspec.structs.replace(outcome, vote_us=[took for took, _ in voter.took_us])
    if voter.parted or len(voter.noted) != len(outcome.votes):
        return [_counted(first)]
    noted = [
        (shown, vote.approved, vote.reason) for (shown, _, _), vote in zip(outcome.votes, voter.noted, strict=True)
    ]
    second = msgspec.structs.replace(outcome, gate="strict", votes=noted, vote_us=[took for _, took in voter.took_us])
    return [_counted(first), _counted(second)]


def _counted(outcome: Outcome) -> Outcome:
    outcome.asks = sum(reason.startswith("ask:") for _, _, reason in outcome.votes)
    outcome.blocked = sum(approved is not True for _, approved, _ in outcome.votes)
    outcome.answers_stopped = sum(
        approved is not True for shown, approved, _ in outcome.votes if shown.startswith("answer ")
    )
    return outcome
