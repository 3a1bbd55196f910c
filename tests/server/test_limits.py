"""The limits of a server can be set, and are described where an operator looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logact.errors import UsageError
from logact.server.openapi import description
from logact.server.settings import MEANING, Limits, limits_of
from tests.cli_help import here
from tests.server.kit import Hand, ServerProcess

PAGE = Path(__file__).parent.parent.parent / "docs" / "server.md"


def test_every_limit_is_an_option_and_stands_in_the_docs() -> None:
    """No limit is out of an operator's reach; the page's defaults are the code's, and lie within the bounds."""
    defaults = Limits()
    assert list(MEANING) == list(Limits.__struct_fields__)
    page = PAGE.read_text()
    for name, (low, high, told) in MEANING.items():
        value = getattr(defaults, name)
        assert low <= value <= high
        assert limits_of([f"{name}={value:.10g}"]) == defaults
        assert f"| `{name}` | {value:.10g} | {told} |" in page


@pytest.mark.parametrize(
    "text", ["", "=1", "body", "bodies=3", "body_bytes_max=", "body_bytes_max=1e99", "body_bytes_max=70000.5",
             "requests_per_s=0", "requests_per_s=nan", "grace_s=-1", "ping_s=inf", "send_s_max=1;2"],
)  # fmt: skip
def test_limits_that_are_none(text: str) -> None:
    """A name that is none, and a value that would serve nobody, are refused with what would do."""
    with pytest.raises(UsageError) as refused:
        limits_of([text])
    assert refused.value.expected


def test_a_server_keeps_the_limits_that_it_was_given(tmp_path: Path) -> None:
    """What --limit sets holds: in what is refused, and in the server's own description."""
    server = ServerProcess(
        f"sqlite:///{tmp_path}/logs.db", "--limit", "blob_bytes_max=2000", "--limit", "streams_per_token_max=1"
    )
    try:
        hand = Hand(server, server.token())
        assert hand.client.put(hand.base + "/blobs/" + "a" * 43, content=b"x" * 2001).status_code == 413
        with hand.client.stream("GET", hand.base + "/follow") as first:
            assert first.status_code == 200
            assert hand.get("/follow").status_code == 429
        found = hand.client.get(server.address + "/openapi.json").json()
        assert found == json.loads(json.dumps(description(limits_of(["blob_bytes_max=2000"]))))
    finally:
        assert server.stop() == (0, "")


def test_health_without_the_engine(tmp_path: Path) -> None:
    """Where the engine is gone /healthz says so with 503, and not where it was: who asks is not known."""
    server = ServerProcess(f"sqlite:///{tmp_path}/logs.db")
    try:
        hand = Hand(server, server.token())
        assert hand.client.get(server.address + "/healthz").status_code == 200
        (tmp_path / "logs.db").rename(tmp_path / "away.db")
        answer = hand.client.get(server.address + "/healthz")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "log_unavailable"
        assert "logs.db" not in answer.text
        (tmp_path / "away.db").rename(tmp_path / "logs.db")
        assert hand.client.get(server.address + "/healthz").status_code == 200
    finally:
        assert server.stop() == (0, "")


def test_the_command_says_what_is_wrong() -> None:
    """A limit that is none ends the command with exit code 2 and the names of those that are there."""
    shown = here("serve", "--log", "ops.db", "--limit", "bodies=3")
    assert shown.returncode == 2
    assert "body_bytes_max" in shown.stderr
    assert here("serve", "--log", "ops.db", "--requests", "0").returncode == 2
