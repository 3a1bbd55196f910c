"""``AgenticIntrospection``: an agent, or its operator, asks its own history: what is slow, how is it, why did it.

What can be computed is computed; a model is asked only where one is given, and its answer is an entry that cites
positions. What it claims without a position, or with one that is not there, is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from logact import env as environment
from logact.entry import Finding, NewEntry, Usage
from logact.errors import ModelError, UsageError
from logact.introspection import health as healths
from logact.introspection.asking import Answered, added, ask_model, cited, said, there
from logact.introspection.changes import read_change
from logact.introspection.health import RECENT_S, Health, worst
from logact.introspection.material import Material, Selection, material
from logact.introspection.optimizing import Optimized, Statement, optimize, swarm_log
from logact.introspection.performance import Performance, Proposal, performance
from logact.introspection.profile_scope import sums_of
from logact.introspection.profiler import check_named, folded
from logact.introspection.questions import ASK, DEBUG, KINDS
from logact.introspection.signals import Signal, Thresholds
from logact.introspection.token_reading import Spending
from logact.logs.base import SharedLog
from logact.models.base import Model

if TYPE_CHECKING:
    from logact.agent import LogActAgent

TOKENS_MAX = 12_000
MESSAGE_CHARS_MAX = 8000


class Debugged(msgspec.Struct, frozen=True, kw_only=True):
    """What a debugging came to: the computed part, and what a model made of it.

    ``proposals`` are the model's (the computed ones are in ``performance``). ``dropped`` counts claims that cited
    nothing or what is not there, ``failed`` says why there is no model's part, ``finding`` where it stands,
    ``trimmed`` before which position the model was shown nothing, since that was trimmed (0: the log is whole).
    """

    performance: Performance
    explanation: str = ""
    proposals: tuple[Proposal, ...] = ()
    dropped: int = 0
    failed: str = ""
    model: str = ""
    usage: Usage | None = None
    finding: int = 0
    trimmed: int = 0


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a question over a log. No statements: nothing in the log supports an answer.

    ``trimmed``: what stood before this position was trimmed, so it was not looked at (0: the log is whole).
    """

    question: str
    statements: tuple[Statement, ...] = ()
    dropped: int = 0
    lines: int = 0
    left_out: int = 0
    model: str = ""
    usage: Usage | None = None
    finding: int = 0
    trimmed: int = 0

    @property
    def text(self) -> str:
        """The statements in one text."""
        return " ".join(one.text for one in self.statements)


class AgenticIntrospection:
    """Reads a log and says what it means. ``model`` (a Model or a name) is asked only where judgement is needed.

    ``tokens_max`` limits what a model is shown of the history. ``record``: write the answers into the log, under
    ``author``'s name. ``summarise``: have older stretches summed up by the model, once, as entries.
    """

    def __init__(
        self,
        model: Model | str | None = None,
        *,
        thresholds: Thresholds | None = None,
        tokens_max: int = TOKENS_MAX,
        record: bool = True,
        summarise: bool = False,
        author: str = "introspection",
    ) -> None:
        if isinstance(model, str):
            from logact.models import model_from_name

            model = model_from_name(model)
        if tokens_max < 500:
            raise UsageError("Too little to be shown", received=f"tokens_max {tokens_max}", expected="at least 500")
        self.model = model
        self.thresholds = thresholds or Thresholds()
        self.tokens_max = tokens_max
        self.record = record
        self.summarise = summarise
        self.author = author

    # --- what the description names ------------------------------------------------------------------------------

    async def debug_performance(self, agent: LogActAgent, *, run: int = 0) -> Debugged:
        """Where this agent's time, tokens and money went, and what would help. Raises what reading the log raises."""
        return await self.debug(agent.log, agent=agent.agent_id, run=run, strict=bool(run))

    async def health_check(self, agent: LogActAgent) -> Health:
        """How this agent is doing. Raises what reading the log raises."""
        return await self.health(agent.log, agent=agent.agent_id, strict=False)

    async def get_swarm_log(self, swarm: Sequence[LogActAgent]) -> Spending:
        """What a swarm's agents spent their tokens on, folded from the log that they share."""
        return await swarm_log(swarm)

    async def optimize_token_usage(
        self, swarm: Sequence[LogActAgent], *, automatic: bool = False, digests: bool = False
    ) -> Optimized:
        """Find what would save the swarm's agents tokens, and hand each its part.

        ``automatic`` applies it at once; otherwise each agent's voters have to approve. ``digests``: long texts that
        another agent has read may be given in part, with a way to the whole. With a model, it is asked for more, in
        words that cite positions; if it fails, what was computed and applied stands. Raises what reading and writing
        the log raises.
        """
        optimized = await optimize(swarm, automatic=automatic, digests=digests)
        if self.model is None:
            return optimized
        try:
            reply = await self.ask(swarm[0].log, "Optimize token usage across swarm execution")
        except ModelError as error:
            return msgspec.structs.replace(optimized, failed=str(error))
        return msgspec.structs.replace(optimized, advice=reply.statements, dropped=reply.dropped)

    async def llm_analyze(self, prompt: str, context: SharedLog, *, agent: str = "") -> Reply:
        """A model's answer to a prompt over a log (of one agent's part of it): see :meth:`ask`."""
        return await self.ask(context, prompt, agent=agent)

    # --- over any log --------------------------------------------------------------------------------------------

    async def debug(self, log: SharedLog, *, agent: str = "", run: int = 0, strict: bool = True) -> Debugged:
        """The computed part, and with a model its explanation and proposals.

        UsageError for an agent or a run that the log does not know, unless it is not ``strict``.
        """
        known = await folded(log)
        if strict:
            check_named(known, agent, run)
        now_ms = environment.current().wall_ms()
        found = performance(known.state, known.profile, self.thresholds, now_ms, agent=agent, run=run)
        if self.model is None:
            return Debugged(performance=found)
        shown = await self._shown(log, agent, run)
        numbers = msgspec.json.encode(_numbers(found)).decode()
        try:
            answer = await ask_model(self.model, DEBUG, shown.number, shown.text, computed=numbers)
        except ModelError as error:
            usage = _spent(shown)
            return Debugged(
                performance=found, failed=str(error), model=self.model.name, usage=usage, trimmed=shown.trimmed
            )
        kept, dropped = await self._claims(log, answer.given.get("proposals"), agent)
        models = {name: known.profile.named.get(name, name) for name in sums_of(known.profile).kinds}
        proposals = tuple(
            made for claim in kept if (made := _proposal(claim, found, models, answer.model)) is not None
        )
        explanations, more = await self._claims(log, answer.given.get("explanation"), agent)
        debugged = Debugged(
            performance=found,
            explanation=" ".join(f"{claim.text} {_brackets(claim.cites)}" for claim in explanations),
            proposals=proposals,
            dropped=dropped + more + len(kept) - len(proposals),
            model=answer.model,
            usage=added([answer.usage, shown.usage]),
            trimmed=shown.trimmed,
        )
        cites = [cite for claim in explanations for cite in claim.cites]
        cites += [cite for proposal in proposals for cite in proposal.cites]
        message = (
            debugged.explanation or "; ".join(one.title for one in proposals) or "nothing that positions support"
        )
        data = {"proposals": msgspec.to_builtins(proposals), "dropped": debugged.dropped}
        at = await self._write(
            log, Finding(code="debug", message=message, cites=tuple(cites), agent=agent, run=run, data=data), answer
        )
        return msgspec.structs.replace(debugged, finding=at)

    async def health(
        self,
        log: SharedLog,
        *,
        agent: str = "",
        run: int = 0,
        recent_s: float = RECENT_S,
        judge: bool = True,
        strict: bool = True,
    ) -> Health:
        """The computed verdict, and with a model (and ``judge``) also its judgement: the worse of the two counts.

        UsageError for an agent or a run that the log does not know, unless it is not ``strict``.
        """
        known = await folded(log)
        if strict:
            check_named(known, agent, run)
        now_ms = environment.current().wall_ms()
        found = healths.computed(
            known.state, known.profile, now_ms, self.thresholds, agent=agent, run=run, recent_s=recent_s
        )
        if self.model is None or not judge:
            return found
        shown = await self._shown(log, agent, run)
        numbers = msgspec.json.encode({"verdict": found.verdict, "signals": found.signals}).decode()
        try:
            answer = await ask_model(self.model, healths.QUESTION, shown.number, shown.text, computed=numbers)
        except ModelError as error:
            return msgspec.structs.replace(
                found, failed=str(error), model=self.model.name, usage=_spent(shown), trimmed=shown.trimmed
            )
        kept, dropped = await self._claims(log, answer.given.get("reasons"))
        judged = healths.verdict_of(answer.given.get("verdict"))
        believed = judged if judged is not None and kept else "healthy"
        reasons = tuple(Signal(code="judgement", message=one.text, cites=one.cites, agent=agent) for one in kept)
        found = msgspec.structs.replace(
            found,
            verdict=worst([found.verdict, believed]),
            judged=judged or "",
            reasons=reasons,
            dropped=dropped,
            model=answer.model,
            usage=added([answer.usage, shown.usage]),
            trimmed=shown.trimmed,
        )
        message = f"{found.verdict}: " + ("; ".join(one.message for one in (*found.signals, *reasons)) or "nothing")
        cites = [cite for one in (*found.signals, *reasons) for cite in one.cites]
        data = {"verdict": found.verdict, "judged": found.judged, "dropped": dropped}
        at = await self._write(
            log, Finding(code="health", message=message, cites=tuple(cites), agent=agent, run=run, data=data), answer
        )
        return msgspec.structs.replace(found, finding=at)

    async def ask(
        self, log: SharedLog, question: str, *, agent: str = "", run: int = 0, strict: bool = True
    ) -> Reply:
        """Answer a question in plain words, with positions.

        Raises UsageError without a model, and (if it is ``strict``) for an agent or a run that the log does not know;
        ModelError.
        """
        if self.model is None:
            raise UsageError("A question needs a model", todo="give one: model=..., --model NAME, or LOGACT_MODEL")
        if not question.strip():
            raise UsageError("There is no question", received=repr(question), expected="a sentence")
        words = [
            word for word in "".join(c if c.isalnum() else " " for c in question.lower()).split() if len(word) > 3
        ]
        if strict and (agent or run):
            check_named(await folded(log), agent, run)
        shown = await self._shown(log, agent, run, words)
        answer = await ask_model(self.model, ASK, shown.number, shown.text, asked=question.strip()[:4000])
        kept, dropped = await self._claims(log, answer.given.get("answer"))
        reply = Reply(
            question=question,
            statements=tuple(kept),
            dropped=dropped,
            lines=shown.lines,
            left_out=shown.left_out,
            model=answer.model,
            usage=added([answer.usage, shown.usage]),
            trimmed=shown.trimmed,
        )
        cites = [cite for one in kept for cite in one.cites]
        message = reply.text or "nothing in the log supports an answer"
        at = await self._write(
            log,
            Finding(
                code="answer",
                message=message,
                cites=tuple(cites),
                agent=agent,
                run=run,
                data={"question": question[:1000]},
            ),
            answer,
        )
        return msgspec.structs.replace(reply, finding=at)

    # --- helpers -------------------------------------------------------------------------------------------------

    async def _shown(self, log: SharedLog, agent: str, run: int, words: list[str] | None = None) -> Material:
        selection = Selection(agents=(agent,) if agent else (), runs=(run,) if run else ())
        model = self.model if self.summarise and self.record else None
        return await material(
            log, selection, tokens_max=self.tokens_max, words=words or (), model=model, author=self.author
        )

    async def _claims(self, log: SharedLog, given: Any, agent: str = "") -> tuple[list[_Claim], int]:
        """The claims of an answer that cite what is there (of one agent's part), and how many do not."""
        every = [_claim(one) for one in given[:CLAIMS_MAX]] if isinstance(given, list) else []
        dropped = 0 if isinstance(given, list) else 1
        known = await there(log, [cite for one in every if one is not None for cite in one.cites], agent)
        kept = [one for one in every if one is not None and one.text and one.cites and set(one.cites) <= known]
        return kept, dropped + len(every) - len(kept)

    async def _write(self, log: SharedLog, finding: Finding, answer: Answered) -> int:
        """The answer as an entry, so that it is paid for once and can be read by everybody; its position."""
        if not self.record:
            return 0
        finding = msgspec.structs.replace(
            finding,
            message=finding.message[:MESSAGE_CHARS_MAX],
            cites=tuple(dict.fromkeys(finding.cites))[:100],
            model=answer.model,
            usage=answer.usage,
        )
        entry = NewEntry(payload=finding, role="operator", name=self.author, agent=finding.agent, run=finding.run)
        return (await log.append(entry)).position


CLAIMS_MAX = 30


class _Claim(Statement, frozen=True, kw_only=True):
    """A claim with whatever else the model said of it."""

    more: dict[str, Any] = msgspec.field(default_factory=dict)


def _claim(given: Any) -> _Claim | None:
    if not isinstance(given, dict):
        return None
    text = said(given.get("text", given.get("title")))
    return _Claim(text=text, cites=cited(given.get("cites")), more=given)


def _proposal(claim: _Claim, found: Performance, models: dict[str, str], model: str) -> Proposal | None:
    """A proposal of the model: its savings are at most what was spent, its change is one that may be applied."""
    given = claim.more
    kind = given.get("kind")
    total = found.tokens.input + found.tokens.output + found.tokens.aside
    times = found.times
    change = read_change(given.get("change"), models) if given.get("change") is not None else None
    return Proposal(
        kind=kind if kind in KINDS else "other",
        title=claim.text[:200],
        why=said(given.get("why")),
        cites=claim.cites,
        tokens=int(_number(given.get("saves_tokens"), total)),
        ms=_number(given.get("saves_ms"), times.model_ms + times.votes_ms + times.tools_ms),
        usd=_number(given.get("saves_usd"), found.usd or 0.0),
        change=change,
        by=model,
    )


def _number(value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0.0
    return min(float(value), most)


def _brackets(cites: tuple[int, ...]) -> str:
    return "[" + " ".join(map(str, cites)) + "]"


def _spent(shown: Material) -> Usage | None:
    return shown.usage if shown.bought else None


def _numbers(found: Performance) -> dict[str, Any]:
    """The computed part as the model is shown it: without texts that come from the log."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    for name in ("errors", "proposals"):
        plain.pop(name, None)
    plain["signals"] = [{"code": one.code, "cites": one.cites, "value": one.value} for one in found.signals]
    for one in plain["repeated"]:
        one.pop("result", None)
    return plain


__all__ = ["AgenticIntrospection", "Debugged", "Reply", "Statement"]
