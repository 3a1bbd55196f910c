"""A run's entries as the conversation that a model is shown: a pure function of the run's context.

It owns the words in which refusals, failures and recoveries reach the model: short, stable, and with what to do.
Entries are remembered as they pass; what is missing (after a restart) is read from the log by position.
"""

from __future__ import annotations

import msgspec

from logact.core.state import RunState, State
from logact.entry import (
    Abort,
    BlobRef,
    Call,
    Cancel,
    Compaction,
    Control,
    Entry,
    Expiry,
    Inference,
    Input,
    Intent,
    Output,
    Part,
    Recovery,
    Result,
    Undone,
)
from logact.models.base import Image, Message
from logact.runtime import values
from logact.runtime.host import Host

RESULT_CHARS_MAX = 20_000
"""How much of one result the model is shown; the log holds all of it."""

CACHED_ENTRIES_MAX = 4096

_SHOWN = (Input, Inference, Compaction, Intent, Result, Abort, Expiry, Cancel, Control, Recovery, Undone, Output)


class _Told:
    """A conversation so far: the context it was built from, its messages, and the calls that have no answer yet."""

    __slots__ = ("context", "last", "messages", "run", "unanswered")

    def __init__(self, run: int) -> None:
        self.run = run
        self.context: list[int] = []
        self.messages: list[Message] = []
        self.unanswered: dict[int, Call] = {}
        self.last = ""


class Transcript:
    """Builds the messages of runs from a log. What was built for the turn before is gone on from."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._entries: dict[int, Entry] = {}
        self._told = _Told(0)
        host.tail.observe(self._observe, [kind.__name__ for kind in _SHOWN], about=host.agent)

    def close(self) -> None:
        """Look at the log no more."""
        self.host.tail.unobserve(self._observe)

    def _observe(self, state: State, entry: Entry) -> None:
        if not state.verdict and isinstance(entry.payload, _SHOWN):
            self._entries[entry.position] = entry
            if len(self._entries) > CACHED_ENTRIES_MAX:
                del self._entries[next(iter(self._entries))]

    async def entry(self, position: int) -> Entry:
        """An entry by position, from memory or from the log."""
        found = self._entries.get(position)
        if found is None:
            found = self._entries[position] = await self.host.log.get(position)
        return found

    async def messages(self, run: RunState) -> list[Message]:
        """The conversation so far. Every tool call has exactly one answer."""
        told, self._told = self._told, _Told(0)  # whoever works on it has it alone, and an error leaves nothing half
        if told.run != run.id or run.context[: len(told.context)] != told.context:
            told = _Told(run.id)  # another run, or its context was compacted
        for position in run.context[len(told.context) :]:
            await self._tell(told, await self.entry(position))
            told.context.append(position)
        self._told = told
        return told.messages + self._unanswered(dict(told.unanswered), told.last)

    async def _tell(self, told: _Told, entry: Entry) -> None:
        """One more entry of the context."""
        payload = entry.payload
        if isinstance(payload, Inference):
            told.messages += self._unanswered(told.unanswered, told.last)
            told.messages.append(Message(role="assistant", text=payload.text, calls=payload.calls))
            told.unanswered = dict(enumerate(payload.calls))
            for index, call in enumerate(payload.calls):
                if call.broken:
                    told.messages.append(_tool_message(told.unanswered.pop(index), call.broken, error=True))
        elif isinstance(payload, (Input, Compaction)):
            told.messages += self._unanswered(told.unanswered, told.last)
            told.messages.append(await self._user_message(payload))
        else:
            text, error, parts = await self._outcome(entry)
            told.last = text
            index = await self._call_of(entry)
            if index in told.unanswered:
                call = told.unanswered.pop(index)
                images = tuple([await self._image(part.blob) for part in parts if part.blob is not None])
                told.messages.append(msgspec.structs.replace(_tool_message(call, text, error=error), images=images))

    @staticmethod
    def _unanswered(calls: dict[int, Call], last: str) -> list[Message]:
        """Calls that one entry settled all at once (the run ended, was cancelled, or its answer went out)."""
        found = [_tool_message(call, last or "This call was not carried out.", error=True) for call in calls.values()]
        calls.clear()
        return found

    async def _call_of(self, entry: Entry) -> int:
        """Which call of its inference a settling entry belongs to (-1: several, or none)."""
        if not entry.action:
            return -1
        intent = (await self.entry(entry.action)).payload
        return intent.call if isinstance(intent, Intent) else -1

    async def _user_message(self, payload: Input | Compaction) -> Message:
        if isinstance(payload, Compaction):
            return Message(role="user", text=f"[Summary of the conversation so far]\n{payload.summary}")
        texts = [payload.text, *(part.text for part in payload.parts if part.blob is None)]
        images = tuple([await self._image(part.blob) for part in payload.parts if part.blob is not None])
        return Message(role="user", text="\n".join(text for text in texts if text), images=images)

    async def _image(self, ref: BlobRef) -> Image:
        return Image(data=await self.host.log.get_blob(ref.digest), media_type=ref.media_type)

    async def _outcome(self, entry: Entry) -> tuple[str, bool, tuple[Part, ...]]:
        """What the model is told of how a call ended: the text, whether it is an error, and images."""
        payload = entry.payload
        if isinstance(payload, Result):
            if payload.error is not None:
                sure = " It certainly had no effect." if payload.error.definite else ""
                end = f" It was {payload.gave_up}." if payload.gave_up else ""
                return f"FAILED ({payload.error.kind}): {payload.error.message}{sure}{end}", True, ()
            return await self._value(payload), False, payload.parts
        if isinstance(payload, Abort):
            hint = f" {payload.hint}" if payload.hint else " Do not repeat it unchanged."
            return f"REJECTED before it ran (action {payload.intent}): {payload.reason}.{hint}", True, ()
        if isinstance(payload, Expiry):
            return f"REJECTED before it ran (action {payload.intent}): {payload.reason}.", True, ()
        if isinstance(payload, Cancel):
            return self._cancelled(payload), True, ()
        if isinstance(payload, Recovery):
            return _recovered(payload)
        if isinstance(payload, Undone):
            return "It was undone.", True, ()
        if isinstance(payload, Control):
            return f"STOPPED before it ran: {payload.reason or 'an operator stopped it'}.", True, ()
        if isinstance(payload, Output):
            return "Your answer was delivered.", False, ()
        return f"settled by a {entry.kind}", False, ()

    def _cancelled(self, cancel: Cancel) -> str:
        """A cancel may meet an attempt that a crash interrupted: then nobody knows, and the model is told so."""
        reason = cancel.reason or "an operator took it back"
        action = self.host.state.actions.get(cancel.intent)
        if action is None:
            return f"CANCELLED: {reason}."
        if action.attempts:
            return f"CANCELLED: {reason}. It had been started, and it is UNKNOWN whether it happened."
        return f"CANCELLED before it ran: {reason}."

    async def _value(self, result: Result) -> str:
        value = result.value
        if result.blob is not None:
            value = values.unpack(await self.host.log.get_blob(result.blob.digest))
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return values.cut(text, RESULT_CHARS_MAX)


def _tool_message(call: Call, text: str, *, error: bool) -> Message:
    return Message(role="tool", text=text, call_id=call.id, tool=call.tool, is_error=error)


def _recovered(recovery: Recovery) -> tuple[str, bool, tuple[Part, ...]]:
    if recovery.settlement == "happened":
        value = "" if recovery.value is None else f" Result: {msgspec.json.encode(recovery.value).decode()}"
        return f"Done (the work was interrupted; {recovery.evidence} shows that it did happen).{value}", False, ()
    if recovery.settlement == "superseded":
        return f"UNKNOWN whether it happened; closed: {recovery.reason}.", True, ()
    return f"NOT DONE ({recovery.settlement}): {recovery.reason or 'it was given up'}.", True, ()
