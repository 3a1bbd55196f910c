"""``logact doctor``: what this installation can do, and canary actions that prove that the gate holds."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Any, Literal

import click
import msgspec

from logact.cli import look
from logact.cli.canary import fire_canaries
from logact.cli.common import go, json_option, put, put_json
from logact.errors import LogActError
from logact.logs.base import SharedLog
from logact.spec import SpecFile, load_spec, model_of

Verdict = Literal["ok", "proved", "note", "FAILED"]


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. ``note`` is worth knowing; ``FAILED`` is a finding."""

    name: str
    verdict: Verdict
    said: str


@click.command("doctor")
@click.argument("spec", type=click.Path(), required=False)
@click.option("--online", is_flag=True, help="Ask the model one short question; nothing else goes to the network.")
@json_option
def doctor_command(spec: str | None, online: bool, as_json: bool) -> None:
    """Check this installation and, with SPEC, an agent's set-up; prove that actions can be stopped.

    Canary actions are fired on a log in memory: they must be stopped, and the body of the canary tool must not
    run. "proved" means that this was seen, not that it was configured.

    \b
    Example:
      logact doctor logact.toml

    \b
    Exit codes: 0 nothing found; 1 something FAILED.
    """
    checks = [_python(), *_extras(), _sandbox()]
    file: SpecFile | None = None
    if spec is not None:
        try:
            file = load_spec(spec)
            checks.append(Check("specification", "ok", f"{spec}: agent {file.agent.name}"))
        except LogActError as error:
            checks.append(Check("specification", "FAILED", str(error)))
    if file is not None:
        checks += go(_log(file))
        checks += _model(file, online)
    if spec is None or file is not None:
        checks += go(fire_canaries(file))
    failed = [check for check in checks if check.verdict == "FAILED"]
    for check in checks:
        if as_json:
            put_json({"check": check.name, "verdict": check.verdict, "message": check.said})
        else:
            put(_line(check))
    if not as_json:
        put(["", f"{look.count(len(failed), 'finding')}." if failed else "Nothing found."])
    if failed:
        raise click.exceptions.Exit(1)


def _line(check: Check) -> list[str]:
    colour = {"ok": None, "proved": "green", "note": "yellow", "FAILED": "red"}[check.verdict]
    lines = look.wrapped("", check.said, label_width=24)
    return [
        look.paint(look.pad(check.verdict, 8), colour) + look.pad(check.name, 16) + lines[0].strip(),
        *lines[1:],
    ]


LLM_MODULES = ("pydantic_ai", "openai", "anthropic")


def _python() -> Check:
    from logact import __version__

    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", "ok", f"{version}, LogAct {__version__}")


def _extras() -> list[Check]:
    found = []
    for extra, modules, purpose in (
        ("llm", LLM_MODULES, "models at providers"),
        ("mcp", ("mcp",), "tools of MCP servers"),
    ):
        missing = [name for name in modules if find_spec(name) is None]
        if missing:
            said = f"not installed; {purpose} need: pip install 'logact[{extra}]'"
            found.append(Check(f"extra {extra}", "note", said))
        else:
            found.append(Check(f"extra {extra}", "ok", f"installed ({purpose})"))
    return found


def _sandbox() -> Check:
    from logact.tools import sandbox_status

    status = sandbox_status()
    if status.available:
        nested = "; commands can make user namespaces of their own" if status.nested else ""
        return Check("sandbox", "ok", f"bubblewrap {status.version}{nested}")
    return Check("sandbox", "note", f"none, so the shell and python tools are off: {status.reason}")


async def _log(file: SpecFile) -> list[Check]:
    """Whether the log opens. A log that is not there yet is not made."""
    from logact.cli.common import existing_log
    from logact.logs.url import engine_for
    from logact.spec_parts import file_of

    url = file.log_url
    try:
        engine_for(url)
        path = file_of(url)
        if path is not None and not path.exists():
            if not path.parent.is_dir():
                return [Check("log", "FAILED", f"its directory does not exist: {path.parent}")]
            if not os.access(path.parent, os.W_OK):
                return [Check("log", "FAILED", f"its directory cannot be written: {path.parent}")]
            return [Check("log", "ok", f"{path} will be made by the first run")]
        if url.startswith("memory:"):
            return [Check("log", "note", "in memory: it ends with the process, so nothing can be resumed")]
        async with existing_log(url) as log:
            info = log.engine.info()
            last = await log.tail()
            facts = f"{info.url}: {last // 1000} records; survives {info.survives}; woken by {info.wakes_by}"
            read_only = path is not None and not os.access(path, os.W_OK)
            found = [
                Check("log", "FAILED" if read_only else "ok", facts + ("; it cannot be WRITTEN" if read_only else ""))
            ]
            found += await _held(file, log)
            return found + [
                Check("log", "note", note) for note in info.notes if path is None or str(path) not in note
            ]
    except LogActError as error:
        return [Check("log", "FAILED", str(error))]


async def _held(file: SpecFile, log: SharedLog) -> list[Check]:
    """Whether an agent would act on the log: it verifies from its last checkpoint on, and is what its witness saw."""
    from logact.runtime.host import Host, refuse_damaged
    from logact.runtime.witnessing import WitnessKeeper
    from logact.spec_supervision import witnessed

    host, given = Host(log, file.agent.name), witnessed(file)
    keeper = None
    if "witness" in given:
        keeper = WitnessKeeper(host, given["witness"], signing_key=given.get("signing_key"))
    try:
        about = "witness"
        if keeper is not None:
            await keeper.load()
        about = "log verifies"
        await host.tail.start()
        refuse_damaged(host.state)
        if keeper is None:
            return []
        about = "witness"
        keeper.check()
        return [Check("witness", "ok", f"the log is the one that {keeper.witness.name} saw")]
    except LogActError as error:
        return [Check(about, "FAILED", str(error))]
    finally:
        host.leaves()
        if keeper is not None:
            await keeper.witness.close()


def _model(file: SpecFile, online: bool) -> list[Check]:
    try:
        model = model_of(file)
    except LogActError as error:
        return [Check("model", "FAILED", str(error))]
    if model is None:
        return [Check("model", "note", "none: set LOGACT_MODEL, or model under [agent]; `run` needs one")]
    from logact.models.provider import ProviderModel

    found = []
    if isinstance(model, ProviderModel):
        endpoint, key = model.endpoint, model.endpoint.key_env
        missing = [name for name in LLM_MODULES if find_spec(name) is None]
        if missing:
            said = f"{model.name}: no {', '.join(missing)}; run pip install 'logact[llm]'"
            return [Check("model", "FAILED", said)]
        if endpoint.key_required and not os.environ.get(key):
            found.append(Check("model", "FAILED", f"{model.name}: its key is not there; set {key}"))
        else:
            found.append(
                Check(
                    "model", "ok", f"{model.name}, key in {key}" if os.environ.get(key) else f"{model.name}, no key"
                )
            )
    else:
        found.append(Check("model", "ok", f"{model.name}"))
    return found + (go(_ask(model)) if online else [])


async def _ask(model: Any) -> list[Check]:
    from logact.env import current
    from logact.models import Message, ModelRequest

    began = current().monotonic()
    try:
        answer = await model.answer(
            ModelRequest(messages=(Message(role="user", text="Answer with the word: ready"),))
        )
    except LogActError as error:
        return [Check("model answers", "FAILED", str(error))]
    took = look.duration((current().monotonic() - began) * 1000)
    return [Check("model answers", "proved", f"in {took}: {look.value(answer.text, 60)}")]
