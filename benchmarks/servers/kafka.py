"""Apache Kafka: three brokers in KRaft mode, on the Java that is there; or an emulator where there is none.

The programs come from where Maven finds them, with its own settings, once, into a cache outside of the project. The
JVMs are small and share a class archive that the first cluster leaves behind, so that a cluster starts in seconds.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Self

from benchmarks.servers import Server, ServerFailed, close_all, free_ports, listens, maven, wait_until

VERSION = "4.1.1"
JAVA_LEAST = 17
EMULATOR = "noida-db"
LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "BROKERS": "PLAINTEXT",
    "CONTROLLER": "PLAINTEXT",
    "SECURE": "SASL_SSL",
    "FAR": "PLAINTEXT",
}
USER, PASSWORD = "agents", "pass/word=1&more"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
<packaging>pom</packaging><dependencies><dependency><groupId>org.apache.kafka</groupId>
<artifactId>kafka_2.13</artifactId><version>{version}</version></dependency></dependencies></project>
"""


def missing() -> str:
    """Why Apache Kafka cannot run here; empty if it can."""
    java = shutil.which("java")
    if java is None:
        return "there is no Java"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    major = said.partition('"')[2].partition(".")[0]
    if not major.isdigit() or int(major) < JAVA_LEAST:
        return f"Java {JAVA_LEAST} is needed, and this is {major or 'unknown'}"
    if not maven.PROGRAM and not _complete(cache()):
        return "there is no Maven"
    return ""


def cache() -> Path:
    """Where the programs are kept from run to run."""
    return maven.cache(f"kafka-{VERSION}")


def _complete(place: Path) -> bool:
    return (place / "libs" / f"kafka_2.13-{VERSION}.jar").exists()


def programs() -> Path:
    """The cache with Kafka's programs in it, fetched if they are not there yet."""
    place = cache()
    if not _complete(place):

        def fill(fresh: Path) -> None:
            (fresh / "pom.xml").write_text(_POM.format(version=VERSION))
            maven.run(fresh, "dependency:copy-dependencies", includeScope="runtime", outputDirectory=fresh / "libs")

        maven.make(place, fill)
    return place


def _id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class KafkaBroker(Server):
    """One broker, which is a controller too."""

    def __init__(self, cluster: KafkaCluster, node: int, ports: list[int]) -> None:
        super().__init__(f"kafka-{node}")
        self._user = None  # the programs may lie where only this user can read
        self.cluster = cluster
        self.node = node
        self.port, self.controller_port, self.secure_port, self.far_port, self.brokers_port = ports
        self.proxy_port = 0  # where clients of ``far_port`` are told to connect; 0: there is no such listener
        self.ways: dict[int, str] = {}  # the address at which it finds each other node; empty: all are at 127.0.0.1
        self.archive = programs() / "classes.jsa"
        self.leaves_archive = node == 1 and not self.archive.exists()

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    @property
    def name(self) -> str:
        """What nodes call it among themselves. Where they have ways of their own, each looks it up for itself."""
        return f"kafka-{self.node}" if self.ways else "127.0.0.1"

    def format(self) -> None:
        """Write the configuration and an empty, formatted data directory."""
        data = self.directory / "data"
        data.mkdir()
        meta = {"version": "1", "cluster.id": self.cluster.id, "node.id": str(self.node), "directory.id": _id()}
        (data / "meta.properties").write_text("".join(f"{name}={value}\n" for name, value in meta.items()))
        settings = {
            "process.roles": "broker,controller",
            "node.id": str(self.node),
            "controller.quorum.voters": ",".join(
                f"{one.node}@{one.name}:{one.controller_port}" for one in self.cluster.brokers
            ),
            **self._listeners(),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "BROKERS" if self.ways else "PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": str(self.cluster.size),
            "num.network.threads": "1",
            "num.io.threads": "2",
            "background.threads": "1",
            "log.cleaner.enable": "false",
            **self._secured(),
            **self.cluster.settings,
        }
        ways = {"localhost": "127.0.0.1", **{f"kafka-{node}": address for node, address in self.ways.items()}}
        self.write("hosts", "".join(f"{address} {name}\n" for name, address in ways.items()))
        self.write("server.properties", "".join(f"{name}={value}\n" for name, value in settings.items()))

    def _listeners(self) -> dict[str, str]:
        """Where it listens, and where clients are told that it does."""
        plain, secure = f"PLAINTEXT://{self.address}", f"SECURE://127.0.0.1:{self.secure_port}"
        here, told = [plain], [plain]
        if self.cluster.key_and_certificate:
            here.append(secure)
            told.append(secure)
        if self.proxy_port:
            here.append(f"FAR://127.0.0.1:{self.far_port}")
            told.append(f"FAR://127.0.0.1:{self.proxy_port}")
        if self.ways:
            here.append(f"BROKERS://127.0.0.1:{self.brokers_port}")
            told.append(f"BROKERS://{self.name}:{self.brokers_port}")
            told.append(f"CONTROLLER://{self.name}:{self.controller_port}")
        here.append(f"CONTROLLER://127.0.0.1:{self.controller_port}")
        return {
            "listeners": ",".join(here),
            "advertised.listeners": ",".join(told),
            "listener.security.protocol.map": ",".join(f"{name}:{how}" for name, how in LISTENERS.items()),
        }

    def _secured(self) -> dict[str, str]:
        """TLS and a user for the secure listener, if the cluster has a certificate."""
        if not self.cluster.key_and_certificate:
            return {}
        store = self.write("server.pem", self.cluster.key_and_certificate)
        own = "listener.name.secure"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        return {
            f"{own}.ssl.keystore.type": "PEM",
            f"{own}.ssl.keystore.location": str(store),
            f"{own}.sasl.enabled.mechanisms": "PLAIN",
            f"{own}.plain.sasl.jaas.config": f'{module} required user_{USER}="{PASSWORD}";',
        }

    def command(self) -> list[str]:
        java = ["java", "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
        if self.ways:
            java.append(f"-Djdk.net.hosts.file={self.directory / 'hosts'}")
        if self.leaves_archive:
            java.append(f"-XX:ArchiveClassesAtExit={self.directory / 'classes.jsa'}")
        elif self.archive.exists():
            java += ["-Xlog:cds=off", "-Xlog:cds+dynamic=off", f"-XX:SharedArchiveFile={self.archive}"]
        return [*java, "-cp", f"{programs() / 'libs'}/*", "kafka.Kafka", str(self.directory / "server.properties")]

    def ready(self) -> bool:
        return listens(self.port)

    def start_without_waiting(self) -> None:
        """Start the process only: the first broker of a cluster serves once there are others."""
        if not (self.directory / "data").exists():
            self.format()
        self.starts += 1
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def close(self) -> None:
        fresh = self.directory / "classes.jsa"
        if self.leaves_archive and self.process is not None and self.starts == 1:
            self.resume()
            self.stop(signal.SIGTERM, 30.0)
            if fresh.exists() and not self.archive.exists():
                shutil.copy(fresh, f"{self.archive}.{os.getpid()}")
                Path(f"{self.archive}.{os.getpid()}").rename(self.archive)
        self.kill()
        super().close()


QUICK = {
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
    "controller.quorum.fetch.timeout.ms": "1500",
    "controller.quorum.election.timeout.ms": "500",
}
"""Broken brokers are noticed after 2 s instead of 9 s, so that tests do not wait."""


class KafkaCluster:
    """Brokers with one another. ``settings`` are lines of every broker's configuration.

    With a private key and a certificate (PEM) they also listen where clients need TLS, ``USER`` and ``PASSWORD``.
    """

    def __init__(
        self, size: int = 3, settings: dict[str, str] | None = None, *, key_and_certificate: str = ""
    ) -> None:
        self.size = size
        self.key_and_certificate = key_and_certificate
        self.settings = QUICK if settings is None else settings
        self.id = _id()
        ports = free_ports(5 * size)
        self.brokers = [KafkaBroker(self, node + 1, ports[node::size]) for node in range(size)]

    @property
    def bootstrap(self) -> str:
        """All brokers' addresses."""
        return ",".join(broker.address for broker in self.brokers)

    def url(self, log: str, options: str = "", *, hosts: str = "") -> str:
        """The URL of a log on this cluster."""
        return f"kafka://{hosts or self.bootstrap}/test?log={log}{options}"

    @property
    def far_hosts(self) -> str:
        """All brokers' addresses behind their proxies."""
        return ",".join(f"127.0.0.1:{broker.proxy_port}" for broker in self.brokers)

    @property
    def secure_hosts(self) -> str:
        """All brokers' addresses where TLS and a user are needed."""
        return ",".join(f"127.0.0.1:{broker.secure_port}" for broker in self.brokers)

    def start(self) -> Self:
        """Start all brokers, and wait until each knows of all."""
        try:
            for broker in self.brokers:
                broker.start_without_waiting()
            wait_until(self.complete, "the Kafka cluster is complete", 120.0)
        except BaseException:
            self.close()
            raise
        return self

    def complete(self) -> bool:
        """Whether every broker serves and is known to the others."""
        for broker in self.brokers:
            if broker.process is None or broker.process.poll() is not None:
                raise ServerFailed(f"broker {broker.node} ended: {broker.said()}")
        from confluent_kafka import KafkaException

        if not all(broker.ready() for broker in self.brokers):
            return False
        try:
            return len(self._admin().list_topics(timeout=2.0).brokers) == self.size
        except KafkaException:
            return False

    def _admin(self) -> Any:
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def leader(self, topic: str) -> KafkaBroker:
        """The broker that leads a topic's partition."""
        partition = self._admin().list_topics(topic, timeout=10.0).topics[topic].partitions[0]
        return self.brokers[int(partition.leader) - 1]

    def in_sync(self, topic: str) -> int:
        """How many copies of a topic's partition are in sync."""
        return len(self._admin().list_topics(topic, timeout=10.0).topics[topic].partitions[0].isrs)

    def restart(self, broker: KafkaBroker) -> None:
        """Start a broker that was killed, and wait until it is back."""
        broker.start_without_waiting()
        wait_until(self.complete, f"broker {broker.node} is back", 120.0)

    def close(self) -> None:
        """End all brokers."""
        close_all(self.brokers)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


class Emulator(Server):
    """An emulator of the protocol from a wheel: one node, and no promise that anything survives."""

    def __init__(self) -> None:
        super().__init__("kafka-emulator")
        self._user = None
        self.port = free_ports(1)[0]

    def command(self) -> list[str]:
        program = Path(sys.executable).with_name(EMULATOR)
        port = ["--kafka-port", str(self.port)]
        return [str(program), "start", "--only", "kafka", *port, "--data-dir", str(self.directory / "data")]

    def ready(self) -> bool:
        return listens(self.port)

    def close(self) -> None:
        self.kill()  # its launcher would leave the emulator itself behind
        super().close()

    def url(self, log: str, options: str = "") -> str:
        """The URL of a log on the emulator, which is opened as what it is: unsafe."""
        return f"kafka://127.0.0.1:{self.port}/test?log={log}&copies=1&unsafe=1{options}"
