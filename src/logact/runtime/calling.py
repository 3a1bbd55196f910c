"""What one approved call of a tool comes to: a result, whatever the tool does (raise, hang, return nonsense, print
without end).

This file owns the call itself: what refuses it at the last moment, its deadline, its cancellation, the thread that it
may leave behind, and the form in which its value or its failure is stored. It never appends to the log, and never
decides whether an action may run: ``executor`` calls it after its own ``Started`` took effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from logact import codec
from logact.core import driving, executing
from logact.core.state import Action, State
from logact.entry import BlobRef, Cancel, Entry, Failure, Intent, Part, Result, stricter
from logact.env import ThreadWatch, watching
from logact.env_guest import guest, is_cancelled, said
from logact.errors import LogError, UsageError
from logact.logs.base import where
from logact.runtime import values
from logact.runtime.host import Host
from logact.runtime.secrets import Secrets
from logact.runtime.tail import alone
from logact.tools import ImageResult, Tool, ToolContext, failure_of
from logact.tools.returned import returned

TOOL_TIMEOUT_S = 300.0
"""How long a tool may take, unless it says otherwise."""


class Calling:
    """Calls the tools of one executor, whose ``running`` takes the deadline of each call that runs."""

    def __init__(
        self,
        host: Host,
        tools: Mapping[str, Tool],
        secrets: Secrets,
        *,
        agents: frozenset[str],
        running: dict[int, asyncio.Timeout | None],
        output_bytes_max: int = values.OUTPUT_BYTES_MAX,
    ) -> None:
        self.host = host
        self.tools = tools
        self.secrets = secrets
        self.running = running
        self.output_bytes_max = output_bytes_max
        self._threads: dict[int, ThreadWatch] = {}  # by action: threads that went on when their call was given up
        self._cancelled: set[int] = set()
        host.tail.observe(self._observe, ["Cancel"], about=alone(agents))

    def _observe(self, state: State, entry: Entry) -> None:
        """A cancelled action that runs here is interrupted at once."""
        if state.verdict or not isinstance(entry.payload, Cancel) or not self.running:
            return
        for key, deadline in self.running.items():
            action = state.actions.get(key)
            if action is not None and action.cancel_wanted and key not in self._cancelled and deadline is not None:
                try:
                    deadline.reschedule(asyncio.get_running_loop().time())
                except RuntimeError:
                    continue  # the call has ended, or its time is over: its result is on the way
                self._cancelled.add(key)

    def at_work(self, action_id: int = 0) -> bool:
        """Whether a thread still runs a tool (of this action, if given) although its call was given up."""
        self._threads = {key: thread for key, thread in self._threads.items() if thread.working}
        return action_id in self._threads if action_id else bool(self._threads)

    async def outcome(self, action: Action, intent: Intent, attempt: int) -> tuple[Result, list[tuple[str, bytes]]]:
        """The result of calling the tool of a started action, and the blobs that go along with it."""
        env = self.host.env
        began = env.monotonic()
        blobs: list[tuple[str, bytes]] = []
        key = executing.key_of(self.host.state.log, action)
        context = ToolContext(
            agent=intent.agent,
            run=intent.run,
            action=action.id,
            attempt=attempt,
            key=key,
            epoch=self.host.state.epoch(intent.agent),
            log=self.host.state.log,
        )
        tool = self.tools.get(intent.tool)
        refused = self._refusal(tool, intent)
        if tool is None or refused is not None:
            return Result(intent=action.id, attempt=attempt, error=refused), blobs
        try:
            arguments = self.secrets.resolve(intent.arguments)
        except UsageError as error:
            failure = Failure(kind="permanent", message=str(error), definite=True)
            return Result(intent=action.id, attempt=attempt, error=failure), blobs
        if env.points:
            env.point("before_effect")
        undone = None
        if intent.undoes:
            try:
                undone = await self._result_of(intent.undoes)
            except LogError as error:
                failure = Failure(kind="environment", message=f"the log cannot be read: {error}", definite=True)
                return Result(intent=action.id, attempt=attempt, error=failure), blobs
        value, failed = await self.call(tool, arguments, context, undone)
        if env.points:
            env.point("after_effect")
        duration_ms = round((env.monotonic() - began) * 1000, 3)
        if failed is not None:
            failure = self._told(failed)
            return Result(intent=action.id, attempt=attempt, error=failure, duration_ms=duration_ms), blobs
        parts: tuple[Part, ...] = ()
        if isinstance(value, ImageResult):
            ref = BlobRef(digest=codec.digest(value.data), size=len(value.data), media_type=value.media_type)
            blobs.append((ref.digest, value.data))
            parts, value = (Part(blob=ref),), value.text
        try:
            stored = values.pack(self.secrets.redact(value), bytes_max=self.output_bytes_max)
        except (TypeError, ValueError, OverflowError, RecursionError):  # a tool of another make than ours
            stored = values.pack(self.secrets.redact(returned(value)), bytes_max=self.output_bytes_max)
        if stored.blob is not None:
            blobs.append((stored.blob.digest, stored.data))
        result = Result(
            intent=action.id,
            attempt=attempt,
            value=stored.value,
            blob=stored.blob,
            parts=parts,
            duration_ms=duration_ms,
            truncated=stored.truncated,
        )
        return result, blobs

    def _told(self, failed: Failure) -> Failure:
        """A tool's failure as an entry can hold it, whatever the tool put into it."""
        message = values.cut(values.printable(self.secrets.redact_text(str(failed.message))), 4000)
        try:
            clean = msgspec.structs.replace(failed, message=message)
            return msgspec.convert(msgspec.to_builtins(clean), Failure)
        except (TypeError, ValueError):
            return Failure(kind="failed", message=message)

    def _refusal(self, tool: Tool | None, intent: Intent) -> Failure | None:
        """Why an approved action is not what would run now; the approval does not cover anything else."""
        if tool is None:
            return Failure(kind="permanent", message=f"the tool {intent.tool!r} is not offered here", definite=True)
        if intent.undoes and intent.effect == "idempotent" and not tool.safe_undo:
            return Failure(
                kind="permanent",
                message=f"the undo of {intent.tool!r} is not safe any more; the approval was for one that is",
                definite=True,
            )
        if not intent.undoes and stricter(tool.effect, intent.effect) != intent.effect:
            return Failure(
                kind="permanent",
                message=f"the effect of {intent.tool!r} is {tool.effect}; the approval was for {intent.effect}",
                definite=True,
            )
        if tool.version != intent.tool_version:
            return Failure(
                kind="permanent",
                message=f"the tool {intent.tool!r} is now version {tool.version}; "
                f"the approval was for version {intent.tool_version}",
                definite=True,
            )
        if intent.pins:
            try:
                now = {pin.path: pin.digest for pin in tool.pins(intent.arguments)}
            except Exception as error:
                message = f"what the approval depends on cannot be checked: {said(error)}"
                return Failure(kind="permanent", message=values.printable(message), definite=True)
            for pin in intent.pins:
                if now.get(pin.path) != pin.digest:
                    return Failure(
                        kind="permanent",
                        message=f"{pin.path} changed after the approval was given",
                        definite=True,
                    )
        return None

    async def _result_of(self, action_id: int) -> Result:
        """What an action that is to be undone returned, as the log has it."""
        found = Result(intent=action_id)
        async for one in self.host.log.read(action_id, matching=where(kinds=["Result"], actions=[action_id])):
            if isinstance(one.payload, Result) and one.payload.error is None:
                found = one.payload
                if found.blob is not None:
                    whole = values.unpack(await self.host.log.get_blob(found.blob.digest))
                    found = msgspec.structs.replace(found, value=whole)
                break
        return found

    async def call(
        self, tool: Tool, arguments: dict[str, object], context: ToolContext, undoes: Result | None = None
    ) -> tuple[object, Failure | None]:
        """The value of the tool (or of its undo), or its failure. Nothing it raises gets out but cancellation."""
        timeout_s = tool.timeout_s or TOOL_TIMEOUT_S
        ends_s = driving.lasts_s(self.host.state.runs.get(context.run), self.host.env.wall_ms())
        if ends_s <= 0:
            return None, Failure(kind="cancelled", message="its run's time was over before it began", definite=True)
        with watching() as thread:
            try:
                async with asyncio.timeout(min(timeout_s, ends_s + 0.01)) as deadline:
                    self.running[context.action] = deadline
                    with guest():
                        if undoes is not None:
                            return await tool.undo(arguments, undoes.value, context), None
                        return await tool.call(arguments, context), None
            except TimeoutError:
                if context.action in self._cancelled:
                    self._cancelled.discard(context.action)
                    return None, Failure(kind="cancelled", message="it was cancelled while it ran")
                if ends_s < timeout_s:
                    return None, Failure(kind="cancelled", message="its run's time was over while it ran")
                return None, Failure(kind="timeout", message=f"it did not end within {timeout_s:g} s")
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise
                return None, failure_of(error)
            finally:
                if thread.working:
                    self._threads[context.action] = thread  # only the thread's end settles what it does
