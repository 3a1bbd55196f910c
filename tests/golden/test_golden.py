"""Logs of earlier releases fold, with today's code, to what they folded to then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from logact import codec
from logact import env as environment
from logact.entry import KINDS
from tests.golden import generate

HERE = Path(__file__).parent
RELEASES = sorted(path.stem.removeprefix("log-") for path in HERE.glob("log-*.jsonl"))


def records(release: str) -> list[bytes]:
    """The records of a release's log."""
    return (HERE / f"log-{release}.jsonl").read_bytes().splitlines()


def test_there_is_a_log_of_a_release() -> None:
    """At least one recorded log is kept."""
    assert RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_a_recorded_log_folds_to_its_recorded_state(release: str) -> None:
    """Byte for byte: what an old log means does not change."""
    state = generate.state_of(records(release))
    assert generate.pretty(state).decode() == (HERE / f"state-{release}.json").read_text()


@pytest.mark.parametrize("release", RELEASES)
def test_a_recorded_log_verifies(release: str) -> None:
    """Digests and chains of an old log hold with today's code."""
    state = generate.state_of(records(release))
    assert (state.broken, state.halted) == ("", "")
    for body in records(release):
        codec.check_record(body)


@pytest.mark.parametrize("release", RELEASES)
def test_a_recorded_log_has_many_kinds(release: str) -> None:
    """The log holds most kinds, effective ones: a log that covers little proves little."""
    state = msgspec.json.decode((HERE / f"state-{release}.json").read_bytes())
    missing = [kind for kind in KINDS if kind not in state["counts"]]
    assert not set(missing) - {"Expiry", "Fork"}  # a log that is no fork, of before there was such an entry


def test_the_generator_writes_the_same_again() -> None:
    """The newest log comes out of today's generator: fixed clock, randomness and process."""
    token = environment.use(generate.FixedEnv())
    try:
        again = asyncio.run(generate.bodies())
    finally:
        environment._current.reset(token)
    kinds = [[entry.kind for entry in codec.decode_record(body, 1)] for body in records(RELEASES[-1])]
    assert [[entry.kind for entry in codec.decode_record(body, 1)] for body in again] == kinds
