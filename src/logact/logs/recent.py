"""The latest records of a log in memory, for readers that follow. Bounded by count and by bytes."""

from __future__ import annotations

from bisect import bisect_right

from logact.logs.base import StoredRecord

RECORDS_MAX = 4096
BYTES_MAX = 16_000_000


class RecentRecords:
    """Every record above ``start`` is here, in order."""

    def __init__(self, records_max: int = RECORDS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.start = 0
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._numbers: list[int] = []
        self._bodies: list[bytes] = []
        self._bytes = 0

    def start_at(self, record: int) -> None:
        """Nothing up to this record is here."""
        if not self._numbers:
            self.start = max(self.start, record)

    def add(self, record: int, body: bytes) -> None:
        """The next record."""
        self._numbers.append(record)
        self._bodies.append(body)
        self._bytes += len(body)
        if len(self._numbers) > self._records_max or self._bytes > self._bytes_max:
            gone = max(1, len(self._numbers) // 4)
            self.start = self._numbers[gone - 1]
            self._bytes -= sum(len(body) for body in self._bodies[:gone])
            del self._numbers[:gone], self._bodies[:gone]

    def after(self, record: int, count: int) -> list[StoredRecord] | None:
        """Up to ``count`` records above a number; None if some of them may not be here."""
        if record < self.start:
            return None
        place = bisect_right(self._numbers, record)
        found = zip(self._numbers[place : place + count], self._bodies[place : place + count], strict=True)
        return [StoredRecord(number, body) for number, body in found]
