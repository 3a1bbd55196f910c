"""Are the blobs that a log's entries name there, and what was stored? Digest and size of each, one at a time.

A blob that many entries name is read once. It holds one blob's bytes at a time, and of those it has seen the digests,
a limited number of them. It never judges records, and never changes the log.
"""

from __future__ import annotations

from collections.abc import Iterable

from logact.core.holes import REPAIRED
from logact.entry import Entry, Notice
from logact.errors import BlobMissing, LogCorrupt
from logact.logs.base import SharedLog, where
from logact.logs.copying import sized_blobs_of

SEEN_MAX = 100_000
"""How many blobs are remembered as looked at: beyond twice that, one that is named again may be read again."""


class BlobCheck:
    """Looks at the blobs that entries name. ``checked`` counts the blobs, ``problems`` says what is wrong where.

    ``lost`` counts blobs that are not there, and of which the log itself says that a repair could not save them.
    """

    def __init__(self, log: SharedLog, *, problems_max: int) -> None:
        self.log = log
        self.problems_max = problems_max
        self.checked = 0
        self.lost = 0
        self.after = 0  # the last position that was trimmed away
        self.problems: list[tuple[int, str]] = []  # position, what
        self._known_lost: set[str] | None = None  # None: nobody has asked yet
        self._seen: set[tuple[str, int]] = set()
        self._seen_before: set[tuple[str, int]] = set()

    async def look(self, entries: Iterable[tuple[Entry, bool]]) -> None:
        """Check the blobs that these entries name; each with whether it counts. Raises what reading raises, but for
        damage.

        What takes no effect may have been made up, and so may be what it names: that it is not there is no damage.
        """
        for entry, counts in entries:
            for digest, size in sized_blobs_of(entry.payload):
                # the size is part of what an entry says, so that another size of a known blob is another question
                mark = (digest, size)
                if mark not in self._seen and mark not in self._seen_before:
                    await self._check(entry, counts, mark)

    def _remember(self, mark: tuple[str, int]) -> None:
        self.checked += 1
        if len(self._seen) >= SEEN_MAX:
            self._seen_before, self._seen = self._seen, set()
        self._seen.add(mark)

    async def _check(self, entry: Entry, counts: bool, mark: tuple[str, int]) -> None:
        digest, size = mark
        try:
            data = await self.log.get_blob(digest)
        except BlobMissing:
            if counts:
                self._remember(mark)
                await self._problem(entry, digest, "is missing")
            return
        except LogCorrupt as error:
            self._remember(mark)
            await self._problem(entry, digest, f"is damaged: {error.message}")
            return
        fits = size in (-1, len(data))
        if fits or counts:
            self._remember(mark)
        if counts and not fits:
            await self._problem(entry, digest, f"has {len(data)} bytes, and the entry says {size}")

    async def _problem(self, entry: Entry, digest: str, what: str) -> None:
        if self._known_lost is None:
            self._known_lost = await self._said_to_be_lost()
        if digest in self._known_lost:
            self.lost += 1
        elif len(self.problems) < self.problems_max:
            said = f"a blob that this {entry.kind} names {what} (blob {digest[:16]})"
            self.problems.append((entry.position, said))

    async def _said_to_be_lost(self) -> set[str]:
        """The blobs of which a repair of this log has said that they are lost: nobody can bring them back."""
        lost: set[str] = set()
        try:
            async for entry in self.log.read(self.after, matching=where(kinds=["Notice"])):
                lost |= lost_in(entry)
        except LogCorrupt:
            pass  # what stands after more damage is not known to have been said
        return lost


def lost_in(entry: Entry) -> set[str]:
    """The digests of the blobs that a repair's notice says to be lost; none of any other entry."""
    said = entry.payload
    if not isinstance(said, Notice) or said.code != REPAIRED or entry.author.role != "operator" or entry.forged:
        return set()
    listed = said.data.get("missing_blobs", ())
    return {one for one in listed if isinstance(one, str)} if isinstance(listed, list | tuple) else set()
