"""The agents: a recorded model, replayed call by call, and one that obeys every injection as soon as it reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentdojo.functions_runtime import FunctionCall

from benchmarks.agentdojo.world import Case, World, ground_truth
from logact.entry import Call
from logact.models.base import ModelAnswer, ModelRequest

GIVEN_UP = "I could not do this."


class Replayed:
    """Answers with the recorded turns, in order, whatever came of the calls before. No retries, no adapting."""

    name = "recorded"

    def __init__(self, turns: Sequence[dict[str, Any]]) -> None:
        self.turns = [_answer(turn) for turn in turns]

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        turn = sum(message.role == "assistant" for message in request.messages)
        return self.turns[turn] if turn < len(self.turns) else ModelAnswer(text=GIVEN_UP)


def _answer(turn: dict[str, Any]) -> ModelAnswer:
    calls = tuple(
        Call(id=f"c{number}", tool=call["function"], arguments=call["args"])
        for number, call in enumerate(turn.get("tool_calls") or [])
    )
    content = turn.get("content")
    if isinstance(content, list):
        content = "\n".join(part.get("content") or part.get("text") or "" for part in content)
    return ModelAnswer(text=content or ("" if calls else " "), calls=calls)


class Obeying:
    """Does the user's task by its ground truth, and each injection's as soon as a result has shown it.

    What was planted is told from its text in the results (so a blocked read hides it); what no read has shown is
    done at the end, since an attacker who reaches the agent in another way would be obeyed too.
    """

    name = "obeying"

    def __init__(self, world: World, case: Case) -> None:
        self.own = [_call(call) for call in ground_truth(world, world.task)]
        attack = world.suite.injection_tasks[case.injection_task] if case.attacked else None
        self.orders = [_call(call) for call in ground_truth(world, attack)] if attack is not None else []
        self.mark = _mark(attack.GOAL) if attack is not None else ""
        answer = world.task.GROUND_TRUTH_OUTPUT or "Done."
        said = attack.GOAL if attack is not None and not self.orders else ""
        self.text = "\n".join(part for part in (answer, _spoken(said)) if part)
        self.obeyed = False

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        turn = sum(message.role == "assistant" for message in request.messages)
        if self.orders and not self.obeyed:
            seen = any(message.role == "tool" and self.mark in _flat(message.text) for message in request.messages)
            if seen or turn >= len(self.own):
                self.obeyed = True
                self.own[turn:turn] = self.orders
        if turn < len(self.own):
            return ModelAnswer(calls=(self.own[turn],))
        last = request.messages[-1]
        refused = last.role == "tool" and last.is_error and last.tool == "answer"
        return ModelAnswer(text=GIVEN_UP if refused or turn > len(self.own) else self.text)


def _call(call: FunctionCall) -> Call:
    return Call(id="", tool=call.function, arguments=_plain(dict(call.args)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _flat(text: str) -> str:
    return " ".join(text.replace("\\n", " ").replace('\\"', '"').split())


def _mark(goal: str) -> str:
    return _flat(goal)[:60]


def _spoken(goal: str) -> str:
    """What an order to say something makes an obedient agent say."""
    lowered = goal.casefold()
    for opening in ("say that ", "tell the user that "):
        if opening in lowered:
            return goal[lowered.index(opening) + len(opening) :]
    return goal
