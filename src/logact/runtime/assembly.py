"""One part of an agent as a process of its own: a driver, a voter, a decider, an executor, a recoverer.

Each ``play_...`` takes a log and an agent's set-up, and plays that part until it is cancelled: it folds the log,
says which process it is, and works on what the log asks of its part. After an error of the log it forgets what it
knew and begins another life, as a restarted process would. Parts meet only in the log: any number of each may run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from os import PathLike
from typing import Any, Protocol

import msgspec

from logact import env as environment
from logact.core.breaking import Breaker
from logact.core.state import State
from logact.entry import Entry, Heartbeat, Policy
from logact.errors import (
    AccessRefused,
    AgentBusy,
    Fenced,
    LogActError,
    LogCorrupt,
    LogError,
    LogReadOnly,
    LogSealed,
    LogTooNew,
    UsageError,
)
from logact.logs.base import SharedLog
from logact.models.base import Model
from logact.runtime.checkpointer import Checkpointer
from logact.runtime.decider import Decider
from logact.runtime.driver import Driver
from logact.runtime.executor import Executor
from logact.runtime.host import Host, refuse_damaged
from logact.runtime.leases import Pulse
from logact.runtime.leaving import Leave, ending_well, first_of
from logact.runtime.proposer import Proposer
from logact.runtime.recoverer import Recoverer
from logact.runtime.retry import RetryRecovery
from logact.runtime.reuse import Reads
from logact.runtime.secrets import Secrets
from logact.runtime.setting_up import set_up
from logact.runtime.tuned import Tunable, Tuned
from logact.runtime.verifying import BackgroundCheck
from logact.runtime.voter_host import VoterHost
from logact.runtime.watcher import Watch, Watcher
from logact.runtime.witnessing import WitnessKeeper
from logact.tools import Toolbox
from logact.voters.base import Voter

PAUSE_S_MIN, PAUSE_S_MAX = 0.1, 5.0
"""How long a part waits after an error of the log before its next life."""

_FINAL = (LogCorrupt, LogTooNew, LogSealed, LogReadOnly, AgentBusy, AccessRefused)
"""Errors after which no other life would fare better."""

Observer = Callable[[State, Entry], None]
Work = Callable[[], Awaitable[object]]


class Playable(Tunable, Protocol):
    """What the parts need to know of an agent. A ``LogActAgent`` is one."""

    voters: list[Voter]
    model: Model | None
    tools: Toolbox
    policy: Policy | None
    secrets: Secrets
    answer_type: Any
    context_tokens_max: int
    model_timeout_s: float
    decide_within_ms: int
    checkpoint_every: int
    checkpoint_bytes: int
    checkpoint_s: float
    recovery: RetryRecovery | None
    witness: str | PathLike[str] | None
    signing_key: str | PathLike[str] | None
    watch: Watch
    breaker: Breaker | None
    lease_s: float
    end_hung: bool
    reads: Reads


async def play_driver(
    log: SharedLog, agent: Playable, *, observers: Sequence[Observer] = (), leave: Leave | None = None
) -> None:
    """Drive every unfinished run of the agent, one after the other, and those that come.

    It writes the agent's policy and specification down where they changed, if the log lets it do so; where its token
    is a driver's alone, an operator does (``put_in_force``).
    """
    drivers: list[Driver] = []
    model = agent.model
    if model is None:
        raise UsageError("This agent has no model", todo="give it one with model=...")

    def build(host: Host) -> Work:
        kind = agent.answer_type
        driver = Driver(
            host,
            model,
            Proposer(host, agent.tools, agent.secrets, decide_within_ms=agent.decide_within_ms),
            system=agent.system,
            answer_schema=msgspec.json.schema(kind) if kind is not None else None,
            check_answer=(lambda value: msgspec.convert(value, kind)) if kind is not None else None,
            context_tokens_max=agent.context_tokens_max,
            model_timeout_s=agent.model_timeout_s,
            hidden=frozenset(agent.hide_tools),
        )
        tuned = Tuned(host, agent, driver)
        drivers[:] = [driver]
        driver.leave = leave

        async def drive() -> None:
            await set_up(host, agent)
            while True:
                await host.tail.until(lambda state: _unfinished(state, agent.agent_id))
                await tuned.ready(run := _unfinished(host.state, agent.agent_id))
                await driver.drive(run)

        return drive

    await _play(
        log,
        agent,
        "driver",
        build,
        observers,
        births=False,
        leave=leave,
        busy=lambda: any(driver.asking for driver in drivers),
    )


async def play_voter(
    log: SharedLog,
    agent: Playable,
    *,
    names: Iterable[str] | None = None,
    observers: Sequence[Observer] = (),
    leave: Leave | None = None,
) -> None:
    """Host the agent's voters (or those of these names), whatever their placement is."""
    wanted = list(names) if names is not None else [voter.name for voter in agent.voters]
    mine = [voter for voter in agent.voters if voter.name in wanted]
    if not wanted or len(mine) != len(set(wanted)):
        raise UsageError(
            "The agent has no such voter",
            received=", ".join(wanted) or "(none)",
            expected=", ".join(voter.name for voter in agent.voters) or "(it has none)",
        )
    await _play(
        log,
        agent,
        "voter:" + ",".join(wanted),
        lambda host: VoterHost(host, mine, agents=[agent.agent_id]).run,
        observers,
        leave=leave,
    )


async def play_decider(
    log: SharedLog,
    agent: Playable,
    *,
    name: str = "decider",
    observers: Sequence[Observer] = (),
    leave: Leave | None = None,
) -> None:
    """Turn votes into commits and aborts, and passed deadlines into expiries."""
    await _play(
        log,
        agent,
        "decider",
        lambda host: Decider(host, agents=[agent.agent_id], name=name).run,
        observers,
        leave=leave,
    )


async def play_executor(
    log: SharedLog,
    agent: Playable,
    *,
    name: str = "executor",
    observers: Sequence[Observer] = (),
    leave: Leave | None = None,
) -> None:
    """Carry out what is committed."""
    executors: list[Executor] = []

    def build(host: Host) -> Work:
        retry = agent.recovery.rules if agent.recovery is not None else None
        executors.append(
            Executor(
                host,
                agent.tools,
                agents=[agent.agent_id],
                secrets=agent.secrets,
                name=name,
                retry=retry,
                breaker=agent.breaker,
            )
        )
        executor = executors[-1]
        executor.leave = leave
        return executor.run

    def at_work() -> bool:  # a thread that runs a tool is not gone, whatever became of the task that waited for it
        return executors[-1].at_work()

    def busy() -> bool:
        return bool(executors) and (bool(executors[-1].running) or at_work())

    await _play(log, agent, "executor", build, observers, at_work=at_work, leave=leave, busy=busy)


async def play_recoverer(
    log: SharedLog,
    agent: Playable,
    *,
    name: str = "recoverer",
    observers: Sequence[Observer] = (),
    leave: Leave | None = None,
) -> None:
    """Settle what executors that are gone left behind, and watch the runs and the other parts."""

    def build(host: Host) -> Work:
        mine = [agent.agent_id]
        recoverer = Recoverer(
            host, agent.tools, agents=mine, secrets=agent.secrets, name=name, end_hung=agent.end_hung
        )
        watcher = Watcher(host, agent.watch, hearing=recoverer.hearing)

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(recoverer.run())
                group.create_task(watcher.run())

        return both

    await _play(log, agent, "recoverer", build, observers, leave=leave)


async def play_checkpointer(
    log: SharedLog,
    agent: Playable,
    *,
    name: str = "checkpointer",
    observers: Sequence[Observer] = (),
    leave: Leave | None = None,
) -> None:
    """Write checkpoints, and verify in the background what stands before the last one.

    It folds the memories of the agent's voters too, since a checkpoint carries them.
    """

    def build(host: Host) -> Work:
        memories = VoterHost(host, agent.voters, agents=[agent.agent_id])  # observes, and is never asked to vote
        checkpointer = Checkpointer(
            host,
            every=agent.checkpoint_every,
            bytes_max=agent.checkpoint_bytes,
            seconds_max=agent.checkpoint_s,
            voters=memories,
            name=name,
        )

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(checkpointer.run())
                group.create_task(BackgroundCheck(host).run())

        return both

    await _play(log, agent, "checkpointer", build, observers, leave=leave)


def _unfinished(state: State, agent: str) -> int:
    """The first run of the agent that has something to do (0: none)."""
    mine = (run for run in state.runs.values() if run.agent == agent and run.status == "running")
    return next((run.id for run in mine if not run.life and (run.context or run.inbox)), 0)


async def _play(
    log: SharedLog,
    agent: Playable,
    part: str,
    build: Callable[[Host], Work],
    observers: Sequence[Observer],
    *,
    births: bool = True,
    at_work: Callable[[], bool] = lambda: False,
    leave: Leave | None = None,
    busy: Callable[[], bool] = lambda: False,
) -> None:
    """Live one life after another, until cancelled, until no life can fare better, or until asked to leave."""
    hosts: list[Host] = []
    if leave is not None:
        leave.position = lambda: hosts[0].state.position if hosts else 0
    more: dict[str, Any] = {"observers": observers, "hosts": hosts, "births": births, "at_work": at_work}
    lives = partial(_lives, log, agent, part, build, **more)
    if leave is None:
        await lives()
        return
    await ending_well(lives, leave, busy)
    if hosts:
        await _say_goodbye(hosts[0], at_work)


async def _lives(
    log: SharedLog,
    agent: Playable,
    part: str,
    build: Callable[[Host], Work],
    *,
    observers: Sequence[Observer],
    hosts: list[Host],
    births: bool,
    at_work: Callable[[], bool],
) -> None:
    """One life after another, each with a fresh memory; ``hosts`` holds that of the present one."""
    env = environment.current()
    pause_s = PAUSE_S_MIN
    while True:
        host = Host(log, agent.agent_id, part=part, lease_s=agent.lease_s)
        keeper = keeper_of(host, agent)
        hosts[:] = [host]
        agent.reads.forget()
        work = build(host)  # before the fold begins, so that every part sees every entry
        for observer in (agent.reads.observe, *observers):
            host.tail.observe(observer)
        began = env.monotonic()
        over: BaseException | None = None  # raised below: inside of except* it may get out as a group
        try:
            await _live(host, work, births, at_work, keeper)
        except* _FINAL as errors:
            over = first_of(errors)
        except* (LogError, Fenced):
            pass
        except* LogActError as errors:  # its own work failed: the model gave no answer, a limit is reached
            over = over or first_of(errors)
        finally:
            if keeper is not None:
                await keeper.close()
        if not isinstance(over, _FINAL):
            await _say_goodbye(host, at_work)
        if over is not None:
            raise over
        pause_s = PAUSE_S_MIN if env.monotonic() - began > PAUSE_S_MAX else min(pause_s * 2, PAUSE_S_MAX)
        await env.sleep(pause_s * (0.5 + env.random()))


async def _live(
    host: Host, work: Work, births: bool, at_work: Callable[[], bool], keeper: WitnessKeeper | None
) -> None:
    async with asyncio.TaskGroup() as group:
        if keeper is not None:
            await keeper.load()
        await host.tail.start()
        refuse_damaged(host.state)
        if keeper is not None:
            await keeper.admit()
            group.create_task(keeper.run())
        if births:
            await host.append([host.birth()])
        group.create_task(host.tail.follow())
        group.create_task(Pulse(host, at_work).run())
        group.create_task(_until_fenced(host))
        await work()


async def _until_fenced(host: Host) -> None:
    """Raise Fenced once this incarnation was found hung: what it would begin takes no effect any more."""
    await host.tail.until(lambda state: host.incarnation in state.fenced)
    raise Fenced("This process gave no sign of life for too long, and was fenced off", received=host.incarnation)


async def _say_goodbye(host: Host, at_work: Callable[[], bool]) -> None:
    """So that nobody waits for this incarnation while its process lives on as another. Best effort."""
    host.leaves(at_work)
    if at_work() or not host.writer.wrote:
        return  # of whom the log knows nothing, nobody waits for: asked to end at once, it need not read the log
    try:
        await host.append([host.entry(Heartbeat(agent=host.agent, leaving=True), "executor", host.agent)])
    except LogError:
        return


def keeper_of(host: Host, agent: Playable) -> WitnessKeeper | None:
    """What writes the log's heads to the agent's witness, if it has one."""
    return WitnessKeeper(host, agent.witness, signing_key=agent.signing_key) if agent.witness is not None else None
