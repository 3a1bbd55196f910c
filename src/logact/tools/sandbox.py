"""What code and shell tools may see: a bubblewrap sandbox, and whether this machine can give one.

Inside there is a read-only view of the *system's* directories and of this Python (not of home directories, /var,
/run or the rest of /etc, where secrets live), a private /tmp, the workspace (writable, under its own path), no
network, no capabilities, no other processes and an environment of five harmless variables. This module builds
command lines and tries them out; ``process`` runs them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from logact.tools.answers import ToolError

CANARY_SECONDS_MAX = 10

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store")
# an allow list, as /etc also holds password hashes, keys and tokens
_ETC = (
    *("alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts"),
    *("gai.conf", "group", "host.conf", "hosts", "inputrc", "java", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("locale.alias", "locale.conf", "localtime", "magic", "mime.types", "nsswitch.conf", "os-release", "passwd"),
    *("pki/tls/certs", "pki/ca-trust", "profile", "protocols", "resolv.conf", "services", "shells"),
    *("ssl/certs", "ssl/openssl.cnf", "static", "terminfo", "timezone"),
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one command may use. Memory is counted over all of its processes; threads count as processes."""

    seconds: float = 60.0
    memory_bytes: int = 1024**3
    processes: int = 128
    file_bytes: int = 256 * 1024**2
    open_files: int = 256
    temporary_bytes: int = 256 * 1024**2
    output_bytes: int = 64 * 1024


class SandboxStatus(msgspec.Struct, frozen=True):
    """Whether commands can be confined on this machine, by what, and why not if not."""

    available: bool
    binary: str = ""
    version: str = ""
    reason: str = ""
    nested: bool = False
    """Whether commands can still make user namespaces of their own (an old bubblewrap cannot forbid it)."""


_known: dict[str, SandboxStatus] = {}  # by binary: trying it out costs two processes, and its answer stays


def sandbox_status(binary: str = "bwrap") -> SandboxStatus:
    """Try the sandbox out, once per process and binary. Blocking, some 30 ms the first time."""
    if binary not in _known:
        _known[binary] = _try_out(binary)
    return _known[binary]


def _try_out(binary: str) -> SandboxStatus:
    found = shutil.which(binary)
    if not sys.platform.startswith("linux"):
        return SandboxStatus(False, reason=f"bubblewrap needs Linux; this is {sys.platform}")
    if found is None:
        return SandboxStatus(False, reason=f"{binary} is not installed (Debian, Fedora, Arch: package bubblewrap)")
    reason = ""
    for nested in (False, True):
        status = SandboxStatus(True, found, _version(found), "", nested)
        arguments = [*base_arguments(status, Limits()), "--", "/bin/sh", "-c", "exit 43"]
        try:
            canary = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=CANARY_SECONDS_MAX,
                env={},
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            return SandboxStatus(False, found, reason=f"{found} does not run: {error}")
        if canary.returncode == 43:
            return status
        reason = canary.stderr.decode("utf-8", "replace").strip()[:500] or f"exit code {canary.returncode}"
    return SandboxStatus(False, found, _version(found), f"{found} cannot make a sandbox here: {reason}")


def _version(binary: str) -> str:
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, timeout=CANARY_SECONDS_MAX, env={}, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace").strip().rpartition(" ")[2]


def base_arguments(status: SandboxStatus, limits: Limits, *, network: bool = False) -> list[str]:
    """The part of bubblewrap's command line that is the same for every command."""
    arguments = [status.binary, "--unshare-all", "--unshare-user"]
    if network:
        arguments.append("--share-net")
    if not status.nested:
        arguments.append("--disable-userns")
    # without --new-session a command could type into the terminal it came from
    arguments += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox"]
    for path in _SYSTEM:
        directory = Path(path)
        if directory.is_symlink():
            arguments += ["--symlink", str(directory.readlink()), path]
        elif directory.is_dir():
            arguments += ["--ro-bind", path, path]
    for name in _ETC:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    # read-only, since a process of the host's root keeps that user's rights on the kernel's settings in /proc/sys,
    # whatever its capabilities and its user namespace: it could name a program that the host then runs
    arguments += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
    # every place that can be written to is memory, so it has a size, and the rest is made read-only at the end
    for path in ("/tmp", "/dev/shm"):  # noqa: S108 - they are private
        arguments += ["--perms", "1777", "--size", str(limits.temporary_bytes), "--tmpfs", path]
    return [*arguments, "--remount-ro", "/dev"]


def sandboxed(
    status: SandboxStatus,
    command: Sequence[str],
    *,
    workspace: Path,
    hide: Sequence[Path],
    readable: Sequence[Path],
    limits: Limits,
    network: bool,
    variables: Mapping[str, str],
    status_fd: int,
) -> list[str]:
    """The whole command line for one command. ``status_fd`` gets the process ids and the exit code as JSON."""
    arguments = [*base_arguments(status, limits, network=network), "--json-status-fd", str(status_fd)]
    for name, value in variables.items():
        arguments += ["--setenv", name, value]
    seen = [*python_directories(), *(path.resolve() for path in readable)]
    mounts: dict[Path, list[str]] = {
        path: ["--ro-bind", str(path), str(path)] for path in seen if not _beneath(path, map(Path, _SYSTEM))
    }
    mounts[workspace] = ["--bind", str(workspace), str(workspace)]
    visible = [*mounts, *map(Path, _SYSTEM)]
    for path in hide:
        mount = _mask(path, workspace, visible)
        if mount:
            mounts[path] = mount
    # outer ones first: what is mounted later lies on top, so a workspace inside of a hidden directory is seen,
    # and a hidden directory inside of the workspace is not
    for path in sorted(mounts, key=lambda path: len(path.parts)):
        arguments += mounts[path]
    for path, mount in mounts.items():
        if "--tmpfs" in mount:
            arguments += ["--remount-ro", str(path)]
    return [*arguments, "--remount-ro", "/", "--chdir", str(workspace), "--", *command]


def python_directories() -> list[Path]:
    """Where this Python and its packages live."""
    found = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    found.add(Path(sys.executable).resolve().parent.parent)
    if Path(sys.executable).is_symlink():
        found.add(Path(sys.executable).absolute().parent.parent)
    return sorted(path for path in found if path != Path("/") and path != Path("/usr"))


def _mask(path: Path, workspace: Path, visible: Sequence[Path]) -> list[str]:
    """How a hidden path is covered; [] where it cannot be seen anyway."""
    if workspace == path or path in workspace.parents:
        # the workspace is mounted on top of it and stays visible; its neighbours are hidden
        return ["--tmpfs", str(path)] if path != workspace else _impossible(path, "it is the workspace itself")
    if not _beneath(path, visible):
        return []
    if path.is_dir():
        return ["--tmpfs", str(path)]
    if path.exists():
        return ["--ro-bind", "/dev/null", str(path)]
    return _impossible(path, "it does not exist yet, so a command could make it")


def _impossible(path: Path, why: str) -> list[str]:
    raise ToolError(
        f"{path} cannot be hidden from commands: {why}. Keep it in a directory of its own, outside of the workspace",
        kind="environment",
        definite=True,
    )


def _beneath(path: Path, directories: object) -> bool:
    return any(path == directory or directory in path.parents for directory in directories)  # type: ignore[attr-defined]


LIMITING = """\
echo && read -r go || exit 126
ulimit -c 0 && ulimit -d "$1" && ulimit -f "$2" && ulimit -n "$3" || exit 126
if (ulimit -u "$4") 2>/dev/null; then ulimit -u "$4"; else ulimit -p "$4"; fi || exit 126
shift 4
if command -v nice >/dev/null; then exec nice -n 10 "$@" </dev/null; fi
exec "$@" </dev/null
"""
"""First reports with an empty line that it stands, and waits for an answer: bubblewrap asks the kernel to be killed
with its parent only after it is set up, so without this a command whose owner dies meanwhile would run on alone.

Then sets the limits from inside: set outside, the number of processes would count all of the user's own, and a
function that runs between fork and exec can deadlock in a program with threads. Memory is limited as data (-d),
not as address space (-v), which several language runtimes reserve far more of than they use. ``nice`` leaves the
watching side its turn when a command floods the machine with processes."""


def limited(command: Sequence[str], limits: Limits) -> list[str]:
    """The command behind a shell that sets its limits."""
    return [
        *("/bin/sh", "-c", LIMITING, "limits"),
        *(str(limits.memory_bytes // 1024), str(limits.file_bytes // 512)),
        *(str(limits.open_files), str(limits.processes)),
        *command,
    ]
