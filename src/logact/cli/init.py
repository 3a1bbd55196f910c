"""``logact init``: a specification that works at once, with every choice explained in place."""

from __future__ import annotations

import re
from pathlib import Path

import click

from logact.cli.common import json_option, put, put_json
from logact.errors import LogReadOnly, UsageError

TEMPLATE = """\
# A LogAct agent. Try it:
#   export LOGACT_MODEL=openai:gpt-4o OPENAI_API_KEY=...
#   logact doctor logact.toml
#   logact run logact.toml "which files are here, and what is in them?"

[agent]
name = "{name}"
# The model: openai:NAME, anthropic:NAME, ollama:NAME, http://HOST:PORT/v1#NAME.
# LOGACT_MODEL goes before what stands here.
# model = "openai:gpt-4o"
system = "You are a careful assistant. You work on the files in your workspace."
# What one run may use; 0 or nothing means no limit.
limits = {{ turns = 50, seconds = 3600 }}

[log]
# Everything that the agent does stands here first. Keep it outside of the
# workspace. Relative paths are relative to this file.
url = "sqlite:///logact.db"

# --- what it can do ---------------------------------------------------------

[[tools]]
use = "files"            # read, list, search and change files beneath root
root = "workspace"

# [[tools]]
# use = "shell"          # run_shell, in a sandbox; "python" gives run_python
# root = "workspace"

# [[tools]]
# use = "web"            # http_get, from these hosts only
# allow = ["docs.python.org"]

# [[tools]]
# use = "my_tools.py:send_invoice"   # your own @tool, list of tools, or object
# effects = {{ send_invoice = "irreversible" }}

# --- who has to agree -------------------------------------------------------
# All voters must approve. Without any, only tools that read are let through.

[[voters]]
use = "safety"           # stops what is plainly harmful

# [[voters]]
# use = "rules"          # your own rules, here or with file = "rules.toml"
# [[voters.rules]]
# name = "nothing is deleted"
# tool = "delete_file"
# decision = "deny"

# [[voters]]
# use = "my_voters.py:OfficeHours"   # your own Voter, or a function
# options = {{ until = "18:00" }}

# --- when an action failed ---------------------------------------------------
# Without this the model is told. mode = "skip" or "exact" tries nothing again.

# [recovery]
# max_retries = 3
# base_delay = 0.5                   # seconds, doubled each time

# [recovery.semantic]                # logact recover --semantic asks a model;
# model = "openai:gpt-4o"            # the agent's, if none is named
# turns_max = 12

# --- secrets ----------------------------------------------------------------
# The model writes secret://github; only the executor puts the value in.

# [secrets]
# github = "env:GITHUB_TOKEN"        # or "file:~/.tokens/github"
"""


@click.command("init")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(file_okay=False))
@click.option("--name", default="", metavar="NAME", help="The agent's name; the directory's name by default.")
@click.option("--force", is_flag=True, help="Overwrite a logact.toml that is there.")
@json_option
def init_command(directory: str, name: str, force: bool, as_json: bool) -> None:
    """Write DIR/logact.toml and an empty DIR/workspace.

    The agent that it describes works on the files in the workspace, under the safety voter. Its model comes
    from LOGACT_MODEL. Nothing that exists is overwritten without --force.

    \b
    Example:
      logact init ops && cd ops
      export LOGACT_MODEL=openai:gpt-4o
      logact run logact.toml "summarise the files"

    \b
    Exit codes: 0 written; 2 there is one already.
    """
    home = Path(directory)
    target = home / "logact.toml"
    if target.exists() and not force:
        raise UsageError("There is a specification already", received=str(target), todo="--force overwrites it")
    chosen = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", home.absolute().name).strip("-.") or "agent"
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", chosen):
        raise UsageError("An agent's name is not usable", received=chosen, expected="letters, digits, - _ and .")
    try:
        (home / "workspace").mkdir(parents=True, exist_ok=True)
        target.write_text(TEMPLATE.format(name=chosen), encoding="utf-8")
    except OSError as error:
        raise LogReadOnly("The specification cannot be written", received=f"{target}: {error.strerror}") from error
    if as_json:
        put_json({"spec": str(target), "workspace": str(home / "workspace"), "agent": chosen})
        return
    put(
        [
            f"Wrote {target} and {home / 'workspace'}.",
            "",
            "Next:",
            "  export LOGACT_MODEL=openai:gpt-4o OPENAI_API_KEY=...",
        ]
    )
    put([f"  logact doctor {target}", f'  logact run {target} "which files are here?"'])
