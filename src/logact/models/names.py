"""Models by name: what a specification, the command line or the environment may say.

Nothing here asks a model anything, and no provider's client is imported.
"""

from __future__ import annotations

import os
from typing import Any

from logact.errors import SpecError
from logact.models.base import Model
from logact.models.provider import OWN_KEY_ENV, ProviderModel
from logact.models.recorded import RecordedModel, RecordingModel
from logact.models.scripted import scripted_from

FORMS = (
    "openai:NAME, anthropic:NAME, ollama:NAME, http://HOST:PORT/v1#NAME, scripted:FILE, scripted:MODULE:ATTR, "
    "recorded:FILE, recording:FILE:MODEL"
)


def model_from_name(text: str, *, base_url: str | None = None, **options: Any) -> Model:
    """The model that ``text`` names.

    ``openai:gpt-4o``, ``anthropic:claude-…``, ``ollama:llama3`` (at http://localhost:11434/v1), a compatible
    endpoint ``http://host:port/v1#model``; ``scripted:FILE`` and ``scripted:MODULE:ATTR`` (see ``scripted``);
    ``recorded:FILE`` plays a recording back, and ``recording:FILE:MODEL`` records what another model answers.

    ``base_url`` and ``options`` go to :class:`ProviderModel`. Raises SpecError if the name means nothing.
    """
    text = text.strip()
    kind, _, rest = text.partition(":")
    if kind == "scripted":
        return scripted_from(rest)
    if kind == "recorded":
        return RecordedModel(_named(rest, text))
    if kind == "recording":
        path, _, inner = rest.partition(":")
        return RecordingModel(model_from_name(_named(inner, text), base_url=base_url, **options), _named(path, text))
    if not text or (base_url is None and not _is_provider(text)):
        raise SpecError("Not a model", received=text or "nothing", expected=FORMS)
    return ProviderModel(text, base_url=base_url, **options)


def _is_provider(text: str) -> bool:
    return text.startswith(("openai:", "anthropic:", "ollama:", "http://", "https://"))


def names_a_model(text: str) -> bool:
    """Whether ``model_from_name`` may make something of it; a provider's own name for a model is none."""
    return _is_provider(text) or text.startswith(("scripted:", "recorded:", "recording:"))


def _named(part: str, text: str) -> str:
    if not part:
        raise SpecError("The model's name is not complete", received=text, expected=FORMS)
    return part


def model_from_environment(**options: Any) -> Model | None:
    """The model that LOGACT_MODEL names, at LOGACT_BASE_URL and with the key in LOGACT_API_KEY where they are set.

    None if LOGACT_MODEL is not set. Raises SpecError if it names no model, or if only the base URL is set.
    """
    name = os.environ.get("LOGACT_MODEL", "").strip()
    base_url = os.environ.get("LOGACT_BASE_URL", "").strip() or None
    if not name:
        if base_url:
            raise SpecError("LOGACT_BASE_URL is set, but LOGACT_MODEL is not", todo="set LOGACT_MODEL")
        return None
    if os.environ.get(OWN_KEY_ENV, "").strip():
        options.setdefault("api_key_env", OWN_KEY_ENV)
    return model_from_name(name, base_url=base_url, **options)
