"""http_get against real local servers: what is allowed, what is refused, and where it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from logact.errors import UsageError
from logact.tools import ImageResult, ToolContext, ToolError
from logact.tools.web import Web


class Handler(BaseHTTPRequestHandler):
    hits: list[str] = []  # noqa: RUF012 - shared on purpose: what reached the server

    def do_GET(self) -> None:
        type(self).hits.append(self.path)
        if self.path.startswith("/redirect?"):
            self.answer(302, b"", {"Location": self.path.partition("?")[2]})
        elif self.path == "/loop":
            self.answer(302, b"", {"Location": "/loop"})
        elif self.path.startswith("/status/"):
            self.answer(int(self.path[8:]), b"why", {"Retry-After": "7"})
        elif self.path == "/big":
            self.answer(200, b"x" * 3_000_000, {"Content-Type": "text/plain"})
        elif self.path == "/latin":
            self.answer(200, "café".encode("latin-1"), {"Content-Type": 'text/plain; charset="ISO-8859-1"'})
        elif self.path == "/image":
            self.answer(200, b"\x89PNG\0", {"Content-Type": "image/png"})
        elif self.path == "/binary":
            self.answer(200, b"\0\1\2", {"Content-Type": "application/octet-stream"})
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(200):
                    self.wfile.write(b".")
                    time.sleep(0.05)
            except OSError:
                pass
        else:
            self.answer(200, f"page {self.path}".encode(), {"Content-Type": "text/html; charset=utf-8"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            pass  # the client has enough

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.hits = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def get(web: Web, url: str) -> Any:
    (target,) = web.tools
    return asyncio.run(target.call({"url": url}, ToolContext()))


def local(**options: Any) -> Web:
    return Web(["127.0.0.1:*"], allow_private=True, **options)


def refusal(web: Web, url: str) -> ToolError:
    with pytest.raises(ToolError) as caught:
        get(web, url)
    assert caught.value.definite
    return caught.value


def test_pages(server: str) -> None:
    """Text is decoded as it says, images are images, binary data is named and left out, long pages are cut."""
    page = get(local(), server + "/a b".replace(" ", "%20") + "?q=ü#fragment")
    assert page["text"] == "page /a%20b?q=%C3%BC"
    assert page["status"] == 200
    assert get(local(), server + "/latin")["text"] == "café"
    assert get(local(), server + "/image") == ImageResult(b"\x89PNG\0", "image/png", server + "/image")
    assert "3 bytes" in get(local(), server + "/binary")["note"]
    big = get(local(bytes_max=1000), server + "/big")
    assert (len(big["text"]), big["truncated"]) == (1000, True)
    (target,) = local().tools
    assert (target.effect, target.untrusted, target.destinations) == ("read", True, ("url",))


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "permanent"), (403, "permanent"), (429, "transient"), (503, "transient")]
)
def test_error_statuses(server: str, status: int, kind: str) -> None:
    """An error status is an error of the right class, with the delay that the server asked for."""
    error = refusal(local(), f"{server}/status/{status}")
    assert (error.kind, error.retry_after_s) == (kind, 7.0)
    assert f"answered {status}: why" in str(error)


def test_redirects_are_checked_again(server: str) -> None:
    """A redirect is followed inside of the allowed hosts, refused outside of them, and a loop ends."""
    assert get(local(), server + "/redirect?/next")["text"] == "page /next"
    port = server.rpartition(":")[2]
    for elsewhere in (f"http://localhost:{port}/stolen", "file:///etc/passwd", "ftp://127.0.0.1/", "http://[::1]/"):
        refusal(local(), f"{server}/redirect?{elsewhere}")
    assert "/stolen" not in Handler.hits
    assert "redirects more than" in str(refusal(local(), server + "/loop"))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "example.com",
        "",
        "http://",
        "http:///path",
        "http://user:secret@example.com/",
        "http://example.com:99999/",
        "http://example.com/\r\nX: y",
        "http://exam ple.com/",
        "http://[::1",
        "https://not-allowed.org/",
        "https://example.com.evil.org/",
        "https://example.com:8443/",
        "http://" + "a" * 5000,
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    """Other schemes, credentials, control characters, hosts and ports that nobody allowed: nothing is sent."""
    refusal(Web(["example.com", "*.example.com"]), url)


def test_hosts_patterns() -> None:
    """A pattern without a port means the usual ports only; letter case and a final dot do not matter."""
    web = Web(["*.Python.org", "localhost:8080", "any:*", "[::1]:*"])

    def allowed(url: str) -> bool:
        try:
            web._checked(url)
        except ToolError:
            return False
        return True

    assert allowed("https://docs.python.org/x")
    assert allowed("http://DOCS.python.org.:80/x")
    assert allowed("http://localhost:8080")
    assert allowed("http://any:1234")
    assert allowed("http://[::1]:99")
    assert not allowed("https://python.org/")
    assert not allowed("https://docs.python.org:8443/")
    assert not allowed("http://localhost/")
    with pytest.raises(UsageError):
        Web("example.com")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fd00::1",
    ],
)
def test_private_addresses_are_refused_whatever_the_name(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public name that resolves to a private address is not connected to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", (address, 80))])
    assert "not a public address" in str(refusal(Web(["*"]), "http://innocent.example.com/"))


def test_numeric_spellings_of_loopback(server: str) -> None:
    """Loopback spelled as a number is loopback."""
    port = server.rpartition(":")[2]
    for host in ("2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost"):
        refusal(Web(["*:*"]), f"http://{host}:{port}/")
    assert Handler.hits == []


def test_total_time_is_limited(server: str) -> None:
    """A server that sends a byte now and then does not hold the call beyond its total time."""
    error = refusal(local(timeout_s=0.4), server + "/drip")
    assert error.kind == "timeout"


def test_unreachable() -> None:
    """A closed port is transient, and certainly nothing happened."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert refusal(local(), f"http://127.0.0.1:{port}/").kind == "transient"
