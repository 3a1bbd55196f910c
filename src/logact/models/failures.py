"""From what a provider's client raised to LogAct's model errors, and whether asking again can help.

An inference has no effects, so asking again is always safe; it is only a question of whether it can help. It
can after anything transient (a timeout, a lost connection, a rate limit, a server's error, an unreadable
answer), and cannot after a refusal (a wrong key, an unknown model, a context that is too long).

Importing this module imports the ``llm`` extra. It does no I/O and never shows a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pydantic_ai import exceptions

from logact.errors import ModelError, ModelNonsense, ModelRateLimited, ModelRefused, ModelUnavailable

SAID_CHARACTERS_MAX = 300
"""How much of a provider's own words goes into an error."""

TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may well succeed."""


class AnswerTooLarge(Exception):
    """The provider's answer went on beyond the byte limit."""


class AnswerUnreadable(Exception):
    """The provider's answer was read, but says nothing that could be used."""


class Verdict(NamedTuple):
    """An error to raise, whether asking again can help, how long the provider asks to wait (seconds), and the HTTP
    status that it answered, if it did."""

    error: ModelError
    again: bool
    wait_s: float | None = None
    status: int = 0


def judge(error: Exception, *, model: str, key: str, key_env: str, timeout_s: float) -> Verdict:
    """The verdict on what a client raised. ``model`` is the name to show, ``key`` is cut out of every text."""
    if isinstance(error, ModelError):
        return Verdict(error, again=False)
    chain = list(_chain(error))
    said = said_by(error, key)
    if any(isinstance(each, AnswerTooLarge) for each in chain):
        return Verdict(
            ModelNonsense(f"{model} sent an answer over the limit", received=_reason(chain, key)), again=False
        )
    if isinstance(error, TimeoutError | exceptions.ModelTimeoutError | exceptions.ModelRequestTimeout):
        return Verdict(ModelUnavailable(f"{model} did not answer within {timeout_s:g} s"), again=True)
    if isinstance(error, exceptions.ModelQuotaExceededError):
        return Verdict(
            ModelRefused(f"{model}: the account's quota is used up", received=said, todo="top the account up"),
            again=False,
        )
    if isinstance(error, exceptions.ModelContextWindowExceededError):
        return Verdict(
            ModelRefused(
                f"{model}: the conversation is too long for the model",
                received=said,
                todo="compact the conversation, or use a model with a larger context",
            ),
            again=False,
        )
    if isinstance(error, exceptions.ModelHTTPError):
        return _of_status(error, model=model, said=said, key_env=key_env)._replace(status=error.status_code)
    if isinstance(error, exceptions.ModelRateLimitError):
        return _rate_limited(error, model, said)
    if isinstance(error, exceptions.ModelUnavailableError | exceptions.ModelServerError):
        return Verdict(ModelUnavailable(f"{model} is out of order", received=said), True, error.retry_after)
    if isinstance(error, exceptions.ModelConnectionError):
        return Verdict(
            ModelUnavailable(f"{model} cannot be reached", received=_reason(chain, key) or said), again=True
        )
    if isinstance(error, exceptions.UserError):
        return Verdict(ModelRefused(f"{model} cannot be asked this", received=said), again=False)
    if any(300 <= (getattr(each, "status_code", None) or 0) < 400 for each in chain):
        moved = ModelRefused(
            f"{model} has moved, and redirects are not followed", received=said, todo="check the base URL"
        )
        return Verdict(moved, again=False)
    # what is left is an answer that broke the client's reading of it, in whatever way
    return Verdict(ModelNonsense(f"{model} sent an answer that cannot be read", received=said), again=True)


def _of_status(error: exceptions.ModelHTTPError, *, model: str, said: str, key_env: str) -> Verdict:
    status = error.status_code
    received = f"status {status}: {said}" if said else f"status {status}"
    if status == 429 or isinstance(error, exceptions.ModelRateLimitError):
        return _rate_limited(error, model, received)
    if status in TRANSIENT_STATUSES or status >= 500:
        return Verdict(ModelUnavailable(f"{model} is out of order", received=received), True, _wait(error))
    if status in {401, 403}:
        refused = ModelRefused(f"{model}: the provider refused the key", received=received, todo=f"check {key_env}")
    elif status == 404:
        refused = ModelRefused(
            f"{model}: the provider does not know this model or address",
            received=received,
            todo="check the model's name and the base URL (most end in /v1)",
        )
    else:
        refused = ModelRefused(f"{model} refused the request", received=received)
    return Verdict(refused, again=False)


def _rate_limited(error: exceptions.ModelAPIError, model: str, received: str) -> Verdict:
    wait_s = _wait(error)
    limited = ModelRateLimited(f"{model} asks to wait", retry_after_s=wait_s, received=received)
    return Verdict(limited, True, wait_s)


def _wait(error: exceptions.ModelAPIError) -> float | None:
    wait_s = error.retry_after
    return wait_s if wait_s is not None and 0 <= wait_s < float("inf") else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, innermost last; at most 20 of them."""
    each: BaseException | None = error
    for _ in range(20):
        if each is None:
            return
        yield each
        each = each.__cause__ or each.__context__


def _reason(chain: list[BaseException], key: str) -> str:
    """The innermost words on a connection that failed: clients wrap them several times, and say nothing of it."""
    for each in reversed(chain):
        if str(each):
            return shown(str(each), key)
    return ""


def said_by(error: Exception, key: str) -> str:
    """What the provider said: its error message if it sent one, else the client's; short, and without the key."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        text = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(text, str) and text.strip():
            return shown(text, key)
    if isinstance(body, str) and body.strip():
        return shown(body, key)
    if isinstance(error, exceptions.ModelHTTPError):
        return ""
    if isinstance(error, exceptions.AgentRunError | exceptions.UserError | AnswerTooLarge | AnswerUnreadable):
        return shown(str(error), key)
    return shown(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, key)


def shown(text: str, key: str) -> str:
    """One short line of a text that others wrote, without the key."""
    if key:
        text = text.replace(key, "[key]")
    text = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())
    return text if len(text) <= SAID_CHARACTERS_MAX else f"{text[:SAID_CHARACTERS_MAX]}…"
