"""The model that a specification, the environment or a caller names, set up: its key, where it is, what it costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from logact.spec import SpecFile

MODEL_ENV = "LOGACT_MODEL"


def model_of(spec: SpecFile, name: str = "") -> Any:
    """The model: ``name`` if given, else LOGACT_MODEL's, else the file's; None if there is none at all.

    If ``[prices]`` has its name, its answers say what they cost.
    """
    from logact.models import model_from_name
    from logact.models.provider import OWN_KEY_ENV, Price

    chosen = name or os.environ.get(MODEL_ENV, "").strip()
    if not chosen:
        chosen = at_home(spec.agent.model, spec.directory)
    if not chosen:
        return None
    options: dict[str, Any] = {}
    if os.environ.get(OWN_KEY_ENV, "").strip():
        options["api_key_env"] = OWN_KEY_ENV
    recorded = chosen.startswith("recording:") and chosen.count(":") > 1
    table = spec.prices.get(chosen.split(":", 2)[2] if recorded else chosen)
    if table is not None:
        options["price"] = Price(**msgspec.structs.asdict(table))
    base_url = os.environ.get("LOGACT_BASE_URL", "").strip() or None
    return model_from_name(chosen, base_url=base_url, **options)


def at_home(name: str, directory: Path) -> str:
    """A model's name whose file, if it names a relative one, is looked for beside the specification."""
    kind, _, rest = name.partition(":")
    if kind not in ("scripted", "recorded", "recording") or not rest:
        return name
    place, separator, attribute = rest.partition(":")
    looks_like_a_file = Path(place).suffix in (".py", ".json", ".jsonl") or "/" in place
    if not looks_like_a_file or Path(place).is_absolute():
        return name
    if kind == "recording":
        attribute = at_home(attribute, directory)
    return f"{kind}:{directory / place}{separator}{attribute}"
