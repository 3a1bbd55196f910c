"""A model at a provider: OpenAI, Anthropic, or any server that speaks OpenAI's chat completions.

Needs the ``llm`` extra, which is imported when the first request is made. This module owns the choice of endpoint
and key, the retries and their limits, and the price; ``wire`` owns the one request.

Keys are read from the environment at each request and kept nowhere: not in the object, not in an error.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from logact import env
from logact.core.waiting import Wait
from logact.entry import Retried, Usage
from logact.errors import MissingExtra, ModelRefused, ModelUnavailable, SpecError
from logact.models.base import ModelAnswer, ModelRequest
from logact.models.telling import tell

if TYPE_CHECKING:
    from types import ModuleType

EXTRA = "pip install 'logact[llm]'"

OLLAMA_URL = "http://localhost:11434/v1"
OWN_KEY_ENV = "LOGACT_API_KEY"

BACKOFF_S = 0.5
"""The pause before the first retry, in seconds; each further one is twice as long, plus up to half as jitter."""
BACKOFF_S_MAX = 30.0

ANTHROPIC_MAX_TOKENS = 8192
"""Anthropic's protocol demands a limit on the answer; this one holds where none is set."""

Protocol = Literal["openai", "anthropic"]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs, in US dollars per million tokens. Cached input costs as other input unless stated."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = None

    def cost_usd(self, usage: Usage) -> float:
        """The cost of one inference. ``usage.input_tokens`` includes the cached ones."""
        cached = min(usage.cached_tokens, usage.input_tokens)
        cached_usd = self.input_usd if self.cached_usd is None else self.cached_usd
        fresh = usage.input_tokens - cached
        return (fresh * self.input_usd + cached * cached_usd + usage.output_tokens * self.output_usd) / 1e6


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where to ask, how to talk there, and which environment variable holds the key."""

    protocol: Protocol
    model: str
    shown: str
    base_url: str | None = None
    key_env: str = OWN_KEY_ENV
    key_required: bool = False
    classic_limit: bool = False


def endpoint_of(name: str, *, base_url: str | None = None, api_key_env: str | None = None) -> Endpoint:
    """The endpoint that ``name`` means: ``openai:M``, ``anthropic:M``, ``ollama:M``, ``URL#M``; or M at ``base_url``.

    A provider's own key is never sent to another base URL: there, ``LOGACT_API_KEY`` is the default.
    Raises SpecError for names that mean nothing.
    """
    kind, separator, model = name.partition(":")
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        if base_url:
            raise SpecError(f"The model's name holds a URL, and a base URL is given as well: {_shown_url(base_url)}")
        kind, base_url = "compatible", url
    elif not separator or kind not in {"openai", "anthropic", "ollama"}:
        if not base_url:
            raise SpecError("Not a model's name", received=name, expected="openai:M, anthropic:M, ollama:M or URL#M")
        kind, model = "compatible", name
    if not model:
        raise SpecError("The name names no model", received=_shown_url(name), expected="for example openai:gpt-4o")
    shown = name
    if base_url:
        shown = f"{_shown_url(base_url)}#{model}" if kind == "compatible" else f"{name}@{_shown_url(base_url)}"
    own_key = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}.get(kind)
    if kind == "ollama":
        base_url = base_url or OLLAMA_URL
    return Endpoint(
        protocol="anthropic" if kind == "anthropic" else "openai",
        model=model,
        shown=shown,
        base_url=base_url,
        key_env=api_key_env or (own_key if own_key and base_url is None else OWN_KEY_ENV),
        key_required=api_key_env is not None or (own_key is not None and base_url is None),
        classic_limit=kind in {"ollama", "compatible"},
    )


def _shown_url(url: str) -> str:
    """A URL for people: no user, no password, no query. Raises SpecError if it holds a password or no host."""
    if not url.startswith(("http://", "https://")):
        return url
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise SpecError("A base URL must not hold a user or password", todo=f"put the key into {OWN_KEY_ENV}")
    if not parts.hostname:
        raise SpecError("A base URL needs a host", received=url, expected="for example http://localhost:8000/v1")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


class ProviderModel:
    """A model at a provider.

    ``name`` is ``openai:M``, ``anthropic:M``, ``ollama:M``, ``http://host:port/v1#M``, or just M with ``base_url``.
    ``api_key_env`` names the environment variable that holds the key (the default depends on the provider).
    ``timeout_s`` limits one attempt, ``attempts`` and ``total_s`` all of them with the pauses between; a pause is as
    long as the provider asks for, if it does. ``max_tokens`` limits an answer where the request does not.
    ``price`` turns tokens into ``Usage.cost_usd``, which is None without it.

    Each ``answer`` opens a connection and closes it. ``async with model:`` keeps connections for the block.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key_env: str | None = None,
        timeout_s: float = 120.0,
        attempts: int = 4,
        total_s: float = 300.0,
        price: Price | None = None,
        max_tokens: int = 0,
    ) -> None:
        if attempts < 1 or timeout_s <= 0 or total_s <= 0:
            raise SpecError("A model needs at least one attempt and positive times", received=f"{attempts} attempts")
        self._endpoint = endpoint_of(name, base_url=base_url, api_key_env=api_key_env)
        self.name = self._endpoint.shown
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.total_s = total_s
        self.price = price
        self.max_tokens = max_tokens
        self._client: Any = None

    @property
    def endpoint(self) -> Endpoint:
        """Where it asks, and which variable holds its key."""
        return self._endpoint

    def __repr__(self) -> str:
        return f"ProviderModel({self.name!r})"

    async def __aenter__(self) -> ProviderModel:
        self._client = _wire().open_client(self.timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        await client.aclose()

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """Ask, again where that can help and within the limits.

        Raises ModelUnavailable, ModelRateLimited, ModelRefused or ModelNonsense (the last attempt's), MissingExtra.
        """
        key = self._key()
        wire = await env.current().in_thread(_wire)  # the first import takes a second or two: not in the loop
        if self._client is not None:
            return await self._ask(self._client, request, key)
        async with wire.open_client(self.timeout_s) as client:
            return await self._ask(client, request, key)

    def _key(self) -> str:
        key = os.environ.get(self._endpoint.key_env, "").strip()
        if not key and self._endpoint.key_required:
            raise ModelRefused(
                f"{self.name} needs a key, and {self._endpoint.key_env} is not set",
                todo=f"set {self._endpoint.key_env}, or use another model (ollama:NAME needs no key)",
            )
        if not key.isascii() or not key.isprintable():
            raise ModelRefused(f"The key in {self._endpoint.key_env} holds characters that no key holds")
        return key

    async def _ask(self, client: Any, request: ModelRequest, key: str) -> ModelAnswer:
        """The attempts. Our own loop, not stamina's.

        Stamina sleeps by ``asyncio.sleep`` and draws its jitter from ``random``, with no way to put others in their
        place, so a simulated world could neither see nor shorten its pauses. Nor does it know the delay that
        a provider asked for.
        """
        from logact.models.failures import judge

        wire = _wire()
        here = env.current()
        endpoint = self._endpoint
        model = wire.wire_model(
            endpoint.protocol,
            endpoint.model,
            base_url=endpoint.base_url,
            key=key or "no-key",  # the clients insist on one, and would else look for others in the environment
            client=client,
            classic_limit=endpoint.classic_limit,
        )
        limit = request.max_output_tokens or self.max_tokens
        if endpoint.protocol == "anthropic":
            limit = limit or ANTHROPIC_MAX_TOKENS
        until = here.monotonic() + self.total_s
        retried: dict[tuple[str, int], Retried] = {}
        for attempt in itertools.count(1):  # ends at self.attempts, below
            timeout_s = min(self.timeout_s, max(0.001, until - here.monotonic()))
            try:
                # the client's own timeout counts from byte to byte, so a slow trickle would never end
                async with asyncio.timeout(timeout_s):
                    answer: ModelAnswer = await wire.ask(model, request, timeout_s=timeout_s, max_tokens=limit)
            except Exception as error:
                verdict = judge(error, model=self.name, key=key, key_env=endpoint.key_env, timeout_s=timeout_s)
            else:
                return msgspec.structs.replace(self._priced(answer), retried=tuple(retried.values()))
            pause_s = self._pause_s(attempt, verdict.wait_s)
            if not verdict.again or attempt == self.attempts or here.monotonic() + pause_s >= until:
                verdict.error.retried = tuple(retried.values())
                # outside of the except block: a chained error would carry headers and bodies into a traceback
                raise verdict.error
            sort = verdict.error.code, verdict.status
            before = retried.get(sort, Retried(kind=sort[0], status=sort[1], count=0))
            waited_ms = round(before.waited_ms + pause_s * 1000, 1)
            retried[sort] = msgspec.structs.replace(before, count=before.count + 1, waited_ms=waited_ms)
            until_ms = here.wall_ms() + round(pause_s * 1000)
            tell(Wait(kind="model", until_ms=until_ms, why=str(verdict.error)))
            await here.sleep(pause_s)
        raise ModelUnavailable(f"{self.name} was not asked")  # not reached; the loop only ends by return or raise

    @staticmethod
    def _pause_s(attempt: int, asked_s: float | None) -> float:
        backoff_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** (attempt - 1))
        return max(asked_s or 0.0, backoff_s) + env.current().random() * backoff_s / 2

    def _priced(self, answer: ModelAnswer) -> ModelAnswer:
        if self.price is None:
            return answer
        usage = msgspec.structs.replace(answer.usage, cost_usd=self.price.cost_usd(answer.usage))
        return msgspec.structs.replace(answer, usage=usage)


def _wire() -> ModuleType:
    """The module that talks to providers, imported on first use: it takes a second, and needs the extra."""
    try:
        from logact.models import wire
    except ImportError as error:
        if (error.name or "").startswith("logact"):
            raise
        raise MissingExtra(
            "Asking a provider needs the llm extra", received=f"no module {error.name}", todo=f"run {EXTRA}"
        ) from error
    return wire
