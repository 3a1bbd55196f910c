"""The pure side of supervision: strategies, limits, delays, exit codes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from logact.core import supervising


def test_strategies_name_whom_they_take_along() -> None:
    """The order of the parts is the order in which they depend on each other."""
    order = ["a", "b", "c"]
    assert supervising.affected("one_for_one", order, "b") == ("b",)
    assert supervising.affected("rest_for_one", order, "b") == ("b", "c")
    assert supervising.affected("one_for_all", order, "b") == ("a", "b", "c")


def test_the_limit_counts_what_is_recent() -> None:
    """More ends than are allowed within the time, and it gives up; old ones are forgotten."""
    assert not supervising.gives_up([1000, 2000, 3000], 3000, restarts=3, within_s=10)
    assert supervising.gives_up([1000, 2000, 3000, 4000], 4000, restarts=3, within_s=10)
    assert not supervising.gives_up([1000, 2000, 3000, 40_000], 40_000, restarts=3, within_s=10)


@given(st.integers(1, 200), st.floats(0, 0.999), st.floats(0.01, 5), st.floats(5, 100))
def test_delays_double_up_to_their_limit(times: int, random: float, base_s: float, max_s: float) -> None:
    """A delay lies between half of the doubled base and all of it, and never above the limit."""
    whole = min(max_s, base_s * 2 ** min(times - 1, 30))
    found = supervising.delay_s(times, base_s=base_s, max_s=max_s, random=random)
    assert whole / 2 <= found <= whole


def test_exit_codes() -> None:
    """A part that ended has failed; some codes say that trying again is no use; a whole agent's run may be over."""
    assert supervising.ending(0, whole_agent=False) == "failed"
    assert supervising.ending(-9, whole_agent=False) == "failed"
    assert supervising.ending(2, whole_agent=False) == "hopeless"
    assert supervising.ending(3, whole_agent=True) == "hopeless"
    assert [supervising.ending(code, whole_agent=True) for code in (0, 1, 4, 7, 8)] == ["rested"] * 5
    assert supervising.ending(2, whole_agent=True) == supervising.ending(-9, whole_agent=True) == "failed"


@given(st.integers(0, 100_000), st.integers(-200_000, 200_000))
def test_what_is_left_of_a_delay_is_never_more_than_all_of_it(delay_ms: int, since_ms: int) -> None:
    """It shrinks with the time since the end; a clock that went back makes no wait longer than was planned."""
    left_s = supervising.left_s(supervising.End(1_000_000, "a", delay_ms), 1_000_000 + since_ms)
    assert left_s == max(0, delay_ms - max(0, since_ms)) / 1000
