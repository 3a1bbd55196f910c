"""Asks the model, and writes down what it said: turns of a run, and summaries in place of a long context.

This file owns what the model is shown and offered, how long it may take, what is done about nonsense, and the checks
of its calls and answers. It never proposes an action, and never decides what a run does next: ``driver`` does.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import msgspec

from logact import codec
from logact.core import driving
from logact.core.settling import ANSWER
from logact.core.state import RunState
from logact.entry import BlobRef, Call, Compaction, Inference, Notice, ToolSpec
from logact.env_guest import guest, said
from logact.errors import ConditionFailed, ModelError, ModelNonsense, ModelUnavailable, UsageError
from logact.logs.base import Clause, Filter
from logact.models.base import Message, Model, ModelAnswer, ModelRequest
from logact.runtime import values
from logact.runtime.host import Host
from logact.runtime.proposer import Proposer
from logact.runtime.transcript import Transcript

MODEL_TIMEOUT_S = 600.0
"""How long one answer of the model may take, retries included."""

NONSENSE_MAX = 3
"""How often in a row the model may answer nonsense before the driver gives up."""

TEXT_CHARS_MAX = 40_000
"""How much text one answer of the model may hold; the middle of a longer one is left out."""

KEPT_TAIL = 6
"""About how many of the last context entries a compaction leaves as they are."""


class Asker:
    """Asks one agent's model. ``model``, ``system`` and ``hidden`` may be changed between two runs."""

    def __init__(
        self,
        host: Host,
        model: Model,
        proposer: Proposer,
        transcript: Transcript,
        *,
        system: str = "",
        answer_schema: dict[str, Any] | None = None,
        check_answer: Callable[[Any], Any] | None = None,
        context_tokens_max: int = 0,
        model_timeout_s: float = MODEL_TIMEOUT_S,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self.host = host
        self.model = model
        self.proposer = proposer
        self.transcript = transcript
        self.system = system
        self.answer_schema = answer_schema
        self.check_answer = check_answer
        self.context_tokens_max = context_tokens_max
        self.model_timeout_s = model_timeout_s
        self.hidden = hidden
        self.name = host.agent

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is offered: the tools, and where the answer has a form, the tool that gives it."""
        specs = self.proposer.tools.specs()
        if self.hidden:
            specs = tuple(spec for spec in specs if spec.name not in self.hidden)
        if self.answer_schema is None:
            return specs
        return (
            *specs,
            ToolSpec(
                name=ANSWER,
                description="Give the final answer. Call it once, when the task is done.",
                parameters={
                    "type": "object",
                    "properties": {"value": self.answer_schema},
                    "required": ["value"],
                },
                effect="read",
            ),
        )

    async def infer(self, run: RunState) -> None:
        """Ask the model for a run's next turn, and append what it said; ConditionFailed if a rival was faster."""
        await self.host.flush()
        # what came while the model was thinking was not seen by it: all this is as it was when it was asked
        turn, base, seen, asked_at = run.turn + 1, run.inference, list(run.context), self.host.state.position
        moment = driving.moment(self.host.state, run.id)
        request = ModelRequest(
            system=self.system,
            messages=tuple(await self.transcript.messages(run)),
            tools=self.specs,
            answer_schema=self.answer_schema,
        )
        if driving.moment(self.host.state, run.id) != moment:
            return  # another driver's answer came while this was put together
        began = self.host.env.monotonic()
        answer = await self._ask(run, request)
        if answer is None:
            return
        secrets = self.proposer.secrets
        text = values.cut(secrets.redact_text(answer.text), TEXT_CHARS_MAX)
        calls = tuple(self._checked(call) for call in answer.calls)
        if self.answer_schema is not None and not calls:
            calls = (self._text_as_answer(text),)
        prompt = self.system.encode()
        if base in seen:
            seen = seen[seen.index(base) + 1 :]
        else:
            base = 0  # the first inference, or the first after a compaction
        system_seen = [codec.digest(prompt)] if prompt and not base else []
        inference = Inference(
            run=run.id,
            turn=turn,
            model=answer.model or self.model.name,
            base=base,
            context=(*system_seen, *seen),
            tools_digest=self.proposer.tools.digest,
            text=text,
            calls=calls,
            stop=answer.stop,
            usage=answer.usage,
            latency_ms=round((self.host.env.monotonic() - began) * 1000, 3),
            retried=answer.retried,
        )
        blobs: list[tuple[str, bytes]] = [(codec.digest(prompt), prompt)] if system_seen else []
        inference, more = _outsourced(inference)
        entry = self.host.entry(inference, "driver", self.name, run=run.id)
        rival = Clause(kinds=("Inference", "Compaction"), runs=(run.id,))
        taken = Clause(kinds=("Fence",), agents=(run.agent,))
        # not an input: what the model said was paid for, and the fold puts what it had not seen after it
        unless = Filter((rival, taken))
        while True:
            try:
                await self.host.append([entry], unless=unless, after=asked_at, blobs=blobs + more)
                return
            except ConditionFailed:
                if self.host.is_fenced(self.host.state) or driving.moment(self.host.state, run.id) != moment:
                    raise
                asked_at = self.host.state.position  # what came took no effect: what was paid for still counts

    async def _ask(self, run: RunState, request: ModelRequest, *, text: bool = False) -> ModelAnswer | None:
        """The model's answer; nonsense is asked again a few times, what fails is noted in the log and raised.

        None if the run's own time is over while the model thinks. With ``text`` an answer without one is nonsense.
        """
        for attempt in range(1, NONSENSE_MAX + 1):
            left_s = driving.seconds_left(run, self.host.env.wall_ms())
            try:
                wait_s = min(self.model_timeout_s, math.inf if left_s is None else left_s + 0.01)
                async with asyncio.timeout(wait_s):
                    with guest():
                        answer = await self.model.answer(request)
                if not isinstance(answer, ModelAnswer):
                    raise ModelNonsense(
                        "The model returned something else than an answer", received=type(answer).__name__
                    )
                if text and not answer.text.strip():
                    raise ModelNonsense("The model gave no text", received=f"{len(answer.calls)} calls")
                return answer
            except TimeoutError as error:
                if left_s is not None and left_s <= self.model_timeout_s:
                    message = f"the run's {run.limits.seconds} s are over, and the model was not waited for"
                    notice = Notice(code="run_deadline", message=message, agent=run.agent, run=run.id)
                    await self.host.append([self.host.entry(notice, "driver", self.name, run=run.id)])
                    return None
                problem: ModelError = ModelUnavailable(
                    f"The model did not answer within {self.model_timeout_s:g} s", received=self.model.name
                )
                problem.__cause__ = error
            except ModelError as error:
                problem = error
            except UsageError:
                raise  # the set-up is wrong (an extra is missing, a script is none): asking again is no use
            except Exception as error:
                problem = ModelNonsense("The model's client failed", received=said(error))
                problem.__cause__ = error
            data = {"retried": msgspec.to_builtins(problem.retried)} if problem.retried else {}
            notice = Notice(code=problem.code, message=str(problem), agent=run.agent, run=run.id, data=data)
            await self.host.append([self.host.entry(notice, "driver", self.name, run=run.id)])
            if not isinstance(problem, ModelNonsense) or attempt == NONSENSE_MAX:
                raise problem
        raise ModelNonsense("The model gave no usable answer")

    def _checked(self, call: Call) -> Call:
        checked = self.proposer.checked(call)
        if checked.tool == ANSWER and self.answer_schema is None and not checked.broken:
            text = checked.arguments.get("text")
            if not isinstance(text, str):
                return msgspec.structs.replace(
                    checked, broken="Write the final answer as plain text, with no tool call."
                )
        if checked.tool == ANSWER and self.answer_schema is not None and not checked.broken:
            return self._check_value(checked)
        return checked

    def _check_value(self, call: Call) -> Call:
        if "value" not in call.arguments:
            return msgspec.structs.replace(call, broken="The answer needs an argument 'value' in the form asked for.")
        if self.check_answer is not None:
            try:
                with guest():
                    self.check_answer(call.arguments["value"])
            except Exception as error:
                return msgspec.structs.replace(call, broken=f"The answer does not have the form asked for: {error}")
        return call

    def _text_as_answer(self, text: str) -> Call:
        """A text where a structured answer was asked for: taken if it is that JSON, else handed back."""
        try:
            value = msgspec.json.decode(text.strip().removeprefix("```json").removesuffix("```").strip())
        except msgspec.DecodeError:
            return Call(
                id="text", tool=ANSWER, broken="Give the answer through the tool 'answer', in the form asked for."
            )
        return self._check_value(Call(id="text", tool=ANSWER, arguments={"value": value}))

    async def compact(self, run: RunState) -> None:
        """Have the model summarise the older part of the context; the summary replaces it, as an entry."""
        kept_from = len(run.context) - KEPT_TAIL
        for place in range(max(1, kept_from), len(run.context)):
            if (await self.transcript.entry(run.context[place])).kind in ("Inference", "Input"):
                kept_from = place
                break
        kept_from = max(1, kept_from)
        older = msgspec.structs.replace(run)
        older.context = run.context[:kept_from]
        request = ModelRequest(
            system="You shorten conversations between a user, an agent and its tools.",
            messages=(
                *await self.transcript.messages(older),
                Message(
                    role="user",
                    text="Summarise the conversation so far for the agent that goes on with it: the task, what was "
                    "done with which results, what was refused and why, what is left. Facts only.",
                ),
            ),
        )
        answer = await self._ask(run, request, text=True)  # nothing in place of the context would lose all of it
        if answer is None:
            return
        summary = self.proposer.secrets.redact_text(answer.text)
        compaction = Compaction(
            run=run.id,
            upto=run.context[kept_from - 1],
            summary=values.cut(summary, min(TEXT_CHARS_MAX, 2 * self.context_tokens_max)),
            model=answer.model or self.model.name,
            usage=answer.usage,
            retried=answer.retried,
        )
        await self.host.append([self.host.entry(compaction, "driver", self.name, run=run.id)])


def _outsourced(inference: Inference) -> tuple[Inference, list[tuple[str, bytes]]]:
    """An inference whose calls are too large for an entry keeps them in a blob."""
    data = msgspec.json.encode(inference.calls)
    if len(data) <= codec.PAYLOAD_BYTES_MAX // 2:
        return inference, []
    ref = BlobRef(digest=codec.digest(data), size=len(data))
    short = tuple(msgspec.structs.replace(call, arguments={}, raw="") for call in inference.calls)
    return msgspec.structs.replace(inference, calls=short, raw=ref), [(ref.digest, data)]
