"""NATS with users, tokens and TLS: who may not come in hears why at once, and no secret is ever shown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.servers.nats import CONFIGURATION, NatsCluster

from logact.entry import Mail
from logact.errors import LogUnavailable
from logact.logs.url import open_log
from tests.engines.certificates import Certificates, make

PASSWORD = "hush-hush"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and a certificate for this machine."""
    return make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[NatsCluster]:
    """One server that wants TLS and a password, and lets its user do no more than the page of the docs says."""
    place = tmp_path_factory.mktemp("guarded") / "nats.conf"
    rights = CONFIGURATION.parents[2] / "docs" / "engines" / "nats.md"
    example = rights.read_text().partition("```conf\n")[2].partition("```")[0]
    assert "permissions" in example
    place.write_text(
        CONFIGURATION.read_text().partition("cluster {")[0]
        + example.replace("NAME", "guarded").replace("PASSWORD", PASSWORD)
        + f'\ntls {{ cert_file: "{certificates.cert}", key_file: "{certificates.key}" }}\n'
    )
    with NatsCluster(nodes=1, configuration=place) as server:
        yield server


async def once(url: str) -> int:
    async with asyncio.timeout(20), open_log(url) as log:
        text = f"{log.engine.info()}"
        assert PASSWORD not in text
        await log.append(Mail(to="*", sender="me", body="hello"), key="hello")
        await log.put_blob(b"blob")
        return len([entry async for entry in log.read()])


def test_a_user_with_the_rights_of_the_docs(
    guarded: NatsCluster, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password from a file or the environment and the authority's certificate open the log, with least rights."""
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    place = f"nats://agents@{guarded.servers}?log=guarded&ca={certificates.ca}"
    assert asyncio.run(once(f"{place}&password_file={secret}")) == 1
    monkeypatch.setenv("LOGACT_NATS_PASSWORD", PASSWORD)
    assert asyncio.run(once(place)) == 1


def test_who_may_not_come_in(guarded: NatsCluster, certificates: Certificates, tmp_path: Path) -> None:
    """A wrong password, no password, a strange authority, no encryption: refused at once, the secret not repeated."""
    stranger = make(tmp_path)
    place = f"{guarded.servers}?log=guarded"
    for url in (
        f"nats://agents:wrong-{PASSWORD}@{place}&ca={certificates.ca}",
        f"nats://{place}&ca={certificates.ca}",
        f"nats://agents:{PASSWORD}@{place}&ca={stranger.ca}",
        f"nats://wrong-{PASSWORD}@{place}&ca={certificates.ca}",
    ):
        with pytest.raises(LogUnavailable) as caught:
            asyncio.run(once(url))
        assert PASSWORD not in str(caught.value)
