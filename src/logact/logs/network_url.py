"""The URL form that all engines on the network share: hosts, the log's name, credentials and TLS.

``SCHEME://[USER@]HOST[:PORT][,HOST[:PORT]…][/PATH][?log=NAME&OPTION=VALUE…]``

Secrets come from a file (``?password_file=``), from the environment (``LOGACT_POSTGRES_PASSWORD``), or, the least
good place, from the URL itself. They are held in :class:`Secret`, which prints as ``***``; every message, page and
entry shows a URL only as :func:`redacted` leaves it. Connections are encrypted and the server's certificate is
checked, unless all hosts are this machine or the URL says otherwise.

This file connects to nothing and knows no engine's own options.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from logact.errors import LogUnavailable, UnknownLogUrl, UsageError
from logact.logs.names import check_log_name

HIDDEN = "***"
SECRET_BYTES_MAX = 64 * 1024
LOCAL_SCHEMES = frozenset({"sqlite", "memory"})
"""Schemes whose URLs name no host and can hold no secret; an ``@`` in them is a letter like others."""

TOKEN_SCHEMES = frozenset({"nats"})
"""Schemes where what stands alone before the ``@`` is not a name but a token."""

SHARED_OPTIONS = ("log", "user", "tls", "ca", "cert", "key", "password_file")
"""Options of every network engine; each adds its own."""

TlsMode = Literal["off", "verify", "unverified"]


class Secret:
    """A secret on its way from a file or the environment to the engine's client. Prints as ``***``."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the client that needs it and for nothing else."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied")


class Tls(msgspec.Struct, frozen=True):
    """How a connection is protected: paths of PEM files, empty where there are none."""

    mode: TlsMode
    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext | None:
        """For clients that take an ``ssl.SSLContext``; None if TLS is off. Raises LogUnavailable."""
        if self.mode == "off":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.mode == "unverified":
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except OSError as error:  # ssl.SSLError is one
            raise LogUnavailable(
                "The certificates cannot be used", received=str(error), todo="check ?ca=, ?cert= and ?key="
            ) from error
        return context

    def said(self) -> str:
        """One sentence for ``doctor`` and ``EngineInfo.notes``."""
        if self.mode == "off":
            return "The connection is not encrypted."
        if self.mode == "unverified":
            return "The connection is encrypted, but the server's certificate is not checked (?tls=unverified)."
        return f"The connection is encrypted, the server checked against {self.ca or 'the system certificates'}."


class NetworkUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL. ``shown`` is the only form of it that may be printed, logged or stored."""

    shown: str
    scheme: str
    hosts: tuple[tuple[str, int], ...]  # port 0: the engine's own default
    path: str  # without the leading slash, decoded
    log: str
    user: str
    secrets: dict[str, Secret]
    tls: Tls
    options: dict[str, str]  # the engine's own
    notes: tuple[str, ...] = ()

    @property
    def password(self) -> str:
        """The password, revealed; empty if there is none."""
        return self.secret("password")

    def secret(self, name: str) -> str:
        """A secret, revealed; empty if there is none."""
        return self.secrets[name].reveal() if name in self.secrets else ""

    def flag(self, name: str) -> bool:
        """An option that is a switch: ``?name=1``. UnknownLogUrl for other values than 0 and 1."""
        value = self.options.get(name, "0")
        if value not in {"0", "1"}:
            raise UnknownLogUrl(f"The option {name} is a switch", received=value, expected="0 or 1")
        return value == "1"

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """An option that is a number within bounds."""
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise UnknownLogUrl(f"The option {name} is a number", received=text, expected=f"{least:g} to {most:g}")
        return value

    def scrub(self, text: object) -> str:
        """A client's message with every secret of this URL taken out."""
        return scrub(str(text), *self.secrets.values())


def parse(
    url: str,
    *,
    engine: str,
    options: Iterable[str] = (),
    secrets: Iterable[str] = ("password",),
    log: str = "main",
) -> NetworkUrl:
    """Read a URL, and its secrets from where it says.

    ``engine`` names the environment variables: ``postgres`` reads ``LOGACT_POSTGRES_USER``, ``…_PASSWORD``,
    ``…_PASSWORD_FILE``, ``…_CA``, ``…_CERT`` and ``…_KEY``; what the URL says goes first. ``secrets`` are names of
    secrets, each with ``?NAME_file=`` and the two variables. ``options`` are the engine's own options; anything
    else is refused. Raises UnknownLogUrl, UsageError, LogUnavailable (a secret's file cannot be read).
    """
    names = tuple(secrets)
    shown = redacted(url)
    try:
        parts = urlsplit(url)
        user, secret_in_url, hosts = _authority(parts.netloc)
    except ValueError as error:
        raise UnknownLogUrl(
            "This is not a URL", received=shown, expected=f"{engine} URL: see docs/logs.md"
        ) from error
    if not hosts:
        raise UnknownLogUrl("The log URL names no host", received=shown, expected=f"{parts.scheme}://HOST[:PORT]/…")
    if parts.fragment:
        raise UnknownLogUrl("A # in a log URL must be written %23", received=shown)
    allowed = {*SHARED_OPTIONS, *options, *(f"{name}_file" for name in names)}
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed or name in found:
            raise UnknownLogUrl(
                "The log URL has an option that is unknown or given twice",
                received=name if name not in names else f"{name}={HIDDEN}",
                expected=", ".join(sorted(allowed)),
                todo=f"use ?{name}_file= or {_variable(engine, name)}" if name in names else "correct the URL",
            )
        found[name] = value
    given = {name: _secret(engine, name, found.pop(f"{name}_file", "")) for name in names}
    notes = []
    if secret_in_url:
        notes.append("The URL itself holds a secret, which others on this machine can see: use a file instead.")
        if not given[names[0]]:
            given[names[0]] = Secret(secret_in_url)
    name = found.pop("log", log)
    check_log_name(name)
    user = found.pop("user", "") or user or os.environ.get(_variable(engine, "user"), "")
    tls = _tls(engine, found, hosts, implied=parts.scheme.endswith("https"))
    return NetworkUrl(
        shown=shown,
        scheme=parts.scheme.lower(),
        hosts=hosts,
        path=unquote(parts.path[1:]),
        log=name,
        user=user,
        secrets={name: secret for name, secret in given.items() if secret},
        tls=tls,
        options=found,
        notes=tuple(notes),
    )


def redacted(url: str) -> str:
    """A URL without its secrets, for every message. Where it is unclear where a secret ends, more is hidden."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, separator, rest = url.partition(":")  # with a slash too few, or a path
        if not separator or "/" in scheme or "@" not in rest:
            return url
    if scheme.lower() in LOCAL_SCHEMES:
        return url
    before, mark, query = rest.partition("?")
    if "@" in query:  # a password with a bare ? in it, or an option whose @ should have been %40: hide all of it
        before, mark, query = rest, "", ""
    authority, at, place = before.rpartition("@")
    if at:
        user, colon, _ = authority.partition(":")
        before = f"{user}:{HIDDEN}@{place}" if colon else f"{user}@{place}"
        if not colon and scheme.lower() in TOKEN_SCHEMES:
            before = f"{HIDDEN}@{place}"
    kept = [_redacted_option(part) for part in query.split("&")]
    return f"{scheme}{separator}{before}{mark}{'&'.join(kept)}"


def _redacted_option(part: str) -> str:
    name, equals, _ = part.partition("=")
    plain = unquote(name).lower()
    secret = any(word in plain for word in ("password", "passwd", "secret", "token")) and not plain.endswith("_file")
    return f"{name}{equals}{HIDDEN}" if secret else part


def scrub(text: str, *secrets: Secret) -> str:
    """A text with these secrets taken out, also where they are written as in a URL."""
    from urllib.parse import quote, quote_plus

    for secret in secrets:
        plain = secret.reveal()
        for form in (plain, quote(plain, safe=""), quote_plus(plain)):
            if form:
                text = text.replace(form, HIDDEN)
    return text


def _authority(netloc: str) -> tuple[str, str, tuple[tuple[str, int], ...]]:
    credentials, _, place = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    return unquote(user), unquote(password), _hosts(place)


def _hosts(text: str) -> tuple[tuple[str, int], ...]:
    """``a:1,b,[::1]:2`` as pairs; ValueError if a port is none. A host may be ``%2Fa%2Fsocket``."""
    found = []
    for part in text.split(",") if text else []:
        host, port = part, ""
        if part.startswith("["):
            host, bracket, port = part[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                raise ValueError(f"an address without its bracket: {part}")
            port = port[1:]
        elif ":" in part:
            host, _, port = part.rpartition(":")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("a port that is no number")
        found.append((unquote(host), int(port or 0)))
    return tuple(found)


def is_this_machine(host: str) -> bool:
    """Whether a host is a socket in the file system, ``localhost`` or a loopback address."""
    if host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(engine: str, options: dict[str, str], hosts: tuple[tuple[str, int], ...], *, implied: bool) -> Tls:
    files = {name: options.pop(name, "") or os.environ.get(_variable(engine, name), "") for name in _TLS_FILES}
    for name, path in files.items():
        if path and not Path(path).is_file():
            raise LogUnavailable(
                "A certificate's file is not there", received=f"{name}={path}", todo="check the path"
            )
    if files["key"] and not files["cert"]:
        raise UsageError("A key without its certificate", received="key", expected="cert and key", todo="add ?cert=")
    wanted = options.pop("tls", "")
    known: dict[str, TlsMode] = {"off": "off", "verify": "verify", "unverified": "unverified"}
    if wanted and wanted not in known:
        raise UnknownLogUrl("The option tls", received=wanted, expected="verify, unverified or off")
    if wanted == "off" and any(files.values()):
        raise UsageError("Certificates, but tls=off", received="tls=off", expected="tls=verify, or no certificates")
    if wanted:
        return Tls(known[wanted], **files)
    needed = implied or any(files.values()) or not all(is_this_machine(host) for host, _ in hosts)
    return Tls("verify" if needed else "off", **files)


_TLS_FILES = ("ca", "cert", "key")


def _variable(engine: str, name: str) -> str:
    return "_".join(part.upper() for part in ("logact", engine, name) if part)


def _secret(engine: str, name: str, path: str) -> Secret:
    """A secret from the file that the URL names, from the environment, or from the file that this names."""
    if not path and (value := os.environ.get(_variable(engine, name), "")):
        return Secret(value)
    path = path or os.environ.get(_variable(engine, f"{name}_file"), "")
    if not path:
        return Secret("")
    try:
        with Path(path).open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
        text = data.decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LogUnavailable(
            f"The {name} cannot be read from its file",
            received=f"{path}: {type(error).__name__}",
            todo=f"check ?{name}_file= or {_variable(engine, name + '_file')}",
        ) from error
    if not text or len(data) > SECRET_BYTES_MAX:
        raise LogUnavailable(f"The file of the {name} is empty or too large", received=path)
    return Secret(text)


__all__ = ["NetworkUrl", "Secret", "Tls", "is_this_machine", "parse", "redacted", "scrub"]
