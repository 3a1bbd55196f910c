"""``logact serve`` and ``logact token``: a log over the network, and who may use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
import msgspec

from logact.cli import look
from logact.cli.common import go, json_option, log_url, named, put, put_json, who
from logact.entry import MAY_APPEND
from logact.errors import MissingExtra, UsageError
from logact.logs.network_url import redacted
from logact.logs.url import open_log
from logact.server.names import OWN, url_of
from logact.server.settings import MEANING, limits_of
from logact.server.tokens import Token, TokenBook, new_token

T = TypeVar("T")
_DURATION = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
SPAN_S_MAX = 5200 * _SECONDS["w"]
LOG_OPTION = click.option(
    "--log", "url", metavar="URL", required=True, help="The engine: any log URL, a file, or a specification."
)


def serving_lines(address: str) -> list[str]:
    """What `serve` says once it listens."""
    return [f"Serving on {address}; Ctrl-C ends it.", f"  The logs are logact+{address}/?log=NAME"]


@click.command("serve")
@LOG_OPTION
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--cert", default="", callback=named, metavar="FILE", help="The server's certificate (PEM), for TLS.")
@click.option("--key", default="", callback=named, metavar="FILE", help="The certificate's private key (PEM).")
@click.option("--requests", default=500.0, show_default=True, metavar="N", help="Requests a second for each token.")
@click.option("--connections", default=1000, show_default=True, metavar="N", help="Connections at once.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another limit; may be repeated. Names: " + ", ".join(MEANING) + ".",
)
@json_option
def serve_command(  # noqa: PLR0917
    url: str,
    host: str,
    port: int,
    cert: str,
    key: str,
    requests: float,
    connections: int,
    limits: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve the logs of one engine over HTTP, to whoever has a token.

    Every log of the engine is served under its name; see `logact token create` for who may use which. Ctrl-C or
    SIGTERM ends it: streams are told, requests under way are finished.

    \b
    Example:
      logact token create --log ops.db --name ops --role driver --on main
      logact serve --log ops.db &
      export LOGACT_TOKEN=...
      logact driver logact.toml --log 'logact+http://localhost:8765/'
      logact serve --log ops.db --limit body_bytes_max=8000000 --limit grace_s=30
    """
    try:
        from logact.server.app import LogServer
        from logact.server.serving import serve
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Serving a log needs packages that are not installed",
            received=f"no {error.name}",
            todo="pip install 'logact[server]'",
        ) from error
    allowed = limits_of((f"requests_per_s={requests}", f"connections_max={connections}", *limits))
    server_url = log_url(url)

    def ready(address: str) -> None:
        if as_json:
            put_json({"event": "serving", "url": address})
        else:
            put(serving_lines(address))

    async def work() -> None:
        server = LogServer(server_url, allowed)
        await serve(server, host, port, cert=cert, key=key, ready=ready)

    go(work())


@click.group("token")
def token_command() -> None:
    """Who may use a served log: make, list and revoke tokens.

    Tokens stand beside the logs of the engine, as hashes; a running server knows of changes at once.

    \b
    Example:
      logact token create --log ops.db --name ann --role client
    """


@token_command.command("create")
@LOG_OPTION
@click.option("--name", required=True, help="The component's or the person's name; it stands in what they write.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice(list(MAY_APPEND)),
    metavar="ROLE",
    help="A role, as in docs/roles.md; may be repeated.",
)
@click.option("--on", "logs", multiple=True, metavar="NAME", help="Only this log, or logs like this (team-*).")
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="Only about this agent; may be repeated.")
@click.option("--voter", "voters", multiple=True, metavar="NAME", help="The voter's name; --name if not given.")
@click.option("--expires", default="", metavar="TIME", help="After this time: 30m, 12h, 90d.")
@click.option("--relay", is_flag=True, help="May append records of others as they are; moves logs.")
@json_option
def token_create(  # noqa: PLR0917
    url: str,
    name: str,
    roles: tuple[str, ...],
    logs: tuple[str, ...],
    agents: tuple[str, ...],
    voters: tuple[str, ...],
    expires: str,
    relay: bool,
    as_json: bool,
) -> None:
    """Make a token, and show it this once.

    \b
    Example:
      logact token create --log ops.db --name safety --role voter
    """
    token, text = new_token(
        name=name,
        roles=roles,
        logs=logs or ("*",),
        agents=agents,
        voters=voters,
        expires_s=seconds(expires) if expires else 0.0,
        by=who(),
        relay=relay,
    )

    async def work(book: TokenBook) -> None:
        await book.add(token)

    _with_book(url, work)
    if as_json:
        put_json({"event": "token", "token": text, **_plain(token, "valid")})
    else:
        put(text)
        click.echo(f"Token {token.id} for {name} ({', '.join(roles)}). It is shown only now.", err=True)


@token_command.command("list")
@LOG_OPTION
@json_option
def token_list(url: str, as_json: bool) -> None:
    """List the tokens, without their secrets.

    \b
    Example:
      logact token list --log ops.db
    """

    async def work(book: TokenBook) -> list[tuple[Token, str]]:
        return list(book.listed())

    found = _with_book(url, work)
    if as_json:
        for token, status in found:
            put_json({"event": "token", **_plain(token, status)})
        return
    if not found:
        put("No tokens. `logact token create` makes one.")
    for token, status in found:
        scope = f"logs {', '.join(token.logs)}"
        if token.agents:
            scope += f"; agents {', '.join(token.agents)}"
        if token.voters:
            scope += f"; votes as {', '.join(token.voters)}"
        put(look.wrapped(token.id, f"{status}  {token.name}: {', '.join(token.roles)}; {scope}", label_width=17))


@token_command.command("revoke")
@LOG_OPTION
@click.argument("ident", metavar="ID")
@click.option("--reason", default="", help="Why; it stands in the log.")
@json_option
def token_revoke(url: str, ident: str, reason: str, as_json: bool) -> None:
    """Take a token back; a running server refuses it from now on.

    \b
    Example:
      logact token revoke --log ops.db 4m2k0c9d7e1f3g5h --reason "left the team"
    """

    async def work(book: TokenBook) -> Token:
        return await book.revoke(ident, by=who(), reason=reason)

    token = _with_book(url, work)
    if as_json:
        put_json({"event": "revoked", **_plain(token, "revoked")})
    else:
        put(f"Token {token.id} of {token.name} is revoked.")


def seconds(text: str) -> float:
    """A time span: ``30m``, ``12h``, ``90d``, ``1h30m``."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError("This is not a time span", received=text, expected="like 30m, 12h, 90d or 1h30m")
    found = sum(int(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < found <= SPAN_S_MAX:  # 0 would read as "for ever" further on
        raise UsageError("This time span cannot be used", received=text, expected="1s to 5200w")
    return float(found)


def _with_book(url: str, work: Callable[[TokenBook], Coroutine[Any, Any, T]]) -> T:
    where = log_url(url)
    if where.startswith(("memory:", "logact+")):
        raise UsageError(
            "Tokens are kept with the engine's own logs",
            received=redacted(where),
            expected="the engine's URL",
        )

    async def inside() -> T:
        async with open_log(url_of(where, OWN)) as log:
            return await work(await TokenBook(log).load())

    return go(inside())


def _plain(token: Token, status: str) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(token)
    return {key: value for key, value in plain.items() if key != "digest"} | {"status": status}
