"""The stage of ``benchmarks.crash`` with its logs on any engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.crash_stage import Stage
from benchmarks.engines.base import kind_of

UrlOf = Callable[[str], str]
"""A log's URL, by the log's name: small letters, digits and ``-``."""


class EngineStage(Stage):
    """A stage whose logs are on the engine under test; ``near`` are the URLs for those who only look on."""

    def __init__(
        self, directory: Path, url_of: UrlOf, near: UrlOf | None = None, *, rounds: int = 1, jitter_ms: float = 10.0
    ) -> None:
        self._url_of = url_of
        self._near = near or url_of
        super().__init__(directory, rounds, jitter_ms=jitter_ms)

    def url(self, scenario: str) -> str:
        return self._url_of(scenario)

    def near_url(self, scenario: str) -> str:
        return self._near(scenario)


@contextmanager
def stages_on(engine: str, homes: Sequence[Path], *, rounds: int, jitter_ms: float) -> Iterator[list[Stage]]:
    """A stage in each directory: for SQLite a file in each, else logs of its own on servers that all share."""
    with ExitStack() as stack:
        if engine == "sqlite":
            yield [stack.enter_context(Stage(home, rounds, jitter_ms=jitter_ms)) for home in homes]
            return
        adapter = kind_of("benchmarks.engines", engine)(homes[0])
        stack.callback(adapter.close)
        adapter.start()

        def url_of(number: int) -> UrlOf:
            return lambda log: str(adapter.url(f"stage-{number}-{log}"))

        yield [
            stack.enter_context(EngineStage(home, url_of(number), rounds=rounds, jitter_ms=jitter_ms))
            for number, home in enumerate(homes)
        ]
