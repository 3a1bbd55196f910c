"""What a run shows while the log cannot be written: what is wrong, until when it tries again, and that it is over."""

from __future__ import annotations

import click

from logact import env as environment
from logact.cli import look
from logact.cli.common import put_json
from logact.errors import LogActError

LABEL_WIDTH = 21


class Stuck:
    """Told by ``Host.stuck``. Speaks on standard error, also of a quiet run, or as JSON on standard output."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._open = 0  # results that cannot be written down at present

    def __call__(self, error: LogActError | None, left_s: float) -> None:
        """Say it, once for all actions that meet the same. Never raises for a reader that went away."""
        before, self._open = self._open, self._open + (1 if error is not None else -1)
        if before and self._open:
            return
        try:
            self._say(error, environment.current().wall_ms() + round(left_s * 1000))
        except OSError:
            pass

    def _say(self, error: LogActError | None, until_ms: int) -> None:
        if error is None:
            text = "the log can be written again"
            told: dict[str, object] = {"event": "unstuck"}
        else:
            what = f"the log cannot be written: {error.message} ({error.received})."
            again = f"It is tried again until {look.clock(until_ms)}"
            text = f"{what} {again}; {error.todo}" if error.todo else f"{what} {again}"
            told = {"event": "stuck", "code": error.code, "message": str(error), "until_ms": until_ms}
        if self.as_json:
            put_json(told)
            return
        word = look.paint(look.pad("goes on" if error is None else "STUCK", 10), None if error is None else "red")
        wrapped = look.wrapped("", text, label_width=LABEL_WIDTH)
        click.echo(" " * 10 + word + " " + wrapped[0].strip(), err=True)
        for line in wrapped[1:]:
            click.echo(line, err=True)
