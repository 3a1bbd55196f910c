"""Partitions over Apache Kafka: the blocking client, its threads, and what its errors mean.

Two threads per open log hand over what the client has to say: one for acknowledgements, one for news. Each hands a
whole batch to the event loop at once. A third looks whether the client talks to a broker that is cut off. Random
reads use a consumer of their own, in worker threads. The client's own asyncio form is not used: it takes a worker
thread for every poll.

Definite or not: once a message was given to the client, only a broker's refusal is definite. A time limit, a lost
connection and a client that broke are indefinite: the message may be in the log, or come later. Arbitration makes
a late one harmless. This file knows nothing of records.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient

from logact import env as environment
from logact.errors import AppendUnknown, LogActError, LogReadOnly, LogUnavailable, ReadFailed, TooLarge
from logact.logs.kafka_leader import Watch, look_around
from logact.logs.kafka_options import CLIENT, CONSUMER, PRODUCER
from logact.logs.kafka_settings import FINAL, PLACES, Complaints, Wanted, prepare
from logact.logs.partitions import Messages, Place

POLL_S = 0.1
"""How long a thread waits in the client before it looks whether it should end. It is woken by what it waits for."""

BATCH_MAX = 512
READ_S_MAX = 30.0
STEP_S_MAX = 2.0

T = TypeVar("T")

_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE}
_FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
_GONE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}

Sent = tuple["asyncio.Future[int]", Callable[[int], None] | None, KafkaError | None, int]


class KafkaPartitions:
    """The three topics of one log, on one event loop at a time."""

    def __init__(self, client: dict[str, Any], wanted: Wanted, *, timeout_s: float) -> None:
        self._client = {**CLIENT, **client}
        self._wanted = wanted
        self._timeout_s = timeout_s
        self._settings: tuple[str, ...] = ()
        self.create = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._producer: Producer | None = None
        self._follower: Consumer | None = None
        self._reader: Consumer | None = None
        self._reader_at: tuple[str, int] = ("", -1)
        self._reading = threading.Lock()
        self._reader_way = ""  # where the successor of a misled reader begins
        self._watch = Watch()
        self._listening: tuple[Callable[[Messages], None], Callable[[str], None]] | None = None
        self._sent: deque[Sent] = deque()
        self._heard = Complaints()

    @property
    def settings(self) -> tuple[str, ...]:
        return self._settings

    # --- life ------------------------------

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = threading.Event()
        self._heard = Complaints()
        try:
            self._settings = await environment.current().in_thread(self._prepare)
            self._watch = Watch()
            self._start_producer()
            self._start(self._look_around, "leader")
        except KafkaException as error:
            raise LogUnavailable(
                "The Kafka client cannot be used", received=str(error), todo="check the options of the log URL"
            ) from error

    def _prepare(self) -> tuple[str, ...]:
        return prepare(self._admin, self._wanted, self._heard, create=self.create)

    def _admin(self) -> AdminClient:
        return AdminClient(self._with_ear(self._client))

    def _start_producer(self, way: str = "") -> None:
        settings = {**self._by(way), **PRODUCER, "message.timeout.ms": int(self._timeout_s * 1000)}
        producer = Producer(self._with_ear(settings))
        self._producer = producer
        self._heard.fatal = ""
        self._start(lambda: self._acknowledge(producer), "acknowledgements")

    def _by(self, way: str) -> dict[str, Any]:
        """The client's options, with these brokers to begin with."""
        return {**self._client, "bootstrap.servers": way} if way else self._client

    def _start(self, work: Callable[[], None], name: str) -> None:
        self._threads.append(environment.current().start_thread(work, f"logact kafka {name}"))

    async def close(self) -> None:
        self._ended.set()
        await environment.current().in_thread(self._close)
        self._loop = None

    def _close(self) -> None:
        if self._producer is not None:
            self._producer.purge()  # what was not acknowledged is unknown to its caller by now
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._producer = None
        for consumer in (self._follower, self._reader):
            if consumer is not None:
                consumer.close()
        self._follower = self._reader = None
        self._reader_way = ""

    def _with_ear(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "error_cb": self._heard.hear}

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        """Call something on the event loop, from a thread."""
        loop = self._loop
        try:
            if loop is not None:
                loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self._ended.set()  # the loop is closed: nobody is left to be told

    # --- sending ------------------------------

    def send(self, place: Place, value: bytes, sent: Callable[[int], None] | None = None) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def acknowledged(error: KafkaError | None, message: KafkaMessage) -> None:
            self._watch.settled()
            if error is None and place == "log":
                self._watch.acknowledged(message.offset() or 0)
            self._sent.append((future, sent, error, message.offset() or 0))

        try:
            if self._heard.fatal or self._producer is None:
                self._replace_producer()
            if self._producer is None:
                raise LogUnavailable("The log is not open", todo="open it first")
            self._watch.sent()
            self._producer.produce(self._wanted.topic(place), value, partition=0, on_delivery=acknowledged)
        except BufferError:
            self._watch.settled()
            future.set_exception(LogUnavailable("Too many messages wait to be sent", todo="try again later"))
        except KafkaException as error:
            self._watch.settled()
            future.set_exception(self._meaning(error.args[0]))
        except LogActError as error:
            future.set_exception(error)
        return future

    def _replace_producer(self, way: str = "") -> None:
        """A client that broke for good is replaced; what it had under way ends as unknown."""
        if self._ended.is_set() or self._producer is None:
            return
        self._producer.purge()
        self._start_producer(way)

    def _acknowledge(self, producer: Producer) -> None:
        """The thread that waits for acknowledgements."""
        while not (self._ended.is_set() or self._producer is not producer):
            producer.poll(POLL_S)
            if self._sent:
                self._call(self._settle)
        producer.poll(0)  # what was purged
        self._call(self._settle)

    def _settle(self) -> None:
        while self._sent:
            future, sent, error, offset = self._sent.popleft()
            if error is None and sent is not None:
                sent(offset)
            if future.done():
                continue
            if error is None:
                future.set_result(offset)
            else:
                future.set_exception(self._meaning(error))

    def _meaning(self, error: KafkaError) -> LogActError:
        """What it means for a message that the client gave it this error."""
        code = error.code()
        if code in _TOO_LARGE:
            return TooLarge("Kafka refused a message for its size", received=error.str())
        if code in _FORBIDDEN:
            return LogReadOnly(
                "Kafka does not allow this user to write to the log",
                received=error.str(),
                todo="grant WRITE on the log's topics, or read with ?reads=watermark",
            )
        if code == KafkaError._QUEUE_FULL:
            return LogUnavailable("Too many messages wait to be sent", received=error.str())
        return AppendUnknown("Kafka did not acknowledge a message", received=f"{error.str()} ({self._heard})")

    # --- following ------------------------------

    def follow(self, offset: int, news: Callable[[Messages], None], lost: Callable[[str], None]) -> None:
        self._watch.heard(offset - 1)
        self._listening = (news, lost)
        self._start_follower(offset)

    def _start_follower(self, offset: int, way: str = "") -> None:
        if self._listening is None:
            return
        news, lost = self._listening
        consumer = Consumer(self._with_ear({**self._by(way), **CONSUMER}))
        consumer.assign([TopicPartition(self._wanted.topic("log"), 0, offset)])
        self._follower = consumer
        self._start(lambda: self._listen(consumer, news, lost), "news")

    def _listen(self, consumer: Consumer, news: Callable[[Messages], None], lost: Callable[[str], None]) -> None:
        """The thread that waits for news."""
        while not self._ended.is_set():
            if self._follower is not consumer:
                consumer.close()
                return
            first = consumer.poll(POLL_S)
            if first is None:
                continue
            found: list[tuple[int, bytes]] = []
            for message in [first, *consumer.consume(BATCH_MAX, 0)]:
                error = message.error()
                if error is None:
                    found.append((message.offset() or 0, message.value() or b""))
                elif error.code() in _GONE:
                    self._call(lost, error.str())
                    return
                else:
                    self._heard.problem = error.str()  # the client goes on by itself
            if found:
                self._call(self._deliver, news, found)

    def _deliver(self, news: Callable[[Messages], None], found: list[tuple[int, bytes]]) -> None:
        """On the event loop, so that a new listener begins after what was delivered, and not after what will be."""
        news(found)
        self._watch.heard(found[-1][0])

    # --- looking around ------------------------------

    def _look_around(self) -> None:
        """The thread that asks the brokers who leads."""
        topics = [self._wanted.topic(place) for place in PLACES]

        def leave(names: set[str], way: str) -> None:
            self._call(self._leave, names, way)

        look_around(self._watch, self._client, topics, self._ended, leave)

    def _leave(self, names: set[str], way: str) -> None:
        """Leave a broker that does not lead any more, and does not know it."""
        if self._ended.is_set():
            return
        if "producer" in names:
            self._replace_producer(way)
        if "follower" in names:
            self._start_follower(self._watch.next, way)
        if "reader" in names:
            self._reader_way = way

    # --- reading ------------------------------

    async def fetch(self, place: Place, offset: int, upto: int) -> Messages:
        if offset >= upto:
            return []
        return await environment.current().in_thread(self._fetch, self._wanted.topic(place), offset, upto)

    def _fetch(self, topic: str, offset: int, upto: int) -> Messages:
        env = environment.current()
        with self._reading, self._watch.reading():
            found: list[tuple[int, bytes]] = []
            end = env.monotonic() + READ_S_MAX
            reader = self._reader_for(topic, offset)
            while offset < upto and not found:
                if self._reader_way:
                    reader = self._reader_for(topic, offset)
                for message in reader.consume(min(BATCH_MAX, upto - offset), POLL_S):
                    error = message.error()
                    if error is None:
                        offset = (message.offset() or 0) + 1
                        if offset <= upto:
                            found.append((offset - 1, message.value() or b""))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        if (message.offset() or 0) >= upto:
                            offset = upto
                    elif error.code() in _GONE:
                        self._reader_at = ("", -1)
                        raise ReadFailed("Messages are not there any more", received=error.str())
                if not found and offset < upto and (env.monotonic() > end or self._ended.is_set()):
                    self._reader_at = ("", -1)
                    raise ReadFailed("Kafka did not answer a read", received=str(self._heard), todo="try again")
            self._reader_at = (topic, offset)
            return found

    def _reader_for(self, topic: str, offset: int) -> Consumer:
        """The consumer for random reads, standing at this offset."""
        if self._ended.is_set():
            raise LogUnavailable("The log is not open", todo="open it first")
        way, self._reader_way = self._reader_way, ""
        if way:
            self._drop_reader()
        if self._reader is None:
            self._reader = Consumer(self._with_ear({**self._by(way), **CONSUMER, "enable.partition.eof": True}))
        if self._reader_at != (topic, offset):
            self._reader.assign([TopicPartition(topic, 0, offset)])
        return self._reader

    def _drop_reader(self) -> None:
        """The next read begins with a new consumer."""
        if self._reader is not None:
            self._reader.close()
        self._reader, self._reader_at = None, ("", -1)

    async def bounds(self, place: Place) -> tuple[int, int]:
        return await environment.current().in_thread(self._bounds, self._wanted.topic(place))

    def _bounds(self, topic: str) -> tuple[int, int]:
        asked = 0

        def ask() -> tuple[int, int]:
            nonlocal asked
            asked += 1
            with self._reading, self._watch.reading():
                if asked > 1:
                    self._drop_reader()  # it would ask the leader of before for ever
                reader = self._reader_for(*self._reader_at)
                found: tuple[int, int] = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=STEP_S_MAX)
                return found

        try:
            return self._patiently(ask)
        except KafkaException as error:
            raise ReadFailed("Kafka did not say where the log ends", received=str(error.args[0])) from error

    async def delete_before(self, place: Place, offset: int) -> None:
        await environment.current().in_thread(self._delete_before, self._wanted.topic(place), offset)

    def _delete_before(self, topic: str, offset: int) -> None:
        def delete() -> None:
            client = self._admin()  # a new one for each try: one client keeps asking the leader of before
            for future in client.delete_records(
                [TopicPartition(topic, 0, offset)], request_timeout=STEP_S_MAX * 2
            ).values():
                future.result(READ_S_MAX)

        try:
            self._patiently(delete)
        except (KafkaException, TimeoutError) as error:
            raise LogUnavailable("Kafka did not delete old messages", received=str(error)) from error

    def _patiently(self, call: Callable[[], T]) -> T:
        """Repeat a call while a partition moves from one leader to the next."""
        env = environment.current()
        end = env.monotonic() + READ_S_MAX
        while True:
            try:
                return call()
            except KafkaException as error:
                if error.args[0].code() in FINAL or env.monotonic() > end or self._ended.wait(0.05):
                    raise


__all__ = ["KafkaPartitions"]
