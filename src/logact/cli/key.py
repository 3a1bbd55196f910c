"""``logact key``: keys that sign what a part writes."""

from __future__ import annotations

import click

from logact.cli.common import json_option, put, put_json
from logact.logs.signing import create_key, load_key


@click.group("key")
def key_command() -> None:
    """Keys with which authors sign, so that not even who owns the database can forge a vote.

    A part signs with LOGACT_AUTHOR_KEY; readers check with LOGACT_KEYRING, a file of [[keys]] tables.

    \b
    Example:
      logact key create safety.key
    """


@key_command.command("create")
@click.argument("file", type=click.Path())
@json_option
def key_create(file: str, as_json: bool) -> None:
    """Make a key in FILE, which only its owner may read, and print its public part.

    \b
    Example:
      logact key create safety.key
    """
    key = create_key(file)
    _show(key.ident, key.public, as_json)


@key_command.command("show")
@click.argument("file", type=click.Path())
@json_option
def key_show(file: str, as_json: bool) -> None:
    """Print the public part of the key in FILE, for a key ring.

    \b
    Example:
      logact key show safety.key
    """
    key = load_key(file)
    _show(key.ident, key.public, as_json)


def _show(ident: str, public: str, as_json: bool) -> None:
    if as_json:
        put_json({"event": "key", "id": ident, "public": public})
        return
    put(f'public = "{public}"')
    click.echo(f"Key {ident}. Put the line into a [[keys]] table of the readers' key ring.", err=True)
