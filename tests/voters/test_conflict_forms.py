"""Two agents about to change one object, in every form that agents have, and under every name that one file has."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks.common import ROOT, child_environment

from logact import Action, LogActAgent, ScriptedModel, Tool, open_log
from logact.entry import Abort, Input, NewEntry, Run, own
from logact.errors import ActionRejected
from logact.logs.base import SharedLog
from logact.models import call
from logact.models.base import ModelRequest
from logact.runtime import assembly
from logact.runtime.leaving import Leave
from logact.runtime.tail import Tail
from logact.spec import build_agent, load_spec
from logact.voters.conflict import ConflictVoter, same_object
from tests.recovery.forms import PARTS
from tests.runtime.kit import memory_log, payloads, run

NAMES: list[tuple[str, Callable[[Path], str], bool]] = [
    ("itself", lambda root: "a", False),
    ("dotted", lambda root: "./a", False),
    ("round about", lambda root: "src/.././a", False),
    ("from the top", lambda root: f"{root}/a", False),
    ("a link", lambda root: "link", True),
    ("below a link", lambda root: "here/a", True),
    ("a hard link", lambda root: "twin", True),
    ("what holds it", lambda root: ".", False),
    ("what holds it, from the top", str, True),
]
"""Names of the file ``a`` in a directory, and whether files have to be looked at to know."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a file under many names."""
    made = tmp_path / "work"
    (made / "src").mkdir(parents=True)
    (made / "a").write_text("a")
    (made / "b").write_text("b")
    (made / "link").symlink_to("a")
    (made / "here").symlink_to(".")
    os.link(made / "a", made / "twin")
    return made


@pytest.mark.parametrize(
    ("name", "looks"), [(name, looks) for _, name, looks in NAMES], ids=[one[0] for one in NAMES]
)
def test_one_file_is_one_object_under_all_its_names(root: Path, name: Callable[[Path], str], looks: bool) -> None:
    """In one process: while ann changes a file bob may not, whatever it is called by; what is another file he may."""

    async def main() -> None:
        log = memory_log()
        begun, go = asyncio.Event(), asyncio.Event()

        async def edit(path: str) -> str:
            """Edit."""
            begun.set()
            await go.wait()
            return "done"

        voter = ConflictVoter(root=root if looks else None)
        ann, bob = (LogActAgent(who, log, [voter], tools=[Tool(edit)]) for who in ("ann", "bob"))

        async def other() -> None:
            await begun.wait()
            try:
                with pytest.raises(ActionRejected, match="ann is about to change"):
                    await bob.act(Action(tool="edit", arguments={"path": name(root)}))
            finally:
                go.set()
            await bob.act(Action(tool="edit", arguments={"path": "b"}))

        async with asyncio.TaskGroup() as group:
            group.create_task(ann.act(Action(tool="edit", arguments={"path": "a"})))
            group.create_task(other())

    run(main())


def test_names_of_different_files_are_different_objects(root: Path) -> None:
    """What only looks alike does not conflict; where nobody knows what a path is relative to, its end decides."""
    (root / "other").symlink_to("b")
    (root / "loop").symlink_to("loop")
    voter = ConflictVoter(root=root)
    for mine, theirs in (("other", "a"), (f"{root}/src", "a"), ("/etc/a", "a"), ("http://x/a", "a"), ("loop", "a")):
        assert not voter._same(mine, theirs, {}), mine
    assert voter._same("other", "b", {}) and voter._same("\0", "\0", {})
    assert same_object("/x/src/a.py", "src/a.py") and same_object("src/a.py", "/x/src") and same_object("/", "a")
    assert same_object("../../a", "/x/a") and same_object("/x/src/a.py", "src")
    assert not same_object("/x/src/ab.py", "src/a.py") and not same_object("/x/y", "a")
    assert not same_object("/x/a", "http://x/a")


CHILD = """
import asyncio, sys, time
from pathlib import Path
from logact import Action, LogActAgent, Tool, open_log
from logact.voters.conflict import ConflictVoter

url, me, root, path = sys.argv[1:]
inside, go = Path(root, "inside"), Path(root, "go")

def edit(path: str) -> str:
    "Edit."
    with open(inside, "a") as file:
        file.write(me + "\\n")
    while not go.exists():
        time.sleep(0.01)
    return "done"

async def main():
    async with open_log(url) as log:
        agent = LogActAgent(me, log, [ConflictVoter(root=root)], tools=[Tool(edit)])
        print(await agent.act(Action(tool="edit", arguments={"path": path})))

asyncio.run(main())
"""


def test_in_two_processes(root: Path, tmp_path: Path) -> None:
    """What another process has begun is seen: the second is refused under another name, and free afterwards."""
    url = f"sqlite:///{tmp_path}/ops.db"

    async def bob() -> Any:
        async with open_log(url) as log:
            return await LogActAgent("bob", log, [ConflictVoter(root=root)], tools=[Tool(edit)]).act(
                Action(tool="edit", arguments={"path": "link"})
            )

    def edit(path: str) -> str:
        """Edit."""
        return "edited"

    command = [sys.executable, "-c", CHILD, url, "ann", str(root), "a"]
    ann = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not (root / "inside").exists() and ann.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        with pytest.raises(ActionRejected, match="ann is about to change link"):
            run(bob())
        (root / "go").touch()
        assert ann.communicate(timeout=60)[0] == "done\n"
        assert run(bob()) == "edited"
    finally:
        ann.kill()
        ann.wait()


def test_decoupled_parts(root: Path, tmp_path: Path) -> None:
    """Each part of two agents for itself, on connections of their own: never both at once, and both get there."""
    url = f"sqlite:///{tmp_path}/ops.db"
    inside: list[str] = []
    most: list[int] = []
    done: list[str] = []

    def an_agent(name: str, log: SharedLog, path: str) -> LogActAgent:
        async def edit(path: str) -> str:
            """Edit."""
            inside.append(name)
            most.append(len(inside))
            await asyncio.sleep(0.05)
            inside.remove(name)
            done.append(name)
            return "edited"

        def script(request: ModelRequest) -> Any:
            return "well" if request.messages[-1].text == "edited" else call("edit", path=path)

        return LogActAgent(name, log, [ConflictVoter(root=root)], model=ScriptedModel(script), tools=[Tool(edit)])

    async def main() -> None:
        leave = Leave(5.0)

        async def play(part: str, name: str, path: str) -> None:
            async with open_log(url) as log:
                await getattr(assembly, f"play_{part}")(log, an_agent(name, log, path), leave=leave)

        async with open_log(url) as log:
            runs = []
            for name in ("ann", "bob"):
                given = Input(run=own(0), text="edit it")
                said = (Run(agent=name, title="edit it"), given)
                entries = [
                    NewEntry(payload=one, role="client", name="me", agent=name, run=own(0) if one is given else 0)
                    for one in said
                ]
                runs.append((await log.append(*entries)).position)
            async with asyncio.TaskGroup() as group:
                for name, path in (("ann", "a"), ("bob", "here/link")):
                    for part in PARTS:
                        group.create_task(play(part, name, path))
                tail = Tail(log)
                await tail.start()
                while {tail.state.runs[one].status for one in runs} != {"finished"}:
                    await asyncio.sleep(0.02)
                    await tail.catch_up()
                leave.ask()
            assert sorted(done) == ["ann", "bob"] and max(most) == 1
            assert all("is about to change" in one.reason for one in await payloads(log, Abort))

    run(main())


def test_in_a_specification_the_workspace_is_the_root(root: Path, tmp_path: Path) -> None:
    """A specification's voter takes names as they are meant in the workspace, unless told another root, or none."""
    spec = tmp_path / "logact.toml"
    text = '[agent]\nname = "ann"\n[[tools]]\nuse = "files"\nroot = "work"\n[[voters]]\nuse = "conflict"\n'
    for options, expected in (
        ("", root),
        ('options = {root = "other"}', tmp_path / "other"),
        ('options = {root = ""}', ""),
    ):
        spec.write_text(text + options)
        (voter,) = build_agent(load_spec(spec)).voters
        assert isinstance(voter, ConflictVoter) and voter.root == str(expected)
