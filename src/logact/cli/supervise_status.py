"""What runs under an agent's supervisor, as the log and this machine's processes tell it."""

from __future__ import annotations

from typing import Any

from logact import env as environment
from logact.cli import look
from logact.core.state import State
from logact.entry import Notice, end_of, record_of
from logact.env import ProcessIdentity
from logact.introspection.history import history
from logact.logs.base import SharedLog, where
from logact.runtime.entering import HOLDER_SILENT_MS
from logact.runtime.supervision import LOOK_BACK_RECORDS, scope_of, task_of
from logact.spec import SpecFile


async def status_of(log: SharedLog, file: SpecFile) -> dict[str, Any]:
    """The supervisor and its parts: which process, since when, how often each ended by itself lately."""
    agent = file.agent.name
    state = (await history(log)).state
    start = max(record_of(state.position) - LOOK_BACK_RECORDS, 0)
    parts: dict[str, dict[str, Any]] = {}
    matching = where(kinds=["Notice"], agents=[agent], roles=["supervisor"])
    async for entry in log.read_kept(end_of(start), matching=matching):
        if isinstance(entry.payload, Notice):
            _take(parts, entry.payload, entry.time_ms)
    supervisor = _supervisor(state, agent)
    for part in parts.values():
        if part["state"] == "started":
            alive = environment.current().alive(part.pop("identity"))
            part["state"] = {True: "running", False: "gone", None: "elsewhere"}[alive]
        part.pop("identity", None)
    return {
        "agent": agent,
        **supervisor,
        "held": "stopped"
        if scope_of(agent) in state.stopped
        else "paused"
        if scope_of(agent) in state.paused
        else "",
        "parts": list(parts.values()),
    }


def _supervisor(state: State, agent: str) -> dict[str, Any]:
    holder = state.claims.get(task_of(agent), "")
    life = state.incarnations.get(holder) if holder else None
    birth = life.birth if life is not None else None
    if life is None or birth is None or life.left:
        return {"running": False, "pid": 0, "host": "", "since_ms": 0}
    env = environment.current()
    identity = ProcessIdentity(host=birth.host, pid=birth.pid, started=birth.started, boot=birth.boot)
    alive = env.alive(identity)
    if alive is None:
        alive = env.wall_ms() - life.last_ms < HOLDER_SILENT_MS
    return {"running": alive, "pid": birth.pid, "host": birth.host.split("/")[0], "last_ms": life.last_ms}


def _take(parts: dict[str, dict[str, Any]], notice: Notice, time_ms: int) -> None:
    data = notice.data
    name = str(data.get("part", ""))
    if notice.code not in ("part_started", "part_ended") or not name:
        return
    part = parts.setdefault(
        name, {"part": name, "kind": name.partition(":")[0], "state": "", "pid": 0, "since_ms": 0, "ends": 0}
    )
    part["since_ms"] = time_ms
    if notice.code == "part_started":
        pid = int(data.get("pid", 0))
        part |= {"state": "started", "pid": pid, "last_end": part.get("last_end", "")}
        part["identity"] = ProcessIdentity(
            host=str(data.get("host")), pid=pid, started=int(data.get("started", 0)), boot=str(data.get("boot"))
        )
        parts[name] = part
    else:
        part["state"] = "ended" if data.get("counts") else "stopped"
        part["ends"] += bool(data.get("counts"))
        part["last_end"] = notice.message


def shown_status(told: dict[str, Any]) -> list[str]:
    """The same for people."""
    held = f", {told['held']}" if told["held"] else ""
    if told["running"]:
        lines = [f"The supervisor of {told['agent']} is process {told['pid']} on {told['host']}{held}."]
    else:
        lines = [f"No supervisor of {told['agent']} runs{held}."]
    rows = [
        [
            part["part"],
            part["state"],
            str(part["pid"]),
            look.clock(part["since_ms"]),
            str(part["ends"]),
            part.get("last_end", ""),
        ]
        for part in told["parts"]
    ]
    head = ["PART", "STATE", "PROCESS", "SINCE", "ENDS", "LAST END"]
    return [*lines, "", *look.table(rows, head=head, right=[2, 4])] if rows else lines
