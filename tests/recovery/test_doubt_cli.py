"""``logact doubt`` with an agent's tools: the probe is asked, and what happened is taken back. And SIGTERM."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.cli_help import fits, here, lines_of, logact, start, wait_for

TOOLS = '''
import time
from pathlib import Path
from logact import tool
from logact.tools import ProbeAnswer

HERE = Path(__file__).parent


def ask_the_hotel(room: int) -> ProbeAnswer:
    known = (HERE / "hotel").read_text() if (HERE / "hotel").exists() else ""
    if known:
        return ProbeAnswer(str(room) in known, detail="the hotel's list")
    return ProbeAnswer(None, detail="the hotel's line is busy")


def cancel(room: int) -> str:
    (HERE / "cancelled").write_text(str(room))
    return "cancelled"


@tool(effect="reversible", probe=ask_the_hotel, undo=cancel)
def book(room: int) -> str:
    """Book a room."""
    with (HERE / "booked").open("a") as file:
        file.write(f"{room}\\n")
    while (HERE / "hold").exists():
        time.sleep(0.01)
    return f"{room} is booked"
'''
SPEC = """
[agent]
name = "travel"
model = "scripted:script.py:model"

[[tools]]
use = "tools.py:book"

[[voters]]
use = "tools.py:yes"
"""
SCRIPT = """
from logact import ScriptedModel
from logact.models.scripted import call

model = ScriptedModel([call("book", room=12), "Room 12 is booked."])
"""


def set_up(place: Path) -> Path:
    """A specification whose tool is held in the middle of its effect."""
    (place / "tools.py").write_text(TOOLS + "\n\ndef yes(entry):\n    return True\n")
    (place / "script.py").write_text(SCRIPT)
    (place / "logact.toml").write_text(SPEC)
    (place / "hold").touch()
    return place / "logact.toml"


def test_the_probe_is_shown_and_what_happened_is_undone(tmp_path: Path) -> None:
    """A probe that could not tell leaves its words in the log; asked again it tells; --undo takes back."""
    spec = set_up(tmp_path)
    child = start("run", spec, "book room 12")
    wait_for(tmp_path / "booked")
    child.kill()
    child.communicate()
    again = logact("run", spec)
    assert again.returncode == 4, again.stderr
    (listed,) = lines_of(here("doubt", spec, "--json").stdout)
    book = listed["action"]
    shown = here("doubt", spec, book)
    assert "the hotel's line is busy" in shown.stdout, "what the probe said stands in the log"
    fits(shown.stdout)
    (tmp_path / "hotel").write_text("12")
    asked = here("doubt", spec, book, "--probe")
    assert asked.returncode == 4
    assert "probe" in asked.stdout and "it happened: the hotel's list" in asked.stdout
    fits(asked.stdout)
    refused = here("doubt", tmp_path / "agent.db", book, "--undo")
    assert refused.returncode == 2 and "logact.toml" in refused.stderr
    undone = here("doubt", spec, book, "--undo", "--reason", "wrong hotel", "--by", "ann")
    assert undone.returncode == 0, undone.stderr
    assert "says ann" in undone.stdout
    assert (tmp_path / "cancelled").read_text() == "12"
    assert (tmp_path / "booked").read_text() == "12\n", "it was not booked again"
    assert here("doubt", spec).returncode == 0


def test_a_run_is_undone_by_command(tmp_path: Path) -> None:
    """``logact undo SPEC RUN``: what the run did is taken back, once; then nothing is left to do."""
    spec = set_up(tmp_path)
    (tmp_path / "hold").unlink()
    begun = here("run", spec, "book room 12", "--json")
    assert begun.returncode == 0, begun.stderr
    run = json.loads(begun.stdout.splitlines()[-1])["run"]
    for cancelled in (True, False):
        undone = here("undo", spec, run, "--json")
        assert undone.returncode == 0, undone.stdout + undone.stderr
        assert json.loads(undone.stdout)["complete"]
        assert (tmp_path / "cancelled").exists() == cancelled
        (tmp_path / "cancelled").unlink(missing_ok=True)
    assert here("undo", spec, 10**9).returncode == 2


def test_sigterm_lets_what_runs_end(tmp_path: Path) -> None:
    """SIGTERM in the middle of an effect: it is finished and recorded, and nothing more begins."""
    spec = set_up(tmp_path)
    child = start("run", spec, "book room 12")
    wait_for(tmp_path / "booked")
    child.send_signal(signal.SIGTERM)
    (tmp_path / "hold").unlink()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130, errors
    assert "Nothing is lost" in errors
    statuses = [one["status"] for one in lines_of(logact("actions", spec, "--json").stdout)]
    assert statuses == ["executed"]
    done = logact("run", spec)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Room 12 is booked.\n"
    assert (tmp_path / "booked").read_text() == "12\n"
