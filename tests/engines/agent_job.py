"""A whole agent on any engine: parts in processes of their own, killed at random, and the proof that it did its job.

Adopt it in a few lines::

    def test_an_agent_whose_parts_are_killed(tmp_path: Path) -> None:
        found = killed_parts(tmp_path, lambda log: f"nats://127.0.0.1:4222?log={log}")
        assert found.kills >= 2, "the job ended before anybody was killed"

    def test_an_agent_on_a_bad_network(tmp_path: Path) -> None:
        with Proxy(4222) as network:
            far = lambda log: f"nats://127.0.0.1:{network.port}?log={log}"
            bad_network(tmp_path, far, lambda log: f"nats://127.0.0.1:4222?log={log}", network)

The job, the counting and the judge are those of ``benchmarks.crash``: effects are counted by another process, every
acknowledged record must be in the log byte for byte, the log must verify, and nothing may have happened twice or
never. So an engine's run ends with the same proof as one on SQLite.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.crash_parts import Company, killed_at_random_parts, play
from benchmarks.crash_stage import Found, Stage, judge, killed_at
from benchmarks.engines.stage import EngineStage, UrlOf

from logact.core import executing
from logact.logs import queries
from logact.logs.url import open_log
from tests.engines.proxy import Proxy


def prove(stage: Stage, found: Found) -> None:
    """The promise, as other processes than the killed ones counted it. Ends the stage's neighbour."""
    assert stage.neighbour_ends(), "the other writer to the log came through"
    judge(stage, found)
    assert found.problems == []
    assert found.finished == found.runs
    assert found.acked > 0 and found.lost == 0 and found.unsound == 0
    assert found.doubled_irreversible == found.doubled_reversible == 0
    assert found.missing_irreversible == found.missing_reversible == found.missing_idempotent == 0


def killed_parts(directory: Path, url_of: UrlOf, *, kills: int = 4, seed: int = 5, name: str = "job") -> Found:
    """Driver, voter, decider, executor and recoverer as processes; ``kills`` times one of them gets SIGKILL."""
    with EngineStage(directory, url_of) as stage:
        found = killed_at_random_parts(stage, name, random.Random(seed), kills)
        prove(stage, found)
    return found


def killed_at_named_points(directory: Path, url_of: UrlOf, sending: str, acknowledged: str) -> Found:
    """Lives that die one after another at named crash points, until one comes to the end.

    ``sending`` and ``acknowledged`` are the engine's own points, right before and right after a record is durable.
    The full sweep, also of the parts, at every count of every point, is ``python -m benchmarks.crash --engine NAME``.
    """
    points = [f"{sending}:5", "after_effect:1", f"{acknowledged}:4", "before_result:2"]
    with EngineStage(directory, url_of) as stage:
        found = killed_at(stage, "points", points)
        assert found.kills == len(points) and found.not_reached == 0
        prove(stage, found)
    return found


def bad_network(
    directory: Path, url_of: UrlOf, near: UrlOf, network: Proxy, *, stall_s: float = 1.0, name: str = "weather"
) -> Found:
    """The same parts behind a network that delays, stalls, keeps answers back, loses them, resets and is cut.

    ``url_of`` leads through the proxy, ``near`` past it. While the network is cut, what the parts have done to the
    world is compared with the log: every effect must have its commit and its start there already.
    """

    def cut_over() -> None:
        asyncio.run(check_effects(stage, name))
        network.restore()

    def half_cut_over() -> None:
        end = time.monotonic() + 10.0
        while not network.answers_held and time.monotonic() < end:
            time.sleep(0.02)  # they may all be pausing between two tries
        network.reset()

    faults: list[tuple[Callable[[], object], Callable[[], object], float]] = [
        (lambda: setattr(network, "delay_s", 0.01), lambda: setattr(network, "delay_s", 0.0), 0.5),
        (lambda: network.lose_answers(2), lambda: None, 0.3),
        (network.stall, network.resume, stall_s),
        (network.deafen, half_cut_over, 0.4),
        (network.resume, lambda: None, 0.1),
        (network.reset, lambda: None, 0.1),
        (network.stall, network.reset, 0.2),
        (network.resume, lambda: None, 0.1),
        (network.cut, cut_over, 0.7),
        (lambda: network.lose_answers(1), lambda: None, 0.2),
        (network.reset, lambda: None, 0.1),
    ]
    waiting = list(reversed(faults))
    ending: list[Callable[[], object]] = []

    def strike(company: Company, position: int) -> float:
        with ThreadPoolExecutor(1) as aside:  # outside of the event loop that watches
            if ending:
                aside.submit(ending.pop()).result()
                return 0.1
            if not waiting or not started(position):
                return 0.05
            begin, end, seconds = waiting.pop()
            aside.submit(begin).result()
            ending.append(end)
            return seconds

    def started(position: int) -> bool:
        return position >= 4000  # they have begun to work

    with EngineStage(directory, url_of, near, rounds=2) as stage:
        found = asyncio.run(play(Company(stage, name), strike))
        network.resume()
        network.restore()
        asyncio.run(check_effects(stage, name))
        prove(stage, found)
    assert not waiting, f"{len(waiting)} faults never came: the job was too short"
    assert network.answers_lost >= 2 and network.answers_held and network.resets >= 5
    return found


async def check_effects(stage: Stage, scenario: str) -> None:
    """Nothing acted unseen: every effect in the world has its intent, commit and start in the log by now."""
    effects = [one for one in stage.recorder.effects() if one["scenario"] == scenario and one["verb"] == "effect"]
    async with open_log(stage.near_url(scenario)) as log:
        state = (await queries.folded(log)).state
    actions = {executing.key_of(state.log, action): action for action in state.actions.values()}
    for effect in effects:
        action = actions.get(effect["key"])
        assert action is not None, f"item {effect['item']} was done without an intent"
        assert action.decided_at, f"item {effect['item']} was done without a commit"
        assert len(action.attempts) >= effect["attempt"], f"item {effect['item']} was done without a start"


__all__ = ["EngineStage", "UrlOf", "bad_network", "check_effects", "killed_at_named_points", "killed_parts", "prove"]
