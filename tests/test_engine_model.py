"""Any sequence of operations leaves an engine where a plain model of the contract says."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from logact import codec
from logact.entry import NewEntry, Seal, position_of
from logact.errors import ChainConflict, ConditionFailed, KeyConflict, LogError, LogSealed, LogTrimmed
from logact.logs.base import Condition, Draft, Engine, Filter, where
from logact.logs.memory import MemoryEngine
from logact.logs.sqlite import SqliteEngine
from logact.testing.arbitrated import MemoryArbitratedEngine
from logact.testing.conformance import note
from logact.testing.faults import FaultyEngine

T = TypeVar("T")
WRITERS = st.sampled_from(["a", "b", "c"])
AGENTS = st.sampled_from(["ann", "bob"])
KEYS = st.sampled_from(["", "", "k1", "k2"])
FILTERS = st.sampled_from([None, Filter(()), where(agents=["ann"]), where(agents=["bob"], kinds=["Notice"])])


class Model:
    """The contract, as slow and plain as it can be said."""

    def __init__(self) -> None:
        self.records: dict[int, tuple[bytes, set[str]]] = {}
        self.tail = 0
        self.first = 1
        self.sealed = False
        self.writers: dict[str, list[tuple[int, bytes]]] = {}
        self.keys: dict[str, tuple[int, str]] = {}
        self.next = 0  # the next record's number, where an engine leaves numbers out; 0: the one after the tail

    def append(self, draft: Draft, agents: set[str], seals: bool) -> tuple[int, bool] | type[LogError]:
        written = self.writers.get(draft.writer, [])
        if draft.number == len(written) and written:
            record, body = written[-1]
            return (record, False) if body == draft.body else ChainConflict
        if draft.number != len(written) + 1:
            return ChainConflict
        if draft.key in self.keys:
            record, content = self.keys[draft.key]
            return (record, False) if content == draft.content else KeyConflict
        if self.sealed:
            return LogSealed
        if draft.condition is not None:
            after = draft.condition.after // 1000
            if after < self.first - 1:
                return ConditionFailed
            for number in range(after + 1, self.tail + 1):
                if self.matches(draft.condition.unless, number):
                    return ConditionFailed
        self.tail, self.next = max(self.next, self.tail + 1), 0
        self.records[self.tail] = (draft.body, agents)
        self.writers.setdefault(draft.writer, []).append((self.tail, draft.body))
        if draft.key:
            self.keys[draft.key] = (self.tail, draft.content)
        self.sealed = self.sealed or seals
        return self.tail, True

    def matches(self, matching: Filter | None, number: int) -> bool:
        if number not in self.records:
            return False
        if matching is None:
            return True
        wanted = {agent for clause in matching.clauses for agent in clause.agents}
        return bool(wanted & self.records[number][1])


class EngineMachine(RuleBasedStateMachine):
    """Drives an engine and the model side by side."""

    build: Callable[[Path], Engine]
    gaps = False  # whether record numbers may be left out

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.drafts: list[tuple[Draft, set[str], bool]] = []
        self.engine = type(self).build(Path(self.directory.name) / "model.db")
        self.do(self.engine.open())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.do(self.engine.close())
            self.runner.close()
            self.directory.cleanup()

    def send(self, draft: Draft, agents: set[str], seals: bool) -> None:
        try:
            answer: tuple[int, bool] | type[LogError] = self.do(self.engine.append(draft))
        except LogError as error:
            answer = type(error)
        if self.gaps and isinstance(answer, tuple) and answer[1]:
            self.model.next = answer[0]
        assert answer == self.model.append(draft, agents, seals)

    def draft(
        self,
        writer: str,
        number: int,
        agents: list[str],
        key: str,
        condition: Condition | None,
        text: str,
        seals: bool,
    ) -> Draft:
        entries = [NewEntry(payload=note(text), role="client", name="m", agent=agent) for agent in agents]
        if seals:
            entries.append(NewEntry(payload=Seal(), role="operator", name="m"))
        encoded = codec.encode_record(
            entries,
            log=self.engine.log_id,
            writer=writer,
            number=number,
            previous="",
            time_ms=1,
            randomness=b"s" * 12 * len(entries),
            key=key,
        )
        return Draft(
            writer=writer,
            number=number,
            body=encoded.body,
            content=encoded.content,
            heads=encoded.heads,
            key=key,
            condition=condition,
        )

    @rule(
        writer=WRITERS,
        step=st.sampled_from([1, 1, 1, 1, 1, 0, 2, -1]),
        agents=st.lists(AGENTS, min_size=1, max_size=3),
        key=KEYS,
        text=st.sampled_from(["x", "y"]),
        back=st.none() | st.integers(0, 4),
        unless=FILTERS,
        seals=st.sampled_from([False] * 30 + [True]),
    )
    def append(
        self,
        writer: str,
        step: int,
        agents: list[str],
        key: str,
        text: str,
        back: int | None,
        unless: Filter | None,
        seals: bool,
    ) -> None:
        number = max(0, len(self.model.writers.get(writer, [])) + step)
        condition = None if back is None else Condition(position_of(max(0, self.model.tail - back)), unless)
        draft = self.draft(writer, number, agents, key, condition, text, seals)
        self.drafts.append((draft, set(agents), seals))
        self.send(draft, set(agents), seals)

    @precondition(lambda self: self.drafts)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        self.send(*data.draw(st.sampled_from(self.drafts)))

    @rule(agents=st.lists(AGENTS, min_size=2, max_size=6))
    def append_together(self, agents: list[str]) -> None:
        drafts = []
        for place, agent in enumerate(agents):
            writer = f"together {self.model.tail} {place}"
            drafts.append((self.draft(writer, 1, [agent], "", None, "x", False), {agent}, False))

        async def together() -> list[object]:
            return list(
                await asyncio.gather(*(self.engine.append(draft) for draft, _, _ in drafts), return_exceptions=True)
            )

        answers = self.do(together())
        if self.model.sealed:
            assert all(isinstance(answer, LogSealed) for answer in answers)
            return
        # they may be committed in any order: the model takes the one that the engine chose
        order = sorted(range(len(drafts)), key=lambda place: answers[place])  # type: ignore[arg-type,return-value]
        for place in order:
            self.model.next = answers[place][0] if self.gaps else 0  # type: ignore[index]
            assert self.model.append(*drafts[place]) == answers[place]

    @rule(back=st.integers(-2, 40))
    def trim(self, back: int) -> None:
        before = max(0, self.model.tail - back)
        self.do(self.engine.trim(before))
        first = max(self.model.first, min(before, self.model.tail + 1))
        for number in range(self.model.first, first):
            self.model.records.pop(number, None)
        self.model.first = first

    @precondition(lambda self: self.model.records)
    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.records)))
        body, agents = self.model.records[number]
        self.do(self.engine.erase(number, 0))
        self.model.records[number] = (codec.erase_payload(body, 0), agents)

    @rule(back=st.integers(-3, 40), limit=st.integers(0, 5), matching=FILTERS)
    def read(self, back: int, limit: int, matching: Filter | None) -> None:
        after = max(-1, self.model.tail - back)
        try:
            page = self.do(self.engine.read(after, limit, matching))
        except LogTrimmed:
            assert after < self.model.first - 1
            return
        assert limit == 0 or after >= self.model.first - 1
        assert len(page.records) <= limit
        expected = [
            number for number in range(after + 1, page.upto + 1) if self.model.matches(matching, number)
        ]  # nothing up to ``upto`` may be left out
        assert [stored.record for stored in page.records] == (expected if limit else [])
        assert all(stored.body == self.model.records[stored.record][0] for stored in page.records)
        assert limit == 0 or page.upto > after or after >= self.model.tail
        assert not page.end or page.upto >= self.model.tail

    @rule()
    def reopen(self) -> None:
        self.do(self.engine.close())
        self.do(self.engine.open())

    @invariant()
    def same_tail(self) -> None:
        if hasattr(self, "engine"):
            assert self.do(self.engine.tail()) == self.model.tail
            assert self.engine.hint() <= self.model.tail


_SETTINGS = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class MemoryMachine(EngineMachine):
    build = staticmethod(lambda path: MemoryEngine())


class FaultlessMachine(EngineMachine):
    build = staticmethod(lambda path: FaultyEngine(MemoryEngine()))


class SqliteMachine(EngineMachine):
    build = staticmethod(SqliteEngine)


class ArbitratedMachine(EngineMachine):
    build = staticmethod(lambda path: arbitrated(5_000))
    gaps = True


class SnapshotMachine(EngineMachine):
    """A snapshot after every few messages, and each reopening begins with one."""

    build = staticmethod(lambda path: arbitrated(2))
    gaps = True


def arbitrated(snapshot_messages: int) -> Engine:
    engine = MemoryArbitratedEngine()
    engine.snapshot_messages = snapshot_messages
    return engine


for _machine in (MemoryMachine, FaultlessMachine, SqliteMachine, ArbitratedMachine, SnapshotMachine):
    _machine.TestCase.settings = _SETTINGS

TestMemoryModel = MemoryMachine.TestCase
TestFaultlessModel = FaultlessMachine.TestCase
TestSqliteModel = SqliteMachine.TestCase
TestArbitratedModel = ArbitratedMachine.TestCase
TestSnapshotModel = SnapshotMachine.TestCase
