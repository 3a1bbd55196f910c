"""Code and shell tools in a real sandbox: what they can see and use, and that nothing is left of them.

The tests need bubblewrap, as the tools do; what happens without it is tested with a program that is not there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from logact.errors import UsageError
from logact.tools import ToolContext, ToolError, as_tools
from logact.tools.process import Bounded
from logact.tools.sandbox import Limits, sandbox_status
from logact.tools.shell import UNSANDBOXED, Shell

SMALL = Limits(seconds=10, memory_bytes=200 * 1024**2, processes=40, file_bytes=8 * 1024**2, output_bytes=10_000)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def run(shell: Shell, name: str, code: str) -> dict[str, Any]:
    target = next(item for item in shell.tools if item.name == name)
    (argument,) = target.parameters["properties"]
    result = asyncio.run(target.call({argument: code}, ToolContext(key="k")))
    assert isinstance(result, dict)
    return result


def marked(marker: str) -> list[str]:
    """Processes with the marker in their command line."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(entry)
    return found


def test_there_is_a_sandbox() -> None:
    """On a machine with bubblewrap and user namespaces, the canary says so, and with what."""
    status = sandbox_status()
    assert status.available, status.reason
    assert status.binary
    assert status.version


# --- without a sandbox ------------------------------


def broken_sandboxes(tmp_path: Path) -> list[str]:
    refusing = tmp_path / "refusing-bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    return [str(tmp_path / "no-such-bwrap"), str(refusing)]


def test_without_a_sandbox_the_tools_are_off(work: Path, tmp_path: Path) -> None:
    """No bubblewrap, or one that the kernel refuses: there are no tools, the reason is told, and nothing runs."""
    for binary, reason in zip(broken_sandboxes(tmp_path), ("not installed", "No permissions"), strict=True):
        shell = Shell(work, bwrap=binary)
        assert not sandbox_status(binary).available
        assert reason in sandbox_status(binary).reason
        assert shell.tools == []
        assert as_tools([shell]) == []
        assert reason in shell.why_off
        assert UNSANDBOXED in shell.why_off
        with pytest.raises(ToolError) as caught:
            asyncio.run(shell.run_shell("touch done"))
        assert caught.value.definite
        assert not os.listdir(work)


def test_a_sandbox_that_breaks_later(work: Path) -> None:
    """A sandbox that fails to come up for one command is a definite failure: the command did not begin."""
    with pytest.raises(ToolError, match="did not begin: bwrap") as caught:
        run(Shell(work, readable=[work / "missing"]), "run_shell", "touch ran")
    assert (caught.value.definite, caught.value.kind) == (True, "environment")
    assert not os.listdir(work)


def test_unsandboxed_only_in_so_many_words(work: Path, tmp_path: Path) -> None:
    """Only the exact sentence opens the tools without a sandbox; limits and cleaning up still hold."""
    missing = broken_sandboxes(tmp_path)[0]
    for wrong in ("yes", "true", UNSANDBOXED.upper()):
        with pytest.raises(UsageError, match="expected unsandboxed="):
            Shell(work, bwrap=missing, unsandboxed=wrong)
    os.environ["LOGACT_TEST_TOKEN"] = "t0ken"
    shell = Shell(work, bwrap=missing, unsandboxed=UNSANDBOXED, limits=SMALL)
    assert shell.why_off == ""
    assert run(shell, "run_shell", "pwd; echo $LOGACT_TEST_TOKEN") == {
        "exit_code": 0,
        "stdout": f"{work}\n\n",
        "stderr": "",
    }
    assert run(shell, "run_python", "print(6 * 7)")["stdout"] == "42\n"
    assert run(shell, "run_shell", "sleep 98761 & echo started")["stdout"] == "started\n"
    assert marked("98761") == []
    quick = Shell(work, bwrap=missing, unsandboxed=UNSANDBOXED, limits=Limits(seconds=0.5))
    with pytest.raises(ToolError, match=r"time limit of 0\.5 s"):
        run(quick, "run_shell", "(setsid sleep 98762 &) ; sleep 98762")
    assert marked("98762") == []


# --- what can be seen ------------------------------


def test_works_in_the_workspace(work: Path) -> None:
    """Commands read and write the workspace under its own path, and their exit code is a result, not an error."""
    (work / "in.txt").write_text("hello")
    shell = Shell(work)
    assert run(shell, "run_shell", "cat in.txt; echo out > out.txt; pwd; exit 3") == {
        "exit_code": 3,
        "stdout": f"hello{work}\n",
        "stderr": "",
    }
    assert (work / "out.txt").read_text() == "out\n"
    assert run(shell, "run_python", "import msgspec, os\nprint(os.getcwd())")["stdout"] == f"{work}\n"
    failed = run(shell, "run_python", "raise ValueError('x')")
    assert failed["exit_code"] == 1
    assert "ValueError: x" in failed["stderr"]
    assert {item.effect for item in shell.tools} == {"irreversible"}
    assert all(item.untrusted for item in shell.tools)


def test_the_log_is_out_of_reach(work: Path, tmp_path: Path) -> None:
    """The log, a token and a socket cannot be read or changed: beside the workspace, inside of it, or around it."""
    beside = tmp_path / "state"
    inside = work / "state"
    for directory in (beside, inside):
        directory.mkdir()
        (directory / "log.db").write_text("ENTRIES")
    token = work / "token"
    token.write_text("TOKEN")
    shell = Shell(work, hide=[beside, inside, token, tmp_path], readable=[tmp_path])
    code = f"""
import pathlib
for path in ("{beside}/log.db", "{inside}/log.db", "{token}", "state/log.db"):
    try:
        print("READ", repr(pathlib.Path(path).read_text()))
    except OSError as error:
        print("no", error.errno)
    try:
        pathlib.Path(path).write_text("forged")
        print("WROTE")
    except OSError as error:
        print("no", error.errno)
"""
    output = run(shell, "run_python", code)["stdout"]
    assert "ENTRIES" not in output
    assert "TOKEN" not in output
    assert "WROTE" not in output
    run(shell, "run_shell", "rm -rf state token; mv state gone; umount state; ls -la state")
    assert (inside / "log.db").read_text() == "ENTRIES"
    assert (beside / "log.db").read_text() == "ENTRIES"
    assert token.read_text() == "TOKEN"


def test_what_cannot_be_hidden_is_refused(work: Path) -> None:
    """A hidden path that a command could create first, or the workspace itself: nothing runs."""
    for path in (work / "later.db", work):
        with pytest.raises(ToolError, match="cannot be hidden") as caught:
            run(Shell(work, hide=[path]), "run_shell", "touch ran")
        assert caught.value.definite
    assert not (work / "ran").exists()


def test_nothing_of_the_environment_leaks(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the host are not in the command's environment, nor in that of the sandbox's first process."""
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t-value")
    shell = Shell(work, environment={"WANTED": "yes"})
    output = run(shell, "run_shell", "env; cat /proc/*/environ | tr '\\0' '\\n'; cat /proc/*/cmdline; echo $WANTED")
    assert "s3cr3t" not in output["stdout"]
    assert output["stdout"].endswith("yes\n")


def test_system_is_read_only_and_homes_are_hidden(work: Path) -> None:
    """Nothing but the workspace and private memory can be written; homes, /var and password hashes are not there."""
    code = """
import os
for path in ("/usr/x", "/etc/x", "/x", "/dev/x", "/home/x", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger",
             "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/1/oom_score_adj"):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        print("OPENED", path)
    except OSError:
        pass
for path in ("/etc/shadow", "/etc/ssh", "/var/lib", "/run", "/home", "/sys", os.path.expanduser("~root/.bashrc")):
    if os.path.exists(path):
        print("SEEN", path)
status = open("/proc/self/status").read()
print(*[line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapBnd", "CapPrm"))])
print(sorted(os.listdir("/proc/self/fd")))
"""
    lines = run(Shell(work), "run_python", code)["stdout"].splitlines()
    assert lines[:-1] == ["0000000000000000 0000000000000000 0000000000000000"]
    assert len(lines[-1].split()) == 4, "a handle of ours is open inside (three standard ones, and the listing's own)"


def test_no_network(work: Path) -> None:
    """A server on the host's loopback cannot be reached, nor an abstract socket; with network=True it can."""
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0logact-test-abstract")
    abstract.listen()
    with socket.create_server(("127.0.0.1", 0)) as server, abstract:
        port = server.getsockname()[1]
        code = f"""
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_UNIX, "\\0logact-test-abstract")):
    try:
        socket.socket(family).connect(address)
        print("REACHED")
    except OSError as error:
        print("no")
"""
        assert run(Shell(work), "run_python", code)["stdout"] == "no\nno\n"
        assert "REACHED" in run(Shell(work, network=True), "run_python", code)["stdout"]


def test_processes_of_the_host_are_out_of_reach(work: Path) -> None:
    """The host's processes can neither be seen nor signalled, and new user namespaces cannot be made."""
    output = run(
        Shell(work),
        "run_shell",
        f"kill -9 {os.getpid()} 2>&1; ls /proc | grep -c '^[0-9]'; unshare --user true && echo NESTED",
    )
    assert "No such process" in output["stdout"]
    assert int(output["stdout"].splitlines()[-1]) < 10
    assert "NESTED" not in output["stdout"]


# --- what can be used ------------------------------


def test_output_is_bounded(work: Path) -> None:
    """100 MB of output neither fill memory nor the result; the beginning and the end are kept."""
    code = "import sys\nprint('first')\nfor _ in range(100): sys.stdout.write('x' * 1_000_000)\nprint('last')"
    result = run(Shell(work, limits=SMALL), "run_python", code)
    assert result["truncated"] is True
    assert len(result["stdout"]) < 11_000
    assert result["stdout"].startswith("first")
    assert result["stdout"].endswith("last\n")
    assert "bytes left out" in result["stdout"]


def test_bounded_keeps_head_and_tail() -> None:
    """However the pieces come, the same head and tail are kept."""
    data = bytes(range(65, 91)) * 10
    for size in (1, 3, 7, 260):
        bounded = Bounded(20)
        for start in range(0, len(data), size):
            bounded.add(data[start : start + size])
        assert bounded.text() == "ABCDEFGHIJ\n... [240 bytes left out] ...\nQRSTUVWXYZ"
    exact = Bounded(20)
    exact.add(data[:20])
    assert exact.text() == data[:20].decode()


def test_time_limit_leaves_nothing(work: Path) -> None:
    """At the time limit everything is dead when the call returns: background, daemons, and what ignores signals."""
    shell = Shell(work, limits=Limits(seconds=1))
    with pytest.raises(ToolError, match="time limit of 1 s") as caught:
        run(
            shell,
            "run_shell",
            "trap '' TERM INT HUP; sleep 98763 & (setsid sleep 98763 >/dev/null 2>&1 &); echo before; sleep 98763",
        )
    assert caught.value.kind == "timeout"
    assert not caught.value.definite, "it has run: nobody may believe that nothing happened"
    assert "before" in str(caught.value)
    assert marked("98763") == []


def test_background_processes_end_with_the_command(work: Path) -> None:
    """A command that ends leaves no daemon behind."""
    result = run(Shell(work), "run_shell", "(setsid nohup sleep 98764 >/dev/null 2>&1 &); echo done")
    assert result["stdout"] == "done\n"
    assert marked("98764") == []


def test_cancelling_leaves_nothing(work: Path) -> None:
    """A cancelled call raises only after all of its processes are dead, at whatever moment it is cancelled."""
    shell = Shell(work)

    async def cancel_after(seconds: float) -> None:
        task = asyncio.ensure_future(shell.run_shell("sleep 98765 & sleep 98765"))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert marked("98765") == []

    for seconds in (0, 0.001, 0.003, 0.006, 0.01, 0.02, 0.3):
        asyncio.run(cancel_after(seconds))


@pytest.mark.parametrize("delay", [0, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.015, 0.02, 0.2])
def test_killing_our_process_kills_the_command(work: Path, delay: float) -> None:
    """If the process that holds the tool is killed, at whatever moment, the sandbox dies with it.

    Was leaving the command alone when the kill came while the sandbox was being set up.
    """
    marker = f"98766{os.getpid()}{round(delay * 1000):03}"  # neighbours run the same test at the same time
    program = (
        "import asyncio, os, sys\nfrom logact.tools.shell import Shell\n"
        "sleep = f'sleep {os.environ[\"MARKER\"]}'\n"
        "print('up', flush=True)\nasyncio.run(Shell(sys.argv[1]).run_shell(f'{sleep} & {sleep}'))"
    )
    command = [sys.executable, "-c", program, str(work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "MARKER": marker}) as holder:
        deadline = time.monotonic() + 20
        while not marked(marker) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        assert marked(marker)
        holder.kill()
    while marked(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked(marker) == []


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "import threading, time\nfor _ in range(500): threading.Thread(target=time.sleep, args=(1,)).start()",
        "import subprocess\nfor _ in range(500): subprocess.Popen(['sleep', '60'])",
    ],
)
def test_fork_bombs_end(work: Path, code: str) -> None:
    """A fork bomb is stopped by the limit on processes (for root, whom the kernel does not limit, by watching)."""
    shell = Shell(work, limits=SMALL)
    try:
        result = run(shell, "run_python", code)
        assert result["exit_code"] != 0
    except ToolError as error:
        assert "limit" in str(error)
    assert len(marked(str(work))) == 0


@pytest.mark.parametrize(
    "code",
    [
        "x = bytearray(500 * 1024**2)",
        "import mmap, time\nm = mmap.mmap(-1, 500 * 1024**2)\nfor i in range(0, len(m), 4096): m[i] = 1",
        "import os, time\nfor _ in range(6): os.fork()\nx = bytearray(b'x' * 50 * 1024**2)\ntime.sleep(9)",
    ],
)
def test_memory_is_limited(work: Path, code: str) -> None:
    """One process, shared memory, or many small processes: more than the limit is not to be had."""
    try:
        result = run(Shell(work, limits=SMALL), "run_python", code)
        assert result["exit_code"] != 0
    except ToolError as error:
        assert "limit" in str(error)


def test_files_are_limited(work: Path) -> None:
    """A file beyond the limit breaks off, and private /tmp and shared memory are bounded."""
    limits = Limits(file_bytes=1024**2, temporary_bytes=2 * 1024**2)
    shell = Shell(work, limits=limits)
    assert run(shell, "run_shell", "head -c 5000000 /dev/zero > big")["exit_code"] != 0
    assert (work / "big").stat().st_size <= 1024**2
    for place in ("/tmp", "/dev/shm"):
        command = f"for i in 1 2 3 4 5; do head -c 900000 /dev/zero > {place}/$i || exit 9; done"
        assert run(shell, "run_shell", command)["exit_code"] == 9


def test_code_that_cannot_be_run(work: Path) -> None:
    """A NUL, broken text or too much code is refused before anything starts."""
    shell = Shell(work)
    for code in ("echo \0", "echo \ud800", "x" * 200_000):
        with pytest.raises(ToolError) as caught:
            asyncio.run(shell.run_shell(code))
        assert caught.value.definite


def test_calls_at_the_same_time(work: Path) -> None:
    """Twenty commands at once do not disturb each other, and no descriptor is left open."""
    shell = Shell(work)

    async def many() -> list[dict[str, Any]]:
        return await asyncio.gather(*(shell.run_shell(f"sleep 0.05; echo {number}") for number in range(20)))

    asyncio.run(many())
    before = len(os.listdir("/proc/self/fd"))
    results = asyncio.run(many())
    assert [result["stdout"] for result in results] == [f"{number}\n" for number in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before


def test_from_another_thread(work: Path) -> None:
    """An event loop in a thread that is not the main one can run commands, too."""
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(Shell(work).run_shell("echo hi"))))
    thread.start()
    thread.join()
    assert results[0]["stdout"] == "hi\n"
