"""A model judges whether an action serves what the user asked for."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import msgspec

from logact import codec
from logact.core.views import Action, LogEntry, log_entry
from logact.entry import Entry, Intent, Usage, Vote
from logact.errors import ModelError, ModelNonsense, SpecError, TooLarge
from logact.models.base import Message, Model, ModelAnswer, ModelRequest
from logact.voters import semantic_case as cases
from logact.voters.base import Voter
from logact.voters.semantic_case import VERDICT, Validation

__all__ = ["PROMPT", "SemanticVoter", "Validation"]

PROMPT = Path(__file__).parent / "prompts" / "semantic.md"
"""The prompt. Copy it, change it, and give the copy as ``prompt_file``."""

CACHED_MAX = 512
ANSWER_TOKENS_MAX = 1000


class SemanticVoter(Voter):
    """Asks a model. ``unsure`` abstains; no usable judgement counts as ``on_failure`` says (reject).

    ``model`` is a Model or a name (``openai:gpt-4o-mini``). ``guidance`` is told to it as the deployer's own words,
    after the prompt. ``tokens_max`` limits what it is shown; arguments that do not fit are not judged. It is asked at
    most ``attempts`` times about one action, within ``timeout_s``. An approval with less confidence than
    ``sure_from`` abstains. Equal cases are judged once (per process). Raises SpecError for an unreadable prompt.
    """

    kind = "semantic"
    placement = "async"

    def __init__(
        self,
        model: Model | str,
        name: str = "semantic",
        *,
        prompt_file: str | os.PathLike[str] = "",
        guidance: str = "",
        tokens_max: int = 6000,
        attempts: int = 2,
        timeout_s: float = 60.0,
        sure_from: float = 0.0,
        on_failure: Literal["reject", "abstain", "approve"] = "reject",
    ) -> None:
        super().__init__(name)
        if isinstance(model, str):
            from logact.models import model_from_name

            model = model_from_name(model)
        if attempts < 1 or tokens_max < 200 or not 0 <= sure_from <= 1 or not timeout_s > 0:
            raise SpecError(
                "A semantic voter cannot work with these settings",
                received=f"{attempts=}, {tokens_max=}, {sure_from=}, {timeout_s=}",
                expected="an attempt, 200 tokens, a confidence from 0 to 1, a time above 0",
            )
        self.model = model
        self.prompt = _prompt(Path(prompt_file) if prompt_file else PROMPT)
        self.guidance = guidance
        self.tokens_max = tokens_max
        self.attempts = attempts
        self.timeout_s = timeout_s
        self.decide_within_s = max(60.0, 2 * timeout_s)
        self.sure_from = sure_from
        self.on_failure = on_failure
        self.asked = 0
        self._cache: OrderedDict[str, Vote] = OrderedDict()
        self._setup = codec.digest_of(self.config())

    async def check(self, entry: LogEntry) -> Vote:
        """The model's judgement as a vote, with what it cost."""
        try:
            case = cases.case_of(entry, self.tokens_max)
        except TooLarge as error:
            return self._failed(str(error), None)
        key = f"{self._setup} {codec.digest_of(case.text)}"
        known = self._cache.get(key)
        if known is not None:
            self._cache.move_to_end(key)
            return msgspec.structs.replace(known, usage=None)
        spent: list[Usage] = []
        try:
            found = await self._judge(case, spent)
        except ModelError as error:
            return self._failed(str(error), _total(spent))
        vote = self._vote(found, _total(spent))
        self._cache[key] = vote
        if len(self._cache) > CACHED_MAX:
            self._cache.popitem(last=False)
        return vote

    async def llm_validate(self, action: Action, *, task: str = "") -> Validation:
        """The model's judgement of an action that is in no log. Raises ModelError if there is none, and TooLarge."""
        intent = Intent(
            run=0,
            agent="",
            tool=action.tool,
            arguments=action.arguments,
            effect=action.effect,
            reasoning=action.reasoning,
        )
        return await self._judge(cases.case_of(log_entry(intent, task=task), self.tokens_max), [])

    async def _judge(self, case: cases.Case, spent: list[Usage]) -> Validation:
        request = ModelRequest(
            system=self._system(),
            messages=(Message(role="user", text=case.text),),
            tools=(VERDICT,),
            max_output_tokens=ANSWER_TOKENS_MAX,
        )
        for attempt in range(1, self.attempts + 1):
            self.asked += 1
            answer = await self.model.answer(request)
            if not isinstance(answer, ModelAnswer):
                raise ModelNonsense(
                    "The model returned something else than an answer", received=type(answer).__name__
                )
            spent.append(answer.usage)
            try:
                return cases.read_verdict(answer, case.number)
            except ModelNonsense:
                if attempt == self.attempts:
                    raise
        raise ModelNonsense("The model was not asked")  # not reached: the last attempt returns or raises

    def _system(self) -> str:
        if not self.guidance:
            return self.prompt
        return f"{self.prompt}\n\nWhat holds in this deployment (trusted):\n\n{self.guidance}"

    def _vote(self, found: Validation, usage: Usage) -> Vote:
        approved = found.valid
        reason = found.reason
        if approved and found.confidence is not None and found.confidence < self.sure_from:
            approved, reason = None, f"not sure enough ({found.confidence:g}): {reason}"
        return Vote(
            approved=approved,
            reason=reason,
            hint=found.hint if not approved else "",
            confidence=found.confidence,
            usage=usage,
            code="" if approved is not False else "semantic",
        )

    def _failed(self, why: str, usage: Usage | None) -> Vote:
        approved = {"reject": False, "abstain": None, "approve": True}[self.on_failure]
        return Vote(approved=approved, reason=f"no judgement ({why}), which counts as {self.on_failure}", usage=usage)

    def for_replay(self) -> None:
        """A backtest asks no model, unless it is told to."""

    # --- history ------------------------------

    def initial(self) -> Any:
        return {"runs": {}}

    def observe(self, memory: Any, entry: Entry) -> Any:
        """What the user said and what was done, for the model to see."""
        return cases.observe(memory, entry)

    def config(self) -> dict[str, Any]:
        return {
            "model": self.model.name,
            "prompt": codec.digest(self.prompt.encode()),
            "guidance": self.guidance,
            "tokens_max": self.tokens_max,
            "attempts": self.attempts,
            "sure_from": self.sure_from,
            "on_failure": self.on_failure,
        }


def _prompt(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError("The prompt cannot be read", received=f"{path}: {error}") from error
    if not text:
        raise SpecError("The prompt is empty", received=str(path), todo=f"start from a copy of {PROMPT}")
    return text


def _total(spent: list[Usage]) -> Usage:
    """What all attempts cost together; the cost is not known if one of them is not."""
    costs = [usage.cost_usd for usage in spent]
    known = [cost for cost in costs if cost is not None]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in spent),
        output_tokens=sum(usage.output_tokens for usage in spent),
        cached_tokens=sum(usage.cached_tokens for usage in spent),
        cost_usd=sum(known) if len(known) == len(costs) else None,
    )
