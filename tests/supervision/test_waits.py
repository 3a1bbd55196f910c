"""While a run waits nothing happens: what it waits for and until when is told, by the run and by whoever looks."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from logact import Breaker, HumanVoter, LogActAgent, RetryRecovery, ScriptedModel, ToolError, open_log
from logact.core.waiting import Wait
from logact.models.provider import ProviderModel
from logact.models.scripted import call
from logact.models.telling import hearing
from logact.voters.base import Voter
from tests.cli_help import fits, here, lines_of, start
from tests.fake_provider import FakeProvider, Say
from tests.recovery.kit import Flaky, Yes

LONG_S = 3600.0


async def _until_it_waits(url: str, flaky: Flaky, *, voters: Sequence[Voter] = (), **more: Any) -> Wait:
    """Play a run until it says that it waits, then end this life of it."""
    told = asyncio.Queue[Wait]()
    model = ScriptedModel([call("send", item="a"), "done"])
    async with open_log(url) as log:
        agent = LogActAgent("ops", log=log, model=model, tools=[flaky.tool], voters=list(voters) or [Yes()], **more)
        with hearing(told.put_nowait):
            running = asyncio.ensure_future(agent.run("go"))
        async with asyncio.timeout(60):
            wait = await told.get()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return wait


@pytest.mark.parametrize("kind", ["environment", "backoff"])
def test_what_waits_for_the_next_try_says_until_when(kind: str, tmp_path: Path) -> None:
    """An open circuit, and a delay: told when the wait begins, told again by the next life, shown by every view."""
    url, log = f"sqlite:///{tmp_path}/ops.db", str(tmp_path / "ops.db")
    flaky = Flaky(ToolError("no route", kind="environment" if kind == "environment" else "transient", definite=True))
    more: dict[str, Any] = {"breaker": Breaker(failures=1, delay_s=LONG_S, delay_s_max=LONG_S)}
    if kind == "backoff":
        more = {"recovery": RetryRecovery(base_delay=LONG_S, max_delay=LONG_S, total_s=0)}
    first = asyncio.run(_until_it_waits(url, flaky, **more))
    assert asyncio.run(_until_it_waits(url, flaky, **more)) == first, "a restart says it, too"
    assert (first.kind, first.tool, first.agent) == (kind, "send", "ops")
    assert "no route" in first.why
    assert first.until_ms / 1000 > time.time()
    assert len(flaky.calls) == 1
    text = f"next try at {time.strftime('%H:%M:%S', time.localtime(first.until_ms / 1000))}"
    for command in (("state",), ("actions",), ("actions", first.action), ("health",), ("pending",)):
        shown = here(command[0], log, *command[1:])
        fits(shown.stdout)
        assert text in " ".join(shown.stdout.split()), (command, shown.stdout)
        assert ("circuit of send is open" in " ".join(shown.stdout.split())) == (
            kind == "environment" and command != ("actions",)
        )
    assert json.loads(here("state", log, "--json").stdout)["waits"][0]["until_ms"] == first.until_ms
    assert json.loads(here("health", log, "--json").stdout)["waits"][0]["kind"] == kind
    (action, *_) = lines_of(here("actions", log, "--json").stdout)
    assert (action["waits_until_ms"], action["status"]) == (first.until_ms, "failed")


def test_people_are_waited_for_by_name(tmp_path: Path) -> None:
    """A run that waits for people alone says for whom, and until when."""
    url, log = f"sqlite:///{tmp_path}/ops.db", str(tmp_path / "ops.db")
    boss = HumanVoter(approvers=["ann", "bob"], expires_s=LONG_S)
    wait = asyncio.run(_until_it_waits(url, Flaky(effect="irreversible"), voters=[boss]))
    assert (wait.kind, wait.who, wait.tool) == ("people", ("ann", "bob"), "send")
    until = time.strftime("%H:%M:%S", time.localtime(wait.until_ms / 1000))
    for command in ("state", "health"):
        shown = " ".join(here(command, log).stdout.split())
        assert f"for ann or bob to approve send, until {until}: `logact approve LOG {wait.action}`" in shown
    assert f"until {until}" in " ".join(here("actions", log, wait.action).stdout.split())


async def test_a_rate_limit_of_the_model_is_told() -> None:
    """The provider asks to wait: the agent says that it does, and until when."""
    told: list[Wait] = []
    with FakeProvider([Say(status=429, headers={"retry-after": "0.05"}), Say(text="done")]) as provider:
        model = ProviderModel("m", base_url=provider.openai_url)
        with hearing(told.append):
            assert (await LogActAgent("ops", log=open_log("memory:"), model=model).run("go")).text == "done"
    (wait,) = told
    assert wait.kind == "model"
    assert "asks to wait" in wait.why
    assert wait.until_ms > 0


SPEC = """
[agent]
name = "ops"
model = "scripted:work.py:model"

[log]
url = "sqlite:///ops.db"

[[tools]]
use = "work.py:send"

[policy]
need = { open = "a test" }

[breaker]
failures = 1
delay_s = 3600
delay_s_max = 3600
"""
WORK = '''
from logact import ScriptedModel, ToolError, tool
from logact.models.scripted import call

model = ScriptedModel([call("send", item="a"), "done"])


@tool(effect="idempotent")
async def send(item: str) -> str:
    """Send an item."""
    raise ToolError("no route", kind="environment", definite=True)
'''


@pytest.mark.timeout(120)
def test_run_prints_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``run`` prints it when the wait begins, and right after a restart; ``--json`` as an object, once."""
    monkeypatch.chdir(tmp_path)
    Path("logact.toml").write_text(SPEC)
    Path("work.py").write_text(WORK)
    child = start("run", "logact.toml", "go", "--json", cwd=tmp_path)
    told: list[dict[str, Any]] = []
    try:
        while not told or told[-1]["event"] != "waits":
            told.append(json.loads(child.stdout.readline() if child.stdout else ""))
    finally:
        child.kill()
        rest, _ = child.communicate()
    assert (told[-1]["kind"], told[-1]["tool"]) == ("environment", "send")
    assert "waits" not in rest
    child = start("run", "logact.toml", cwd=tmp_path)
    try:
        first = child.stderr.readline() + child.stderr.readline() if child.stderr else ""
    finally:
        child.kill()
        child.communicate()
    at = time.strftime("%H:%M:%S", time.localtime(told[-1]["until_ms"] / 1000))
    fits(first)
    assert first.split()[:2] == [str(told[-1]["action"]), "waits"]
    assert f"the circuit of send is open, its environment is gone (no route); next try at {at}" in " ".join(
        first.split()
    )
