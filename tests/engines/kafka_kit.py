"""The Kafka that these tests run on: three real brokers, or the emulator where Java or Maven is missing."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable

from benchmarks.servers.kafka import Emulator, KafkaBroker, KafkaCluster, missing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.engines.proxy import Proxy

KafkaLike = KafkaCluster | Emulator


def start_kafka() -> KafkaLike:
    """Start what this machine can run. A real cluster listens in clear, with TLS, and behind a network."""
    if missing():
        return Emulator().start()
    cluster = KafkaCluster(key_and_certificate=key_and_certificate())
    network = Network([broker.far_port for broker in cluster.brokers])
    networks[cluster.id] = network
    for broker, port in zip(cluster.brokers, network.ports, strict=True):
        broker.proxy_port = port
    try:
        return cluster.start()
    except BaseException:
        network.close()
        raise


class Network:
    """A bad network between clients and all brokers of a cluster: one proxy for each, used as one ``Proxy``."""

    def __init__(self, targets: list[int]) -> None:
        self._proxies = [Proxy(target) for target in targets]
        self.ports = [proxy.port for proxy in self._proxies]

    @property
    def delay_s(self) -> float:
        return self._proxies[0].delay_s

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        for proxy in self._proxies:
            proxy.delay_s = seconds

    @property
    def resets(self) -> int:
        return sum(proxy.resets for proxy in self._proxies)

    @property
    def answers_lost(self) -> int:
        return sum(proxy.answers_lost for proxy in self._proxies)

    @property
    def answers_held(self) -> int:
        return sum(proxy.answers_held for proxy in self._proxies)

    def stall(self) -> None:
        self._all(Proxy.stall)

    def deafen(self) -> None:
        self._all(Proxy.deafen)

    def resume(self) -> None:
        self._all(Proxy.resume)

    def reset(self) -> None:
        self._all(Proxy.reset)

    def cut(self) -> None:
        self._all(Proxy.cut)

    def restore(self) -> None:
        self._all(Proxy.restore)

    def lose_answers(self, count: int) -> None:
        self._all(lambda proxy: proxy.lose_answers(count))

    def close(self) -> None:
        self._all(Proxy.close)

    def _all(self, what: Callable[[Proxy], None]) -> None:
        for proxy in self._proxies:
            what(proxy)


networks: dict[str, Network] = {}
"""The network of each cluster, by the cluster's id."""


def key_and_certificate() -> str:
    """A private key and a certificate of its own for 127.0.0.1, valid for a day, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()


def report() -> str:
    """What the test report says about it."""
    why = missing()
    if why:
        return f"kafka: {why}, so an emulator stands in: semantics only, nothing about crashes or lost brokers"
    return ""


class TornCluster(KafkaCluster):
    """Brokers that find each other through proxies only: ``isolate`` cuts one off from the others, ``heal`` mends it.

    Each looks the others up in a table of its own, where they have addresses (all of this machine) at which proxies
    listen, so that there is one for each pair and direction, of brokers and of controllers. Clients reach all brokers
    all the time, but for those who come to ``far_hosts``: they reach the one that is cut off, and no other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ways: dict[tuple[int, int], list[Proxy]] = {}
        self.far: dict[int, Proxy] = {}
        for one in self.brokers:
            self.far[one.node] = Proxy(one.far_port)
            one.proxy_port = self.far[one.node].port
            for other in self.brokers:
                address = "127.0.0.1" if one is other else f"127.0.{one.node}.{other.node + 1}"
                one.ways[other.node] = address
                if one is not other:
                    ports = (other.brokers_port, other.controller_port)
                    self.ways[one.node, other.node] = [Proxy(port, (address, port)) for port in ports]

    def isolate(self, broker: KafkaBroker, *, silently: bool) -> None:
        """Cut a broker off: its connections break at once, or (silently) nothing arrives on them any more."""
        for node, proxy in self.far.items():
            if node != broker.node:
                proxy.cut()
        for pair, proxies in self.ways.items():
            if broker.node in pair:
                for proxy in proxies:
                    if silently:
                        proxy.stall()
                    else:
                        proxy.cut()

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        for proxy in self._proxies():
            proxy.restore()

    def close(self) -> None:
        super().close()
        for proxy in self._proxies():
            proxy.close()

    def _proxies(self) -> list[Proxy]:
        return [*self.far.values(), *(proxy for proxies in self.ways.values() for proxy in proxies)]
