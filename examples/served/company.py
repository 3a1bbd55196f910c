"""Starts and ends the processes of the example: a server and the parts, each with its own token and environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SPEC = HERE / "agent.toml"
AGENT = "payer"
LOG = "main"

PARTS = {
    "decider": ["--role", "decider"],
    "voter": ["--role", "voter", "--voter", "rules"],
    "executor": ["--role", "executor"],
    "recoverer": ["--role", "recoverer"],
    "checkpointer": ["--role", "checkpointer"],
    "driver": ["--role", "driver"],
}
"""The parts, and what their tokens allow."""

PEOPLE = {"ann": ["--role", "client"], "ops": ["--role", "operator"]}
"""Who asks for work, and who says what the policy is."""

END_S_MAX = 20.0


class Company:
    """Everything that runs, on the engine at ``url``; what each process says goes into a file in ``directory``."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.tokens: dict[str, Path] = {}
        self.address = ""

    def environment(self, **more: str) -> dict[str, str]:
        """What a process sees: nothing of ours but what is given."""
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH", "LANG")}
        return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}

    def logact(self, *arguments: str, **more: str) -> dict[str, Any]:
        """Run a command to its end: the last line that it says, as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "logact.cli", *arguments, "--json"],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"logact {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    def make_tokens(self) -> None:
        """A token for each part and each person, in a file of its own."""
        for name, scope in {**PARTS, **PEOPLE}.items():
            made = self.logact(
                "token", "create", "--log", self.url, "--name", name, "--on", LOG, "--agent", AGENT, *scope
            )
            path = self.directory / f"{name}.token"
            path.touch(0o600)
            path.write_text(made["token"])
            self.tokens[name] = path

    def log_url(self, name: str) -> str:
        """The log as somebody reaches it: through the server, with their token."""
        return f"logact+{self.address}/?log={LOG}&token_file={self.tokens[name]}"

    def serve(self) -> None:
        """Start the server on a free port. It alone knows the engine."""
        server = self.start("server", "serve", "--log", self.url, "--port", "0", "--json", stdout=subprocess.PIPE)
        line = server.stdout.readline() if server.stdout is not None else ""
        if not line:
            raise SystemExit(f"the server did not start:\n{self.said('server')}")
        self.address = json.loads(line)["url"]

    def begin(self, part: str) -> None:
        """Start a part. The executor's process, and only that one, gets what opens the till."""
        more = {}
        if part in ("executor", "recoverer"):
            more = {"TILL_KEY": "open sesame", "TILL_LEDGER": str(self.directory / "ledger.txt")}
        self.start(part, part, str(SPEC), "--log", self.log_url(part), stdout=None, **more)

    def start(self, name: str, *arguments: str, stdout: int | None = None, **more: str) -> subprocess.Popen[str]:
        """Start a process that goes on until it is ended."""
        with (self.directory / f"{name}.txt").open("a") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "logact.cli", *arguments],
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=stdout or file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def said(self, name: str) -> str:
        """What a process said so far."""
        return (self.directory / f"{name}.txt").read_text()

    def end(self) -> dict[str, int]:
        """End all processes, the server last: their exit codes."""
        codes = {}
        parts = [name for name in self.processes if name != "server"]
        for names in (parts, ["server"]):
            running = [(name, self.processes[name]) for name in names if name in self.processes]
            for _, process in running:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for name, process in running:
                try:
                    codes[name] = process.wait(END_S_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    codes[name] = process.wait()
                if process.stdout is not None:
                    process.stdout.close()
        self.processes.clear()
        return codes
