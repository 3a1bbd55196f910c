"""The settings of a log's streams: how they are made, and what of them LogAct relies on.

This file looks at settings only; ``nats_checks`` looks at the servers.
"""

from __future__ import annotations

from typing import Any

from logact import env as environment
from logact.errors import LogMissing, LogUnavailable
from logact.logs.nats_link import NAME_IN_USE, NO_STREAM, NOT_CLUSTERED, WINDOW_S, Link, Refused
from logact.logs.nats_side import refused

FORMAT = 1
DUPLICATE_WINDOW_S = 120


async def find_or_create(
    link: Link, name: str, subject: str, shown: str, replicas: int | None, *, create: bool = True
) -> dict[str, Any]:
    """What the server says of the log's stream, which is made if it is missing, or LogMissing raised.

    Raises LogUnavailable, ReadFailed.
    """
    try:
        return await link.insist(f"STREAM.INFO.{name}")
    except Refused as refusal:
        if refusal.code != NO_STREAM:
            raise refused(f"JetStream refuses the log {shown}", refusal) from None
        if not create:
            raise LogMissing("There is no log of this name", received=shown, todo="check ?log=NAME") from None
    config = {
        "name": name,
        "subjects": [f"{subject}.r.*", f"{subject}.n"],
        "max_msgs_per_subject": -1,
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": {"logact.log_id": environment.current().identifier(), "logact.format": str(FORMAT)},
    }
    for count in (replicas,) if replicas is not None else (3, 1):
        try:
            return await link.insist(f"STREAM.CREATE.{name}", {**config, **common_settings(count)})
        except Refused as refusal:
            if refusal.code == NAME_IN_USE:  # another process makes it at this moment, with its own log id
                return await _made_by_another(link, name, shown)
            if refusal.code != NOT_CLUSTERED or count == 1:
                raise refused(f"JetStream refuses the log {shown}", refusal) from None
    raise LogUnavailable("The log's stream cannot be made", received=shown)


async def _made_by_another(link: Link, name: str, shown: str) -> dict[str, Any]:
    """The name is taken already, but until the stream is there the servers say that it is not."""
    env = environment.current()
    end = env.monotonic() + WINDOW_S
    while True:
        try:
            return await link.insist(f"STREAM.INFO.{name}")
        except Refused as refusal:
            if refusal.code != NO_STREAM or env.monotonic() > end:
                raise refused(f"JetStream refuses the log {shown}", refusal) from None
        await env.sleep(0.05)


def check_settings(name: str, config: dict[str, Any]) -> None:
    """Refuse a stream that is not ours, or that drops messages by itself."""
    metadata = config.get("metadata") or {}
    if not metadata.get("logact.log_id") or metadata.get("logact.format") != str(FORMAT):
        raise LogUnavailable(
            "The stream is not one of this version's logs",
            received=f"{name} with format {metadata.get('logact.format')}",
            expected=f"format {FORMAT}",
            todo="use another ?log=NAME, or a newer LogAct",
        )
    wanted = {
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_age": 0,
        "allow_rollup_hdrs": False,
    }
    wrong = [f"{name}={config.get(name)}" for name, value in wanted.items() if config.get(name, value) != value]
    if config.get("persist_mode") == "async":
        wrong.append("persist_mode=async")
    if wrong:
        raise LogUnavailable(
            "The stream's settings were changed: it may drop or lose records by itself",
            received=", ".join(wrong),
            expected=", ".join(f"{name}={value}" for name, value in wanted.items()),
            todo=f"set them back on stream {name}",
        )


def common_settings(replicas: int | None) -> dict[str, Any]:
    """What both streams of a log have in common."""
    return {
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "duplicate_window": DUPLICATE_WINDOW_S * 10**9,
    }
