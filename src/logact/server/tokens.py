"""Tokens: who may use a served log, in which roles, as whom, and until when.

A token is ``logact_ID_SECRET``. The server keeps only the SHA-256 of the whole, in a log of its own beside the logs
that it serves (see ``names.OWN``): a created or revoked token is an entry there, so every server process on that
engine knows it at once, and it stays on record who made which. The secret has 256 random bits, so a plain hash is
enough; nobody can guess it from there.

This module never sees a request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import cast

import msgspec

from logact import env as environment
from logact.entry import MAY_APPEND, Entry, NewEntry, Notice, Role
from logact.errors import LogCorrupt, TokenRefused, UsageError
from logact.logs.base import SharedLog

PREFIX = "logact"
TOKENS_MAX = 10_000
CREATED, REVOKED = "token_created", "token_revoked"
TOKEN = re.compile(rf"{PREFIX}_([0-9a-hjkmnp-z]{{16}})_([A-Za-z0-9_-]{{43}})")


class Token(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the server knows of a token. ``logs`` are names or patterns (``team-*``); no agents: all agents.

    ``name`` is the component's or the person's, and stands in everything that is written with the token. ``voters``
    are the names under which a voter's token votes. A ``relay`` may append the records of others as they are, which
    moves logs; it is for nobody who plays a part.
    """

    id: str
    digest: str
    name: str
    roles: tuple[Role, ...]
    logs: tuple[str, ...] = ("*",)
    agents: tuple[str, ...] = ()
    voters: tuple[str, ...] = ()
    created_ms: int = 0
    expires_ms: int = 0
    created_by: str = ""
    relay: bool = False

    def covers(self, log: str) -> bool:
        """Whether the token is for this log."""
        return any(fnmatchcase(log, pattern) for pattern in self.logs)

    def status(self, now_ms: int, revoked: bool) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if revoked:
            return "revoked"
        return "expired" if self.expires_ms and now_ms >= self.expires_ms else "valid"


def new_token(
    *,
    name: str,
    roles: Sequence[str],
    logs: Sequence[str] = ("*",),
    agents: Sequence[str] = (),
    voters: Sequence[str] = (),
    expires_s: float = 0.0,
    by: str = "",
    relay: bool = False,
) -> tuple[Token, str]:
    """A new token and its text, which is shown once and kept nowhere. Raises UsageError."""
    unknown = [role for role in roles if role not in MAY_APPEND]
    if unknown or not roles:
        raise UsageError(
            "A token needs roles", received=", ".join(unknown) or "none", expected="some of " + ", ".join(MAY_APPEND)
        )
    if not name or len(name) > 100 or not name.isprintable():
        raise UsageError("A token needs a name", received=repr(name[:100]), expected="1 to 100 printable characters")
    if any(not one for one in (*logs, *agents, *voters)):
        raise UsageError(
            "A token is limited to a name that is empty", expected="a name", todo="leave the option out for no limit"
        )
    if "voter" in roles and not voters:
        voters = (name,)
    if voters and "voter" not in roles:
        raise UsageError("Only a voter's token votes", received="--voter", expected="the role voter", todo="add it")
    env = environment.current()
    now_ms = env.wall_ms()
    ident = env.identifier()
    secret = base64.urlsafe_b64encode(env.random_bytes(32)).decode().rstrip("=")
    text = f"{PREFIX}_{ident}_{secret}"
    token = Token(
        id=ident,
        digest=_hashed(text),
        name=name,
        roles=cast("tuple[Role, ...]", tuple(dict.fromkeys(roles))),
        logs=tuple(logs),
        agents=tuple(agents),
        voters=tuple(voters),
        created_ms=now_ms,
        expires_ms=now_ms + int(expires_s * 1000) if expires_s else 0,
        created_by=by,
        relay=relay,
    )
    return token, text


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class TokenBook:
    """The tokens of a server, folded from its own log. ``follow`` keeps it up to date."""

    def __init__(self, log: SharedLog) -> None:
        self.log = log
        self.tokens: dict[str, Token] = {}
        self.revoked: dict[str, int] = {}  # id -> when, in wall milliseconds
        self.position = 0

    async def load(self) -> TokenBook:
        """Read everything up to now."""
        await self._take(self.log.read(self.position))
        return self

    async def follow(self) -> None:
        """Keep up until cancelled. Raises the log's errors."""
        await self._take(self.log.follow(self.position))

    async def _take(self, entries: AsyncIterator[Entry]) -> None:
        async for entry in entries:
            self._apply(entry)
            self.position = entry.position

    def _apply(self, entry: Entry) -> None:
        payload = entry.payload
        if not isinstance(payload, Notice) or entry.author.role != "operator":
            return
        if payload.code == CREATED:
            try:
                token = msgspec.convert(payload.data, Token)
            except msgspec.ValidationError:
                return  # one bad entry shuts nobody else out
            if token.id not in self.tokens and len(self.tokens) < TOKENS_MAX:
                self.tokens[token.id] = token
        elif payload.code == REVOKED:
            self.revoked.setdefault(str(payload.data.get("id", "")), entry.time_ms)

    def find(self, text: str) -> Token:
        """The token of this text, if it is valid now. Raises TokenRefused; the message never holds the text."""
        shape = TOKEN.fullmatch(text)
        token = self.tokens.get(shape.group(1)) if shape else None
        if token is None or not hmac.compare_digest(token.digest, _hashed(text)):
            raise TokenRefused("The token is not known here", todo="make one with `logact token create`")
        status = token.status(environment.current().wall_ms(), token.id in self.revoked)
        if status != "valid":
            raise TokenRefused(f"The token is {status}", received=f"token {token.id} of {token.name}")
        return token

    def unheard(self, text: str) -> bool:
        """Whether this looks like a token, of an id that is not in the book as far as it was read."""
        shape = TOKEN.fullmatch(text)
        return shape is not None and shape.group(1) not in self.tokens

    def is_valid(self, token: Token) -> bool:
        """Whether a token that was found earlier still holds."""
        return token.status(environment.current().wall_ms(), token.id in self.revoked) == "valid"

    async def add(self, token: Token) -> None:
        """Write a token down, durably, and know it."""
        data = msgspec.to_builtins(token)
        message = f"a token for {token.name}: {', '.join(token.roles)}"
        await self._write(Notice(code=CREATED, message=message, data=data), token.created_by)

    async def revoke(self, ident: str, *, by: str = "", reason: str = "") -> Token:
        """Take a token back, durably. UsageError if there is none of this id."""
        await self.load()
        token = self.tokens.get(ident)
        if token is None:
            raise UsageError("There is no such token", received=ident, todo="see `logact token list`")
        if ident not in self.revoked:
            message = f"the token {ident} of {token.name} is revoked" + (f": {reason}" if reason else "")
            await self._write(Notice(code=REVOKED, message=message, data={"id": ident, "reason": reason}), by)
        return token

    async def _write(self, notice: Notice, by: str) -> None:
        await self.log.append(NewEntry(payload=notice, role="operator", name=by or "operator"))
        await self.load()
        if notice.code == CREATED and notice.data["id"] not in self.tokens:
            raise LogCorrupt("The token was written and cannot be read back", received=str(notice.data["id"]))

    def listed(self) -> Iterable[tuple[Token, str]]:
        """Every token with its status, oldest first."""
        now_ms = environment.current().wall_ms()
        return [(token, token.status(now_ms, token.id in self.revoked)) for token in self.tokens.values()]
