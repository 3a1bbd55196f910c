"""The ``kafka:`` engine: logs on Apache Kafka, replicated over several machines.

``kafka://[USER@]HOST[:PORT][,HOST…]/[PREFIX][?log=NAME&copies=3&timeout_s=10&reads=proved|watermark&unsafe=0|1
&sasl=SCRAM-SHA-512]`` and the options for credentials and TLS that all engines on the network share. A log is one
topic of one partition (and two beside it, for snapshots and blobs). Kafka has no conditional append: the entries
are arbitrated (``arbitration``). This file owns the URL and what the engine says of itself.
"""

from __future__ import annotations

from typing import Any

from logact.errors import UnknownLogUrl
from logact.logs import network_url
from logact.logs.arbitrated import ArbitratedEngine
from logact.logs.base import EngineInfo
from logact.logs.kafka_client import KafkaPartitions
from logact.logs.kafka_settings import Wanted, check_names
from logact.logs.network_url import NetworkUrl

PORT = 9092
PREFIX = "logact"
TIMEOUT_S = 10.0
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
OPTIONS = ("copies", "timeout_s", "reads", "unsafe", "sasl")


class KafkaEngine(ArbitratedEngine):
    """One log on a Kafka cluster."""

    def __init__(
        self,
        client: dict[str, Any],
        wanted: Wanted,
        *,
        url: str,
        timeout_s: float = TIMEOUT_S,
        proved_reads: bool = True,
    ) -> None:
        check_names(wanted)
        self.url = url
        self.wanted = wanted
        self.partitions: KafkaPartitions = KafkaPartitions(client, wanted, timeout_s=timeout_s)
        super().__init__(self.partitions, proved_reads=proved_reads)
        self._notes: tuple[str, ...] = ()

    def info(self) -> EngineInfo:
        lost = self.wanted.in_sync - 1
        survives = (
            f"the loss of {lost} of {self.wanted.copies} brokers; not a power cut of all of them at once, unless the"
            " topics flush each message"
        )
        reads = (
            "Reads are proved by a mark in the log."
            if self.proved_reads
            else "Reads trust the broker (?reads=watermark): one that lost its leadership and does not know it yet"
            " may show an old end of the log."
        )
        return EngineInfo(
            url=self.url,
            engine="kafka",
            survives="nothing for sure (?unsafe=1)" if self.wanted.unsafe else survives,
            wakes_by="a fetch that waits at the broker",
            notes=(f"topic {self.wanted.topic('log')}", *self.partitions.settings, reads, *self._notes),
        )


def engine_from_url(url: str) -> KafkaEngine:
    """The engine of a ``kafka://`` URL. Raises UnknownLogUrl, UsageError, LogUnavailable."""
    parsed = network_url.parse(url, engine="kafka", options=OPTIONS)
    copies = int(parsed.number("copies", 3, 1, 99))
    reads = parsed.options.get("reads", "proved")
    if reads not in ("proved", "watermark"):
        raise UnknownLogUrl("The option reads", received=reads, expected="proved or watermark")
    wanted = Wanted(prefix=parsed.path or PREFIX, name=parsed.log, copies=copies, unsafe=parsed.flag("unsafe"))
    engine = KafkaEngine(
        client_options(parsed),
        wanted,
        url=parsed.shown,
        timeout_s=parsed.number("timeout_s", TIMEOUT_S, 1, 600),
        proved_reads=reads == "proved",
    )
    engine._notes = (parsed.tls.said(), *parsed.notes)
    return engine


def client_options(parsed: NetworkUrl) -> dict[str, Any]:
    """Hosts, TLS and credentials as the Kafka client takes them."""
    hosts = ",".join(
        f"[{host}]:{port or PORT}" if ":" in host else f"{host}:{port or PORT}" for host, port in parsed.hosts
    )
    options: dict[str, Any] = {"bootstrap.servers": hosts}
    mechanism = parsed.options.get("sasl", "SCRAM-SHA-512").upper()
    if mechanism not in MECHANISMS:
        raise UnknownLogUrl("The option sasl", received=mechanism, expected=", ".join(MECHANISMS))
    secured = parsed.tls.mode != "off"
    known = bool(parsed.user)
    options["security.protocol"] = ("SASL_" if known else "") + ("SSL" if secured else "PLAINTEXT")
    if known:
        options |= {"sasl.mechanism": mechanism, "sasl.username": parsed.user, "sasl.password": parsed.password}
    if secured:
        if parsed.tls.ca:
            options["ssl.ca.location"] = parsed.tls.ca
        if parsed.tls.cert:
            options["ssl.certificate.location"] = parsed.tls.cert
            options["ssl.key.location"] = parsed.tls.key or parsed.tls.cert
        if parsed.tls.mode == "unverified":
            options["enable.ssl.certificate.verification"] = False
    return options


__all__ = ["KafkaEngine", "engine_from_url"]
