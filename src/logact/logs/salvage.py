"""What is still readable in a damaged SQLite file, page by page, without asking SQLite.

A row survives if its own page (and its overflow pages) do, whatever became of the rest: index pages, the schema, the
header, the end of the file. Committed pages of the write-ahead log count; others do not, since their transactions
may have been rolled back. Nothing is believed but what its own checksum and digests prove. Reads only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from logact import codec
from logact.errors import LogCorrupt, LogUnavailable
from logact.logs.sqlite_schema import RECORD_BITS, RECORDS_MAX

Value = int | float | str | bytes | None
_LEAF = 13
_HEADER = 100
_OVERFLOW_PAGES_MAX = 1_000_000


GAP_MAX = 100_000
"""More missing records than this in a row, and what comes after them is not taken for the same stretch."""


class Salvaged(msgspec.Struct, kw_only=True):
    """What was found of one log: bodies by record number, blobs by digest, and what the file says of itself.

    ``damaged`` are, by record, the places of payloads that no longer match their digests. ``notes`` say what is wrong
    with the file as such.
    """

    name: str
    log_id: str = ""
    first: int = 1
    sealed: bool = False
    bodies: dict[int, bytes] = {}
    damaged: dict[int, list[int]] = {}
    blobs: dict[str, bytes] = {}
    notes: list[str] = []


def salvage(path: Path, name: str = "main") -> Salvaged:
    """Everything of a log that its file still proves. Raises LogUnavailable, and LogCorrupt if that is nothing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogUnavailable("The file cannot be read", received=f"{path}: {error}") from error
    pages = _Pages(data)
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        pages.overlay(wal.read_bytes())
    found = Salvaged(name=name, notes=pages.notes)
    records: dict[int, dict[int, bytes]] = {}
    ids: dict[int, str] = {}
    wanted = 0
    for key, row in pages.rows():
        if len(row) == 3 and isinstance(row[1], bytes) and isinstance(row[2], int) and key > RECORDS_MAX:
            number = key & RECORDS_MAX
            body = row[1]
            kept = records.setdefault(key >> RECORD_BITS, {})
            if zlib.crc32(body) == row[2] or number not in kept:
                kept[number] = body
        elif len(row) == 4 and isinstance(row[2], str) and isinstance(row[3], bytes):
            if codec.digest(row[3]) == row[2]:
                found.blobs[row[2]] = row[3]
        elif len(row) == 7 and isinstance(row[1], str) and isinstance(row[2], str):
            ids[key] = row[2]
            if row[1] == name:
                wanted, found.log_id, found.sealed = key, row[2], bool(row[6])
                found.first = max(1, row[4]) if isinstance(row[4], int) else 1
    if not wanted and len(records) == 1 and not ids:
        wanted = next(iter(records))  # the table of logs is gone, and there is only one
        found.notes.append("the table of logs cannot be read")
    for number, body in records.get(wanted, {}).items():
        try:
            broken = codec.damaged_payloads(body)
        except LogCorrupt:
            continue
        found.log_id = found.log_id or codec.read_head(body)[0].log
        found.bodies[number] = body
        if broken:
            found.damaged[number] = broken
    strays = _strays(sorted(found.bodies))
    for number in strays:
        del found.bodies[number]
        found.damaged.pop(number, None)
    if strays:
        found.notes.append(f"{len(strays)} records stand at numbers far from all others, and were left out")
    if not found.bodies:
        known = ", ".join(sorted(ids.values())) or "none"
        raise LogCorrupt(
            "Nothing of this log can be read", received=f"{path}, log {name!r}", expected=f"ids: {known}"
        )
    return found


def _strays(numbers: list[int]) -> list[int]:
    """Numbers that a flipped bit has carried far away: those apart from the largest group."""
    groups: list[list[int]] = []
    for number in numbers:
        if not groups or number - groups[-1][-1] > GAP_MAX:
            groups.append([])
        groups[-1].append(number)
    largest = max(groups, key=len, default=[])
    return [number for group in groups if group is not largest for number in group]


class _Pages:
    """The pages of a file, with the committed ones of its write-ahead log in front."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.notes: list[str] = []
        size = int.from_bytes(data[16:18], "big")
        size = 65536 if size == 1 else size
        if data[:16] != b"SQLite format 3\0" or size < 512 or size & (size - 1):
            self.notes.append("the file's header is damaged")
            size = 4096
        self.size = size
        self.usable = size - (data[20] if len(data) > 20 and data[20] < 64 else 0)
        self.newer: dict[int, bytes] = {}
        self.count = -(-len(data) // size)
        said = int.from_bytes(data[28:32], "big")
        if not self.notes and said > self.count:
            self.notes.append(f"the file is cut off: {self.count} of {said} pages are there")

    def page(self, number: int) -> bytes:
        """A page by its number (from 1); empty if it is not there."""
        if number in self.newer:
            return self.newer[number]
        return self.data[(number - 1) * self.size : number * self.size] if number > 0 else b""

    def overlay(self, wal: bytes) -> None:
        """Take the committed pages of a write-ahead log."""
        if len(wal) < 32:
            return
        magic, _, size, _, salt_1, salt_2, sum_1, sum_2 = struct.unpack(">8I", wal[:32])
        order = ">" if magic == 0x377F0683 else "<"
        if magic not in (0x377F0682, 0x377F0683) or _checksum(wal[:24], (0, 0), order) != (sum_1, sum_2):
            self.notes.append("the write-ahead log's header is damaged")
            return
        running, place = (sum_1, sum_2), 32
        staged: dict[int, bytes] = {}
        while place + 24 + size <= len(wal):
            number, commit, first, second, one, two = struct.unpack(">6I", wal[place : place + 24])
            page = wal[place + 24 : place + 24 + size]
            running = _checksum(page, _checksum(wal[place : place + 8], running, order), order)
            if (first, second) != (salt_1, salt_2) or running != (one, two):
                break
            staged[number] = page
            if commit:
                self.newer.update(staged)
                self.count = max(self.count, *self.newer)
                staged = {}
            place += 24 + size

    def rows(self) -> Iterator[tuple[int, list[Value]]]:
        """Every row of every readable leaf page: (row id, values)."""
        for number in range(1, self.count + 1):
            page = self.page(number)
            start = _HEADER if number == 1 else 0
            if len(page) < start + 8 or page[start] != _LEAF:
                continue
            cells = int.from_bytes(page[start + 3 : start + 5], "big")
            for cell in range(min(cells, len(page) // 4)):
                at = int.from_bytes(page[start + 8 + 2 * cell : start + 10 + 2 * cell], "big")
                try:
                    yield self._cell(page, at)
                except (IndexError, ValueError, struct.error):
                    continue  # this row is lost

    def _cell(self, page: bytes, at: int) -> tuple[int, list[Value]]:
        length, at = _varint(page, at)
        key, at = _varint(page, at)
        most = self.usable - 35
        local = length
        if length > most:
            least = (self.usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (self.usable - 4)
            local = local if local <= most else least
        payload = page[at : at + local]
        if length > local:
            chunks = [payload]
            following = int.from_bytes(page[at + local : at + local + 4], "big")
            left = length - local
            while left > 0 and following and len(chunks) < _OVERFLOW_PAGES_MAX:
                more = self.page(following)
                chunks.append(more[4 : 4 + min(left, self.usable - 4)])
                if len(chunks[-1]) < min(left, self.usable - 4):
                    raise ValueError("an overflow page is missing")
                left -= len(chunks[-1])
                following = int.from_bytes(more[:4], "big")
            payload = b"".join(chunks)
        if len(payload) != length:
            raise ValueError("the row is cut off")
        return key, _values(payload)


def _values(payload: bytes) -> list[Value]:
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    found: list[Value] = []
    for kind in kinds:
        if kind >= 12:
            length = (kind - 12) // 2
            chunk = payload[at : at + length]
            if len(chunk) != length:
                raise ValueError("a value is cut off")
            found.append(chunk.decode() if kind % 2 else chunk)
        elif kind == 7:
            length = 8
            found.append(float(struct.unpack(">d", payload[at : at + 8])[0]))
        elif kind in (0, 8, 9):
            length = 0
            found.append(None if kind == 0 else kind - 8)
        else:
            length = (0, 1, 2, 3, 4, 6, 8)[kind]
            found.append(int.from_bytes(payload[at : at + length], "big", signed=True))
        at += length
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(8):
        byte = data[at + place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + place + 1
    return value << 8 | data[at + 8], at + 9


def _checksum(data: bytes, start: tuple[int, int], order: str) -> tuple[int, int]:
    one, two = start
    for first, second in struct.iter_unpack(f"{order}2I", data):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
