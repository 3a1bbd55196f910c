"""A log engine of one's own, as small as one can be: every operation is a line of a file, flushed before it counts.

The rules of the log are MemoryEngine's. What was refused is refused again when the file is read back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from logact.errors import LogActError, UnknownLogUrl
from logact.logs.base import Draft, EngineInfo
from logact.logs.memory import MemoryEngine


class LittleEngine(MemoryEngine):
    """One log in one file of lines; for one process at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"little://{path}")
        self.path = path

    async def open(self) -> None:
        self.forget()
        if not self.path.exists():
            await super().open()  # a new log, unless none is to be made
            self._write("begin", self.log_id)
            return
        with self.path.open("rb") as file:
            lines = [msgspec.json.decode(line, type=tuple[str, msgspec.Raw]) for line in file]
        for verb, given in lines:
            await self._again(verb, bytes(given))

    async def _again(self, verb: str, given: bytes) -> None:
        if verb == "begin":
            self.log_id = msgspec.json.decode(given, type=str)
        elif verb == "append":
            try:
                self.append_now(msgspec.json.decode(given, type=Draft))
            except LogActError:
                pass  # as the first time
        elif verb == "blob":
            await super().put_blob(*msgspec.json.decode(given, type=tuple[str, bytes]))
        elif verb == "erase":
            await super().erase(*msgspec.json.decode(given, type=tuple[int, int]))
        else:
            await super().trim(msgspec.json.decode(given, type=int))

    def _write(self, verb: str, given: Any) -> None:
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode((verb, given)) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    async def append(self, draft: Draft) -> tuple[int, bool]:
        self._write("append", draft)
        return self.append_now(draft)

    async def put_blob(self, digest: str, data: bytes) -> None:
        self._write("blob", (digest, data))
        await super().put_blob(digest, data)

    async def erase(self, record: int, index: int) -> None:
        self._write("erase", (record, index))
        await super().erase(record, index)

    async def trim(self, before: int) -> None:
        self._write("trim", before)
        await super().trim(before)

    def info(self) -> EngineInfo:
        return EngineInfo(url=self.url, engine="little", survives="power loss", wakes_by="event")


def engine_from_url(url: str) -> LittleEngine:
    """``little:///absolute/path``."""
    path = url.removeprefix("little://")
    if not path.startswith("/"):
        raise UnknownLogUrl("This is not the URL of a little log", received=url, expected="little:///absolute/path")
    return LittleEngine(Path(path))
