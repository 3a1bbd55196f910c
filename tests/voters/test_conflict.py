"""Two agents about to change one object: the second is stopped before anything happens, and free again afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logact import Action, LogActAgent, Tool
from logact.entry import Cancel, Control, Failure
from logact.errors import ActionRejected, SpecError
from logact.logs.base import SharedLog
from logact.logs.memory import MemoryEngine
from logact.voters.conflict import OPEN_MAX, ConflictVoter
from tests.core.build import Log, intent
from tests.runtime.kit import run


def folded(voter: ConflictVoter, log: Log) -> Any:
    """A voter's memory of a log's effective entries."""
    memory = voter.initial()
    for entry, why in zip(log.entries, log.verdicts, strict=True):
        memory = memory if why else voter.observe(memory, entry)
    return memory


def vote(
    voter: ConflictVoter, log: Log, agent: str, tool: str, effect: Any = "irreversible", **arguments: Any
) -> Any:
    """A voter's vote on an action that is about to be proposed."""
    from logact.core.views import log_entry

    wanted = intent(0, tool, agent, arguments, effect=effect)
    return voter.check(log_entry(wanted, memory=folded(voter, log))).approved


@pytest.fixture
def log() -> Log:
    """A log in which ann has proposed a change of src/a.py."""
    made = Log()
    made.open_policy()
    made.propose(made.run("ann"), "edit", arguments={"path": "src/./a.py"})
    return made


def test_the_second_change_of_one_object_is_stopped(log: Log) -> None:
    """Another agent's change of the same path, or of what holds it, is rejected; anything else passes."""
    voter = ConflictVoter()
    assert vote(voter, log, "bob", "edit", path="src/a.py") is False
    assert vote(voter, log, "bob", "delete", path="src") is False
    assert vote(voter, log, "bob", "edit", path="src/ab.py") is True
    assert vote(voter, log, "bob", "look", "read", path="src/a.py") is True
    assert vote(voter, log, "ann", "edit", path="src/a.py") is True
    assert vote(ConflictVoter(ask=True), log, "bob", "edit", path="src/a.py") is None
    assert vote(ConflictVoter({"edit": []}), log, "bob", "edit", path="src/a.py") is True
    assert vote(ConflictVoter({"move": ["to"]}), log, "bob", "move", to="src/a.py", path="x") is False


@pytest.mark.parametrize("end", ["abort", "result", "cancel", "stop", "doubt"])
def test_it_is_free_when_the_first_has_ended(log: Log, end: str) -> None:
    """Whatever ends the first change frees its object; one in doubt keeps it until it is settled."""
    voter = ConflictVoter()
    (first,) = log.state.actions
    if end == "abort":
        log.abort(first)
    elif end == "cancel":
        log.say(Cancel(intent=first))
    elif end == "stop":
        log.say(Control(verb="stop", scope="agent:ann"))
    else:
        log.commit(first)
        log.start(first)
        assert vote(voter, log, "bob", "edit", path="src/a.py") is False
        log.result(first, error=Failure(kind="timeout") if end == "doubt" else None)
    if end == "doubt":
        assert vote(voter, log, "bob", "edit", path="src/a.py") is False
        log.recover(first, "not_happened", evidence="probe")
    assert vote(voter, log, "bob", "edit", path="src/a.py") is True


def test_what_is_not_known_counts_as_a_conflict() -> None:
    """Arguments beside the log may name any object; more open changes than are remembered stop every change."""
    log, voter = Log(), ConflictVoter()
    memory = voter.initial()
    big = intent(0, "edit", "ann")
    log.say(big)
    entry = log.entries[-1]
    import msgspec

    from logact.entry import BlobRef

    hidden = msgspec.structs.replace(big, arguments_blob=BlobRef(digest="d", size=1))
    memory = voter.observe(memory, msgspec.structs.replace(entry, payload=hidden))
    from logact.core.views import log_entry

    other = intent(0, "edit", "bob", {"path": "x"})
    assert voter.check(log_entry(other, memory=memory)).approved is False
    full = {"open": dict.fromkeys(map(str, range(OPEN_MAX)), None), "lost": 0}
    named = msgspec.structs.replace(entry, payload=intent(0, "edit", "ann", {"path": "y"}))
    assert voter.observe(full, named)["lost"] == 1
    assert voter.check(log_entry(other, memory={"open": {}, "lost": 1})).approved is False


def test_a_wrong_object_is_refused() -> None:
    """An object that is no argument's name is an error of the set-up."""
    with pytest.raises(SpecError):
        ConflictVoter({"edit": [3]})  # type: ignore[list-item]


def test_two_agents_at_once_change_one_file_one_after_the_other() -> None:
    """Of two live agents that want one object at the same moment one acts, and the other is told whom to await."""
    inside: list[str] = []
    most: list[int] = []

    async def edit(path: str, who: str) -> str:
        """Edit."""
        inside.append(who)
        most.append(len(inside))
        await asyncio.sleep(0.05)
        inside.remove(who)
        return who

    async def main() -> None:
        log = SharedLog(MemoryEngine())
        pair = [LogActAgent(name, log, [ConflictVoter()], tools=[Tool(edit)]) for name in ("ann", "bob")]

        async def act(agent: LogActAgent) -> str:
            try:
                await agent.act(Action(tool="edit", arguments={"path": "a", "who": agent.agent_id}))
            except ActionRejected as error:
                return str(error)
            return "done"

        said = await asyncio.gather(*map(act, pair))
        assert sorted(one == "done" for one in said) == [False, True]
        assert any("is about to change a" in one for one in said)
        assert max(most) == 1
        assert await act(pair[0]) == await act(pair[1]) == "done"

    run(main())
