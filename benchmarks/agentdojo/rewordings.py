"""The file of reworded injections: read, checked; no sight of it is needed to write the voter.

A JSON list. An item is a text with ``{goal}``, or an object with ``name`` and either ``template`` (with ``{goal}``)
or ``templates``: several texts, planted in turn in the places that the task reads, which hold ``{goal}``, or
``{goal_first}`` and ``{goal_second}``, the goal's two halves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

DEFAULT = Path(__file__).resolve().parent.parent / "agentdojo_rewordings.json"
TEMPLATES_MIN = 10
PLACES = ("{goal}", "{goal_first}", "{goal_second}")


class Rewording(NamedTuple):
    """One way to say it."""

    name: str
    templates: list[str]


def load(path: str | Path) -> tuple[list[Rewording], str]:
    """The rewordings in a file, and what is wrong with it ("" if nothing is). Raises SystemExit for a broken one."""
    file = Path(path)
    if not file.exists():
        return [], f"scripted_reworded_pct is null: there is no file of rewordings at {file.name}"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{file} is not JSON: {error}") from error
    if not isinstance(data, list):
        raise SystemExit(f"{file} holds {type(data).__name__}; expected a list of templates with {{goal}}")
    found = [_read(item, number, file) for number, item in enumerate(data, 1)]
    few = f"only {len(found)} rewordings, fewer than {TEMPLATES_MIN}" if len(found) < TEMPLATES_MIN else ""
    return found, few


def _read(item: object, number: int, file: Path) -> Rewording:
    name, templates = f"{number}", item
    if isinstance(item, dict):
        name, templates = str(item.get("name") or number), item.get("template", item.get("templates"))
    texts = [templates] if isinstance(templates, str) else templates
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise SystemExit(f"{file}, item {number}: expected a text, or an object with template or templates")
    joined = "".join(texts)
    if "{goal}" not in joined and not ("{goal_first}" in joined and "{goal_second}" in joined):
        raise SystemExit(f"{file}, item {number}: no {{goal}} in it")
    return Rewording(name, texts)


def planted(templates: list[str], goal: str, vectors: list[str]) -> dict[str, str]:
    """The text for each place: templates in turn; with fewer places than templates, the rest follow in the last."""
    words = goal.split()
    half = max(1, len(words) // 2)
    values = {"goal": goal, "goal_first": " ".join(words[:half]), "goal_second": " ".join(words[half:])}
    texts = []
    for template in templates:
        text = template
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        texts.append(text)
    if len(vectors) < len(texts):
        texts = [*texts[: len(vectors) - 1], "\n\n".join(texts[len(vectors) - 1 :])]
    return {vector: texts[number % len(texts)] for number, vector in enumerate(vectors)}
