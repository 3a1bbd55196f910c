"""The stage of ``benchmarks.crash`` with its logs on any engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.crash_stage import Stage

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
