"""Takes a model's answer from the log where it was asked exactly the same before, where that is switched on.

The same is: the same model, system prompt, tools and conversation, by one digest of the whole request, so that
nothing the answer rests on can differ. Whatever an answer proposes is voted on anew for whoever takes it over.
"""

from __future__ import annotations

import msgspec

from logact import codec
from logact.agent import LogActAgent
from logact.core.state import State
from logact.entry import Call, Entry, Inference, Notice, Usage
from logact.errors import LogTrimmed
from logact.models.base import Model, ModelAnswer, ModelRequest

ANSWERED, SHARED = "inference_answered", "inference_shared"
"""The codes of the notices that say which request an inference answers, and that one was taken from the log."""

KNOWN_MAX = 5000


class SharedAnswers:
    """What was answered before, for one agent. Its notices ride with the agent's next record."""

    def __init__(self, agent: LogActAgent) -> None:
        self.agent = agent
        self.served = 0
        self._known: dict[str, int] = {}
        self._asked: tuple[str, tuple[str, tuple[tuple[str, str], ...]]] | None = None

    def before(self, model: Model) -> Model:
        """A model that is spared what was answered before."""
        return _Spared(self, model)

    async def answer(self, model: Model, request: ModelRequest) -> ModelAnswer:
        """The recorded answer to this very request, at no cost; else the model's. Raises what the model raises."""
        if not self.agent.tuning.shares_answers:
            return await model.answer(request)
        key = codec.digest(msgspec.json.encode((model.name, _plain(request))))
        there = await self._recorded(key)
        if there is not None:
            return there
        answer = await model.answer(request)
        if isinstance(answer, ModelAnswer) and not any(call.broken for call in answer.calls):
            self._asked = key, _said(answer.text, answer.calls)
        return answer

    async def _recorded(self, key: str) -> ModelAnswer | None:
        position = self._known.get(key)
        if position is None:
            return None
        try:
            found = (await self.agent.log.get(position)).payload
        except LogTrimmed:
            self._known.pop(key, None)  # asked again, it is answered anew
            return None
        if not isinstance(found, Inference) or found.raw is not None or any(call.broken for call in found.calls):
            return None
        self.served += 1
        spared = found.usage.input_tokens + found.usage.output_tokens
        self._ride(SHARED, found.run, {"of": position, "tokens": spared})
        return ModelAnswer(text=found.text, calls=found.calls, stop=found.stop, usage=Usage(), model=found.model)

    def observe(self, state: State, entry: Entry) -> None:
        """One more entry: which requests were answered where, by whomever."""
        said = entry.payload
        if state.verdict:
            return
        if isinstance(said, Notice) and said.code == ANSWERED and entry.author.role == "driver":
            key, position = said.data.get("key"), said.data.get("inference")
            if isinstance(key, str) and isinstance(position, int):
                self._known.setdefault(key, position)
                if len(self._known) > KNOWN_MAX:
                    del self._known[next(iter(self._known))]
        elif isinstance(said, Inference) and self._asked is not None:
            key, given = self._asked
            parts = self.agent._parts
            mine = parts is not None and entry.author.incarnation == parts.host.incarnation
            if mine and _said(said.text, said.calls) == given:
                self._asked = None
                self._ride(ANSWERED, said.run, {"key": key, "inference": entry.position})

    def _ride(self, code: str, run: int, data: dict[str, object]) -> None:
        parts = self.agent._parts
        if parts is not None:
            notice = Notice(code=code, message="", agent=self.agent.agent_id, run=run, data=data)
            parts.host.riding.append(parts.host.entry(notice, "driver", self.agent.agent_id, run=run))


class _Spared:
    """Stands before a model."""

    def __init__(self, shared: SharedAnswers, model: Model) -> None:
        self.name = model.name
        self._shared = shared
        self._model = model

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """The recorded answer, or the model's."""
        return await self._shared.answer(self._model, request)


def _plain(request: ModelRequest) -> ModelRequest:
    """The request without what differs between two of the same: pictures are compared by their digests."""
    messages = tuple(
        msgspec.structs.replace(
            one, images=(), text=one.text + "".join(f"[{codec.digest(image.data)}]" for image in one.images)
        )
        for one in request.messages
    )
    return msgspec.structs.replace(request, messages=messages)


def _said(text: str, calls: tuple[Call, ...]) -> tuple[str, tuple[tuple[str, str], ...]]:
    return text, tuple((call.tool, msgspec.json.encode(call.arguments).decode()) for call in calls)


def equip(agent: LogActAgent) -> None:
    """Let an agent's model be spared what was answered before, once that is switched on for it."""
    if agent.model is not None and agent.asks is None:
        shared = SharedAnswers(agent)
        agent.asks = shared.before
        agent.observe(shared.observe, ("Notice", "Inference"))
