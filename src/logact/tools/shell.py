"""``run_shell`` and ``run_python``: code that a model wrote, run in the sandbox. Always irreversible.

Without a working sandbox there are no such tools, unless the operator says in so many words that code may run
unconfined.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from logact.errors import UsageError
from logact.tools import process
from logact.tools.answers import ToolError
from logact.tools.base import Tool, tool
from logact.tools.confine import refused
from logact.tools.journal import NAME as JOURNAL
from logact.tools.sandbox import Limits, SandboxStatus, limited, sandbox_status, sandboxed

UNSANDBOXED = "I accept that code runs unconfined"
"""What ``unsandboxed=`` has to say, word for word."""

CODE_BYTES_MAX = 100_000  # the kernel takes at most 128 KiB as one argument


class Shell:
    """The tools that run code, confined to a workspace.

    ``hide`` names what must stay out of reach even where it would be visible: the log's directory, tokens,
    sockets. ``readable`` adds directories to see (never to change), ``network`` gives the host's network (with
    all that listens on its loopback), ``environment`` adds variables. ``bwrap`` names the sandbox's program.

    Each run goes through ``limits``. There is no limit on how much a command writes in all to the workspace.
    """

    def __init__(
        self,
        workspace: str | os.PathLike[str],
        *,
        hide: Iterable[str | os.PathLike[str]] = (),
        readable: Iterable[str | os.PathLike[str]] = (),
        network: bool = False,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        unsandboxed: str = "",
        bwrap: str = "bwrap",
    ) -> None:
        if unsandboxed not in ("", UNSANDBOXED):
            raise UsageError(
                "This does not open the sandbox",
                received=repr(unsandboxed),
                expected=f"unsandboxed={UNSANDBOXED!r}",
                todo="install bubblewrap instead, if you can",
            )
        self.workspace = Path(workspace).resolve()
        if not self.workspace.is_dir():
            raise UsageError("The workspace is not a directory", received=str(workspace), expected="a directory")
        self.hide = tuple(Path(path).resolve() for path in hide)
        self.readable = tuple(Path(path).resolve() for path in readable)
        self.network = network
        self.limits = limits or Limits()
        self.unconfined = bool(unsandboxed)
        self._bwrap = bwrap
        self._shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
        self._variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            "HOME": "/tmp",  # noqa: S108 - private inside of the sandbox
            "TMPDIR": "/tmp",  # noqa: S108
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        } | dict(environment or {})

    @property
    def status(self) -> SandboxStatus:
        """Whether there is a sandbox. Tries it out the first time."""
        return sandbox_status(self._bwrap)

    @property
    def why_off(self) -> str:
        """Why there are no tools; "" if there are."""
        if self.unconfined or self.status.available:
            return ""
        return (
            f"run_shell and run_python are off: {self.status.reason}. Install bubblewrap, or pass "
            f"unsandboxed={UNSANDBOXED!r} to Shell"
        )

    @cached_property
    def tools(self) -> list[Tool]:
        """The tools; none where they are off (see ``why_off``)."""
        if self.why_off:
            return []
        # the outer limit is for the executor: the command itself is ended earlier, with its output
        options: dict[str, Any] = {"effect": "irreversible", "untrusted": True, "timeout_s": self.limits.seconds + 15}
        return [
            tool(**options, content=("command",))(self.run_shell),
            tool(**options, content=("code",))(self.run_python),
        ]

    async def run_shell(self, command: str) -> dict[str, Any]:
        """Run a shell command in the workspace. There is no terminal, no input and usually no network.

        Returns exit_code, stdout and stderr. Long output is cut in the middle.

        Args:
            command: What to run, as for sh -c.
        """
        return await self._run([self._shell, "-c", _checked(command, "command")])

    async def run_python(self, code: str) -> dict[str, Any]:
        """Run a Python program in the workspace, in a fresh interpreter. Print what you want to see.

        Returns exit_code, stdout and stderr. Long output is cut in the middle.

        Args:
            code: The program.
        """
        return await self._run([sys.executable, "-I", "-B", "-c", _checked(code, "code")])

    async def _run(self, command: Sequence[str]) -> dict[str, Any]:
        if self.why_off:
            raise ToolError(self.why_off, kind="environment", definite=True)
        confined = self.status.available and not self.unconfined
        inner = limited(command, self.limits)
        journal = self.workspace / JOURNAL
        hide = (*self.hide, journal) if journal.exists() else self.hide

        def build(status_fd: int) -> Sequence[str]:
            if not confined:
                return inner
            return sandboxed(
                self.status,
                inner,
                workspace=self.workspace,
                hide=hide,
                readable=self.readable,
                limits=self.limits,
                network=self.network,
                variables=self._variables,
                status_fd=status_fd,
            )

        outcome = await process.run(
            build,
            limits=self.limits,
            # bubblewrap itself must not have our environment either: it is the sandbox's first process, and
            # /proc/1/environ shows it to everything inside
            variables={} if confined else self._variables,
            directory=self.workspace,
            confined=confined,
        )
        if outcome.limit:
            kind: Any = "timeout" if "time" in outcome.limit else "failed"
            raise ToolError(
                f"Killed at {outcome.limit}; what it did until then stays. "
                f"stdout: {outcome.stdout[-2000:]!r} stderr: {outcome.stderr[-2000:]!r}",
                kind=kind,
            )
        result: dict[str, Any] = {
            "exit_code": outcome.exit_code,
            "stdout": outcome.stdout,
            "stderr": outcome.stderr,
        }
        if outcome.truncated:
            result["truncated"] = True
        return result


def _checked(code: str, name: str) -> str:
    if "\0" in code:
        raise refused(f"The {name} holds a NUL character")
    try:
        size = len(code.encode())
    except UnicodeEncodeError as error:
        raise refused(f"The {name} is no valid text: {error.reason}") from error
    if size > CODE_BYTES_MAX:
        raise refused(f"The {name} has {size} bytes; at most {CODE_BYTES_MAX} can be run. Write it to a file first")
    return code
