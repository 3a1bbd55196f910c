"""``logact swarm``: a task is shared by processes, one of which is killed, and shown as the log has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli_help import fits, here, inside, logact

SPEC = """
[agent]
name = "team"
model = "scripted:script.py"

[log]
url = "sqlite:///team.db"
"""

SCRIPT = """
import json, os, time

def answer(request):
    text = request.messages[0].text
    if any(tool.name == "answer" for tool in request.tools):
        return json.dumps([{"name": "only", "text": "do it"}])
    if os.environ.get("SLOW"):
        open("begun", "w").close()
        time.sleep(60)
    if "fail" in text:
        raise RuntimeError("no way")
    return text.partition("\\n")[2].partition("\\n")[0].upper()
"""

PLAN = """
[[task]]
name = "a"
text = "find it"

[[task]]
name = "b"
text = "fix it"
after = ["a"]

[[task]]
name = "c"
text = "tell them"
"""


def made(home: Path, plan: str = PLAN) -> Path:
    """A folder with a specification, a scripted model and a plan."""
    (home / "logact.toml").write_text(SPEC)
    (home / "script.py").write_text(SCRIPT)
    (home / "plan.toml").write_text(plan)
    return home / "logact.toml"


def test_tasks_for_a_role(tmp_path: Path) -> None:
    """A task for a role is done by the agent that plays it (waited for ever: nobody could); what is wrong is said."""
    spec = made(tmp_path, PLAN + 'role = "judge"\n')
    done = here(
        "swarm", "run", spec, "mend it", "--plan", tmp_path / "plan.toml", "--agents", "2", "--role", "2=judge"
    )
    assert done.returncode == 0 and "c: TELL THEM" in done.stdout and "Nobody here" not in done.stderr
    (judged,) = [
        one for one in json.loads(here("swarm", "show", spec, "--json").stdout)["tasks"] if one["name"] == "c"
    ]
    assert judged["agent"] == "team-2"
    for wrong in ("judge", "=judge", "4=judge", "two=judge", "2="):
        refused = here("swarm", "run", spec, "mend it", "--role", wrong)
        assert refused.returncode == 2 and "N from 1 to 3" in refused.stderr
    again = here("swarm", "run", spec, "mend it", "--plan", tmp_path / "plan.toml")  # it is done, and only told
    assert again.returncode == 0 and "Nobody here plays judge" in again.stderr


def test_what_saves_tokens_is_applied_where_that_is_asked(tmp_path: Path) -> None:
    """What the log shows is applied before the work, is told, and saves: what was answered before costs nothing."""
    spec = made(tmp_path)
    run = ("swarm", "run", spec, "--plan", tmp_path / "plan.toml", "--agents", "1")
    assert [here(*run, task).returncode for task in ("one", "two")] == [0, 0]
    done = here(*run, "three", "--optimize")
    assert done.returncode == 0 and "Applied " in done.stderr, done.stderr
    assert here(*run, "four").stdout == done.stdout == "a: FIND IT\n\nb: FIX IT\n\nc: TELL THEM\n"
    found = json.loads(here("swarm", "show", spec, "--json").stdout)
    assert "answers" in {one["kind"] for one in found["changes"]} and found["shared_answers"] > 0
    positions = {one["position"] for one in found["changes"]}
    assert all({*one["beside"]} == positions - {one["position"]} for one in found["changes"])
    told = [line for line in here("swarm", "show", spec).stdout.splitlines() if "fewer tokens" in line]
    assert len(told) == 1, told  # one saving, of all that came together
    taken = found["changes"][0]
    assert here("undo", spec, taken["position"]).returncode == 0
    after = json.loads(here("swarm", "show", spec, "--json").stdout)["changes"]
    assert [one["position"] for one in after if one["undone"]] == [taken["position"]]
    again = here("undo", spec, taken["position"])
    assert again.returncode == 2 and "taken back already" in again.stderr


def test_a_task_is_shared_and_shown(tmp_path: Path) -> None:
    """Run prints the joined answer; show says of each task who did it, what it cost, and where its result stands."""
    spec = made(tmp_path)
    done = logact("swarm", "run", spec, "mend it", "--plan", tmp_path / "plan.toml", "--agents", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a: FIND IT\n\nb: FIX IT\n\nc: TELL THEM\n"
    shown = inside("swarm", "show", spec)
    assert shown.exit_code == 0
    fits(shown.output)
    for said in ("mend it", "3 of 3 done", "LAPSES", "team-", "finished"):
        assert said in shown.output, shown.output
    found = json.loads(inside("swarm", "show", spec, "--json", "--follow").output)
    assert [(one["name"], one["status"], one["claims"]) for one in found["tasks"]] == [
        ("a", "done", 1),
        ("b", "done", 1),
        ("c", "done", 1),
    ]
    assert sum(found["completed"].values()) == 3 and found["tokens"] > 0
    assert sum(one["tokens"] for one in found["tasks"]) == found["tokens"]


def test_another_process_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    """A process is killed at work; the same command elsewhere does its part, and show counts the lapse."""
    spec = made(tmp_path)
    command = [sys.executable, "-m", "logact.cli", "swarm", "run", str(spec), "mend it", "--plan"]
    command += [str(tmp_path / "plan.toml"), "--agents", "1"]
    slow = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"SLOW": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(slow.pid, signal.SIGKILL)
        slow.communicate()
    finally:
        slow.kill()
        slow.wait()
    other = logact("swarm", "run", spec, "mend it", "--plan", tmp_path / "plan.toml", "--agents", 1, "--first", 2)
    assert other.returncode == 0, other.stderr
    found = json.loads(inside("swarm", "show", spec, "--json").output)
    assert found["completed"] == {"team-2": 3}
    assert sum(one["lapses"] for one in found["tasks"]) == 1
    assert max(one["claims"] for one in found["tasks"]) == 2


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    """A plan that is none, a log without a swarm and a task that fails: the reason, and an exit code of its own."""
    spec = made(tmp_path, "[[task]]\nname = 3\n")
    wrong = inside("swarm", "run", spec, "t", "--plan", tmp_path / "plan.toml")
    assert "holds no plan" in str(wrong.exception)
    (tmp_path / "plan.json").write_text('["fail"]')
    failed = logact("swarm", "run", spec, "t", "--plan", tmp_path / "plan.json", "--agents", 1)
    assert failed.returncode == 1 and "no way" in failed.stderr
    shown = inside("swarm", "show", spec)
    assert shown.exit_code == 1 and "no way" in shown.output
    assert "no such task" in str(inside("swarm", "show", spec, "--run", 5).exception)
    planned = logact("swarm", "run", spec, "another", "--agents", 1)
    assert (planned.returncode, planned.stdout) == (0, "only: DO IT\n"), planned.stderr
