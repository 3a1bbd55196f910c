"""A real HTTP server on the loopback that speaks OpenAI's chat completions and Anthropic's messages.

Each request is answered by the next :class:`Say` of the script (the last one again when the script is used up), or by
what a function there makes of the request's body.
The server keeps every request as it came, so that tests can look at the exact bytes on the wire::

    with FakeProvider([Say(status=500), Say(text="hello")]) as provider:
        model = ProviderModel("m", base_url=provider.openai_url)
        ...
        provider.received[0].body["messages"]
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import logact.models.wire  # noqa: F401 - seconds on a busy machine: not within the time that a test may take


@dataclass(frozen=True)
class Ask:
    """One tool call. ``arguments`` goes out as given: a text may be anything, also broken JSON."""

    tool: Any
    arguments: Any = None
    id: Any = ""


@dataclass(frozen=True)
class Say:
    """How the server answers one request.

    ``body`` replaces the whole body; ``cut`` closes the connection after that many bytes of it; ``stall`` sends
    nothing until the server closes; ``trickle`` sends headers and then a blank now and then, for ever;
    ``echo_images`` answers with the images that came, one line each. ``stop`` is in the protocol's own words.
    """

    text: str | None = None
    calls: Sequence[Ask] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    cut: int | None = None
    stall: bool = False
    trickle: bool = False
    echo_images: bool = False
    stop: str | None = None
    usage: tuple[int, int, int] = (10, 5, 0)  # input including cached, output, cached


@dataclass(frozen=True)
class Received:
    """One request as it came. Names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    raw: bytes
    body: Any


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the play."""


class FakeProvider:
    """The server. ``openai_url`` and ``anthropic_url`` are base URLs; ``received`` holds the requests in order."""

    def __init__(self, script: Sequence[Say | Callable[[Any], Say]] = (Say(text="ok"),)) -> None:
        self.script = list(script)
        self.received: list[Received] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                fake._answer(self)

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        return self.url

    def __enter__(self) -> FakeProvider:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        raw = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            item = self.script[min(len(self.received), len(self.script) - 1)]
            request = json.loads(raw)
            say = item if isinstance(item, Say) else item(request)
            self.received.append(Received(handler.path, headers, raw, request))
        anthropic = handler.path.split("?")[0].endswith("/messages")
        if not anthropic and not handler.path.endswith("/chat/completions"):
            say = Say(status=404, body=b'{"error": {"message": "no such address"}}')
        if say.stall:
            self._closing.wait()
            handler.close_connection = True
            return
        body = say.body
        if body is None and say.status >= 400:
            body = _dump({"type": "error", "error": {"type": "fake_error", "message": f"fake status {say.status}"}})
        elif body is None:
            body = _dump(_anthropic(say, request) if anthropic else _openai(say, request))
        try:
            handler.send_response(say.status)
            handler.send_header("content-type", say.content_type)
            handler.send_header("content-length", str(len(body)))
            for name, value in say.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            if say.trickle:
                while not self._closing.wait(0.02):
                    handler.wfile.write(b" ")
            handler.wfile.write(body[: say.cut] if say.cut is not None else body)
            if say.cut is not None:
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            handler.close_connection = True  # the client gave up first, as it may


def _dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def _said(say: Say, request: Any) -> str | None:
    if not say.echo_images:
        return say.text
    return "\n".join(_images(request["messages"]))


def _images(value: Any) -> list[str]:
    """Every image in a request as ``media type,base64``, in order, in either protocol's form."""
    if isinstance(value, list):
        return [found for each in value for found in _images(each)]
    if not isinstance(value, dict):
        return []
    if value.get("type") == "image_url":
        return [str(value["image_url"]["url"]).removeprefix("data:").replace(";base64", "")]
    if value.get("type") == "image":
        return [f"{value['source']['media_type']},{value['source']['data']}"]
    return [found for each in value.values() for found in _images(each)]


def _openai(say: Say, request: Any) -> dict[str, Any]:
    calls = [
        {
            "id": ask.id if ask.id != "" else f"call_{index}",
            "type": "function",
            "function": {
                "name": ask.tool,
                "arguments": ask.arguments if isinstance(ask.arguments, str) else json.dumps(ask.arguments or {}),
            },
        }
        for index, ask in enumerate(say.calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": _said(say, request)}
    if calls:
        message["tool_calls"] = calls
    given, made, cached = say.usage
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": f"{request['model']}-2026",
        "choices": [
            {"index": 0, "finish_reason": say.stop or ("tool_calls" if calls else "stop"), "message": message}
        ],
        "usage": {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _anthropic(say: Say, request: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    said = _said(say, request)
    if said is not None:
        content.append({"type": "text", "text": said})
    content += [
        {
            "type": "tool_use",
            "id": ask.id if ask.id != "" else f"toolu_{index}",
            "name": ask.tool,
            "input": {} if ask.arguments is None else ask.arguments,
        }
        for index, ask in enumerate(say.calls)
    ]
    given, made, cached = say.usage
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": f"{request['model']}-2026",
        "content": content,
        "stop_reason": say.stop or ("tool_use" if say.calls else "end_turn"),
        "stop_sequence": None,
        "usage": {
            "input_tokens": given - cached,
            "output_tokens": made,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 0,
        },
    }
