"""The topics of a log on Kafka: how they are called, made, and which of their settings an acknowledgement rests on.

A log is three topics of one partition each: ``PREFIX.NAME`` for what is arbitrated, ``PREFIX.NAME_.state`` for
snapshots, ``PREFIX.NAME_.blobs``. This file makes and judges topics; it sends and reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from logact.errors import LogUnavailable, UsageError
from logact.logs.partitions import Place

PLACES: tuple[Place, ...] = ("log", "state", "blobs")
TOPIC_NAME_MAX = 249
MESSAGE_BYTES_MIN = 1_000_000
WAIT_S_MAX = 30.0
STEP_S_MAX = 2.0

TOO_SMALL_S = 5.0
"""How long a cluster with too few brokers may take to become whole before it counts as too small."""

PASSING = {
    KafkaError.NOT_CONTROLLER,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.INVALID_REPLICATION_FACTOR,  # a broker of a small cluster is away
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._WAIT_CACHE,
}
"""What a cluster answers while a broker goes away or comes back: to be asked again."""

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


def prepare(admin: AdminClient, wanted: Wanted, heard: Complaints) -> tuple[str, ...]:
    """Make what is missing, check what is there; what people should know of it. Raises LogUnavailable, UsageError."""
    check_names(wanted)
    topics = [wanted.topic(place) for place in PLACES]
    found = _describe(admin, topics, heard)
    missing = [topic for topic in topics if topic not in found]
    if missing:
        _create(admin, missing, wanted, heard)
        found = _until_there(admin, topics, heard)
    problems: list[str] = []
    flushed = True
    configs = _configs(admin, topics, heard)
    for topic in topics:
        partitions, copies = found[topic]
        problems += _problems(topic, partitions, copies, configs[topic], wanted)
        flushed = flushed and configs[topic].get("flush.messages") == "1"
    return (*problems, _kept(found[topics[0]][1], flushed))


def _describe(admin: AdminClient, topics: list[str], heard: Complaints) -> dict[str, tuple[int, int]]:
    """Of the topics that are there: how many partitions, and how many copies each has at least."""
    env = environment.current()
    end = env.monotonic() + WAIT_S_MAX
    found: dict[str, tuple[int, int]] = {}
    waiting = topics
    while waiting:
        again = []
        for topic, future in admin.describe_topics(TopicCollection(waiting), request_timeout=STEP_S_MAX).items():
            try:
                partitions = future.result(STEP_S_MAX * 2).partitions
            except (KafkaException, TimeoutError) as error:
                code = error.args[0].code() if isinstance(error, KafkaException) else KafkaError._TIMED_OUT
                if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    continue
                if env.monotonic() > end or heard.refused:
                    raise LogUnavailable(
                        "Kafka cannot be reached",
                        received=f"{error} ({heard})",
                        todo="check hosts, TLS and credentials of the log URL",
                    ) from error
                again.append(topic)
            else:
                if partitions and all(part.leader is not None for part in partitions):
                    found[topic] = (len(partitions), min(len(part.replicas) for part in partitions))
        waiting = again
    return found


def _create(admin: AdminClient, topics: list[str], wanted: Wanted, heard: Complaints) -> None:
    """Make topics. A broker that dies meanwhile costs another round; what the cluster refuses is raised."""
    config = {**FIXED, "min.insync.replicas": str(wanted.in_sync)}
    env = environment.current()
    end = env.monotonic() + WAIT_S_MAX
    while topics:
        new = [NewTopic(topic, num_partitions=1, replication_factor=wanted.copies, config=config) for topic in topics]
        topics = []
        for topic, future in admin.create_topics(new, operation_timeout=WAIT_S_MAX).items():
            try:
                future.result(WAIT_S_MAX * 2)
            except (KafkaException, TimeoutError) as error:
                found = error.args[0] if isinstance(error, KafkaException) else None
                code = found.code() if found is not None else KafkaError._TIMED_OUT
                if code == KafkaError.TOPIC_ALREADY_EXISTS:
                    continue  # somebody else opens the same log; or it has no leader just now
                if code == KafkaError.INVALID_REPLICATION_FACTOR and env.monotonic() > end - WAIT_S_MAX + TOO_SMALL_S:
                    raise UsageError(
                        "The Kafka cluster is too small for this log",
                        received=str(error),
                        expected=f"{wanted.copies} brokers",
                        todo="add brokers, or accept fewer copies with ?copies=N&unsafe=1",
                    ) from error
                if code not in PASSING or env.monotonic() > end:
                    raise LogUnavailable(
                        f"The topic {topic} cannot be made",
                        received=f"{error} ({heard})",
                        todo="make it by hand, or grant CREATE",
                    ) from error
                topics.append(topic)
        if topics:
            admin.poll(0.1)


def _until_there(admin: AdminClient, topics: list[str], heard: Complaints) -> dict[str, tuple[int, int]]:
    """Wait until every topic has a leader: those just made need a moment."""
    env = environment.current()
    end = env.monotonic() + WAIT_S_MAX
    while True:
        found = _describe(admin, topics, heard)
        if len(found) == len(topics):
            return found
        if env.monotonic() > end:
            raise LogUnavailable(
                "Topics of the log have no leader",
                received=", ".join(topic for topic in topics if topic not in found),
                todo="look at the Kafka cluster",
            )
        admin.poll(0.05)


def _configs(admin: AdminClient, topics: list[str], heard: Complaints) -> dict[str, dict[str, str]]:
    """The topics' settings as in force; empty for a topic whose settings this user may not read."""
    env = environment.current()
    end = env.monotonic() + WAIT_S_MAX
    found: dict[str, dict[str, str]] = {}
    while True:
        asked = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics if topic not in found]
        for resource, future in admin.describe_configs(asked).items():
            try:
                entries: Mapping[str, Any] = future.result(WAIT_S_MAX)
                found[resource.name] = {name: str(entry.value) for name, entry in entries.items()}
            except (KafkaException, TimeoutError) as error:
                code = error.args[0].code() if isinstance(error, KafkaException) else KafkaError._TIMED_OUT
                if code in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED):
                    found[resource.name] = {}
                elif env.monotonic() > end:
                    raise LogUnavailable(
                        f"The settings of the topic {resource.name} cannot be read", received=f"{error} ({heard})"
                    ) from error
        if len(found) == len(topics):
            return found
        admin.poll(0.05)  # a topic that was just made is not known to every broker yet


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
