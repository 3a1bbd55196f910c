"""A model on the loopback that speaks OpenAI's chat completions, counts tokens, and caches prompts as providers do.

It sees requests and nothing else: not who asks, nor whether introspection is on. It does what a careful model would:
read the file, look up what it does not know, change what is deprecated, check, answer. What it finds in front of it
(in the system prompt, in a result) it does not look up again. Tokens are those of the exact bodies, by the ``o200k``
vocabulary. A prefix of at least 1024 tokens that was sent before counts as cached, in steps of 128.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.swarm.tree import GUIDE

CACHE_FROM = 1024
CACHE_STEP = 128
CACHED_SHARE = 0.1
"""What a cached token costs of a fresh one."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it reads its own vocabularies in an old way
    import bpe_openai  # type: ignore[import-untyped]

    _ENCODING = bpe_openai.get_encoding("o200k_base")
_CALL = re.compile(r"compat\.(\w+)\(")
_RULE = re.compile(r"(\w+_compat) -> (\w+_strict)")


@lru_cache(maxsize=4096)
def tokens_of(text: str) -> tuple[int, ...]:
    """The tokens of a text."""
    return tuple(_ENCODING.encode_ordinary(text))


class Provider:
    """The server. ``counted`` are sums over all requests: input, cached, output, requests."""

    def __init__(self) -> None:
        self.counted = {"input": 0, "cached": 0, "output": 0, "requests": 0}
        self._prefixes: set[int] = set()
        self._lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = json.dumps(provider.answer(json.loads(body))).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def billed(self) -> int:
        """Fresh input, a tenth of the cached input, and output: in tokens."""
        counted = self.counted
        fresh = counted["input"] - counted["cached"]
        return round(fresh + CACHED_SHARE * counted["cached"] + counted["output"])

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One chat completion."""
        message = decide(request["messages"])
        with self._lock:
            given, cached = self._count(request)
            made = len(tokens_of(json.dumps(message)))
            for name, count in (("input", given), ("cached", cached), ("output", made), ("requests", 1)):
                self.counted[name] += count
        usage = {
            "prompt_tokens": given,
            "completion_tokens": made,
            "total_tokens": given + made,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": usage,
        }

    def _count(self, request: dict[str, Any]) -> tuple[int, int]:
        """The tokens of a request as it was sent, and how many of them are cached."""
        parts = [json.dumps(request.get("tools", []))] + [json.dumps(one) for one in request["messages"]]
        tokens = [token for part in parts for token in tokens_of(part)]
        cached, rolling = 0, 0
        for end in range(CACHE_STEP, len(tokens) + 1, CACHE_STEP):
            rolling = hash((rolling, tuple(tokens[end - CACHE_STEP : end])))
            if end >= CACHE_FROM and rolling in self._prefixes and cached in (0, end - CACHE_STEP):
                cached = end
            self._prefixes.add(rolling)
        return len(tokens), cached


def decide(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a careful model says next; a function of the conversation alone."""
    task = next(str(one["content"]) for one in messages if one["role"] == "user")
    path = re.findall(r"mailkit/\w+\.py", task)[0]
    results: dict[str, str] = {}
    asked: dict[str, tuple[str, dict[str, Any]]] = {}
    for one in messages:
        for call in one.get("tool_calls") or ():
            asked[call["id"]] = (call["function"]["name"], json.loads(call["function"]["arguments"]))
        if one["role"] == "tool" and one["tool_call_id"] in asked:
            tool, arguments = asked[one["tool_call_id"]]
            results[f"{tool} {arguments.get('path', '')}"] = str(one["content"])
    source = results.get(f"read_file {path}")
    if source is None:
        return _calls([("read_file", {"path": path})], len(asked))
    rules = dict(_RULE.findall("\n".join(str(one.get("content") or "") for one in messages)))
    old = sorted({name for name in _CALL.findall(source) if name.endswith("_compat")})
    if any(name not in rules for name in old) and f"read_file {GUIDE}" not in results:
        return _calls([("read_file", {"path": GUIDE})], len(asked))
    if f"edit {path}" not in results:
        edits = [{"path": path, "old": f"compat.{name}(", "new": f"compat.{rules[name]}("} for name in old]
        return _calls([("edit", one) for one in edits], len(asked))
    if f"run_check {path}" not in results:
        return _calls([("run_check", {"path": path})], len(asked))
    said = ", ".join(f"{name} -> {rules[name]}" for name in old)
    return {
        "role": "assistant",
        "content": f"{path} is fixed ({said}). The check says: {results[f'run_check {path}']}",
    }


def _calls(calls: list[tuple[str, dict[str, Any]]], first: int) -> dict[str, Any]:
    made = [
        {"id": f"c{first + at}", "type": "function", "function": {"name": tool, "arguments": json.dumps(arguments)}}
        for at, (tool, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}
