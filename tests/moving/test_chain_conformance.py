"""A chain of segments keeps the engine contract: with its history copied, and with records of an earlier segment."""

from __future__ import annotations

from logact import codec
from logact.entry import NewEntry, Seal
from logact.logs.base import Draft, Engine
from logact.logs.memory import MemoryEngine
from logact.logs.segments import Chain, Part
from logact.testing.conformance import EngineConformance
from logact.testing.conformance_kit import Pen, note, read_all, scenario


async def sealed_engine(log_id: str = "") -> MemoryEngine:
    """A memory engine whose only record seals it."""
    engine = MemoryEngine()
    await engine.open()
    encoded = codec.encode_record(
        [NewEntry(payload=Seal(), role="operator", name="op")],
        log=log_id or engine.log_id,
        writer="sealer",
        number=1,
        previous=codec.GENESIS,
        time_ms=0,
        randomness=bytes(codec.SALT_BYTES),
    )
    await engine.append(
        Draft(writer="sealer", number=1, body=encoded.body, content=encoded.content, heads=encoded.heads)
    )
    return engine


class TestCopied(EngineConformance):
    """The history was copied: only the last segment is read, the sealed one is still asked for what may be there."""

    durable = False
    multi_process = False

    async def make_engine(self) -> Engine:
        old = await sealed_engine()
        return Chain(old.log_id, [Part(MemoryEngine(), 0)], [Part(old, end=1, first=True)])

    @scenario
    async def test_opening_makes_a_log_only_where_it_may(self) -> None:
        """A log that was moved here is there: it opens, also where none may be made."""
        engine = await self.make_engine()
        engine.create = False
        await engine.open()
        try:
            await Pen(engine).write(note("said"))
            assert await read_all(engine)
        finally:
            await engine.close()
