"""``logact log witness``: a log's witness begins anew; and which witness the other commands mean."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from logact.cli.common import exists, json_option, named, put, put_json, who, with_log
from logact.errors import UsageError
from logact.logs.base import SharedLog
from logact.logs.network_url import redacted
from logact.logs.witness import Head


class Meant(msgspec.Struct, frozen=True):
    """The witness that a command means ("" if none), the file of the key that signs its heads, its public part."""

    place: str = ""
    signing_key: str = ""
    public: str = ""


def witness_meant(log: str, witness: str | None, key: str = "", signing_key: str | None = None) -> Meant:
    """What the options say, else what LOG says, if it is a specification. Raises UsageError, SpecError."""
    place, file = witness or "", signing_key or ""
    if not place:
        given = _of_spec(log)
        place, file = str(given.get("witness", "")), file or str(given.get("signing_key", ""))
    if key and not place:
        raise UsageError(
            "--key is about a witness, and none is named",
            received="--key alone",
            expected="--witness with it, or a specification that names one as LOG",
        )
    if file and place and not key:
        from logact.logs.signing import load_key

        key = load_key(file).public
    return Meant(place, file, key)


def _of_spec(log: str) -> dict[str, str | os.PathLike[str]]:
    path = Path(log)
    path = path / "logact.toml" if exists(path) and path.is_dir() else path
    if path.suffix != ".toml" or not exists(path) or not path.is_file():
        return {}
    from logact.spec import load_spec
    from logact.spec_supervision import witnessed

    return witnessed(load_spec(path))


@click.command("witness", short_help="Have a witness begin with a log as it is.")
@click.argument("log")
@click.option("--witness", metavar="FILE|URL", callback=named, help="The witness; else that of the specification.")
@click.option("--signing-key", metavar="FILE", callback=named, help="The key that signs its heads.")
@click.option("--reason", default="", metavar="TEXT", help="Why; it stands in the log.")
@json_option
def witness_command(log: str, witness: str | None, signing_key: str | None, reason: str, as_json: bool) -> None:
    """Have the witness of LOG begin with LOG as it is now. What it saw of this log before counts no more.

    For a log that agents acted on before it had this witness, that was repaired, or whose witness is lost. LOG is
    verified first, so look yourself whether it is the newest copy: after this nothing tells.

    \b
    Examples:
      logact log witness logact.toml --reason "repaired after the disk failed"
      logact log witness ops.db --witness /mnt/other/ops.heads

    \b
    Exit codes: 0 it begins; 2 no witness is named; 3 LOG is damaged;
    5 the log or the witness is not available.
    """
    meant = witness_meant(log, witness, signing_key=signing_key)
    if not meant.place:
        raise UsageError(
            "Which witness?",
            received=redacted(log),
            expected="a specification that names one under [log]",
            todo="add it there, or give --witness",
        )
    from logact.runtime.witnessing import begin_witness

    async def work(opened: SharedLog) -> Head:
        return await begin_witness(
            opened, meant.place, signing_key=meant.signing_key or None, name=who(), reason=reason
        )

    head = with_log(log, work)
    if as_json:
        put_json({"witness": redacted(meant.place), "log": head.log, "position": head.position, "chain": head.chain})
    else:
        put(f"The witness {redacted(meant.place)} begins at position {head.position}.")
