"""Waits in words and as JSON: what is waited for, why, and until when. Prints nothing by itself."""

from __future__ import annotations

from logact import env as environment
from logact.cli import look
from logact.core.waiting import Wait

HALF_DAY_MS = 43_200_000


def words(wait: Wait, *, command: bool = False) -> str:
    """A wait in a sentence; with ``command`` what a person can do about it."""
    if wait.kind == "people":
        text = f"for {' or '.join('anybody' if who == '*' else who for who in wait.who)} to approve {wait.tool}"
        text += f", until {at(wait.until_ms)}" if wait.until_ms else ""
        return f"{text}: `logact approve LOG {wait.action}`" if command else text
    why = f" ({look.clean(wait.why)})" if wait.why else ""
    then = f"next try at {at(wait.until_ms)}"
    if wait.kind == "environment":
        return f"the circuit of {wait.tool} is open, its environment is gone{_said(wait)}; {then}"
    if wait.kind == "model":
        return f"the model is asked again{why}; {then}"
    return f"{wait.tool} failed{why}; {then}"


def _said(wait: Wait) -> str:
    said = wait.why.removeprefix("environment: ")
    return f" ({look.clean(said)})" if said else ""


def at(ms: int) -> str:
    """When something is due: the time of day, with the date where it is more than half a day away."""
    near = abs(ms - environment.current().wall_ms()) < HALF_DAY_MS
    return look.clock(ms) if near else look.moment(ms)
