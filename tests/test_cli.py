"""The commands that read a log or write a word into it, on the log of one real run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli_help import fits, here, inside, lines_of, logact, make, start

TASK = "pay the invoice"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished run; tests that write copy it."""
    home = tmp_path_factory.mktemp("played")
    done = logact("run", make(home), TASK)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(played: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside of that directory."""
    monkeypatch.chdir(played)
    return played


READING = [
    ["actions", "ops.db"],
    ["actions", "ops.db", "--status", "rejected"],
    ["actions", "ops.db", "--tool", "pay", "-n", "1"],
    ["log", "show", "ops.db"],
    ["log", "show", "ops.db", "--detail"],
    ["log", "show", "ops.db", "--timeline"],
    ["log", "show", "ops.db", "--kind", "intent,abort", "--agent", "ops", "--since", "-3h"],
    ["log", "tail", "ops.db", "-n", "3"],
    ["log", "verify", "ops.db"],
    ["log", "stats", "ops.db"],
    ["state", "ops.db"],
    ["state", "ops.db@4000"],
    ["pending", "ops.db"],
    ["doubt", "ops.db"],
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_reading_fits_a_terminal(home: Path, command: list[str]) -> None:
    """Every reading command: exit code 0, eighty columns, something to read, no control characters."""
    shown = inside(*command)
    assert shown.exit_code == 0, shown.output
    assert shown.output.strip()
    fits(shown.output)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown.output)


@pytest.mark.parametrize(
    "command", [one for one in READING if "--detail" not in one and "--timeline" not in one], ids=" ".join
)
def test_reading_for_machines(home: Path, command: list[str]) -> None:
    """--json: every line of every reading command is a JSON object."""
    shown = inside(*command, "--json")
    assert shown.exit_code == 0
    assert all(isinstance(line, dict) for line in lines_of(shown.output))


def test_reading_never_writes(home: Path) -> None:
    """No reading command changes a byte of the log."""
    before = (home / "ops.db").read_bytes(), sqlite3.connect(home / "ops.db").execute("SELECT 1").fetchone()
    count = len(lines_of(inside("log", "show", "ops.db", "--json").output))
    for command in READING:
        inside(*command)
    assert len(lines_of(inside("log", "show", "ops.db", "--json").output)) == count
    assert before[1] == (1,)


@pytest.mark.parametrize(
    "command",
    [
        ["actions", "LOG"],
        ["log", "show", "LOG"],
        ["log", "tail", "LOG"],
        ["log", "export", "LOG"],
        ["log", "verify", "LOG"],
        ["log", "stats", "LOG"],
        ["log", "backup", "LOG", "copy.db"],
        ["state", "LOG"],
        ["pending", "LOG"],
        ["doubt", "LOG"],
        ["pause", "LOG"],
        ["stop", "LOG"],
        ["cancel", "LOG"],
    ],
    ids=" ".join,
)
def test_a_missing_log_is_not_made(tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is not there: exit code 5, its path in the message, and no file afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "none.db"), f"sqlite:///{tmp_path / 'none.db'}"):
        done = here(*[name if one == "LOG" else one for one in command])
        assert done.returncode == 5
        assert "There is no log" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_mistyped_name_in_a_file_is_not_made(played: Path, tmp_path: Path) -> None:
    """Another log's name in an existing file: the names that there are, and none is added."""
    shutil.copy(played / "ops.db", tmp_path / "ops.db")
    for _ in range(2):
        done = here("log", "show", f"sqlite:///{tmp_path / 'ops.db'}?log=mian")
        assert done.returncode == 5
        assert "main" in done.stderr


@pytest.mark.parametrize(
    ("name", "said"), [("memory:", "in memory"), ("foo://x", "No engine"), ("notes.txt", "")], ids=str
)
def test_what_is_no_log(tmp_path: Path, name: str, said: str) -> None:
    """What cannot be a log is refused with a reason, and left as it is."""
    (tmp_path / "notes.txt").write_text("these are notes, and no database at all\n" * 50)
    done = logact("log", "show", name, cwd=tmp_path)
    assert done.returncode in (2, 3, 5)
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert (tmp_path / "notes.txt").read_text().startswith("these are notes")


def test_actions_tell_what_matters(home: Path) -> None:
    """One line an action: its life as marks, and the reason of a refusal in the last column."""
    shown = inside("actions", "ops.db").output
    assert re.search(r"executed +●▲◆━■ +pay +amount=7 → paid 7", shown)
    assert re.search(r"rejected +●▼✗ +shred .*careful: notes", shown)


def test_one_action_says_who_let_it_through(home: Path) -> None:
    """An action's story names each vote with its reason, the decision and the start."""
    found = {one["tool"]: one["action"] for one in lines_of(inside("actions", "ops.db", "--json").output)}
    story = inside("actions", "ops.db", str(found["shred"])).output
    for said in ("AGAINST", "careful: notes are kept for ten years", "hint: move it", "rejected"):
        assert said in story
    whole = lines_of(inside("actions", "ops.db", str(found["pay"]), "--json").output)[0]
    assert [entry["kind"] for entry in whole["entries"]] == ["Intent", "Vote", "Commit", "Started", "Result"]
    assert whole["votes"]["careful"]["approved"] is True


def test_filters(home: Path) -> None:
    """Filters choose exactly what they say, alone and together; an unknown kind suggests one."""
    every = lines_of(inside("log", "show", "ops.db", "--json").output)
    kinds = {"Vote", "Abort"}
    chosen: list[tuple[list[str], Callable[[dict[str, Any]], bool]]] = [
        (["--kind", "vote", "--kind", "Abort"], lambda one: one["kind"] in kinds),
        (["--kind", "vote,abort"], lambda one: one["kind"] in kinds),
        (["--tool", "pay"], lambda one: one["tool"] == "pay"),
        (["--run", "2000"], lambda one: one["run"] == 2000 or one["position"] == 2000),
        (["--since", "2001-01-01"], bool),
        (["--until", "-1d"], lambda one: not one),
    ]
    for options, fits_ in chosen:
        shown = lines_of(inside("log", "show", "ops.db", "--json", *options).output)
        assert shown == [one for one in every if fits_(one)], options
    wrong = inside("log", "show", "ops.db", "--kind", "Intnet")
    assert wrong.exit_code == 2
    assert "Intent" in wrong.output
    assert here("log", "show", "ops.db", "--since", "soon").returncode == 2


def test_export_and_backup(home: Path, tmp_path: Path) -> None:
    """An export holds every entry with its hash; a backup is a log of its own that verifies."""
    target = tmp_path / "ops.jsonl"
    assert inside("log", "export", "ops.db", "-o", target).exit_code == 0
    entries = lines_of(target.read_text())
    assert entries == lines_of(inside("log", "show", "ops.db", "--json").output)
    assert all(entry["record_hash"] and entry["author"]["incarnation"] for entry in entries)
    assert here("log", "export", "ops.db", "-o", target).returncode == 2
    copy = tmp_path / "copy.db"
    assert inside("log", "backup", "ops.db", copy).exit_code == 0
    assert here("log", "verify", copy).returncode == 0
    assert here("log", "backup", "ops.db", copy).returncode == 2


def test_verify_finds_damage(played: Path, tmp_path: Path) -> None:
    """A changed byte inside of a stored record: exit code 3, and the place."""
    copy = tmp_path / "ops.db"
    assert here("log", "backup", played / "ops.db", copy).returncode == 0
    connection = sqlite3.connect(copy)
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        if "body" in columns:
            connection.execute(
                f"UPDATE {table} SET body = CAST(replace(CAST(body AS TEXT), '\"amount\":7', '\"amount\":9') AS BLOB)"
            )
    connection.commit()
    assert connection.total_changes
    connection.close()
    done = here("log", "verify", copy)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "DAMAGED" in done.stdout
    fits(done.stdout)


def test_follow(played: Path, tmp_path: Path) -> None:
    """``log tail -f`` shows what comes, as it comes, and ends quietly at Ctrl-C."""
    copy = tmp_path / "ops.db"
    logact("log", "backup", played / "ops.db", copy)
    child = start("log", "tail", copy, "-n", "1", "-f", "--json")
    assert child.stdout is not None
    assert "leaving" in child.stdout.readline()
    assert logact("pause", copy, "--reason", "look").returncode == 0
    assert '"verb":"pause"' in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=20)
    assert child.returncode == 130


def test_control_confirms_what_took_effect(played: Path, tmp_path: Path) -> None:
    """Control commands fold the log and say what they changed; what names nothing is refused unwritten."""
    copy = tmp_path / "ops.db"
    here("log", "backup", played / "ops.db", copy)
    told = lines_of(here("pause", copy, "--run", "2000", "--json").stdout)[0]
    assert told["effective"] is True
    assert told["scope"] == "run:2000"
    count = len(lines_of(here("log", "show", copy, "--json").stdout))
    for wrong in (["--run", "77"], ["--agent", "opps"], ["--action", "5"], ["--run", "2000", "--agent", "ops"]):
        done = here("stop", copy, *wrong)
        assert done.returncode == 2, done.stdout
    assert len(lines_of(here("log", "show", copy, "--json").stdout)) == count
    assert "PAUSED run 2000" in here("state", copy).stdout
    assert here("resume", copy, "--run", "2000").returncode == 0
    assert here("resume", copy, "--run", "2000").returncode == 1
    author = lines_of(here("log", "show", copy, "--kind", "Control", "--json").stdout)[0]
    assert author["author"]["role"] == "operator"


def test_init_writes_what_works(tmp_path: Path) -> None:
    """``init`` writes a specification that loads; it never overwrites without --force."""
    from logact.spec import load_spec

    done = here("init", tmp_path / "new ops")
    assert done.returncode == 0, done.stderr
    spec = load_spec(tmp_path / "new ops" / "logact.toml")
    assert spec.agent.name == "new-ops"
    assert (tmp_path / "new ops" / "workspace").is_dir()
    fits((tmp_path / "new ops" / "logact.toml").read_text())
    (tmp_path / "new ops" / "logact.toml").write_text("# mine\n")
    assert here("init", tmp_path / "new ops").returncode == 2
    assert (tmp_path / "new ops" / "logact.toml").read_text() == "# mine\n"
    assert here("init", tmp_path / "new ops", "--force").returncode == 0


def test_doctor_proves_the_gate(home: Path) -> None:
    """The canaries are stopped, and their bodies did not run; every line says what was seen."""
    done = inside("doctor", "logact.toml", "--json")
    checks = {line["check"]: line["verdict"] for line in lines_of(done.output)}
    assert done.exit_code == 0, done.output
    for canary in ("no voter", "broken voter", "voters broken"):
        assert checks[canary] == "proved"
    shown = inside("doctor", "logact.toml")
    fits(shown.output)


def test_doctor_finds_what_is_open(tmp_path: Path) -> None:
    """A voter that approves when it crashes is found (1): the canary's body ran."""
    text = {'[[voters]]\nuse = "parts.py:careful"': '[[voters]]\nuse = "parts.py:careful"\non_failure = "approve"'}
    done = here("doctor", make(tmp_path, **text))
    assert done.returncode == 1
    assert re.search(r"FAILED +voters broken", done.stdout)
    assert "1 finding." in done.stdout
    assert not (tmp_path / "ops.db").exists()


@pytest.mark.parametrize(
    ("old", "new"), [("[agent]", "[agnt]"), ("parts.py:pay", "no:pay"), ("scripted:parts.py", "gpt")]
)
def test_doctor_finds_wrong_setups(tmp_path: Path, old: str, new: str) -> None:
    """A specification that does not load or build is a finding, not a crash."""
    done = here("doctor", make(tmp_path, **{old: new}))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED" in done.stdout
    assert "Traceback" not in done.stderr


def test_colours_only_on_a_terminal(home: Path) -> None:
    """A pipe gets no colours; a terminal does, unless NO_COLOR is set."""
    import pty
    import subprocess
    import sys

    from tests.cli_help import environment

    assert "\x1b" not in logact("actions", "ops.db", cwd=home).stdout
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        primary, secondary = pty.openpty()
        subprocess.run(
            [sys.executable, "-m", "logact.cli", "actions", "ops.db"],
            stdout=secondary,
            cwd=home,
            env=environment(TERM="xterm", **more),
            check=True,
            timeout=30,
        )
        os.close(secondary)
        assert ("\x1b[" in os.read(primary, 100_000).decode()) is coloured
        os.close(primary)


def test_plain_ascii_terminals(home: Path) -> None:
    """Where the terminal knows ASCII only, marks are ASCII, and nothing fails."""
    done = logact("actions", "ops.db", cwd=home, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "o+C=#" in done.stdout
    assert done.stdout.isascii()


def test_pipe_that_closes_is_quiet(home: Path) -> None:
    """``logact log show | head -1`` says nothing about pipes."""
    import subprocess
    import sys

    from tests.cli_help import environment

    command = f"for i in 1 2 3; do {sys.executable} -m logact.cli log export ops.db; done | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, cwd=home, env=environment(), timeout=60, check=False
    )
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 1


def test_times() -> None:
    """Times are read as people write them; anything else is refused."""
    from logact.cli.look import parse_time
    from logact.errors import UsageError

    now_ms = time.time() * 1000
    assert abs(parse_time("-3h") - (now_ms - 3 * 3_600_000)) < 5000
    assert abs(parse_time("15min") - (now_ms - 900_000)) < 5000
    assert parse_time("2026-11-22T10:00:00+00:00") == 1795341600000
    assert parse_time("yesterday") < parse_time("today") <= now_ms
    for wrong in ("soon", "3x", "25:00", ""):
        with pytest.raises(UsageError):
            parse_time(wrong)


@pytest.mark.parametrize(
    ("text", "room", "fitted"),
    [("short", 10, "short"), ("much too long", 8, "much to…"), ("日本語テキスト", 7, "日本語…"), ("x", 0, "")],
)
def test_fitting_counts_cells(text: str, room: int, fitted: str) -> None:
    """Cut texts take no more columns than there are, wide characters included."""
    from logact.cli.look import cells, fit

    assert cells(fit(text, room)) <= max(room, 0)
    assert fit(text, room) == fitted
