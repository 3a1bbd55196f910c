"""``move``: a log goes on in another engine, under the same id and with the same positions, while agents run.

Prepare the destination, then seal the source with an entry that names it, then let the destination begin. The seal is
the one moment that decides: before it the source is the writable log, after it the destination is, and whoever opens
either finishes what was left undone in between. So a crash at any point leaves exactly one writable log.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import msgspec

from logact import codec
from logact import env as environment
from logact.entry import NewEntry, Seal, position_of
from logact.errors import AppendUnknown, LogCorrupt, LogSealed, UsageError
from logact.logs import chaining
from logact.logs.base import APPEND_RETRY_S_MAX, READ_RECORDS_MAX, Draft, Engine, SharedLog
from logact.logs.chaining import Origin
from logact.logs.network_url import redacted
from logact.logs.segments import Chain, Part
from logact.logs.sqlite import SqliteEngine
from logact.logs.url import engine_for
from logact.logs.verify import first_kept

CATCH_UPS_MAX = 5
"""How often a copy catches up with a log that is written meanwhile, before it is sealed all the same."""

Progress = Callable[[int, int], None]
"""Called with the record up to which the copy was compared, and the record up to which there is something."""


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a move came to. ``position`` is that of the ``Seal``: what comes after it stands in ``target``.

    ``copied`` are the records whose copies were compared with the originals (0: the history stays where it is).
    """

    log: str
    source: str
    target: str
    position: int
    copied: int = 0


async def move(
    source: SharedLog, target: str, *, copy: bool = False, name: str = "operator", progress: Progress | None = None
) -> Moved:
    """Let a log go on at the URL ``target``. With ``copy`` its history is copied there and compared, byte for byte.

    The target must be new, or prepared by an earlier try of the same move, which is then finished. Raises UsageError
    (a target that is not empty; the log has moved elsewhere already), LogUnavailable, LogCorrupt (a copy differs).
    """
    await source.open()
    if not source.engine.segmented:
        raise UsageError(
            "A served log is moved where it is served",
            received=source.url,
            todo="run `logact log move` at its server",
        )
    engine = engine_for(target)
    await engine.open()
    try:
        return await _Move(source, engine, name, progress or (lambda done, of: None)).run(copy)
    finally:
        await engine.close()


class _Move:
    """One move, from the last segment of a log to an opened engine."""

    def __init__(self, source: SharedLog, target: Engine, name: str, progress: Progress) -> None:
        self.source = source
        self.target = target
        self.name = name
        self.progress = progress
        self.address = lasting(target)
        self.history = now = source.engine
        self.old = now.last if isinstance(now, Chain) else Part(now, first=True)
        self.compared = 0

    async def run(self, copy: bool) -> Moved:
        env = environment.current()
        if self.target.log_id in _segments(self.source.engine):
            raise UsageError(
                "The log is there already",
                received=self.address,
                expected="another place",
                todo="nothing is left to do if you meant to finish a move that was interrupted",
            )
        sealing = await self._sealing()
        address = lasting(self.old.engine)
        origin = await self._prepare(address, copy)
        if copy:
            await self._catch_up(origin)
        env.point("move:prepared")
        end = await self._seal(sealing)
        env.point("move:sealed")
        self.old.end = end
        if copy:
            await chaining.copy(self.history, self.target, origin.base, end)
            await self._compare(origin.base, end - 1)
        env.point("move:copied")
        await self.source.move_on()  # it finishes the move as everybody does who comes to the seal
        env.point("move:begun")
        return Moved(
            log=self.source.log_id,
            source=address,
            target=self.address,
            position=position_of(end),
            copied=max(0, self.compared - origin.base),
        )

    async def _prepare(self, address: str, copy: bool) -> Origin:
        """Say in the target what it goes on from; the first to say so wins."""
        base = await first_kept(self.source) - 1 if copy else 0
        wanted = Origin(log=self.source.log_id, previous=address, copied=copy, base=max(0, base))
        found = await chaining.origin_of(self.target)
        if found is None:
            tail = await self.target.tail()
            if tail:
                raise UsageError(
                    "The target is not empty",
                    received=f"{self.address}, with {tail} records of another log",
                    expected="a new log",
                    todo="name another file, or add ?log=NAME",
                )
            await self.target.put_blob(chaining.ORIGIN, msgspec.json.encode(wanted))
            found = await chaining.origin_of(self.target)
        if found != wanted:
            raise UsageError(
                "The target was prepared for another move",
                received=f"{self.address}: {found}",
                expected=str(wanted),
                todo="name a new target",
            )
        return wanted

    async def _catch_up(self, origin: Origin) -> None:
        """Copy what there is, while the log is still written; what is left after the seal is then short."""
        for _ in range(CATCH_UPS_MAX):
            end = self.old.base + await self.old.engine.tail()
            if await chaining.copy(self.history, self.target, origin.base, end) == 0:
                return
            await self._compare(origin.base, end)

    async def _compare(self, base: int, upto: int) -> None:
        """Read the copies back and compare them with the originals."""
        cursor = max(base, self.compared)
        while cursor < upto:
            page = await self.history.read(cursor, min(READ_RECORDS_MAX, upto - cursor))
            copies = await self.target.read(cursor - base, len(page.records))
            for original, mine in zip(page.records, copies.records, strict=False):
                wanted = chaining.as_copied(self.source.log_id, original)
                if wanted != mine.body or original.record != mine.record + base:
                    raise LogCorrupt(
                        "A copied record is not the original", received=f"record {original.record} in {self.address}"
                    )
            if not page.records or len(copies.records) < len(page.records):
                raise LogCorrupt("A copied record is missing", received=f"record {cursor + 1} or later")
            cursor = page.upto
            self.progress(cursor, upto)
        self.compared = max(self.compared, upto)

    async def _sealing(self) -> Draft:
        """The record that ends the old segment, signed if there is a key. Raises UsageError if readers refuse it."""
        env = environment.current()
        seal = Seal(next=self.address, reason="moved", segment=self.target.log_id)
        encoded = codec.encode_record(
            [NewEntry(payload=seal, role="operator", name=self.name)],
            log=self.source.log_id,
            writer=env.identifier(),
            number=1,
            previous=codec.GENESIS,
            time_ms=env.wall_ms(),
            randomness=env.random_bytes(codec.SALT_BYTES),
            sign=self.source.signer.sign if self.source.signer is not None else None,
        )
        head, record_hash = codec.read_head(encoded.body)
        if self.source.keyring is not None:
            record = self.old.base + await self.old.engine.tail() + 1
            why = self.source.keyring.check(head, record_hash, codec.signature_of(encoded.body), record)
            if why:
                raise UsageError(
                    "The entry that moves the log would not be accepted by its readers",
                    received=why,
                    expected=f"a key that stands for operator {self.name!r}",
                    todo="name it: LOGACT_AUTHOR_KEY=FILE; and who you are: LOGACT_OPERATOR=NAME",
                )
        return Draft(writer=head.writer, number=1, body=encoded.body, content=encoded.content, heads=encoded.heads)

    async def _seal(self, draft: Draft) -> int:
        """End the old segment by the entry that names the target; the record that it is."""
        env = environment.current()
        began, pause_s = env.monotonic(), 0.02
        while True:
            try:
                record, _ = await self.old.append(draft)
                return record
            except AppendUnknown:
                if env.monotonic() - began > APPEND_RETRY_S_MAX:
                    raise
                await env.sleep(pause_s * (0.5 + env.random()))
                pause_s = min(pause_s * 2, 1.0)
            except LogSealed as error:
                found = await chaining.seal_of(self.old.engine)
                if found is not None and found[1].segment == self.target.log_id:
                    return self.old.base + found[0]  # another process makes the same move
                where = found[1].next if found is not None else ""
                raise UsageError(
                    "The log ended, or moved elsewhere, meanwhile",
                    received=where or "a seal that names no place",
                    todo=f"move {where} on from there" if where else "look at it: `logact log show`",
                ) from error


def _segments(engine: Engine) -> set[str]:
    if isinstance(engine, Chain):
        return {part.engine.log_id for part in (*engine.parts, *engine.sealed)}
    return {engine.log_id}


def lasting(engine: Engine) -> str:
    """An engine's URL as an entry may hold it: it leads there from anywhere, and holds no secret.

    Raises UsageError for a URL with a secret in it, and for a log that only this process can see.
    """
    url = engine.info().url
    if isinstance(engine, SqliteEngine):
        name = engine.store.name
        return f"sqlite:///{quote(str(engine.path))}" + (f"?log={quote(name)}" if name != "main" else "")
    if url.startswith("memory:"):
        raise UsageError("A log in memory cannot be found again", received=url, expected="a file or a server")
    if "***" in redacted(url):
        raise UsageError(
            "The address is written into the log, so it must hold no password",
            received=redacted(url),
            todo="give the password by ?password_file= or in the environment",
        )
    return url
