"""What the ProvenanceVoter remembers: a fold of entries into plain data, bounded. Pure.

By run: the user's words, and *records*, which are what results consist of (an item of a list, an entry of an
object, a text) with their structured fields and their free texts. For the whole log: the values that agents wrote
themselves and that did not come from the user, so that writing something and reading it back never cleans it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, cast

from logact.entry import Abort, Cancel, Entry, Expiry, Input, Intent, Mail, Result, Run
from logact.voters.provenance_manifest import READ, Manifest, ToolFacts
from logact.voters.provenance_text import (
    SPEECH,
    WORD,
    holds,
    kind_of,
    order_in,
    segments,
    stem,
    stems,
    typed_values,
    verbs_in,
    word_set,
    words,
)

RUNS_MAX = 16
RECORDS_MAX = 400
FIELDS_MAX = 60
TEXT_CHARS_MAX = 20_000
SEGMENT_CHARS_MAX = 600
ORDERS_MAX = 400
EFFECTS_MAX = 200
LARGE_MAX = 50
WAITING_MAX = 128
OWN_MAX = 4000
FIELD_CHARS_MAX = 120

Memory = dict[str, Any]

_MANY = re.compile(r"\b(?:all|each|every|any|everyone|everybody|people|both|users?|members|others?)\b")
_COMMON = word_set(
    "the and for with from that this into your you are was has have will would please can could should about there"
    " their them then than what when where which who whom how how's not all any each every also its it's our my me"
    " his her she him they file email mail message event list name date time day page link user account"
)


def initial() -> Memory:
    """The memory before any entry."""
    return {"runs": {}, "waiting": {}, "own": {}, "own_full": False, "unseen_write": False}


def run_of(memory: Memory | None, run: int) -> dict[str, Any]:
    """What is remembered of a run; an empty one where nothing is."""
    found = (memory or {}).get("runs", {}).get(str(run))
    return found if found is not None else _new_run()


def _new_run() -> dict[str, Any]:
    return {"words": [], "records": [], "orders": [], "speech": [], "effects": [], "large": []}


def observe(memory: Memory, entry: Entry, manifest: Manifest) -> Memory:
    """The memory after one more effective entry. What it was stays as it was: only new containers are changed."""
    payload = entry.payload
    if isinstance(payload, Run):
        return _with_run(memory, entry.position, _new_run())
    if isinstance(payload, Input):
        texts = [payload.text, *(part.text for part in payload.parts if part.text)]
        run = dict(run_of(memory, payload.run))
        run["words"] = [*run["words"], *(text[:TEXT_CHARS_MAX] for text in texts if text)][-50:]
        run["records"] = [_selected(record, run, manifest) for record in run["records"]]
        return _with_run(memory, payload.run, run)
    if isinstance(payload, Intent):
        waiting = dict(memory["waiting"])
        waiting[str(entry.position)] = {
            "run": payload.run,
            "tool": payload.tool,
            "arguments": payload.arguments,
            "unseen": payload.arguments_blob is not None,
        }
        while len(waiting) > WAITING_MAX:
            del waiting[next(iter(waiting))]
        return {**memory, "waiting": waiting}
    if isinstance(payload, Abort | Cancel | Expiry):
        key = str(payload.intent)
        if key not in memory["waiting"]:
            return memory
        return {**memory, "waiting": {name: kept for name, kept in memory["waiting"].items() if name != key}}
    if isinstance(payload, Result):
        return _result(memory, entry, payload, manifest)
    if isinstance(payload, Mail):
        text = {"from": payload.sender, "body": payload.body}
        found = dict(memory)
        for name in memory["runs"]:
            run = dict(found["runs"][name])
            _read(run, "mail", ToolFacts(effect=READ), {}, text, manifest=manifest)
            found = _with_run(found, int(name), run)
        return found
    return memory


def _with_run(memory: Memory, run_id: int, run: dict[str, Any]) -> Memory:
    runs = {name: kept for name, kept in memory["runs"].items() if name != str(run_id)}
    runs[str(run_id)] = run
    while len(runs) > RUNS_MAX:
        del runs[next(iter(runs))]
    return {**memory, "runs": runs}


def _result(memory: Memory, entry: Entry, result: Result, manifest: Manifest) -> Memory:
    key = str(result.intent)
    asked = memory["waiting"].get(key)
    run_id = asked["run"] if asked is not None else entry.run
    tool = asked["tool"] if asked is not None else entry.tool
    arguments = asked["arguments"] if asked is not None else {}
    facts = manifest.of(tool)
    found = {**memory, "waiting": {name: kept for name, kept in memory["waiting"].items() if name != key}}
    run = dict(run_of(memory, run_id))
    value = result.value
    failed = result.error is not None
    if result.blob is not None:
        large = {"digest": result.blob.digest, "tool": tool, "arguments": arguments}
        run["large"] = [*run["large"], large][-LARGE_MAX:]
        # of a large value only its head stands in the entry, with no structure: nothing in it is a field
        value, facts = result.blob.preview, ToolFacts(effect=facts.effect)
    if result.error is not None:
        value, facts = result.error.message, ToolFacts(effect=facts.effect)  # errors quote what strangers wrote
    made = facts.effect != READ and tool != "answer"
    if made and not failed:
        run["effects"] = [*run["effects"], {"tool": tool, "class": facts.effect, "arguments": _brief(arguments)}]
        run["effects"] = run["effects"][-EFFECTS_MAX:]
        _remember_own(found, run, arguments, asked is None or asked["unseen"])
    if tool != "answer":
        _read(run, tool, facts, arguments, value, manifest=manifest, own=made and not failed)
    return _with_run(found, run_id, run)


def expanded(run: dict[str, Any], values: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """A run with its large results read as a whole; ``values`` are they, by digest."""
    found = dict(run)
    for large in run["large"]:
        if large["digest"] in values:
            facts = manifest.of(large["tool"])
            _read(found, large["tool"], facts, large["arguments"], values[large["digest"]], manifest=manifest)
    return found


def _brief(arguments: Any) -> dict[str, str]:
    return {path: str(leaf)[:FIELD_CHARS_MAX] for path, leaf in list(leaves(arguments))[:FIELDS_MAX]}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar in a value, with its path."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item, path)
    elif value is not None:
        yield path, value


# --- what agents wrote themselves ------------------------------


def fingerprint(value: str) -> str:
    """A short digest of a value, however it is written."""
    return hashlib.blake2b(" ".join(value.casefold().split()).encode(), digest_size=8).hexdigest()


def _remember_own(memory: Memory, run: dict[str, Any], arguments: Any, unseen: bool) -> None:
    """Values of an own write that the user did not say are remembered as not clean."""
    said = "\n".join(run["words"]).casefold()
    own = dict(memory["own"])
    for _, leaf in leaves(arguments):
        text = str(leaf)
        values = [text] if len(text) <= FIELD_CHARS_MAX else []
        values += [value for _, value in typed_values(text)]
        values += [line.strip(" -*\t") for line in text.splitlines()] if "\n" in text else []
        for value in values:
            clean = holds(said, value.casefold()) or _structured(run, value)
            if value and not isinstance(leaf, bool | int | float) and not clean:
                own[fingerprint(value)] = 1
    memory["own_full"] = memory["own_full"] or len(own) > OWN_MAX
    memory["own"] = dict(list(own.items())[-OWN_MAX:])
    memory["unseen_write"] = memory["unseen_write"] or unseen


def _structured(run: dict[str, Any], value: str) -> bool:
    """Whether a trusted tool had given the value as a field of its own before."""
    folded = value.casefold().strip()
    return any(
        not record["untrusted"] and not record["own"] and folded == field
        for record in run["records"]
        for field in record["fields"].values()
    )


# --- results into records ------------------------------


def _read(
    run: dict[str, Any],
    tool: str,
    facts: ToolFacts,
    arguments: Any,
    value: Any,
    *,
    manifest: Manifest,
    own: bool = False,
) -> None:
    items = _items(value)
    group = run["records"][-1]["group"] + 1 if run["records"] else 1
    said = "\n".join(run["words"])
    asked = sorted(
        str(leaf)[:FIELD_CHARS_MAX] for _, leaf in leaves(arguments) if isinstance(leaf, str) and leaf.strip()
    )
    fresh = []
    for item in items[:RECORDS_MAX]:
        fields, texts = _split(item, facts)
        record = {
            "tool": tool,
            "group": group,
            "untrusted": facts.untrusted,
            "history": facts.history,
            "own": own,
            "asked": asked,
            "fields": fields,
            "texts": texts,
            "selected": 0,
            "named": 0,
        }
        fresh.append(record)
    run["records"] = [*run["records"], *_choose(fresh, said, asked, facts)][-RECORDS_MAX:]
    names = frozenset(name for name in manifest.tools if "_" in name)
    orders, speech = [], []
    for record in fresh:
        for text in cast(list[str], record["texts"]):
            for segment in segments(text):
                kept = [segment[:SEGMENT_CHARS_MAX], record["group"], tool]
                if order_in(segment, names):
                    orders.append(kept)
                if verbs_in(segment, SPEECH):
                    speech.append(kept)
    run["orders"] = [*run["orders"], *orders][-ORDERS_MAX:]
    run["speech"] = [*run["speech"], *speech][-ORDERS_MAX:]


def _items(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value) or []
    if isinstance(value, dict) and len(value) > 1 and all(isinstance(item, dict | list) for item in value.values()):
        return [
            {"key": name, **item} if isinstance(item, dict) else {"key": name, "items": item}
            for name, item in value.items()
        ]
    return [value] if value is not None else []


def _split(item: Any, facts: ToolFacts) -> tuple[dict[str, str], list[str]]:
    """The structured fields of an item, and its free texts. Field values are kept in lower case."""
    fields: dict[str, str] = {}
    texts: list[str] = []
    if isinstance(item, str):
        if facts.untrusted:
            kept = item.strip()
            if kept and WORD.search(kept) is not None and len(kept) <= 40 and "\n" not in kept:
                fields["value"] = kept.casefold()  # an item of a list of names
            return fields, [item[:TEXT_CHARS_MAX]]
        for number, line in enumerate(item.splitlines()[:FIELDS_MAX]):
            for part, cell in enumerate(re.split(r"[:\t|,]\s+|\t", line)):
                if cell.strip():
                    fields[f"line{number}.{part}"] = cell.strip(" .-*").casefold()[:FIELD_CHARS_MAX]
        if "\n" not in item:
            fields["value"] = item.strip().casefold()[:FIELD_CHARS_MAX]
        return fields, []
    counts: dict[str, int] = {}
    for path, leaf in leaves(item):
        name = path.rsplit(".", 1)[-1].casefold()
        text = str(leaf)
        from_strings = isinstance(leaf, str)
        free = name in _text_names(facts) or (from_strings and (len(text) > FIELD_CHARS_MAX or "\n" in text))
        free = free or (facts.untrusted and from_strings and " " in text and len(text) > 60)
        if from_strings and free:
            texts.append(text[:TEXT_CHARS_MAX])
        if (not free or len(text) <= 60) and len(fields) < FIELDS_MAX:
            counts[path] = counts.get(path, 0) + 1
            label = path if counts[path] == 1 else f"{path}#{counts[path]}"
            fields[("~" if from_strings and free else "") + label] = text.strip().casefold()
    for path, name in _keys(item):
        data = kind_of(name) != "phrase" or not name.isidentifier() or not facts.untrusted
        if data and len(name) <= FIELD_CHARS_MAX and len(fields) < FIELDS_MAX:
            fields[f"key:{path}#{len(fields)}"] = name.casefold()
    return fields, texts


def _keys(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The keys of objects in a value: where they are data (an address, a name), they are values too."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield path, str(name)
            yield from _keys(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _keys(item, path)


def _text_names(facts: ToolFacts) -> frozenset[str]:
    from logact.voters.provenance_manifest import TEXT_FIELDS

    return TEXT_FIELDS | frozenset(facts.text_fields)


# --- which records the user pointed at ------------------------------


def _selected(record: dict[str, Any], run: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """A record after the user said more."""
    said = "\n".join(run["words"])
    chosen = _choose([{**record}], said, record["asked"], manifest.of(record["tool"]))[0]
    return {**chosen, "selected": max(chosen["selected"], record["selected"])}


def _choose(records: list[dict[str, Any]], said: str, asked: list[str], facts: ToolFacts) -> list[dict[str, Any]]:
    """Mark the records that the user pointed at: 2 by naming them, 1 by words of theirs or by what was asked for."""
    lowered, tokens = said.casefold(), stems(said)
    names = [_name_tokens(record, facts) for record in records]
    shared: dict[str, int] = {}
    for mine in names:
        for token in mine:
            shared[token] = shared.get(token, 0) + 1
    for record, mine in zip(records, names, strict=True):
        if any(_names(lowered, value, path) for path, value in record["fields"].items()):
            record["selected"] = record["named"] = 2
        elif any(token in tokens and shared[token] * 2 <= max(2, len(records)) for token in mine):
            record["selected"] = 1
            record["named"] = max(record["named"], 1)
    by_question = bool(asked) and all(user_said(lowered, tokens, value) for value in asked)
    every = _MANY.search(lowered) is not None and any(noun in tokens for noun in facts.noun)
    alone = not any(record["selected"] for record in records)
    for record in records:
        if by_question or every:
            # what the user asked for is pointed at; firmly, where they did not point at a part of it
            record["selected"] = max(record["selected"], 2 if by_question and alone else 1)
    return records


def _names(said: str, value: str, path: str) -> bool:
    if len(value) < 3 or path.startswith("key:"):
        return False
    if value.replace(".", "").isdigit():
        return "." in value and holds(said, value)
    return len(value) > 3 and value not in _COMMON and value not in ("true", "false") and holds(said, value)


def _name_tokens(record: dict[str, Any], facts: ToolFacts) -> frozenset[str]:
    found = set()
    for path, value in record["fields"].items():
        if path.startswith("key:") or kind_of(value) != "phrase":
            continue
        for word in words(value):
            if len(word) > 3 and word not in _COMMON and stem(word) not in facts.noun and not word.isdigit():
                found.add(stem(word))
    return frozenset(found)


def user_said(lowered: str, tokens: frozenset[str], value: str) -> bool:
    """Whether the user's words hold a value: as it is, or (for a phrase) all its words."""
    folded = value.casefold().strip()
    if not folded:
        return True
    if holds(lowered, folded):
        return True
    if kind_of(value) == "url":
        from logact.voters.provenance_text import plain_url

        return holds(lowered, plain_url(value))
    if kind_of(value) != "phrase":
        return False
    mine = [word for word in words(folded) if len(word) > 2]
    return bool(mine) and all(stem(word) in tokens for word in mine)
