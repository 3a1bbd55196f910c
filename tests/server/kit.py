"""What the served log's tests share: a real server process on a free port, tokens, and requests by hand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2

from logact import codec, open_log
from logact.entry import NewEntry, Payload
from logact.logs import wire
from logact.logs.remote import RemoteEngine, engine_from_url
from logact.server.names import OWN, url_of
from logact.server.tokens import Token, TokenBook, new_token

ALL_ROLES = (
    "client",
    "driver",
    "voter",
    "decider",
    "executor",
    "recoverer",
    "supervisor",
    "checkpointer",
    "operator",
)
START_S_MAX = 30.0


class ServerProcess:
    """One ``logact serve`` process."""

    def __init__(self, url: str, *more: str, program: Sequence[str] = ()) -> None:
        command = list(program) or [sys.executable, "-m", "logact.cli", "serve"]
        self.engine_url = url
        self.hands: list[Hand] = []
        self.made = {OWN}
        self.process = subprocess.Popen(
            [*command, "--log", url, "--port", "0", "--json", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the server did not start: {self.process.communicate()[1].decode()}")
        self.address: str = json.loads(line)["url"]
        self.port = int(self.address.rpartition(":")[2])

    def url(self, log: str = "main", **options: Any) -> str:
        """The log URL of one of its logs, for clients; the token comes from elsewhere."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"logact+{self.address}/?log={log}{more}"

    def token(self, name: str = "all", roles: Sequence[str] = ALL_ROLES, **scope: Any) -> str:
        """A new token's text."""
        return self.make_token(name, roles, **scope)[1]

    def make_token(self, name: str, roles: Sequence[str], **scope: Any) -> tuple[Token, str]:
        """A new token and its text, as `logact token create` makes it."""
        token, text = new_token(name=name, roles=roles, **scope)

        async def write() -> None:
            async with open_log(url_of(self.engine_url, OWN)) as log:
                await TokenBook(log).add(token)

        asyncio.run(write())
        return token, text

    def make(self, log: str) -> None:
        """Have a log made, as an operator, unless that was done before."""
        if log not in self.made:
            self.made.add(log)
            answer = Hand(self, self.token("maker", ["operator"]), log, make=False).client.put(
                f"{self.address}/v1/logs/{log}"
            )
            assert answer.status_code in (200, 400), answer.text  # 400: names that no log can have

    def stop(self) -> tuple[int, str]:
        """End it by SIGTERM: its exit code, and what it said on the error output."""
        for hand in self.hands:
            hand.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            _, said = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, said = self.process.communicate()
        return self.process.returncode, said.decode()


def token_file(directory: Path, text: str, name: str = "token") -> Path:
    """A token in a file of its own."""
    path = directory / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def engine(server: ServerProcess, token: Path, log: str = "main", **options: Any) -> RemoteEngine:
    """A client's engine."""
    return engine_from_url(server.url(log, token_file=token, **options))


def record(
    log_id: str,
    writer: str,
    *entries: NewEntry,
    number: int = 1,
    previous: str = codec.GENESIS,
    key: str = "",
) -> bytes:
    """A record as a client makes it, with whatever author is asked for."""
    encoded = codec.encode_record(
        list(entries),
        log=log_id,
        writer=writer,
        number=number,
        previous=previous,
        time_ms=1_700_000_000_000,
        randomness=b"0123456789ab" * len(entries),
        key=key,
    )
    return encoded.body


class Hand:
    """Requests by hand, with one token, to a log that is there unless ``make`` is False."""

    def __init__(self, server: ServerProcess, token: str, log: str = "main", *, make: bool = True) -> None:
        if make:
            server.make(log)
        self.base = f"{server.address}/v1/logs/{log}"
        self.client = httpx2.Client(
            headers={"authorization": f"Bearer {token}"} if token else {},
            trust_env=False,
            verify=False,  # and so no certificates are loaded
            timeout=20.0,
        )
        server.hands.append(self)
        self.writer = f"{token.split('_')[1]}.{log}" if token.count("_") >= 2 else "nobody"
        self.number = 0
        self.previous = codec.GENESIS
        self._log_id = ""

    @property
    def log_id(self) -> str:
        """The log's id, as the server tells it."""
        if not self._log_id:
            self._log_id = self.get("").json()["log_id"]
        return self._log_id

    def get(self, path: str, **more: Any) -> httpx2.Response:
        """A GET below the log."""
        return self.client.get(self.base + path, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx2.Response:
        """A POST of JSON below the log."""
        return self.client.post(
            self.base + path, content=wire.encoded(body), headers={"content-type": "application/json"}, **more
        )

    def append(self, *bodies: bytes) -> list[dict[str, Any]]:
        """Append records: their outcomes."""
        answer = self.post("/append", wire.AppendRequest([wire.WireDraft(body=body) for body in bodies]))
        assert answer.status_code == 200, answer.text
        outcomes: list[dict[str, Any]] = answer.json()["outcomes"]
        return outcomes

    def say(self, *entries: NewEntry, writer: str = "") -> dict[str, Any]:
        """Append one record as this hand's own incarnation (or ``writer``): its outcome."""
        body = record(self.log_id, writer or self.writer, *entries, number=self.number + 1, previous=self.previous)
        outcome = self.append(body)[0]
        if outcome.get("fresh"):
            self.number += 1
            self.previous = codec.read_head(body)[1]
        return outcome

    def notices(self, code: str = "refused") -> list[dict[str, Any]]:
        """The notices of this code in the log."""
        answer = self.get("/entries", params={"limit": 1000, "filter": '{"clauses":[{"kinds":["Notice"]}]}'})
        payloads = [entry["payload"] for entry in answer.json()["entries"]]
        return [payload for payload in payloads if payload["code"] == code]


def by(role: str, name: str, payload: Payload, **more: Any) -> NewEntry:
    """An entry as somebody says it."""
    return NewEntry(payload=payload, role=role, name=name, **more)  # type: ignore[arg-type]
