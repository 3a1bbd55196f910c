"""The URL form of network engines: what it may say, where secrets come from, and that they are never shown."""

from __future__ import annotations

import copy
import pickle
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logact.errors import LogUnavailable, UnknownLogUrl, UsageError
from logact.logs.network_url import Secret, Tls, parse, redacted, scrub
from logact.logs.url import EXTRAS, engine_for

SECRET = "hunter2-hunter2"


def test_everything_in_a_url() -> None:
    """Hosts with ports, a path, the log's name, the user and an engine's own options are told apart."""
    url = parse(
        "postgresql://ann@a:1,b.example,[::1]:2/my%20db?log=team/ops&tls=off&speed=1",
        engine="test",
        options=["speed"],
    )
    assert url.hosts == (("a", 1), ("b.example", 0), ("::1", 2))
    assert (url.user, url.path, url.log, url.scheme) == ("ann", "my db", "team/ops", "postgresql")
    assert url.options == {"speed": "1"} and url.flag("speed") and not url.flag("other")
    assert url.tls == Tls("off") and url.password == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://", "names no host"),
        ("nats://a:x/", "not a URL"),
        ("nats://a:70000/", "not a URL"),
        ("nats://[::1/", "not a URL"),
        ("nats://a/?speed=fast", "unknown or given twice"),
        ("nats://a/?log=x&log=y", "unknown or given twice"),
        ("nats://a/?log=../x y", "not a name for a log"),
        ("nats://a/?tls=maybe", "option tls"),
        ("nats://a/#b", "%23"),
        ("nats://a/?password=" + SECRET, r"\?password_file="),
        ("nats://a/?password_file=/nowhere/at/all", "cannot be read"),
        ("nats://a/?ca=/nowhere/at/all", "not there"),
        (f"nats://a/?key={__file__}", "without its certificate"),
        (f"nats://a/?ca={__file__}&tls=off", "but tls=off"),
    ],
)
def test_what_is_wrong_is_said(url: str, says: str) -> None:
    """A URL that cannot be used is refused with its reason, and without its secrets."""
    with pytest.raises((UnknownLogUrl, UsageError, LogUnavailable), match=says) as caught:
        parse(url, engine="test")
    assert SECRET not in str(caught.value)


def test_where_secrets_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file named in the URL goes first, then the environment, then a file named there, then the URL itself."""
    named, other = tmp_path / "named", tmp_path / "other"
    named.write_text("from the url's file\n")
    other.write_text("from the environment's file")
    plain = "nats://ann:from%20the%20url@a/"
    assert parse(plain, engine="test").password == "from the url"
    monkeypatch.setenv("LOGACT_TEST_PASSWORD_FILE", str(other))
    assert parse(plain, engine="test").password == "from the environment's file"
    monkeypatch.setenv("LOGACT_TEST_PASSWORD", "from the environment")
    assert parse(plain, engine="test").password == "from the environment"
    assert parse(plain, engine="other").password == "from the url"
    assert parse(f"{plain}?password_file={named}", engine="test").password == "from the url's file"
    monkeypatch.setenv("LOGACT_TEST_USER", "bob")
    assert parse("nats://a/", engine="test").user == "bob"
    assert parse(plain, engine="test").user == "ann"
    monkeypatch.setenv("LOGACT_TEST_TOKEN", "t")
    assert parse("nats://a/", engine="test", secrets=("token",)).secret("token") == "t"


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    """A file that holds no secret is an error, and not an empty password."""
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(LogUnavailable, match="empty"):
        parse(f"nats://a/?password_file={tmp_path / 'empty'}", engine="test")


@pytest.mark.parametrize(
    ("place", "mode"),
    [
        ("nats://localhost/", "off"),
        ("nats://127.0.0.1:1,[::1]/", "off"),
        ("nats://%2Frun%2Fpostgres/", "off"),
        ("nats://db.example/", "verify"),
        ("nats://localhost,db.example/", "verify"),
        ("nats://db.example/?tls=off", "off"),
        ("nats://db.example/?tls=unverified", "unverified"),
        ("nats://localhost/?tls=verify", "verify"),
        (f"nats://localhost/?ca={__file__}", "verify"),
        ("logact+https://localhost/", "verify"),
    ],
)
def test_connections_are_encrypted_unless_said(place: str, mode: str) -> None:
    """Off this machine TLS with a checked certificate is the default; anything less is said in the URL."""
    assert parse(place, engine="test").tls.mode == mode


def test_a_broken_certificate_is_an_error() -> None:
    """A file that is no certificate is refused when the connection is set up."""
    with pytest.raises(LogUnavailable, match="certificates"):
        Tls("verify", ca=__file__).context()
    assert Tls("off").context() is None
    unverified = Tls("unverified").context()
    assert unverified is not None and not unverified.check_hostname


def test_a_secret_does_not_show() -> None:
    """Printing, formatting, comparing by text, copying or pickling a parsed URL gives nothing away."""
    url = parse(f"nats://ann:{SECRET}@a/", engine="test")
    assert url.password == SECRET
    assert SECRET not in f"{url!r} {url} {url.shown} {url.secrets} {url.notes}"
    assert any("itself holds a secret" in note for note in url.notes)
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(Secret(SECRET))
    assert url.scrub(f"cannot log in with {SECRET}") == "cannot log in with ***"
    assert scrub("a%2Fb a/b", Secret("a/b")) == "*** ***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:pw@db/x?log=y", "postgresql://ann:***@db/x?log=y"),
        ("postgresql://ann@db/x", "postgresql://ann@db/x"),
        ("postgresql://db:5/x?token=abc&ca=f", "postgresql://db:5/x?token=***&ca=f"),
        ("postgresql://db/x?password_file=/run/pw", "postgresql://db/x?password_file=/run/pw"),
        ("nats://s3cret@a/", "nats://***@a/"),
        ("kafka://a:1,b:2/t", "kafka://a:1,b:2/t"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("memory:x", "memory:x"),
        ("postgresql:/ann:pw@db/x", "postgresql:/ann:***@db/x"),  # was shown whole
        ("postgresql:ann:pw@db/x", "postgresql:ann:***@db/x"),
        ("a@b.db", "a@b.db"),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    """Only what is secret is taken out of a URL."""
    assert redacted(url) == shown


@given(st.text(string.ascii_letters + string.digits + string.punctuation, min_size=9, max_size=20))
def test_no_password_survives_redaction(password: str) -> None:
    """Whatever letters a password has, properly escaped or not, no three of them together are shown."""
    url = f"postgresql://ann:{password}@db/x?log=y"
    shown = redacted(url)
    rest = shown.replace("postgresql://ann:***@db/x?log=y", "").replace("postgresql://ann", "").replace("***", " ")
    assert not any(password[at : at + 3] in rest for at in range(len(password) - 2)), shown


@pytest.mark.parametrize("scheme", sorted(EXTRAS))
def test_a_missing_extra_says_what_to_install(scheme: str) -> None:
    """Without its package an engine answers with the exact command, and with no secret."""
    code = f"""
import sys
for name in ("psycopg", "psycopg_pool", "nats", "confluent_kafka", "httpx", "httpx2"):
    sys.modules[name] = None
from logact.errors import MissingExtra
from logact.logs.url import engine_for
try:
    engine_for("{scheme}://ann:{SECRET}@localhost")
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert f"Pip install 'logact[{EXTRAS[scheme][0]}]'" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_an_unknown_engine_shows_no_secret() -> None:
    """A mistyped scheme is an error that names the known ones and hides the password."""
    with pytest.raises(UnknownLogUrl, match="postgresql:") as caught:
        engine_for(f"postgers://ann:{SECRET}@db/x")
    assert SECRET not in str(caught.value)
