"""The topics of a log on Kafka: how they are called, made, and which of their settings an acknowledgement rests on.

A log is three topics of one partition each: ``PREFIX.NAME`` for what is arbitrated, ``PREFIX.NAME_.state`` for
snapshots, ``PREFIX.NAME_.blobs``. This file makes and judges topics; it sends and reads nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # names that it imports and does not list
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from logact import env as environment
from logact.errors import LogMissing, LogUnavailable, UsageError
from logact.logs.partitions import Place

PLACES: tuple[Place, ...] = ("log", "state", "blobs")
TOPIC_NAME_MAX = 249
MESSAGE_BYTES_MIN = 1_000_000
WAIT_S_MAX = 30.0
STEP_S_MAX = 2.0
CREATE_S_MAX = 6.0

TOO_SMALL_S = 5.0
"""How long a cluster with too few brokers may take to become whole before it counts as too small."""

FINAL = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_REQUEST,
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError._INVALID_ARG,
}
"""Answers that asking again does not change. Anything else may come from a broker that goes away or comes back."""

FIXED = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
}
"""What every topic of a log is made with, besides its copies."""


class Complaints:
    """What a client says of its connections, in whichever of its threads. ``problem`` is the latest, for messages."""

    def __init__(self) -> None:
        self.problem = ""
        self.fatal = ""
        self.refused = False

    def hear(self, error: KafkaError) -> None:
        """The client's ``error_cb``."""
        self.problem = error.str()
        self.refused = self.refused or error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)
        if error.fatal():
            self.fatal = error.str()

    def __str__(self) -> str:
        return self.problem or "no answer"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which topics, and how they should be kept. With ``unsafe``, what cannot be trusted is opened, and labelled."""

    prefix: str
    name: str
    copies: int = 3
    unsafe: bool = False

    def topic(self, place: Place) -> str:
        """The topic of a place; escaped so that no two logs share one (``_`` is ``__``, ``/`` is ``_-``)."""
        whole = f"{self.prefix}.{self.name.replace('_', '__').replace('/', '_-')}"
        return whole if place == "log" else f"{whole}_.{place}"

    @property
    def in_sync(self) -> int:
        """How many copies must hold a message before it is acknowledged."""
        return max(1, self.copies - 1)


def check_names(wanted: Wanted) -> None:
    """UsageError unless Kafka can have topics of these names."""
    fine = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    longest = max((wanted.topic(place) for place in PLACES), key=len)
    if not wanted.prefix or not set(longest) <= fine or len(longest) > TOPIC_NAME_MAX:
        raise UsageError(
            "Kafka cannot have a topic of this name",
            received=longest,
            expected=f"at most {TOPIC_NAME_MAX} letters, digits, dots, - and _",
            todo="choose a shorter prefix or log name: kafka://HOST/PREFIX?log=NAME",
        )


class _Admin:
    """A client for questions about topics, and until when they are asked again.

    A client goes on asking the controller that it knew, even if that is dead, so each new try takes a new client.
    """

    def __init__(self, connect: Callable[[], AdminClient], heard: Complaints) -> None:
        self._connect = connect
        self.client = connect()
        self.heard = heard
        self._env = environment.current()
        self._began = self._env.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first question."""
        return self._env.monotonic() - self._began

    @property
    def over(self) -> bool:
        """Whether it is time to give up."""
        return self.seconds > WAIT_S_MAX or self.heard.refused

    def again(self) -> None:
        """Before another try."""
        self.client.poll(0.05)
        self.client = self._connect()


def prepare(
    connect: Callable[[], AdminClient], wanted: Wanted, heard: Complaints, *, create: bool = True
) -> tuple[str, ...]:
    """Make what is missing, check what is there; what people should know of it.

    Raises LogMissing (nothing is there, and it is not to be made), LogUnavailable, UsageError.
    """
    admin = _Admin(connect, heard)
    topics = [wanted.topic(place) for place in PLACES]
    found = _describe(admin, topics)
    missing = [topic for topic in topics if topic not in found]
    if missing == topics and not create:
        raise LogMissing("There is no log of this name", received=topics[0], todo="check ?log=NAME")
    if missing:
        _create(admin, missing, wanted)
        found = _until_there(admin, topics)
    problems: list[str] = []
    flushed = True
    configs = _configs(admin, topics)
    for topic in topics:
        partitions, copies = found[topic]
        problems += _problems(topic, partitions, copies, configs[topic], wanted)
        flushed = flushed and configs[topic].get("flush.messages") == "1"
    return (*problems, _kept(found[topics[0]][1], flushed))


def _describe(admin: _Admin, topics: list[str]) -> dict[str, tuple[int, int]]:
    """Of the topics that are there: how many partitions, and how many copies each has at least."""
    found: dict[str, tuple[int, int]] = {}
    waiting = topics
    while waiting:
        again = []
        for topic, future in admin.client.describe_topics(
            TopicCollection(waiting), request_timeout=STEP_S_MAX
        ).items():
            try:
                partitions = future.result(STEP_S_MAX * 2).partitions
            except (KafkaException, TimeoutError) as error:
                code = error.args[0].code() if isinstance(error, KafkaException) else KafkaError._TIMED_OUT
                if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                if admin.over:
                    raise LogUnavailable(
                        "Kafka cannot be reached",
                        received=f"{error} ({admin.heard})",
                        todo="check hosts, TLS and credentials of the log URL",
                    ) from error
                again.append(topic)
            else:
                if partitions and all(part.leader is not None for part in partitions):
                    found[topic] = (len(partitions), min(len(part.replicas) for part in partitions))
        waiting = again
        if waiting:
            admin.again()
    return found


def _create(admin: _Admin, topics: list[str], wanted: Wanted) -> None:
    """Make topics. A broker that dies meanwhile costs another round; what the cluster refuses is raised."""
    config = {**FIXED, "min.insync.replicas": str(wanted.in_sync)}
    while topics:
        new = [NewTopic(topic, num_partitions=1, replication_factor=wanted.copies, config=config) for topic in topics]
        topics = []
        for topic, future in admin.client.create_topics(
            new, operation_timeout=CREATE_S_MAX, request_timeout=CREATE_S_MAX
        ).items():
            try:
                future.result(CREATE_S_MAX * 2)
            except (KafkaException, TimeoutError) as error:
                found = error.args[0] if isinstance(error, KafkaException) else None
                code = found.code() if found is not None else KafkaError._TIMED_OUT
                if code == KafkaError.TOPIC_ALREADY_EXISTS:
                    continue  # somebody else opens the same log; or it has no leader just now
                if code == KafkaError.INVALID_REPLICATION_FACTOR and admin.seconds > TOO_SMALL_S:
                    raise UsageError(
                        "The Kafka cluster is too small for this log",
                        received=str(error),
                        expected=f"{wanted.copies} brokers",
                        todo="add brokers, or accept fewer copies with ?copies=N&unsafe=1",
                    ) from error
                if code in FINAL or admin.over:
                    raise LogUnavailable(
                        f"The topic {topic} cannot be made",
                        received=f"{error} ({admin.heard})",
                        todo="make it by hand, or grant CREATE",
                    ) from error
                topics.append(topic)
        if topics:
            admin.again()


def _until_there(admin: _Admin, topics: list[str]) -> dict[str, tuple[int, int]]:
    """Wait until every topic has a leader: those just made need a moment."""
    while True:
        found = _describe(admin, topics)
        if len(found) == len(topics):
            return found
        if admin.over:
            raise LogUnavailable(
                "Topics of the log have no leader",
                received=", ".join(topic for topic in topics if topic not in found),
                todo="look at the Kafka cluster",
            )
        admin.again()


def _configs(admin: _Admin, topics: list[str]) -> dict[str, dict[str, str]]:
    """The topics' settings as in force; empty for a topic whose settings this user may not read."""
    found: dict[str, dict[str, str]] = {}
    while True:
        asked = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics if topic not in found]
        for resource, future in admin.client.describe_configs(asked, request_timeout=CREATE_S_MAX).items():
            try:
                entries: Mapping[str, Any] = future.result(CREATE_S_MAX * 2)
                found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
            except (KafkaException, TimeoutError) as error:
                code = error.args[0].code() if isinstance(error, KafkaException) else KafkaError._TIMED_OUT
                if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
                    found[resource.name] = {}
                elif admin.over:
                    raise LogUnavailable(
                        f"The settings of the topic {resource.name} cannot be read",
                        received=f"{error} ({admin.heard})",
                    ) from error
        if len(found) == len(topics):
            return found
        admin.again()  # a topic that was just made is not known to every broker yet


def _problems(topic: str, partitions: int, copies: int, config: dict[str, str], wanted: Wanted) -> list[str]:
    """What speaks against trusting a topic; refused unless the URL says ``unsafe=1``."""
    if partitions != 1:
        raise UsageError(f"The topic {topic} has more than one partition", received=str(partitions), expected="1")
    if "compact" in config.get("cleanup.policy", "delete"):
        raise UsageError(
            f"The topic {topic} is compacted, which would drop records",
            received=config["cleanup.policy"],
            expected="cleanup.policy=delete",
        )
    found = []
    if copies < 3:
        found.append(f"{copies} copies (replication factor) instead of 3 or more")
    if not config:
        found.append("settings that cannot be read (DESCRIBE_CONFIGS is not granted)")
    else:
        for name, least in (("min.insync.replicas", 2), ("max.message.bytes", MESSAGE_BYTES_MIN)):
            value = config.get(name, "")
            if not value.isdigit() or int(value) < least:
                found.append(f"{name}={value or 'unknown'} instead of {least} or more")
        found += [
            f"{name}={config.get(name, 'unknown')} instead of {FIXED[name]}"
            for name in ("unclean.leader.election.enable", "retention.ms", "retention.bytes")
            if config.get(name) != FIXED[name]
        ]
    if found and not wanted.unsafe:
        raise UsageError(
            f"The topic {topic} can lose acknowledged records",
            received="; ".join(found),
            expected="3 copies, min.insync.replicas=2, no unclean election, no retention limit",
            todo="correct the topic's settings, or open it all the same with ?unsafe=1",
        )
    return [f"UNSAFE: the topic {topic} has {'; '.join(found)}."] if found else []


def _kept(copies: int, flushed: bool) -> str:
    how = "flushes each message to disk" if flushed else "does not flush messages to disk before it acknowledges them"
    return f"Each message is kept in {copies} copies; Kafka {how}."


__all__ = ["Wanted", "check_names", "prepare"]
