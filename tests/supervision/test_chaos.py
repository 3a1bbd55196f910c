"""The short form of ``benchmarks.chaos``: real processes killed, stopped and starved under ``logact supervise``."""

from __future__ import annotations

import pytest
from benchmarks.chaos import main


@pytest.mark.timeout(600)
def test_effects_log_and_manifests_agree() -> None:
    """After twenty seconds of troubles nothing is lost, doubled or left over, and no part ever lived twice."""
    found = main(["--quick", "--seed", "7"])
    assert found["problems"] == 0, found.get("notes")
    assert found["jobs"] >= 1 and found["manifests"] == found["jobs"]
    assert found["doubled_irreversible"] == found["missing"] == found["log_disagrees"] == found["two_sets"] == 0
    assert found["log_sound"]
    assert sum(found["troubles"].values()) >= 5, "there were troubles"
