"""What a trim keeps of runs that ended since the checkpoint; and how a trimmed log compares with its archive."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from logact.errors import LogActError
from logact.introspection.diff import diff
from logact.introspection.history import history
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.logs.url import open_log
from logact.models.scripted import call
from logact.runtime.trimming import trim
from tests.cli_help import fits, here
from tests.recovery.kit import Flaky, an_agent

LONG = [*(call("send", item=str(number)) for number in range(6)), "done"]


async def worked(log: SharedLog, times: int = 1) -> None:
    """Runs that are longer than the way from one checkpoint to the next."""
    for number in range(times):
        agent = an_agent(MemoryEngine(), LONG, [Flaky().tool], checkpoint_every=8)
        agent.log = log
        assert (await agent.run(f"task {number}", new=True)).ok


async def test_a_run_that_ended_since_the_checkpoint_holds_nothing_back() -> None:
    """Was held back by the run "that still runs", as the last checkpoint but one knew it, so nothing was dropped."""
    log = SharedLog(MemoryEngine())
    await worked(log, 2)
    last = max((await history(log)).state.runs)
    done = await trim(log)
    assert done.before > last and not done.held_by, done
    await worked(log)
    assert (await history(log)).trimmed


async def test_a_run_that_still_runs_holds_what_its_model_sees() -> None:
    """One that waits in the middle of its task keeps its context, however many checkpoints came since."""
    log = SharedLog(MemoryEngine())
    tool = Flaky()
    agent = an_agent(MemoryEngine(), [*LONG[:5], call("ask", item="x")], [tool.tool], checkpoint_every=8)
    agent.log = log
    with suppress(LogActError):  # the script has no more to say
        await agent.run("never ends")
    (run,) = (await history(log)).state.runs.values()
    assert run.status == "running"
    done = await trim(log)
    assert done.before <= run.id and f"run {run.id} still runs" in done.held_by[0]


async def test_a_trimmed_log_differs_from_its_archive_by_what_came_since(tmp_path: Path) -> None:
    """Was "the same up to 0", and every action twice; now only what was done after the archive was made."""
    async with open_log(f"sqlite:///{tmp_path}/a.db") as log:
        await worked(log, 3)
        assert (await trim(log, archive=tmp_path / "old.db")).before
        archived = (await history(log)).state.position
        async with open_log(f"sqlite:///{tmp_path}/old.db") as old:
            end = await old.tail()
            for one, two in ((log, old), (old, log)):
                found = await diff(one, two)
                assert not found.actions and not found.runs and found.since, found
                assert end <= found.common <= archived
            await worked(log)
            found = await diff(log, old)
            assert {one.tool for one in found.actions} == {"send", "answer"}
            assert all(one.action > end and not one.b for one in found.actions)
            assert [one.run > end for one in found.runs] == [True]
            assert (await diff(log, log)).same


def test_two_logs_with_nothing_in_common_say_so(tmp_path: Path) -> None:
    """One line that says it, instead of "the same up to 0"; what was compared of a trimmed one is said, too."""

    async def made() -> None:
        for name in ("a", "b"):
            async with open_log(f"sqlite:///{tmp_path}/{name}.db") as log:
                await worked(log, 2)
                if name == "a":
                    await trim(log)

    asyncio.run(made())
    shown = here("diff", f"{tmp_path}/a.db", f"{tmp_path}/b.db")
    assert shown.returncode == 1
    assert shown.stdout.startswith("Nothing in common") and "trimmed" in shown.stdout, shown.stdout
    fits(shown.stdout)
