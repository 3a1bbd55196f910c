"""What people type wrongly: each is said in words, with the right exit code, and nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from logact import open_log
from logact.cli import look
from logact.cli.common import at
from logact.cli.main import main
from logact.cli.serve import serving_lines
from logact.entry import Notice
from tests.cli_help import environment, fits, here, lines_of, logact, make

NO_KEYS = ("OPENAI_API_KEY", "LOGACT_API_KEY", "LOGACT_MODEL", "LOGACT_BASE_URL")


def test_two_answers_to_one_doubt_are_refused(tmp_path: Path) -> None:
    """Of two contradicting answers none counts; the last one was taken without a word."""
    shown = here("doubt", tmp_path / "ops.db", "4000", "--happened", "--did-not-happen")
    assert shown.returncode == 2
    assert "--happened and --did-not-happen" in (shown.stdout + shown.stderr)


def test_doctor_misses_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's model without its key is a finding; it was called ok."""
    for name in NO_KEYS:
        monkeypatch.delenv(name, raising=False)
    spec = make(tmp_path, **{"scripted:parts.py": "openai:gpt-4o"})
    shown = here("doctor", spec, "--json")
    assert shown.returncode == 1
    (model,) = [line for line in lines_of(shown.stdout) if line["check"] == "model"]
    assert model["verdict"] == "FAILED"
    assert "OPENAI_API_KEY" in str(model) or "logact[llm]" in str(model)


@pytest.mark.parametrize("command", ["run", "undo", "supervise"])
def test_a_log_in_place_of_a_specification(tmp_path: Path, command: str) -> None:
    """The file of a log where a specification belongs: said so, and no talk of codecs."""
    (tmp_path / "ops.db").write_bytes(b"SQLite format 3\0\xf8\xff")
    shown = here(command, tmp_path / "ops.db", *(["2000"] if command == "undo" else []))
    assert shown.returncode == 2
    assert "This is no specification" in (shown.stdout + shown.stderr)
    assert "codec" not in (shown.stdout + shown.stderr)
    fits((shown.stdout + shown.stderr).replace(str(tmp_path), "."))


def test_rules_check_of_a_specification(tmp_path: Path) -> None:
    """A specification is no file of rules, and the hint says what to do; it said "agent belongs into [[rules]]"."""
    shown = here("rules", "check", make(tmp_path))
    assert shown.returncode == 2
    assert "this is a specification" in " ".join((shown.stdout + shown.stderr).split())


def test_a_status_that_is_none(tmp_path: Path) -> None:
    """A mistyped status is refused with the list of them; it was an empty answer."""
    shown = here("actions", tmp_path / "ops.db", "--status", "reject")
    assert shown.returncode == 2
    assert "in_doubt" in (shown.stdout + shown.stderr)


def test_a_witness_that_is_not_there(tmp_path: Path) -> None:
    """A check without its witness is no check: said so, with the exit code of what is not available (was 1)."""
    asyncio.run(noted(tmp_path / "ops.db"))
    shown = here("log", "verify", tmp_path / "ops.db", "--witness", tmp_path / "heads")
    assert shown.returncode == 5
    assert "witness cannot be read" in (shown.stdout + shown.stderr)
    assert "sound" not in shown.stdout


async def noted(path: Path) -> None:
    async with open_log(f"sqlite:///{path}") as log:
        await log.append(Notice(code="note", message="hello"), role="operator", name="op")


@pytest.mark.parametrize(
    "place", ["ops.db@abc", "ops.db@", "ops.db@-5", "ops.db@1.5", "ops.db@" + "9" * 5000, "x.db@²"]
)
@pytest.mark.parametrize("command", ["state", "fork", "diff", "compare"])
def test_a_position_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str) -> None:
    """What follows the mark is no number: said so (it was "There is no log"), with where to look for one."""
    monkeypatch.chdir(tmp_path)
    shown = here(command, place, *([] if command == "state" else ["new.db"]))
    assert shown.returncode == 2
    assert "This is not a position" in shown.stderr and "logact log show" in " ".join(shown.stderr.split())
    fits(shown.stderr)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is what follows the mark of a run."""
    monkeypatch.chdir(tmp_path)
    shown = here("compare", "ops.db#first", "ops.db")
    assert shown.returncode == 2
    assert "This is not a run" in shown.stderr


def test_a_mark_that_belongs_to_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory, a file or a user before a host may hold the mark of a position."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me@home").mkdir()
    for name in ("me@home/ops.db", "ops@home.db"):
        asyncio.run(noted(tmp_path / name))
        assert here("state", name).returncode == 0
        assert here("state", f"{name}@1000").returncode == 0
        assert "no such position" in here("state", f"{name}@999999999999").stderr
    assert at("postgresql://ann@db") == ("postgresql://ann@db", None)
    assert at("postgresql://ann@db/x@2000") == ("postgresql://ann@db/x", 2000)
    assert at("sqlite:///ops.db@2000") == ("sqlite:///ops.db", 2000)


def test_a_log_url_with_slashes_too_few() -> None:
    """The hint says how the URL is written; it was "There is no log", with any password in it."""
    shown = here("log", "show", "sqlite:nope")
    assert shown.returncode == 2
    assert "sqlite:///nope" in (shown.stdout + shown.stderr)
    shown = here("log", "show", "sqlite:/var/nope.db")  # was taken for the relative var/nope.db
    assert shown.returncode == 2
    assert "sqlite:////var/nope.db" in (shown.stdout + shown.stderr)
    shown = here("log", "show", "postgresql:/ann:hunter2-hunter2@db/x")
    assert shown.returncode == 2
    assert "hunter2" not in (shown.stdout + shown.stderr)


def test_an_argument_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused in one line, wherever they stand (was a defect of LogAct)."""
    for arguments in (("log", "show", "\udcff.db"), ("run", "logact.toml", "pay \udcff"), ("doctor", "\udcff")):
        shown = logact(*arguments, cwd=tmp_path)
        assert shown.returncode == 2, shown.stderr
        assert "is not text" in shown.stderr
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_finding(tmp_path: Path) -> None:
    """`| head -1` ends a command quietly, with 0 (was 1, which means findings)."""
    asyncio.run(noted(tmp_path / "ops.db"))
    for follow in ([], ["--follow"]):
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "logact.cli", "log", "show", str(tmp_path / "ops.db"), *follow]
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, env=environment(), timeout=60, check=False
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_file_to_export_to_that_cannot_be_made(tmp_path: Path) -> None:
    """A directory that is none, and a number too large to count with, are said (were defects of LogAct)."""
    asyncio.run(noted(tmp_path / "ops.db"))
    shown = here("log", "export", tmp_path / "ops.db", "-o", tmp_path / "ops.db" / "x")
    assert shown.returncode == 2
    assert "Not a directory" in shown.stderr
    shown = here("log", "export", tmp_path / "ops.db", "-o", tmp_path / ("x" * 300))
    assert shown.returncode == 2
    assert "cannot be made" in shown.stderr
    assert here("log", "show", tmp_path / "ops.db", "-n", "9" * 26).returncode == 2


def test_a_key_without_its_certificate(tmp_path: Path) -> None:
    """`logact serve --key` alone says what is missing (was an AssertionError of the web server)."""
    shown = here("serve", "--log", tmp_path / "ops.db", "--key", "server.key")
    assert shown.returncode == 2
    assert "--cert" in shown.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["actions", "x" * 5000], 5, "There is no log"),  # was called a defect, in 5000 columns
        (["stop", ""], 2, "No log is named"),  # took the log of the present directory
        (["log", "show", "ops.db", "--kind", "y" * 3000], 2, "there is no kind"),
        (["actions", "ops.db", "--status", "lost"], 2, "'in_doubt'"),
        (["log", "show", "ops.db", "-n", "9" * 5000], 2, "Invalid value"),
        (["log", "verify", "sqlite:///%00.db"], 2, "zero byte"),
        (["fork", "ops.db@1000", "sqlite:///%00.db"], 2, "zero byte"),  # was called a defect
        (["log", "repair", "logact+http://[::1", "new.db"], 2, "Only files are repaired"),  # so was this
        (["driver", "logact.toml", "--log", ""], 2, "'--log': it is empty"),  # took the file's own log
        (["swarm", "run", ".", "x", "--lease", "nan"], 2, "not a number"),  # was taken
        (["log", "show", "ops.db", "--kind", "foo"], 2, "Kinds are Run, Spec"),
        (["swarm", "run", ".", "x", "--plan", "ops.db"], 2, "is no text"),  # told of codecs
        (["run", "workspace", "x"], 2, "no such specification"),  # "[Errno 21] Is a directory"
        (["serve", "--log", "ops.db", "--cert", ""], 2, "'--cert': it is empty"),  # served without encryption
    ],
)
def test_odd_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], code: int, said: str
) -> None:
    """Each is refused in words, within the terminal's width, and nothing is made or begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    make(tmp_path)
    asyncio.run(noted(tmp_path / "ops.db"))
    before = sorted(tmp_path.iterdir())
    shown = here(*line)
    assert shown.returncode == code, shown
    assert said in " ".join(shown.stderr.split())
    fits(shown.stderr)
    assert len(shown.stderr) < 4000 and "defect" not in shown.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_a_refusal_of_the_system_is_no_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk where the output goes, a file that may not be read: said so; it was "a defect of LogAct"."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(noted(tmp_path / "ops.db"))
    said = io.StringIO()
    for buffered in (False, True):
        with contextlib.redirect_stdout(Full(buffered)), contextlib.redirect_stderr(said):
            assert main(["log", "show", "ops.db"]) == 2
            sys.stdout.close()
    assert said.getvalue().count("No space left on device") == 2 and "defect" not in said.getvalue()


class Full(io.StringIO):
    """An output on a full disk; ``buffered`` notices when it is flushed at the end."""

    def __init__(self, buffered: bool) -> None:
        super().__init__()
        self.buffered = buffered

    def write(self, text: str) -> int:
        if not self.buffered:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(text)

    def flush(self) -> None:
        if self.buffered and self.getvalue().count("\n") > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_output_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts it may have closed its output; it ended in a traceback."""
    asyncio.run(noted(tmp_path / "ops.db"))
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["log", "show", str(tmp_path / "ops.db")]) == 0


def test_where_a_log_went_fits_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `log move` and `fork` say is wrapped (was 99 columns for a short path)."""
    monkeypatch.chdir(tmp_path)
    asyncio.run(noted(tmp_path / "ops.db"))
    moved = here("log", "move", "ops.db", "new.db")
    forked = here("fork", "ops.db@1000", "a-fork-in-a-file-with-quite-a-long-name.db")
    for shown in (moved, forked):
        assert shown.returncode == 0, shown
        fits(shown.stdout)
    fits("\n".join(serving_lines("https://logs.an-organisation.example.org:8765")))  # was 103 columns
    assert "stays at" in moved.stdout and "(log " in forked.stdout


def test_tables_of_long_names_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names are cut, widest first, and numbers never; a table was as wide as its names (113 columns)."""
    monkeypatch.setenv("COLUMNS", "80")
    names = [["1000", "executed", "n" * 60, "日" * 30, "why"], ["2000", "failed", "short", "m" * 40, "z" * 90]]
    lines = look.table(names, head=["ACTION", "STATUS", "TOOL", "AGENT", "REASON"], right=[0])
    assert len(lines) == 3 and all(look.cells(line) <= 80 for line in lines), lines
    assert lines[1].split()[:2] == ["1000", "executed"] and lines[2].split()[:3] == ["2000", "failed", "short"]
    assert "nnnnnnnnnn" in lines[1] and "why" in lines[1]
    narrow = look.table([["1", "ab", "c" * 20]], head=["N", "B", "C"], right=[0])
    assert narrow == ["N  B   C", "1  ab  " + "c" * 20]


def test_a_directory_stands_for_its_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LOG and as SPEC; where a specification is asked for it was "[Errno 21] Is a directory"."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    assert here("run", ".", "x", "--quiet").returncode == 0
    assert here("recover", ".").returncode == 0
    none = here("log", "show", ".", "--until", "-2d")
    assert (none.returncode, none.stdout.count("\n")) == (0, 1 if "POSITION" in none.stdout else 0)
    assert "None of" in none.stderr
    fits(none.stderr)
