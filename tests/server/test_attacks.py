"""What a hostile or broken client does to a server: refused, written down, and the server goes on unharmed."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from logact import codec, open_log
from logact.entry import Mail, Notice
from logact.errors import LogUnavailable, NotPermitted, ReadFailed, TokenRefused, TooManyRequests, UsageError
from logact.logs import wire
from logact.logs.remote import engine_from_url
from logact.server import hub
from logact.server.limits import Limits
from logact.server.names import OWN
from tests.cli_help import inside
from tests.server.kit import Hand, ServerProcess, by, engine, record, token_file
from tests.server.small import LIMITS

SMALL = (sys.executable, "-m", "tests.server.small")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small limits. At the end it is still there, said nothing, and ends well."""
    home = tmp_path_factory.mktemp("attacked")
    process = ServerProcess(f"sqlite:///{home}/logs.db", program=SMALL)
    yield process
    assert Hand(process, process.token("last", ["reader"])).get("/tail").status_code == 200
    assert process.stop() == (0, "")


def settled(look: Callable[[], Any], tries: int = 200) -> Any:
    """What ``look`` gives once it gives something."""
    for _ in range(tries):
        found = look()
        if found:
            return found
        time.sleep(0.02)
    return look()


def own_notices(server: ServerProcess) -> list[dict[str, Any]]:
    """What the server wrote into its own log about attempts that were aimed at no log of its clients."""
    shown = inside("log", "show", f"{server.engine_url}?log={OWN}", "--kind", "notice", "--json")
    return [json.loads(line) for line in shown.output.splitlines()]


def test_a_replayed_request_writes_nothing(server: ServerProcess) -> None:
    """A captured request sent again is answered as before; under another token, or out of order, it is refused."""
    hand = Hand(server, server.token("ann", ["client"]), "replay")
    mail = by("client", "ann", Mail(to="bob", sender="ann", body="pay once"))
    body = record(hand.log_id, hand.writer, mail)
    first = hand.append(body)[0]
    again = hand.append(body)[0]
    assert (first["fresh"], again.get("fresh", False)) == (True, False)
    assert again["record"] == first["record"]
    thief = Hand(server, server.token("eve", ["client"]), "replay")
    assert thief.append(body)[0]["error"]["code"] == "not_permitted"
    second = record(hand.log_id, hand.writer, mail, number=2, previous=codec.read_head(body)[1])
    assert hand.append(second)[0]["fresh"] is True
    assert hand.append(body)[0]["error"]["code"] == "chain_conflict"
    entries = [one for one in hand.get("/entries").json()["entries"] if one["kind"] == "Mail"]
    assert len(entries) == 2
    assert {one["data"]["code"] for one in hand.notices()} == {"not_permitted", "chain_conflict"}


def test_a_record_of_another_log_is_refused(server: ServerProcess) -> None:
    """A record captured in one log cannot be said again in another."""
    token = server.token("ann", ["client"])
    one, two = Hand(server, token, "here"), Hand(server, token, "there")
    body = record(one.log_id, "x", by("client", "ann", Notice(code="note", message="hello")))
    assert two.append(body)[0]["error"]["code"] == "usage"
    assert two.get("/tail").json() == {"record": 0}


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", "..%2f..%2fetc%2fpasswd", "a%2fb", "a/../b", "%00", "a%00b", "a..b", ".hidden", "a%5cb", "-",
     "a?log=b", "x" * 101, "caf%C3%A9", "a%20b", "a;b", "a%27--", "CON:", "%252e%252e", "a%0d%0ab"],
)  # fmt: skip
def test_path_tricks_in_log_names(server: ServerProcess, name: str) -> None:
    """No name leads out of the logs that are served: whatever is not a plain word is refused, and nothing is made."""
    hand = Hand(server, server.token("root", ["operator"], relay=True))
    raw = f"GET /v1/logs/{name}/tail HTTP/1.1\r\nHost: x\r\n{_bearer(hand)}Connection: close\r\n\r\n"
    status, answer = _ask_raw(server, raw.encode())
    assert status in (400, 404), answer
    file = Path(server.engine_url.removeprefix("sqlite:///"))
    assert {path.name.partition(".")[0] for path in file.parent.iterdir()} == {"logs"}


def test_path_tricks_are_noted(server: ServerProcess) -> None:
    """Names that no log can have, and paths that climb, stand in the server's own log as refused attempts."""
    hand = Hand(server, server.token("eve", ["reader"]))
    for path, said in (("/v1/logs/a%26b/tail", "No log is served"), ("/v1/logs/../../secret", "There is nothing")):
        raw = f"GET {path} HTTP/1.1\r\nHost: x\r\n{_bearer(hand)}Connection: close\r\n\r\n"

        def noted(raw: str = raw, said: str = said) -> bool:
            assert _ask_raw(server, raw.encode())[0] in (400, 404)
            return any(said in one["payload"]["message"] for one in own_notices(server))

        assert settled(noted), path


def test_names_are_not_option_injections(server: ServerProcess) -> None:
    """A name cannot add options to the engine's URL."""
    hand = Hand(server, server.token("root", ["operator"], relay=True))
    for name in ("a&unsafe_network=1", "a%26log%3Db", "a%23b"):
        raw = f"GET /v1/logs/{name}/tail HTTP/1.1\r\nHost: x\r\n{_bearer(hand)}Connection: close\r\n\r\n"
        assert _ask_raw(server, raw.encode())[0] == 400


def test_oversized_bodies(server: ServerProcess) -> None:
    """A body, a record or a blob over the limit is refused, announced or not; and it is noted."""
    hand = Hand(server, server.token("ann", ["client"]), "oversized")
    big = b"x" * (LIMITS.body_bytes_max + 1)
    json_type = {"content-type": "application/json"}
    told = hand.client.post(hand.base + "/append", content=big, headers=json_type)
    assert (told.status_code, told.json()["error"]["code"]) == (413, "too_large")
    untold = hand.client.post(hand.base + "/append", content=iter([big[:100_000]] * 5), headers=json_type)
    assert untold.status_code == 413
    line = f"PUT /v1/logs/oversized/blobs/{'a' * 43} HTTP/1.1\r\nHost: x\r\n"
    announced = f"{line}{_bearer(hand)}Content-Length: 99999999999\r\n\r\n"
    assert _ask_raw(server, announced.encode())[0] == 413
    assert "too_large" in {one["data"]["code"] for one in settled(hand.notices)}
    assert hand.get("/tail").status_code == 200


def test_bodies_and_heads_that_never_come(server: ServerProcess) -> None:
    """A connection that sends nothing, a half head or a half body is ended by the server, and holds nobody up."""
    hand = Hand(server, server.token("ann", ["client"]), "slow-body")
    head = f"POST /v1/logs/slow-body/append HTTP/1.1\r\nHost: x\r\n{_bearer(hand)}Content-Type: application/json\r\n"
    for sent in (
        b"",
        b"GET /healthz HT",
        (head + "X-Half: ").encode(),
        (head + "Content-Length: 50\r\n\r\n{").encode(),
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(sent)
            assert hand.get("/tail").status_code == 200
            got = _until_closed(connection)
        assert got == b"" or b" 408 " in got.splitlines()[0], got


def test_a_slow_reader_is_cut_off_and_others_are_not(server: ServerProcess) -> None:
    """A follower that doesn't read is cut off; the server keeps one page for it, and others see everything."""
    token = server.token("ann", ["client"])
    hand = Hand(server, token, "slow-reader")
    message = "x" * 240_000
    for _ in range(50):  # more than the buffers of two sockets hold
        assert hand.say(by("client", "ann", Notice(code="note", message=message)))["fresh"] is True
    before = _metric(server, "logact_slow_clients_cut_total")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(f"GET /v1/logs/slow-reader/follow HTTP/1.1\r\nHost: x\r\n{_bearer(hand)}\r\n".encode())
        assert settled(lambda: _metric(server, "logact_slow_clients_cut_total") > before)
        assert hand.get("/tail").json()["record"] >= 50
    seen = 0
    with hand.client.stream("GET", hand.base + "/follow?live=false") as response:
        for line in response.iter_lines():
            seen += line.startswith("data: ") and message in line
    assert seen == 50
    assert "cut off" in str([one["message"] for one in settled(hand.notices)])


def test_following_goes_on_where_it_was_cut(server: ServerProcess) -> None:
    """Last-Event-ID is the position: a follower that comes back gets what it missed, once, inside a record too."""
    hand = Hand(server, server.token("ann", ["client"]), "resumed")
    for number in range(3):
        hand.say(*(by("client", "ann", Notice(code="note", message=f"{number}.{place}")) for place in range(3)))

    def read(last: str = "", form: str = "entries") -> list[tuple[int, str]]:
        headers = {"last-event-id": last} if last else {}
        found, position = [], 0
        with hand.client.stream("GET", f"{hand.base}/follow?live=false&form={form}", headers=headers) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                position = int(line[4:]) if line.startswith("id: ") else position
                if line.startswith("data: "):
                    found.append((position, line))
        return found

    everything = read()
    assert [position for position, _ in everything] == [1000, 1001, 1002, 2000, 2001, 2002, 3000, 3001, 3002]
    for place, (position, _) in enumerate(everything):
        assert read(str(position)) == everything[place + 1 :]
    assert [position for position, _ in read(form="records")] == [1000, 2000, 3000]
    assert [position for position, _ in read("1000", "records")] == [2000, 3000]
    assert hand.client.get(hand.base + "/follow", headers={"last-event-id": "x"}).status_code == 400


def test_silence_has_pings(server: ServerProcess) -> None:
    """A stream without news says now and then that it is alive, and wakes up at once for news."""
    hand = Hand(server, server.token("ann", ["client"]), "pings")
    with hand.client.stream("GET", hand.base + "/follow") as response:
        lines = response.iter_lines()
        assert settled(lambda: next(lines) == ": ping")
        Hand(server, server.token("bob", ["client"]), "pings").say(
            by("client", "bob", Notice(code="n", message="hi"))
        )
        assert settled(lambda: "hi" in next(lines))


def test_too_many_streams_and_requests(server: ServerProcess) -> None:
    """A token has so many streams and so many requests a second; others are not touched."""
    hand = Hand(server, server.token("greedy", ["client"]), "greedy")
    streams = [hand.client.stream("GET", hand.base + "/follow") for _ in range(LIMITS.streams_per_token_max)]
    for stream in streams:
        assert stream.__enter__().status_code == 200
    answer = hand.get("/follow")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
    for stream in streams:
        stream.__exit__(None, None, None)
    flood = server.token("flood", ["reader"])
    statuses = {0}
    with httpx2.Client(headers={"authorization": f"Bearer {flood}"}, trust_env=False, verify=False) as client:
        url = f"{server.address}/v1/logs/greedy/tail"
        for _ in range(2000):
            answer = client.get(url)
            statuses.add(answer.status_code)
            if answer.status_code == 429:
                break
    assert statuses == {0, 200, 429}
    assert int(answer.headers["retry-after"]) >= 1
    assert hand.get("/tail").status_code == 200


def test_guessing_tokens_is_slowed_down_and_noted(server: ServerProcess) -> None:
    """Whoever tries tokens is told to slow down; the server's own log says so at a limited rate."""
    statuses = [Hand(server, f"logact_{'0' * 16}_{'A' * 43}").get("/tail").status_code for _ in range(40)]
    assert set(statuses) == {401, 429}
    refused = [one for one in own_notices(server) if "refused" in json.dumps(one)]
    assert 0 < len(refused) < 100
    assert not any("AAAA" in json.dumps(one) for one in refused)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"drafts":[]}', b'{"drafts":[{"body":"!"}]}', b'{"drafts":[{"body":"e30=","x":1}]}',
     b"[" * 100_000, b'{"drafts":[{"body":"e30="}],"drafts":3}', b"\xff\xfe",
     b'{"drafts":' + b'[{"body":"e30="},' * 300 + b"0]}"],
    ids=range(11),
)  # fmt: skip
def test_nonsense_is_refused(server: ServerProcess, body: bytes) -> None:
    """A body that is no request is a 400 with an error that says so."""
    hand = Hand(server, server.token("ann", ["client"]), "nonsense")
    answer = hand.client.post(hand.base + "/append", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["definite"] is True
    plain = hand.client.post(hand.base + "/append", content=body, headers={"content-type": "text/plain"})
    assert plain.status_code == 400


@pytest.mark.parametrize(
    "change", ["hash", "payload", "number", "deep", "kind", "fields", "empty", "version", "huge"]
)
def test_records_that_are_none_are_refused(server: ServerProcess, change: str) -> None:
    """A record whose bytes do not hold together, or that no encoder of ours makes, is refused by itself."""
    hand = Hand(server, server.token("ann", ["client"]), "broken")
    good = record(hand.log_id, f"{hand.writer}{change}", by("client", "ann", Notice(code="note", message="hello")))
    changed = {
        "hash": good.replace(b'"hash":"', b'"hash":"A', 1),
        "payload": good.replace(b"hello", b"hallo"),
        "number": good.replace(b'"number":1', b'"number":9'),
        "deep": good[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "kind": _rehashed(good, kind="Wizardry"),
        "fields": b"{}",
        "empty": b"",
        "version": _rehashed(good, version=7),
        "huge": _rehashed(good, writer="w" * 300),
    }[change]
    outcome = hand.append(changed)[0]
    assert outcome["error"]["code"] in ("usage", "not_permitted"), outcome
    assert hand.append(good)[0].get("fresh", False) is True


def test_one_bad_record_fails_alone(server: ServerProcess) -> None:
    """Of records that come in one request each is judged by itself."""
    hand = Hand(server, server.token("ann", ["client"]), "alone")
    good = [
        record(hand.log_id, f"{hand.writer}{number}", by("client", "ann", Notice(code="note", message=str(number))))
        for number in range(3)
    ]
    outcomes = hand.append(good[0], b"nonsense", good[1], good[0].replace(b'"0"', b'"1"'), good[2])
    assert ["error" in outcome for outcome in outcomes] == [False, True, False, True, False]
    assert hand.get("/tail").json()["record"] == 3


def test_errors_keep_their_meaning_over_the_wire(server: ServerProcess, tmp_path: Path) -> None:
    """The client raises what the server raised; what did not reach a server is definite, a lost answer is not."""
    import asyncio

    reader = token_file(tmp_path, server.token("ann", ["reader"], logs=["mine"]))
    server.make("mine")

    async def play() -> None:
        mine = engine(server, reader, "mine")
        await mine.open()
        with pytest.raises(NotPermitted) as refused:
            await mine.put_blob(codec.digest(b"x"), b"x")
        assert refused.value.definite
        await mine.close()
        with pytest.raises(NotPermitted):
            await engine(server, reader, "other").open()
        with pytest.raises(TokenRefused) as unknown:
            await engine(server, token_file(tmp_path, "logact_0_0", "bad"), "mine").open()
        assert "logact_0_0" not in str(unknown.value)
        with pytest.raises(UsageError):
            await engine(server, reader, "a..b").open()

    asyncio.run(play())


@pytest.mark.parametrize("error", [LogUnavailable, TooManyRequests, NotPermitted, TokenRefused, UsageError])
def test_an_error_comes_back_as_it_was(error: type[Exception]) -> None:
    """Code, definiteness and texts survive the wire."""
    made = error("What", received="this", expected="that", todo="do it")  # type: ignore[call-arg]
    back = wire.raised(wire.told(made))  # type: ignore[arg-type]
    assert type(back) is error
    assert str(back) == str(made)


def test_the_token_is_never_shown(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither info nor errors nor the log's URL hold the token, wherever it came from."""
    import asyncio

    text = server.token("ann", ["reader"])
    server.make("shown")
    monkeypatch.setenv("LOGACT_TOKEN", text)

    async def play() -> None:
        log = open_log(server.url("shown"))
        async with log:
            assert text not in log.url + repr(log.engine.info()) + repr(log.engine) + str(vars(log.engine))
        gone = engine_from_url(f"logact+http://127.0.0.1:{_closed_port()}/?log=shown&timeout_s=0.2")
        monkeypatch.setattr("logact.logs.remote.OPEN_S", 0.2)
        with pytest.raises(LogUnavailable) as caught:
            await gone.open()
        assert text not in str(caught.value)

    asyncio.run(play())
    monkeypatch.delenv("LOGACT_TOKEN")
    with pytest.raises(TokenRefused):
        asyncio.run(engine_from_url(server.url("shown")).open())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("logact+http://log.example.org/?log=a", "clear text"),
        ("logact+https://log.example.org/?log=a&tls=off", "without TLS"),
        ("logact+https://log.example.org/path?log=a", "has no path"),
        ("logact+https://log.example.org/?log=a&token=secretsecret", "token_file"),
        ("logact+https://log.example.org/?log=../x", "No log is served under this name"),  # was asked of the server
    ],
)
def test_urls_that_would_give_the_token_away(url: str, said: str) -> None:
    """Clear text to another machine, and a token in the URL, are refused."""
    with pytest.raises(UsageError, match=said) as caught:
        engine_from_url(url)
    assert "secretsecret" not in str(caught.value)


def test_health_metrics_and_description(server: ServerProcess) -> None:
    """What monitors ask for needs no token; the metrics are well formed and name no token and no log."""
    with httpx2.Client(base_url=server.address, trust_env=False, verify=False) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        description = client.get("/openapi.json").json()
        assert description["openapi"] == "3.1.0"
        metrics = client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    sample = re.compile(r'^[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+$')
    for line in metrics.text.splitlines():
        assert line.startswith("# ") or sample.match(line), line
    assert not re.search(r"oversized|replay|ann|greedy", metrics.text)
    assert 'logact_append_seconds_bucket{le="+Inf"}' in metrics.text


def test_a_server_that_is_asked_to_end_lets_requests_finish(tmp_path: Path) -> None:
    """SIGTERM: waits and streams are told, the process ends with 0 and no word on its error output."""
    import threading

    server = ServerProcess(f"sqlite:///{tmp_path}/logs.db")
    hand = Hand(server, server.token("ann", ["client"]))
    hand.say(by("client", "ann", Notice(code="note", message="hello")))
    ends: list[str] = []
    waits: list[int] = []
    begun = threading.Event()

    def follow() -> None:
        with hand.client.stream("GET", hand.base + "/follow") as response:
            for line in response.iter_lines():
                ends.append(line)
                begun.set()

    def wait() -> None:
        waits.append(hand.get("/wait?after=1&timeout_s=50").status_code)

    threads = [threading.Thread(target=follow), threading.Thread(target=wait)]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    assert settled(lambda: _metric(server, "logact_streams_open") == 2)
    server.process.terminate()
    for thread in threads:
        thread.join(15)
    assert server.stop() == (0, "")
    assert any("shuts down" in line for line in ends)
    assert waits == [200]


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate the server speaks TLS, and a client that does not trust it sends it nothing."""
    import asyncio

    monkeypatch.setattr("logact.logs.remote.OPEN_S", 0.0)
    cert, key = _certificate(tmp_path)
    server = ServerProcess(f"sqlite:///{tmp_path}/logs.db", "--cert", str(cert), "--key", str(key))
    token = token_file(tmp_path, server.token("ann", ["client"], logs=["main"]))

    async def play() -> None:
        async with open_log(server.url("main", token_file=token, ca=cert)) as log:
            assert (await log.append(Notice(code="note", message="hello"))).fresh
        with pytest.raises(LogUnavailable, match=r"certificate is not trusted.*\?ca="):
            await engine_from_url(server.url("main", token_file=token)).open()
        plain = server.url("main", token_file=token).replace("https", "http")
        with pytest.raises(ReadFailed, match="https://"):
            await engine_from_url(plain).open()

    try:
        assert server.address.startswith("https://")
        asyncio.run(play())
        with (
            pytest.raises(ssl.SSLCertVerificationError),
            socket.create_connection(("127.0.0.1", server.port)) as plain,
        ):
            ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")
    finally:
        code, said = server.stop()
    assert (code, said) == (0, "")


def test_serving_in_the_open_needs_a_certificate(tmp_path: Path) -> None:
    """Tokens do not travel between machines in clear text by mistake."""
    refused = inside("serve", "--log", f"sqlite:///{tmp_path}/logs.db", "--host", "0.0.0.0", "--port", "0")
    assert isinstance(refused.exception, UsageError)
    # a name that only looks like an address of this machine (was served without a certificate)
    looks = inside("serve", "--log", f"sqlite:///{tmp_path}/logs.db", "--host", "127.example.org", "--port", "0")
    assert isinstance(looks.exception, UsageError)
    assert "clear text" in str(looks.exception)
    broken = inside(
        "serve", "--log", f"sqlite:///{tmp_path}/logs.db", "--cert", str(tmp_path / "none.pem"), "--port", "0"
    )
    assert isinstance(broken.exception, UsageError)


def test_a_token_that_would_last_or_reach_too_far(tmp_path: Path) -> None:
    """A span of nothing (was a token for ever), and a scope that is empty (was the whole log), are refused."""
    for more in (["--expires", "0h"], ["--expires", "99999999999999999999w"], ["--agent", ""], ["--on", ""]):
        made = inside(
            "token", "create", "--log", f"sqlite:///{tmp_path}/logs.db", "--name", "a", "--role", "client", *more
        )
        assert isinstance(made.exception, UsageError), more
    assert not list(tmp_path.iterdir())


def test_what_was_left_out_does_not_grow_with_the_logs(tmp_path: Path) -> None:
    """Of the refusals that are only counted nothing is kept for logs that are closed (was kept for ever)."""

    async def play() -> None:
        logs = hub.Hub(f"sqlite:///{tmp_path}/logs.db", Limits(notices_per_s=0.01, logs_open_max=2))
        for name in ("one", "two", "three", "four"):
            async with logs.use(name, create=True):
                for _ in range(3):
                    await logs.note(name, None, NotPermitted("no"), "here")
        assert set(logs.left_out) == {"three", "four"} == set(logs.logs)
        await logs.close()

    asyncio.run(play())


# --- helpers -----------------------------------------------------------------------------------------------------


def _bearer(hand: Hand) -> str:
    return f"Authorization: {hand.client.headers['authorization']}\r\n"


def _ask_raw(server: ServerProcess, request: bytes) -> tuple[int, bytes]:
    """Send bytes, and the status of what comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            chunk = connection.recv(65536)
            if not chunk:
                break
            answer += chunk
    return int(answer.split(b" ", 2)[1]), answer


def _until_closed(connection: socket.socket) -> bytes:
    got = b""
    try:
        while chunk := connection.recv(65536):
            got += chunk
            if b"\r\n\r\n" in got:
                break
    except ConnectionResetError:
        pass
    return got


def _metric(server: ServerProcess, name: str) -> float:
    with httpx2.Client(trust_env=False, verify=False) as client:
        lines = client.get(f"{server.address}/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _rehashed(body: bytes, **changes: Any) -> bytes:
    """The same record with another head, its hash put right."""
    whole = json.loads(body)
    for name, value in changes.items():
        (whole["head"] if name == "writer" else whole["head"]["entries"][0])[name] = value
    head = json.dumps(whole["head"], separators=(",", ":")).encode()
    payloads = json.dumps(whole["payloads"], separators=(",", ":")).encode()
    return b'{"hash":"' + codec.digest(head).encode() + b'","head":' + head + b',"payloads":' + payloads + b"}"


def _certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "logact test")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
