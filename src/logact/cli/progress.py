"""What a run shows while it works: each step as it becomes visible in the log. Never stops the run.

An observer of the agent: it gets every entry that the process folds, history included, and shows only what came
after ``begin``. A reader that goes away (a closed pipe) ends the showing, not the run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import click
import msgspec

from logact import env as environment
from logact.cli import describe, look, waiting
from logact.cli.pending import lets_go
from logact.core.settling import ANSWER
from logact.core.state import State
from logact.core.views import named
from logact.core.waiting import Wait, of_action
from logact.entry import (
    Abort,
    Cancel,
    Commit,
    Control,
    Entry,
    Expiry,
    Finding,
    Inference,
    Input,
    Intent,
    Notice,
    Output,
    Recovery,
    Result,
    Run,
    Started,
    Undone,
    Vote,
    record_of,
)

WAITS_KEPT = 32
SHORT_MS = 1000
"""What is over sooner is no wait that a person would wonder about; as JSON it is told all the same."""


class Progress:
    """Shows the steps of one agent's runs, for people on standard error or as JSON on standard output."""

    def __init__(self, agent: str, *, as_json: bool = False, quiet: bool = False) -> None:
        self.agent = agent
        self.as_json = as_json
        self.quiet = quiet
        self.history = 0
        self.gone = False
        self.outputs: list[Output] = []
        self._place = 8
        self._paused = ""
        self._told_run = 0
        self._gone_on_with = 0
        self._last = 0
        self._task: str | None = None
        self._new = False
        self._waits: deque[Wait] = deque(maxlen=WAITS_KEPT)

    def begin(self, tail: int, task: str | None = None, *, new: bool = False) -> None:
        """Everything up to this record is history. An unfinished run is gone on with if it has this ``task``, or any
        where there is none, and never with ``new``: what holds another run back is not said of this one."""
        self.history = record_of(tail)
        self._task, self._new = task, new

    def __call__(self, state: State, entry: Entry) -> None:
        if record_of(entry.position) <= self.history:
            return
        if entry.agent not in ("", self.agent) or (self.quiet and not self.as_json):
            return
        try:
            self._show(state, entry)
        except OSError:
            self.gone = True

    def _show(self, state: State, entry: Entry) -> None:
        if self.gone:
            return
        if state.verdict:
            if self.as_json:
                self._json("ineffective", entry, kind=entry.kind, reason=state.verdict)
            return
        tell = _TELL.get(type(entry.payload))
        if tell is not None:
            tell(self, state, entry, entry.payload)
        self._say_held(state, entry)

    # --- what is said --------------------------------------------------------------------------------------------

    def _json(self, event: str, entry: Entry, **more: Any) -> None:
        run = entry.run or self._told_run or self._gone_on_with
        thing = {"event": event, "position": entry.position, "run": run, "time_ms": entry.time_ms, **more}
        click.echo(msgspec.json.encode(thing).decode(errors="replace"))

    def _line(self, number: int | str, word: str, text: str, colour: str | None = None) -> None:
        head = f"{number:>{self._place}}  "
        room = look.width() - len(head) - 11
        shown = head + look.paint(look.pad(word, 10), colour) + " " + look.fit(look.clean(text), room)
        click.echo(shown.rstrip(), err=True)

    def _about(self, action: int) -> int | str:
        """An action's number, where the line above is about another one."""
        if action in (0, self._last):
            return ""
        self._last = action
        return action

    def _reason(self, action: int, word: str, text: str, colour: str = "red") -> None:
        """Why something did not happen: worth more than one line."""
        lines = look.wrapped("", text, indent=self._place + 2, label_width=11)
        first = look.paint(look.pad(word, 10), colour)
        head = f"{self._about(action):>{self._place}}  "
        click.echo(head + first + " " + lines[0].strip(), err=True)
        for line in lines[1:6]:
            click.echo(line, err=True)

    def _resumed(self, state: State) -> int:
        """The unfinished run that is gone on with, where none was begun here."""
        if self._new:
            return 0
        mine = [run for run in state.runs.values() if run.agent == self.agent and run.status == "running"]
        return max((run.id for run in mine if not run.life and self._task in (None, run.title)), default=0)

    def _run(self, state: State) -> int:
        """The run that this process is at: begun here or gone on with, also once it was stopped (0: none yet)."""
        self._gone_on_with = self._resumed(state) or self._gone_on_with
        return self._told_run or self._gone_on_with

    def _say_held(self, state: State, entry: Entry) -> None:
        run = self._run(state)
        held = state.control_over(self.agent, run)
        if held == self._paused:
            return
        self._paused, before = held, self._paused
        if self.as_json:
            self._json("held" if held else "released", entry, by=held or before)
        elif held.startswith("paused"):
            scope = held[7:].strip("()")
            why = state.paused_why.get(scope, "")
            self._line("", "PAUSED", f"{scope}: goes on after `{lets_go(state, scope)}`", "yellow")
            for line in look.wrapped("", why, indent=self._place + 2, label_width=11) if why else ():
                click.echo(line, err=True)
        elif held:
            self._line("", "STOPPED", held[8:].strip("()"), "red")
        else:
            self._line("", "resumed", "")

    def waits(self, wait: Wait) -> None:
        """Something begins to be waited for."""
        if wait in self._waits or self.gone or (self.quiet and not self.as_json):
            return
        self._waits.append(wait)
        try:
            if self.as_json:
                click.echo(msgspec.json.encode({"event": "waits", **look.plain(wait)}).decode())
            elif not wait.until_ms or wait.until_ms - environment.current().wall_ms() >= SHORT_MS:
                self._reason(wait.action, "waits", waiting.words(wait, command=True), "yellow")
        except OSError:
            self.gone = True

    def run(self, state: State, entry: Entry, said: Run) -> None:
        self._told_run = entry.position
        if self.as_json:
            self._json("run", entry, agent=said.agent, task=said.title, dry_run=said.dry_run)
        else:
            self._line(entry.position, "dry run" if said.dry_run else "run", said.title)

    def input(self, state: State, entry: Entry, said: Input) -> None:
        run = state.runs.get(said.run)
        if run is not None and run.title == said.text and run.context[:1] == [entry.position]:
            return  # the task itself
        if self.as_json:
            self._json("message", entry, text=said.text)
        else:
            self._last = entry.position
            self._line(entry.position, "message", said.text)

    def inference(self, state: State, entry: Entry, said: Inference) -> None:
        broken = [call for call in said.calls if call.broken]
        if self.as_json:
            self._json(
                "inference",
                entry,
                turn=said.turn,
                model=said.model,
                text=said.text,
                calls=[call.tool for call in said.calls],
                usage=look.plain(said.usage),
                latency_ms=said.latency_ms,
                retried=look.plain(said.retried),
            )
        elif said.retried:
            waited = look.duration(sum(one.waited_ms for one in said.retried))
            text = f"{describe.retried(said.retried)}, waited {waited}"
            self._line(entry.position, "retried", text, "yellow")
        for call in broken if not self.as_json else ():
            self._line(entry.position, "no action", f"{call.tool}: {call.broken}", "yellow")

    def intent(self, state: State, entry: Entry, said: Intent) -> None:
        if self.as_json:
            self._json(
                "proposed",
                entry,
                action=entry.position,
                tool=said.tool,
                arguments=said.arguments,
                effect=said.effect,
                retry_of=said.retry_of,
                undoes=said.undoes,
            )
            return
        if said.tool == ANSWER:
            return
        effect = "" if said.effect == "read" else f"  [{said.effect}]"
        again = f" (again, after {said.retry_of})" if said.retry_of else ""
        room = look.width() - self._place - 13 - len(effect) - len(again)
        self._last = entry.position
        self._line(entry.position, "proposed", describe.intent(said, room) + again + effect)

    def vote(self, state: State, entry: Entry, said: Vote) -> None:
        if self.as_json:
            self._json(
                "vote",
                entry,
                action=said.intent,
                voter=said.voter,
                approved=said.approved,
                reason=said.reason,
                shadow=said.shadow,
                duration_ms=said.duration_ms,
            )
        elif not (said.approved and self._is_answer(state, said.intent)):
            word = {True: "approves", False: "REJECTS", None: "abstains"}[said.approved]
            mark = look.glyph({True: "approve", False: "reject", None: "abstain"}[said.approved])
            shadow = " (shadow)" if said.shadow else ""
            colour = "red" if said.approved is False else None
            self._line(
                self._about(said.intent),
                f" {mark} vote",
                f"{said.voter} {word}{shadow}: {said.reason}".rstrip(": "),
                colour,
            )

    def commit(self, state: State, entry: Entry, said: Commit) -> None:
        if self.as_json:
            self._json("committed", entry, action=said.intent, reason=said.reason)
        elif not self._is_answer(state, said.intent):
            action = state.actions.get(said.intent)
            self._line(
                self._about(said.intent), "committed", "" if action is not None and action.votes else said.reason
            )

    def abort(self, state: State, entry: Entry, said: Abort) -> None:
        if self.as_json:
            self._json("rejected", entry, action=said.intent, reason=said.reason, code=said.code, hint=said.hint)
            return
        subject = "the answer: " if self._is_answer(state, said.intent) else ""
        self._reason(said.intent, "REJECTED", subject + said.reason)

    def expiry(self, state: State, entry: Entry, said: Expiry) -> None:
        self._rejected(entry, said.intent, said.reason, "expired")

    def cancel(self, state: State, entry: Entry, said: Cancel) -> None:
        if said.reason.startswith("dry run") and not self.as_json:
            self._line(self._about(said.intent), "not run", said.reason)
            return
        reason = said.reason or f"cancelled ({said.scope or said.intent})"
        if self.as_json and said.scope:
            self._json("cancelled", entry, scope=said.scope, reason=reason)
        else:
            self._rejected(entry, said.intent, reason, "cancelled")

    def _rejected(self, entry: Entry, action: int, reason: str, code: str) -> None:
        if self.as_json:
            self._json("rejected", entry, action=action, reason=reason, code=code, hint="")
        else:
            self._reason(action, code.upper(), reason)

    def started(self, state: State, entry: Entry, said: Started) -> None:
        if self.as_json:
            self._json("started", entry, action=said.intent, attempt=said.attempt)
        elif said.attempt > 1:
            self._last = said.intent
            self._line(said.intent, "restarted", f"attempt {said.attempt}, under the same key", "cyan")

    def result(self, state: State, entry: Entry, said: Result) -> None:
        if self.as_json:
            self._json(
                "failed" if said.error is not None else "done",
                entry,
                action=said.intent,
                duration_ms=said.duration_ms,
                value=said.value,
                error=look.plain(said.error) if said.error is not None else None,
            )
        elif not self._is_answer(state, said.intent):
            word, colour = ("FAILED", "red") if said.error is not None else ("done", None)
            room = look.width() - self._place - 13
            self._line(
                self._about(said.intent),
                word,
                f"{look.duration(said.duration_ms)}  {describe.result(said, room)}",
                colour,
            )
        action = state.actions.get(said.intent) if said.retry_at_ms else None
        wait = of_action(state, action) if action is not None else None
        if wait is not None:
            self.waits(wait)

    def recovery(self, state: State, entry: Entry, said: Recovery) -> None:
        if self.as_json:
            self._json(
                "recovered",
                entry,
                action=said.intent,
                settlement=said.settlement,
                evidence=said.evidence,
                reason=said.reason,
            )
        else:
            text = describe.what(entry).removeprefix(f"{said.intent} ")
            self._last = said.intent
            self._line(said.intent, "recovered", self._tool(state, said.intent) + text, "cyan")

    def undone(self, state: State, entry: Entry, said: Undone) -> None:
        if self.as_json:
            error = look.plain(said.error) if said.error is not None else None
            self._json("undone", entry, action=said.intent, detail=said.detail, error=error)
        else:
            self._line(said.intent, "undone", said.detail or "(no detail)", "cyan")

    def finding(self, state: State, entry: Entry, said: Finding) -> None:
        if self.as_json:
            self._json("finding", entry, code=said.code, message=said.message, cites=list(said.cites))
        elif said.code == "in_doubt":
            for key in said.cites:
                self._line(key, "IN DOUBT", self._tool(state, key) + said.message, "magenta")

    def notice(self, state: State, entry: Entry, said: Notice) -> None:
        if self.as_json:
            self._json("notice", entry, code=said.code, message=said.message)
        elif said.code != "in_doubt":  # its Finding said so
            self._line("", "notice", f"{said.code}: {said.message}", "yellow")

    def output(self, state: State, entry: Entry, said: Output) -> None:
        self.outputs.append(said)
        if self.as_json:
            self._json("answer", entry, text=said.text, value=said.value, ok=said.ok, reason=said.reason)

    def control(self, state: State, entry: Entry, said: Control) -> None:
        """Said by what it changes; see ``_say_held``."""

    @staticmethod
    def _is_answer(state: State, key: int) -> bool:
        action = state.actions.get(key)
        return action is not None and action.intent.tool == ANSWER

    @staticmethod
    def _tool(state: State, key: int) -> str:
        action = state.actions.get(key)
        return f"{named(action.intent)} " if action is not None else ""


_TELL: dict[type, Callable[[Progress, State, Entry, Any], None]] = {
    Run: Progress.run,
    Input: Progress.input,
    Inference: Progress.inference,
    Intent: Progress.intent,
    Vote: Progress.vote,
    Commit: Progress.commit,
    Abort: Progress.abort,
    Expiry: Progress.expiry,
    Cancel: Progress.cancel,
    Started: Progress.started,
    Result: Progress.result,
    Recovery: Progress.recovery,
    Undone: Progress.undone,
    Finding: Progress.finding,
    Notice: Progress.notice,
    Output: Progress.output,
    Control: Progress.control,
}
