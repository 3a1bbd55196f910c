"""Which offsets of a partition hold records: one bit each, from the first offset that is kept."""

from __future__ import annotations


class Winners:
    """A growing row of bits. ``base`` is the offset of the first one, a multiple of eight."""

    __slots__ = ("base", "bits")

    def __init__(self, base: int = 0, bits: bytes = b"") -> None:
        self.base = base
        self.bits = bytearray(bits)

    def add(self, offset: int) -> None:
        """This offset holds a record; offsets only come in rising order."""
        place = (offset - self.base) >> 3
        if place >= len(self.bits):
            self.bits.extend(bytes(place + 1 - len(self.bits)))
        self.bits[place] |= 1 << (offset & 7)

    def has(self, offset: int) -> bool:
        """Whether this offset holds a record; False for what was dropped."""
        place = (offset - self.base) >> 3
        return 0 <= place < len(self.bits) and bool(self.bits[place] & (1 << (offset & 7)))

    def any_between(self, start: int, end: int) -> bool:
        """Whether any offset in [start, end) holds a record."""
        return any(self.has(offset) for offset in range(start, end))

    def drop(self, before: int) -> None:
        """Forget the offsets below ``before``."""
        whole = (before - self.base) >> 3
        if whole > 0:
            del self.bits[:whole]
            self.base += whole << 3
        if self.bits and before > self.base:
            self.bits[0] &= (0xFF << (before - self.base)) & 0xFF
