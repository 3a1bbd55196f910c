"""The Kafka that these tests run on: three real brokers, or the emulator where Java or Maven is missing."""

from __future__ import annotations

import datetime
import ipaddress

from benchmarks.servers.kafka import Emulator, KafkaCluster, missing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KafkaLike = KafkaCluster | Emulator


def start_kafka() -> KafkaLike:
    """Start what this machine can run."""
    return Emulator().start() if missing() else KafkaCluster(key_and_certificate=key_and_certificate()).start()


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
