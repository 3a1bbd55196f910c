"""Builds intents: checks a call against its tool before anything is written, and freezes what approval binds to."""

from __future__ import annotations

from typing import Any

import msgspec

from logact import codec
from logact.core.deciding import DECIDE_WITHIN_MS
from logact.core.settling import ANSWER
from logact.core.state import RunState, State
from logact.core.views import Action
from logact.entry import BlobRef, Call, Effect, Intent, Pin
from logact.errors import ArgumentError, LogActError
from logact.runtime.host import Host
from logact.runtime.secrets import Secrets
from logact.runtime.values import INLINE_BYTES_MAX
from logact.tools import Tool, Toolbox


def _pins(tool: Tool, arguments: dict[str, Any]) -> tuple[Pin, ...]:
    """A tool's pins. What cannot be looked at now is pinned as that: the start is refused, and the model told."""
    try:
        return tool.pins(arguments)
    except Exception as error:
        return (Pin(path=f"what {tool.name} depends on", digest=f"{type(error).__name__}"),)


class Proposer:
    """Turns calls of a model, or actions of a caller's own loop, into intents."""

    def __init__(self, host: Host, tools: Toolbox, secrets: Secrets, *, decide_within_ms: int = 0) -> None:
        self.host = host
        self.tools = tools
        self.secrets = secrets
        self.decide_within_ms = decide_within_ms

    def checked(self, call: Call) -> Call:
        """A model's call with its arguments checked and normalised, or marked ``broken`` with what to do."""
        clean = msgspec.structs.replace(
            call, arguments=self.secrets.redact(call.arguments), raw=self.secrets.redact_text(call.raw)
        )
        try:
            codec.check_depth(msgspec.json.encode(clean.arguments))
        except (TypeError, ValueError, RecursionError) as error:
            why = f"The call was not made: its arguments cannot be stored: {error}."
            return msgspec.structs.replace(clean, arguments={}, raw="", broken=call.broken or why)
        if call.broken or call.tool == ANSWER:
            return clean
        tool = self.tools.get(call.tool)
        if tool is None:
            near = self.tools.nearest(call.tool)
            known = ", ".join(self.tools) or "none"
            meant = f" Did you mean {near!r}?" if near else ""
            return msgspec.structs.replace(
                clean, broken=f"There is no tool {call.tool!r}.{meant} The tools are: {known}."
            )
        try:
            self.secrets.refuse_literals(call.arguments)
            return msgspec.structs.replace(clean, arguments=tool.check(call.arguments))
        except LogActError as error:
            return msgspec.structs.replace(clean, broken=f"The call was not made: {error}")

    def intent_for_call(
        self, run: RunState, inference: int, index: int, call: Call | None, *, text: str, retry_of: int = 0
    ) -> Intent:
        """The intent of one call of an inference; ``call=None`` is the text itself as the answer."""
        if call is None:
            arguments: dict[str, Any] = {"text": text}
        elif call.tool == ANSWER:
            arguments = {"text": text, **call.arguments}
        else:
            arguments = call.arguments
        return self.intent(
            run,
            call.tool if call is not None else ANSWER,
            arguments,
            text,
            inference=inference,
            call=index,
            retry_of=retry_of,
        )

    def intent_for_action(self, run: RunState, action: Action, *, retry_of: int = 0) -> Intent:
        """The intent of an action that a caller's own loop wants. Raises ArgumentError and SecretInArguments."""
        tool = self.tools.get(action.tool)
        if tool is None and action.tool != ANSWER:
            raise ArgumentError(
                "There is no such tool",
                received=repr(action.tool),
                expected="one of " + ", ".join(self.tools),
                todo="give it to the agent with tools=[...]",
            )
        self.secrets.refuse_literals(action.arguments)
        arguments = tool.check(action.arguments) if tool is not None else action.arguments
        return self.intent(run, action.tool, arguments, action.reasoning, retry_of=retry_of)

    def intent(
        self,
        run: RunState,
        tool_name: str,
        arguments: dict[str, Any],
        reasoning: str = "",
        *,
        inference: int = 0,
        call: int = 0,
        retry_of: int = 0,
    ) -> Intent:
        """An intent with everything frozen that its approval binds to."""
        tool = self.tools.get(tool_name)
        state: State = self.host.state
        policy = state.policy_of(run.agent)
        within_ms = self.decide_within_ms or (policy.decide_within_ms if policy is not None else DECIDE_WITHIN_MS)
        effect: Effect = tool.effect if tool is not None else ("read" if tool_name == ANSWER else "irreversible")
        digest = codec.digest_of(arguments)
        return Intent(
            run=run.id,
            agent=run.agent,
            tool=tool_name,
            arguments=arguments,
            arguments_digest=digest,
            reasoning=reasoning[:4000] if tool_name != ANSWER else "",
            effect=effect,
            tool_version=tool.version if tool is not None else "",
            probe=tool.has_probe if tool is not None else False,
            undo=tool.has_undo if tool is not None else False,
            safe_undo=tool.safe_undo if tool is not None else False,
            inference=inference,
            call=call,
            deadline_ms=self.host.env.wall_ms() + within_ms,
            pins=_pins(tool, arguments) if tool is not None else (),
            state_before=run.digest,
            retry_of=retry_of,
        )

    def intent_for_undo(self, run: RunState, target: int, done: Intent) -> Intent:
        """The intent that undoes an executed action: its tool and arguments, so that voters see what it is about.

        An undo that is declared safe may be done twice; any other is irreversible. ArgumentError if there is none.
        """
        tool = self.tools.get(done.tool)
        if tool is None or not tool.has_undo:
            raise ArgumentError(f"The tool {done.tool!r} has no undo", received=f"action {target}")
        again = self.intent(run, done.tool, done.arguments, f"undo of action {target}")
        return msgspec.structs.replace(
            again,
            effect="idempotent" if tool.safe_undo else "irreversible",
            probe=False,
            undo=False,
            safe_undo=False,
            undoes=target,
            pins=(),
        )

    @staticmethod
    def outsourced(intent: Intent) -> tuple[Intent, list[tuple[str, bytes]]]:
        """The intent with large arguments moved to a blob, and that blob."""
        data = codec.canonical(intent.arguments)
        if len(data) <= INLINE_BYTES_MAX:
            return intent, []
        ref = BlobRef(digest=codec.digest(data), size=len(data), preview=data[:500].decode(errors="replace"))
        return msgspec.structs.replace(intent, arguments={}, arguments_blob=ref), [(ref.digest, data)]
