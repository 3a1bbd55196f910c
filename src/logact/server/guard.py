"""Judges what a token may do: which logs, which roles, as whom, about which agents.

What a client says of itself counts for nothing. A record is encoded and hashed by its author, so the server cannot
write another author into it without breaking the hash; it refuses every record whose author is not the token's, which
comes to the same and leaves the bytes as they are. Clients of ours write the token's name from the start.

This module reads no log but to find out whose an action or run is, and writes nothing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence

from logact import codec
from logact.codec import EntryHead, Head
from logact.core import rights
from logact.entry import KINDS, Control, Entry, Erased, Mail, Payload, Unknown, record_of
from logact.errors import LogCorrupt, LogTrimmed, NotPermitted, TooLarge, UsageError
from logact.logs.base import Draft, Engine, SharedLog
from logact.logs.wire import WireDraft
from logact.server.tokens import Token

OWNERS_KEPT = 10_000
FRAME_DEPTH = 4
"""How much deeper a record nests than its payloads."""

HERE = 1 << 40
"""The record number that stands for the record under judgement, which has none yet."""

_WRITER = re.compile(r"[\x20-\x7e]{1,200}")


class Guard:
    """Checks records for one log."""

    def __init__(self, log: SharedLog, blob_bytes_max: int) -> None:
        self.log = log
        self.blob_bytes_max = blob_bytes_max
        self.keyring = log.keyring
        self._owners: OrderedDict[int, str] = OrderedDict()  # position of an action or run -> its agent

    @property
    def engine(self) -> Engine:
        """The log's engine now: another one once the log has moved."""
        return self.log.engine

    async def draft(self, token: Token, wire: WireDraft) -> Draft:
        """The draft that may be appended. Raises NotPermitted, UsageError, TooLarge, LogCorrupt."""
        if len(wire.body) > codec.RECORD_BYTES_MAX:
            raise TooLarge(
                "A record is too large",
                received=f"{len(wire.body)} bytes",
                expected=f"at most {codec.RECORD_BYTES_MAX}",
            )
        try:
            codec.check_depth(wire.body, codec.DEPTH_MAX + FRAME_DEPTH)
            codec.check_record(wire.body)
            head, record_hash = codec.read_head(wire.body)
            entries = codec.decode_record(wire.body, HERE)
        except (LogCorrupt, ValueError) as error:
            raise UsageError("This is not a record", received=str(error)[:300], todo="see docs/server.md") from error
        if head.log != self.engine.log_id:
            raise UsageError("The record is for another log", received=head.log[:60], expected=self.engine.log_id)
        if not token.relay:
            self._frame(head, entries)
            self._author(token, head)
            self._signed(head, record_hash, wire.body)
            for entry, tag in zip(entries, head.entries, strict=True):
                self._entry(token, entry, tag)
                if token.agents:
                    await self._scope(token, entry, tag, entries)
        blobs = []
        for blob in wire.blobs:
            check_blob(blob.digest, blob.data, self.blob_bytes_max)
            blobs.append((blob.digest, blob.data))
        return Draft(
            writer=head.writer,
            number=head.number,
            body=wire.body,
            content=codec.content_of(wire.body),
            heads=head.entries,
            key=head.key,
            condition=wire.condition,
            blobs=tuple(blobs),
        )

    def _frame(self, head: Head, entries: Sequence[Entry]) -> None:
        """A record must be what our own encoder makes of its entries: no lying tags, nothing beyond the limits."""
        if (
            not 0 < len(entries) <= 1000
            or not _WRITER.fullmatch(head.writer)
            or head.number < 1
            or len(head.key) > 500
        ):
            raise UsageError("The record's head is out of bounds", todo="see docs/server.md")
        for entry, tag in zip(entries, head.entries, strict=True):
            payload, cls = entry.payload, KINDS.get(tag.kind)
            if cls is None or isinstance(payload, Unknown) or type(payload) is not cls:
                raise UsageError(
                    "An entry does not fit its kind, or was erased", received=tag.kind[:60], expected="a known kind"
                )
            if tag.version != cls.VERSION or tag.critical != cls.CRITICAL:
                raise UsageError(f"A {tag.kind} entry has another version or mark than this server writes")
            if entry.size > codec.PAYLOAD_BYTES_MAX:
                raise TooLarge(f"A {tag.kind} entry is too large", received=f"{entry.size} bytes")
            for field in ("agent", "tool"):
                said = getattr(payload, field, "")
                if said and getattr(tag, field) != said:
                    raise UsageError(f"An entry's header names another {field} than its payload", received=tag.kind)
            if entry.action != _resolved(payload, "intent"):
                raise UsageError("An entry's header names another action than its payload", received=tag.kind)
            if _resolved(payload, "run") and entry.run != _resolved(payload, "run"):
                raise UsageError("An entry's header names another run than its payload", received=tag.kind)

    def _author(self, token: Token, head: Head) -> None:
        if not head.writer.startswith(f"{token.id}."):
            raise NotPermitted(
                "The incarnation is not the token's",
                received=head.writer[:60],
                expected=f"one that begins with {token.id}.",
                todo="write through logact+http(s)://, which does so",
            )

    def _signed(self, head: Head, record_hash: str, body: bytes) -> None:
        """With a key ring the server takes no record that its readers would not."""
        if self.keyring is not None:
            why = self.keyring.check(head, record_hash, codec.signature_of(body), HERE)
            if why:
                raise NotPermitted("The record's signature is not accepted", received=why, todo="see docs/signing.md")

    def _entry(self, token: Token, entry: Entry, tag: EntryHead) -> None:
        if tag.role not in token.roles:
            raise NotPermitted(
                f"The token may not write as {tag.role[:40]}",
                received=f"a {tag.kind} entry",
                expected="the role " + " or ".join(token.roles),
            )
        names = token.voters if tag.role == "voter" else (token.name,)
        if tag.name not in names:
            raise NotPermitted(
                "The author is not the token's",
                received=f"{tag.role} {tag.name[:60]!r}",
                expected=", ".join(names),
            )
        mine = {token.name, *token.agents}
        if isinstance(entry.payload, Mail) and entry.payload.sender not in mine:
            raise NotPermitted(
                "The mail's sender is not the token's",
                received=f"mail of {entry.payload.sender[:60]!r}",
                expected=" or ".join(sorted(mine)),
                todo="name each agent that the token speaks for: `logact token create --agent NAME ...`",
            )
        why = rights.problem(tag.role, tag.name, entry.payload)
        if why:
            raise NotPermitted(why[0].upper() + why[1:])

    async def _scope(self, token: Token, entry: Entry, tag: EntryHead, entries: Sequence[Entry]) -> None:
        """Everything that the entry names must belong to the token's agents."""
        payload = entry.payload
        named = {tag.agent, getattr(payload, "agent", "")} - {""}
        scope = getattr(payload, "scope", "") if tag.kind != "Vote" else ""
        if isinstance(payload, Control) or scope:
            kind, _, rest = scope.partition(":")
            if kind == "agent":
                named.add(rest)
            elif kind in ("run", "action") and rest.isdecimal():
                named.add(await self._owner(int(rest), entries))
            else:
                named.add("")  # the whole log
        elif tag.kind in ("Policy", "Trim", "Seal", "Checkpoint", "Fork") and not getattr(payload, "agent", ""):
            named.add("")
        for field in ("run", "intent", "inference", "retry_of", "undoes", "parent", "target"):
            position = _resolved(payload, field)
            if position:
                named.add(await self._owner(position, entries))
        if isinstance(payload, Erased) and not payload.target:
            named.add("")
        outside = sorted(named - set(token.agents))
        if outside:
            raise NotPermitted(
                f"The token is not for {'agent ' + repr(outside[0][:60]) if outside[0] else 'the whole log'}",
                received=f"a {tag.kind} entry",
                expected="agent " + " or ".join(token.agents),
            )

    async def _owner(self, position: int, entries: Sequence[Entry]) -> str:
        """The agent whose entry stands at a position; "" if nobody's."""
        if record_of(position) == HERE:  # it points into the record itself
            return next((entry.agent for entry in entries if entry.position == position), "")
        if position not in self._owners:
            try:
                page = await self.engine.read(record_of(position) - 1, 1)
            except LogTrimmed:
                return ""
            found = [entry for stored in page.records for entry in codec.decode_record(stored.body, stored.record)]
            agent = next((entry.agent for entry in found if entry.position == position), "")
            if not agent:
                return ""
            self._owners[position] = agent
            if len(self._owners) > OWNERS_KEPT:
                self._owners.popitem(last=False)
        return self._owners[position]


def check_blob(digest: str, data: bytes, most: int) -> None:
    """Raise unless the bytes have this digest and are not too many."""
    if len(data) > most:
        raise TooLarge("A blob is too large", received=f"{len(data)} bytes", expected=f"at most {most}")
    if codec.digest(data) != digest:
        raise UsageError("A blob does not have the digest that it is named by", received=digest)


def may(token: Token, what: str) -> None:
    """Raise NotPermitted unless the token's roles allow ``write`` (anything at all), ``erase`` or ``trim``."""
    mine = {str(role) for role in token.roles}
    needed = _NEEDED.get(what) or mine - {"reader"}
    if not needed & mine:
        raise NotPermitted(
            f"The token may not {what} here",
            received="the role " + ", ".join(token.roles),
            expected=", ".join(sorted(needed)) or "any role but reader",
        )


_NEEDED = {"erase": {"operator"}, "trim": {"operator", "checkpointer"}}


def writes(token: Token) -> bool:
    """Whether the token may append anything at all."""
    return any(role != "reader" for role in token.roles)


def check_create(token: Token, log: str) -> None:
    """Raise NotPermitted unless the token may make this log: an operator's, a relay's, or one made for it by name.

    So a part that was taken over makes no logs but the one that it is for, and a mistyped name makes none.
    """
    if not (token.relay or "operator" in token.roles or log in token.logs):
        raise NotPermitted(
            "There is no log of this name, and the token may not make it",
            received=log,
            expected="an operator's token, or one for this log by name",
            todo=f"correct the name, or `logact token create --on {log} ...`",
        )


def out_of_scope(token: Token, log: str) -> NotPermitted:
    """The error for a log that a token is not for."""
    return NotPermitted("The token is not for this log", received=log, expected=", ".join(token.logs))


def whole_log(token: Token) -> None:
    """Raise NotPermitted if the token is for some agents only."""
    if token.agents:
        raise NotPermitted("The token is not for the whole log", expected="agent " + " or ".join(token.agents))


async def check_erasable(token: Token, engine: Engine, record: int, index: int) -> None:
    """Raise unless this payload may be erased with this token: it is there, and nothing depends on it."""
    page = await engine.read(record - 1, 1)
    found = [codec.decode_record(stored.body, record) for stored in page.records if stored.record == record]
    if not found or index >= len(found[0]):
        raise UsageError("There is no entry at this place", received=f"record {record}, entry {index}")
    entry = found[0][index]
    if entry.critical:
        raise UsageError(f"A {entry.kind} cannot be erased", todo="append a newer one instead")
    if token.agents and entry.agent not in token.agents:
        whole_log(token)


def _resolved(payload: Payload, field: str) -> int:
    value = getattr(payload, field, 0)
    return value if isinstance(value, int) else 0
