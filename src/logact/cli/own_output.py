"""A command's own standard output, kept clean of what tools, voters and models print.

What a guest prints goes to standard error while a command runs, a bounded part of it: the rest is dropped, and said
to be. Only ``main`` puts this in place; whoever uses LogAct as a library keeps standard output as it is.
What a guest's child process writes by itself is not seen here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from logact.env_guest import Printed, printed_here

PRINTED_CHARS_MAX = 64 * 1024
"""How much of what one call prints is shown, in characters."""


class _Aside:
    """Standard error for guests, with an end."""

    def __init__(self) -> None:
        self._strays = Printed()  # of threads that a guest has started, which belong to no call

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        printed = printed_here() or self._strays
        before, printed.chars = printed.chars, printed.chars + len(text)
        if before <= PRINTED_CHARS_MAX and sys.stderr is not None:
            # a guest does not fail because nobody reads what it prints
            with suppress(OSError, ValueError):
                sys.stderr.write(text[: PRINTED_CHARS_MAX - before])
                if printed.chars > PRINTED_CHARS_MAX:
                    sys.stderr.write(f"\n[... more than {PRINTED_CHARS_MAX} characters printed: not shown]\n")
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> _Bytes:
        return _Bytes(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class _Bytes:
    """The same for those who write bytes."""

    def __init__(self, aside: _Aside) -> None:
        self._aside = aside

    def write(self, data: bytes) -> int:
        self._aside.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back here."""


class OwnOutput:
    """Stands for ``sys.stdout``: the command writes to it, a guest beside it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()
        self._aside = _Aside()

    def _target(self) -> Any:
        own = printed_here() is None and threading.get_ident() == self._thread
        return self._stream if own else self._aside

    def write(self, text: str) -> int:
        """Write to what stands behind it here. TypeError for what is no text, as ever."""
        return int(self._target().write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target(), name)


@contextmanager
def own_output() -> Iterator[None]:
    """Keep standard output to the command inside of this block."""
    stream = sys.stdout
    if stream is None:  # closed by who started this
        yield
        return
    own: Any = OwnOutput(stream)
    sys.stdout = own
    try:
        yield
    finally:
        if sys.stdout is own:  # else click took it away since nobody reads any more
            sys.stdout = stream
