"""``logact run`` as people meet it: real processes that are killed, interrupted, paused, and go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli_help import fits, lines_of, logact, make, start, wait_for

TASK = "pay the invoice"


def action_of(spec: Path, tool: str) -> int:
    found = [one["action"] for one in lines_of(logact("actions", spec, "--json").stdout) if one["tool"] == tool]
    return int(found[-1])


def paid(spec: Path) -> int:
    file = spec.parent / "paid.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_a_whole_run(tmp_path: Path) -> None:
    """The answer stands alone on standard output; the steps, with the reason of a refusal, on standard error."""
    spec = make(tmp_path)
    done = logact("run", spec, *TASK.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Paid 7, and kept the notes.\n"
    fits(done.stderr)
    for said in ("proposed", "careful approves", "committed", "done", "REJECTED", "ten years", "paid 7"):
        assert said in done.stderr, done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert paid(spec) == 1


def test_finished_task_is_not_run_twice(tmp_path: Path) -> None:
    """A finished task: exit code 2, its answer, and the two ways on; --new runs it again."""
    spec = make(tmp_path)
    logact("run", spec, TASK)
    again = logact("run", spec, TASK)
    assert again.returncode == 2
    assert "Traceback" not in again.stderr
    for said in ("finished before", "Paid 7", "--new", "-m TEXT"):
        assert said in again.stderr
    fits(again.stderr)
    assert paid(spec) == 1
    assert logact("run", spec, "--new", TASK).returncode == 0
    assert paid(spec) == 2


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    """--json: every line parses, in the order of the run, under stable names; nothing else on standard output."""
    spec = make(tmp_path)
    done = logact("run", spec, "--json", TASK)
    events = [line["event"] for line in lines_of(done.stdout)]
    assert events[:2] == ["run", "inference"]
    assert events[-1] == "done"
    assert {"proposed", "vote", "committed", "rejected", "started", "done", "answer"} <= set(events)
    answer = next(line for line in lines_of(done.stdout) if line["event"] == "answer")
    assert answer["text"] == "Paid 7, and kept the notes."
    assert answer["ok"] is True
    failed = logact("run", spec, "--json", TASK)
    (error,) = [line for line in lines_of(failed.stdout) if line["event"] == "error"]
    assert error["code"] == "run_finished"
    assert error["exit_code"] == failed.returncode == 2


def test_quiet_prints_the_answer_only(tmp_path: Path) -> None:
    """--quiet leaves the steps out."""
    done = logact("run", make(tmp_path), "-q", TASK)
    assert (done.stdout, done.stderr) == ("Paid 7, and kept the notes.\n", "")


def test_dry_run_carries_out_only_reads(tmp_path: Path) -> None:
    """--dry-run votes on everything and pays nothing."""
    spec = make(tmp_path)
    done = logact("run", spec, "--dry-run", TASK)
    assert done.returncode == 0, done.stderr
    assert paid(spec) == 0


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """kill -9 while an irreversible tool runs: in doubt, exit 4, settled by a person, done once."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    child.kill()
    child.communicate()
    (tmp_path / "hold").unlink()

    again = logact("run", spec)
    assert again.returncode == 4, again.stderr
    assert "IN DOUBT" in again.stderr
    pay = action_of(spec, "pay")

    listed = logact("doubt", "logact.toml", cwd=tmp_path)
    assert listed.returncode == 4
    assert str(pay) in listed.stdout
    fits(listed.stdout)
    shown = logact("doubt", "logact.toml", pay, cwd=tmp_path)
    assert shown.returncode == 4
    assert "amount  7" in shown.stdout
    assert "is gone" in shown.stdout
    fits(shown.stdout)

    settled = logact("doubt", spec, pay, "--happened", "--reason", "the bank says so", "--by", "ann")
    assert settled.returncode == 0, settled.stderr
    assert "says ann" in settled.stdout
    twice = logact("doubt", spec, pay, "--did-not-happen")
    assert twice.returncode == 2

    rest = logact("run", spec, TASK)
    assert rest.returncode == 0, rest.stderr
    assert paid(spec) == 1
    story = logact("actions", spec, pay)
    assert "the bank says so" in story.stdout
    fits(story.stdout)
    assert logact("log", "verify", spec).returncode == 0


def test_settled_before_anybody_looked(tmp_path: Path) -> None:
    """A person may settle it at once, with no run in between; what did not happen is tried again, voted on."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    pay = action_of(spec, "pay")
    alive = logact("doubt", spec, pay, "--happened")
    assert alive.returncode == 2
    assert "is alive" in alive.stderr
    child.kill()
    child.communicate()
    (tmp_path / "hold").unlink()
    (tmp_path / "paid.txt").unlink()
    assert logact("doubt", spec, pay, "--did-not-happen", "--json").returncode == 0
    assert logact("run", spec).returncode == 0
    assert paid(spec) == 1
    assert action_of(spec, "pay") != pay


def test_interrupted(tmp_path: Path) -> None:
    """Ctrl-C: at once, even while a tool runs in a thread; 130, one line, no traceback; the same command goes on."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Nothing is lost" in said
    assert "Traceback" not in said
    (tmp_path / "hold").unlink()
    assert logact("run", spec).returncode == 4  # the payment may have happened: nothing is guessed


def test_a_tool_that_hangs_does_not_keep_the_process(tmp_path: Path) -> None:
    """A run that is cancelled while its tool hangs in a thread: the process ends, and nothing is guessed."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    assert logact("cancel", spec, "--run", "2000").returncode == 0
    child.communicate(timeout=30)
    assert child.returncode == 7
    assert logact("doubt", spec).returncode == 4


def test_two_processes_one_agent(tmp_path: Path) -> None:
    """A second player is refused (2) and told who plays; --message reaches the first one through the log."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, "--json", TASK)
    wait_for(tmp_path / "paid.txt")
    busy = logact("run", spec, TASK)
    assert busy.returncode == 2
    assert f"process {child.pid}" in busy.stderr
    assert "--takeover" in busy.stderr
    left = logact("run", spec, "-m", "and be quick")
    assert left.returncode == 0
    assert "Message left" in left.stdout
    (tmp_path / "hold").unlink()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "and be quick" in [line.get("text") for line in lines_of(out)]


def test_pause_and_resume_from_outside(tmp_path: Path) -> None:
    """A pause holds a running agent, which says so; resume lets it go on to its answer."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    assert logact("pause", spec, "--agent", "ops", "--reason", "audit").returncode == 0
    assert logact("pause", spec, "--agent", "ops").returncode == 1
    (tmp_path / "hold").unlink()
    pending = logact("pending", spec)
    assert "PAUSED agent ops" in pending.stdout
    time.sleep(0.5)
    assert child.poll() is None
    assert logact("resume", spec, "--agent", "ops").returncode == 0
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0
    assert out == "Paid 7, and kept the notes.\n"
    assert "PAUSED     agent:ops: goes on after `logact resume LOG --agent ops`" in err
    assert "resumed" in err


def says(child: subprocess.Popen[str], word: str) -> bool:
    """Whether a running command says a word on its error output, before that ends."""
    assert child.stderr is not None
    return any(word in line for line in child.stderr)


def test_a_paused_run_that_is_taken_up_says_so(tmp_path: Path) -> None:
    """A run that was paused by itself is taken up, after a kill, by a process that says why it waits."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    assert logact("pause", spec, "--run", "2000").returncode == 0
    (tmp_path / "hold").unlink()
    assert says(child, "PAUSED")
    time.sleep(0.5)  # what ran comes to its end, and nothing is left to recover
    child.kill()
    child.communicate()
    again = start("run", spec)
    assert says(again, "logact resume LOG --run 2000")
    assert logact("stop", spec, "--run", "2000").returncode == 0
    _, err = again.communicate(timeout=60)
    assert again.returncode == 7
    assert "STOPPED    run:2000" in err and "resumed" not in err


def test_stop(tmp_path: Path) -> None:
    """A stop ends the run (7); nothing new begins until resume."""
    spec = make(tmp_path)
    (tmp_path / "hold").touch()
    child = start("run", spec, TASK)
    wait_for(tmp_path / "paid.txt")
    stopped = logact("stop", spec)
    assert stopped.returncode == 0
    (tmp_path / "hold").unlink()
    _, err = child.communicate(timeout=60)
    assert child.returncode == 7, err
    refused = logact("run", spec, "--new", TASK)
    assert refused.returncode == 7
    assert "resume" in refused.stderr
    assert logact("resume", spec).returncode == 0
    assert logact("run", spec, "--new", TASK).returncode == 0


def test_message_continues_a_finished_run(tmp_path: Path) -> None:
    """A further message to a finished run is answered in the same conversation."""
    spec = make(tmp_path)
    logact("run", spec, TASK)
    script = (tmp_path / "parts.py").read_text()
    (tmp_path / "parts.py").write_text(script + '\nanswer.append(say("You are welcome."))\n')
    done = logact("run", spec, "-m", "thank you")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "You are welcome.\n"


def test_a_reader_that_goes_away_does_not_stop_the_run(tmp_path: Path) -> None:
    """``logact run --json | head -1``: the run goes on to its end, and nothing is printed about pipes."""
    import subprocess

    from tests.cli_help import environment

    spec = make(tmp_path)
    command = f"{sys.executable} -m logact.cli run {spec} --json pay | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    (run,) = lines_of(logact("state", spec, "--json").stdout)[0]["runs"].values()
    assert run["status"] == "finished"


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ("[agent]", "[agent", 2, "not valid TOML"),
        ('name = "ops"', 'name = "ops"\nmodle = "x"', 2, "Did you mean 'model'"),
        ("sqlite:///ops.db", "foo:///x", 2, "No engine serves"),
        ("sqlite:///ops.db", "sqlite:///no/such/dir/ops.db", 5, "directory"),
        ("parts.py:pay", "nowhere:pay", 2, "cannot be imported"),
        ("parts.py:pay", "untyped.py:bad", 2, "bad"),
        ("scripted:parts.py", "scripted:none.json", 2, "none.json"),
        ("scripted:parts.py", "gpt", 2, "openai:NAME"),
        ('model = "scripted:parts.py"', "", 2, "LOGACT_MODEL"),
        ("scripted:parts.py", "scripted:short.json", 6, "The script is at its end"),
        ('name = "ops"', 'name = "ops"\nlimits = {turns = 1}', 1, "limit of 1 turns"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, old: str, new: str, code: int, said: str) -> None:
    """Wrong set-ups: one clear message, the documented exit code, no traceback, eighty columns."""
    (tmp_path / "untyped.py").write_text("def bad(x):\n    return x\n")
    (tmp_path / "short.json").write_text('[{"call": "read_file", "arguments": {"path": "notes.txt"}}]')
    done = logact("run", make(tmp_path, **{old: new}), TASK)
    text = " ".join(done.stderr.split())
    assert done.returncode == code, done.stderr
    assert said.lower() in text.lower()
    assert "Traceback" not in text
    assert "Traceback" not in done.stdout


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """--debug may stand at the end of the line that failed."""
    done = logact("run", make(tmp_path, **{"[agent]": "[agent"}), TASK, "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_log_from_a_newer_version(tmp_path: Path) -> None:
    """A file of a newer LogAct is refused (5) and left as it is."""
    import sqlite3

    spec = make(tmp_path)
    logact("run", spec, TASK)
    with sqlite3.connect(tmp_path / "ops.db") as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    for command in (["run", spec, "--new", TASK], ["log", "show", spec]):
        done = logact(*command)
        assert done.returncode == 5, done.stderr
        assert "newer" in done.stderr


def test_parts_as_processes(tmp_path: Path) -> None:
    """Driver, voter, decider and executor, a process each, do together what one does alone."""
    spec = make(tmp_path)
    submitted = logact("run", spec, "--submit", TASK)
    assert submitted.returncode == 0, submitted.stderr
    children = [start(part, spec, "-q") for part in ("driver", "voter", "decider", "executor", "recoverer")]
    try:
        end = time.monotonic() + 60
        status = ""
        while status != "finished" and time.monotonic() < end:
            time.sleep(0.2)
            (run,) = lines_of(logact("state", spec, "--json").stdout)[0]["runs"].values()
            status = run["status"]
        assert status == "finished"
    finally:
        for child in children:
            child.send_signal(signal.SIGINT)
        said = [child.communicate(timeout=30) for child in children]
    assert [child.returncode for child in children] == [130] * 5, said
    assert paid(spec) == 1
