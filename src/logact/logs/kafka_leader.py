"""Who leads a log's partition, by the word of all brokers that hold it.

A broker that is cut off from the others goes on as if it led: it takes messages that it never acknowledges, and tells
whoever asks it that nothing is new. The Kafka client asks the broker that it used last who leads, which is that one,
and so stays with it for as long as the cut lasts. So this file asks each of them, wherever something is waited for
in vain, or nothing happened for a while; and where one says that it leads, and most say that another does, the client
is to be replaced by one that begins with the others. Nothing is believed because of it: what a log holds is proved by
its own messages. This file knows when to ask and whom; it replaces nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from logact import env as environment

STALL_S = 3.0
"""How long something is waited for before other brokers are asked, and until they are asked again."""

QUIET_S = 10.0
"""The same where nothing is waited for: whoever only listens cannot know whether there is nothing to be heard."""

ASK_S_MAX = 1.0
"""How long one broker has for its answer."""


LOOK_S = 0.5
"""How often it is looked whether it is time to ask."""

ROUNDS = 2
"""How often all are asked: a client may pass the question on to another broker than the one it was made for."""


class Watch:
    """What a log's clients wait for. Its methods are called from several threads, each field is written by one."""

    def __init__(self) -> None:
        self._env = environment.current()
        self._sent = self._settled = 0
        self._acknowledged = self._heard = -1
        self._reading_since: float | None = None
        self._settled_at = self._heard_at = self._asked_at = self._env.monotonic()

    def sent(self) -> None:
        """A message was given to the client."""
        if self._sent == self._settled:
            self._settled_at = self._env.monotonic()  # nothing was under way: its time begins now
        self._sent += 1

    def settled(self) -> None:
        """Something became of a message."""
        self._settled += 1
        self._settled_at = self._env.monotonic()

    def acknowledged(self, offset: int) -> None:
        """A message of the log has its place: the listener has to come to it."""
        self._acknowledged = max(self._acknowledged, offset)

    def heard(self, offset: int) -> None:
        """The listener came so far."""
        self._heard = offset
        self._heard_at = self._env.monotonic()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A read is under way inside of this block; one at a time."""
        self._reading_since = self._env.monotonic()
        try:
            yield
        finally:
            self._reading_since = None

    def due(self) -> set[str]:
        """Which clients should be looked at now: they wait in vain, or nobody waits and it is quiet."""
        now = self._env.monotonic()
        since = {
            "producer": self._settled_at if self._sent > self._settled else now,
            "follower": max(self._heard_at, self._settled_at) if self._acknowledged > self._heard else now,
            "reader": now if self._reading_since is None else self._reading_since,
        }
        if now - self._asked_at <= STALL_S:
            return set()
        waiting = {name for name, begin in since.items() if now - begin > STALL_S}
        quiet = now - max(self._asked_at, self._heard_at) > QUIET_S
        return waiting | {"follower"} if waiting or quiet else set()

    @property
    def next(self) -> int:
        """Where the listener goes on."""
        return self._heard + 1

    def asked(self) -> None:
        """Other brokers were asked."""
        self._asked_at = self._env.monotonic()


class Brokers:
    """The brokers that hold a log, as far as they were heard of."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._client = client
        self._addresses: dict[int, str] = {}

    def cut_off(self, topic: str) -> int:
        """The broker of which some say that it leads a topic, while more name another one; -1: they agree.

        A wrong answer costs a client that begins anew, and what waits in vain is looked at again.
        """
        said = Counter(
            self.look(topic, address) for _ in range(ROUNDS) for address in tuple(self._addresses.values())
        )
        said.pop(-1, None)
        first, *others = said.most_common(2) or [(-1, 0)]
        return others[0][0] if others and others[0][1] < first[1] else -1

    def look(self, topic: str, address: str = "") -> int:
        """Who leads a topic by the word of a broker (without an address: of any); -1 if it does not say."""
        admin = AdminClient({**self._client, "bootstrap.servers": address} if address else dict(self._client))
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_S_MAX)[topic]
        try:
            partition = asked.result(2 * ASK_S_MAX).partitions[0]
        except (KafkaException, TimeoutError, IndexError):
            return -1
        for node in partition.replicas:
            if node.host:
                host = f"[{node.host}]" if ":" in node.host else node.host
                self._addresses[node.id] = f"{host}:{node.port}"
        return int(partition.leader.id) if partition.leader is not None else -1

    def around(self, node: int) -> str:
        """The addresses of all brokers but one."""
        return ",".join(address for one, address in self._addresses.items() if one != node)


def look_around(
    watch: Watch,
    client: Mapping[str, Any],
    topics: Sequence[str],
    ended: threading.Event,
    leave: Callable[[set[str], str], None],
) -> None:
    """Until ``ended``: have clients leave a broker that does not lead any more, and does not know it.

    The first topic is the log's. ``leave`` takes the clients' names, and the brokers with which to begin anew.
    """
    brokers = Brokers(client)
    brokers.look(topics[0])  # who holds it now: one that is cut off is perhaps not described any more
    while not ended.wait(LOOK_S):
        names = watch.due()
        if not names:
            continue
        asked = topics[:1] if names == {"follower"} else topics
        deposed = {brokers.cut_off(topic) for topic in asked if not ended.is_set()} - {-1}
        watch.asked()
        if deposed:
            leave(names, brokers.around(min(deposed)))


__all__ = ["Watch", "look_around"]
