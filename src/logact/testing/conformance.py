"""The conformance suite that every engine must pass, ours and others'. Adopt it in three lines::

    class TestMyEngine(EngineConformance):
        async def make_engine(self) -> Engine:
            return MyEngine(...)  # on a fresh log

Set ``durable = False`` for an engine that keeps nothing, override ``reopen`` where closing and opening is not
enough, and give ``another`` (a second engine object on the same log) or set ``multi_process = False``.

This file only puts the parts together; each sentence of the contract is a test in one of them.
"""

from __future__ import annotations

from logact.testing.conformance_appends import Appends
from logact.testing.conformance_kit import Conformance, Pen, note, numbers_of, read_all, sample, scenario
from logact.testing.conformance_logs import Logs
from logact.testing.conformance_reads import Reads


class EngineConformance(Appends, Reads, Logs):
    """Every property of the Engine contract, as pytest methods without any plugin."""


__all__ = ["Conformance", "EngineConformance", "Pen", "note", "numbers_of", "read_all", "sample", "scenario"]
