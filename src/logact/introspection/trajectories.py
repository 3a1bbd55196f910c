"""Recorded trajectories from elsewhere, read into one neutral form. Pure: texts in, structs out.

Known forms: OpenAI-style messages (one JSON file, or JSON Lines of messages or of conversations; calls and results
may also be blocks, as in Anthropic's form), AgentDojo's recorded runs, and Claude Code's transcripts. What a
recording does not hold (times, tokens, effects) is left empty here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from logact.entry import Call, Usage
from logact.errors import UsageError
from logact.introspection.trajectory_values import failure_in, text_of, time_of, usage_of

Format = Literal["openai", "agentdojo", "claude-code"]
FORMATS: tuple[Format, ...] = ("openai", "agentdojo", "claude-code")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to. ``error`` is "" where it worked; ``missing`` says that the recording ends before it."""

    text: str = ""
    error: str = ""
    missing: bool = False
    at_ms: int = 0


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the model, with what its calls came to (one for each call), or words of the user (``said``)."""

    said: str | None = None
    text: str = ""
    calls: tuple[Call, ...] = ()
    told: tuple[Told, ...] = ()
    usage: Usage | None = None
    model: str = ""
    at_ms: int = 0


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded conversation. ``facts`` are what else the recording says of it.

    ``left_out`` counts messages that fit nowhere (results of calls that nobody made, roles that there are not), a
    last line that was torn off, and conversations of the same file in which nobody says anything.
    """

    format: Format
    turns: tuple[Turn, ...]
    name: str = ""
    model: str = ""
    system: str = ""
    facts: dict[str, Any] = {}
    left_out: int = 0


def read_trajectories(data: bytes, format: Format | None = None, *, name: str = "") -> list[Trajectory]:
    """The conversations in a file. ``format`` None: found out from what stands there. UsageError if none is."""
    torn: list[int] = []
    documents = list(_documents(data, name, torn))
    chosen = format or _guess(documents)
    if chosen is None:
        raise UsageError(
            "This is no recording of a known form",
            received=name or f"{len(data)} bytes",
            expected=", ".join(FORMATS),
            todo="name the form with --format",
        )
    if chosen == "claude-code":
        found = _claude_code(documents)
    elif chosen == "agentdojo":
        found = [
            _agentdojo(one) for one in documents if isinstance(one, dict) and isinstance(one.get("messages"), list)
        ]
    else:
        found = _openai(documents)
    every, found = found, [one for one in found if one.turns]
    if not found:
        raise UsageError("The recording holds no conversation", received=name or chosen, expected="messages")
    lost = len(torn) + len(every) - len(found)
    if lost:
        found[-1] = msgspec.structs.replace(found[-1], left_out=found[-1].left_out + lost)
    return found


def _documents(data: bytes, name: str, torn: list[int]) -> Iterator[Any]:
    """The whole file as one JSON value, or one value a line. A torn last line is passed over, and noted."""
    try:
        yield msgspec.json.decode(data)
        return
    except (msgspec.DecodeError, RecursionError):
        pass
    lines = data.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            if number == len(lines) and number > 1:
                torn.append(number)
                return
            raise UsageError(
                f"{name or 'The recording'}: line {number} is not JSON",
                received=str(error),
                expected="JSON or JSON Lines",
            ) from error


def _guess(documents: Sequence[Any]) -> Format | None:
    first = next((one for one in documents if isinstance(one, dict)), None)
    if any(isinstance(one, dict) and isinstance(one.get("message"), dict) and "type" in one for one in documents):
        return "claude-code"
    if first is not None and isinstance(first.get("messages"), list):
        return "agentdojo" if "suite_name" in first or "pipeline_name" in first else "openai"
    if first is not None and "role" in first:
        return "openai"
    if len(documents) == 1 and isinstance(documents[0], list):
        return "openai"
    return None


# --- OpenAI-style messages --------------------------------------------------------------------------------------


def _openai(documents: Sequence[Any]) -> list[Trajectory]:
    if len(documents) == 1 and isinstance(documents[0], list):
        inner = documents[0]
        if inner and all(isinstance(one, dict) and "messages" in one for one in inner):
            return [_conversation(one["messages"], one) for one in inner]
        return [_conversation(inner, {})]
    whole = [one for one in documents if isinstance(one, dict) and isinstance(one.get("messages"), list)]
    if whole:
        return [_conversation(one["messages"], one) for one in whole]
    return [_conversation([one for one in documents if isinstance(one, dict)], {})]


def _conversation(messages: Sequence[Any], around: dict[str, Any]) -> Trajectory:
    known = [one for one in messages if isinstance(one, dict)]
    facts = {
        key: value
        for key, value in around.items()
        if key != "messages" and isinstance(value, str | int | float | bool)
    }
    in_blocks = _is_in_blocks(known)
    lost = sum(one.get("role") not in ("user", "assistant") for one in known) if in_blocks else _left_out(known)
    return Trajectory(
        format="openai",
        turns=tuple(_block_turns(known) if in_blocks else _turns(known)),
        name=text_of(around.get("id") or around.get("name") or ""),
        model=text_of(around.get("model") or ""),
        system=_system(known) or text_of(around.get("system")),
        facts=facts,
        left_out=lost + sum(not isinstance(one, dict) for one in messages),
    )


def _is_in_blocks(messages: Iterable[dict[str, Any]]) -> bool:
    """Whether calls and results are blocks of the messages, as in Anthropic's form."""
    kinds = {block.get("type") for one in messages for block in _blocks(one.get("content"))}
    return bool(kinds & {"tool_use", "tool_result"})


def _block_turns(messages: Iterable[dict[str, Any]]) -> Iterator[Turn]:
    """The same as lines of a transcript."""
    lines = [
        {**one, "type": one["role"], "message": one} for one in messages if one.get("role") in ("user", "assistant")
    ]
    yield from _claude_turns(lines)


def _system(messages: Iterable[dict[str, Any]]) -> str:
    return "\n\n".join(text_of(one.get("content")) for one in messages if one.get("role") in ("system", "developer"))


def _turns(messages: Sequence[dict[str, Any]]) -> Iterator[Turn]:
    """Turns in order; each call is answered by the next tool message that names it, or that stands in its place."""
    place = 0
    while place < len(messages):
        one = messages[place]
        place += 1
        if one.get("role") == "user":
            yield Turn(said=text_of(one.get("content")), at_ms=time_of(one))
        elif one.get("role") == "assistant":
            calls = tuple(_calls(one.get("tool_calls") or _old_call(one)))
            answers: list[dict[str, Any]] = []
            while place < len(messages) and messages[place].get("role") in ("tool", "function"):
                answers.append(messages[place])
                place += 1
            usage = one.get("usage")
            yield Turn(
                text=text_of(one.get("content")),
                calls=calls,
                told=tuple(_answers(calls, answers)),
                usage=usage_of(usage) if isinstance(usage, dict) else None,
                model=text_of(one.get("model") or ""),
                at_ms=time_of(one),
            )


def _left_out(messages: Sequence[dict[str, Any]]) -> int:
    """How many messages fit nowhere."""
    known = ("system", "developer", "user", "assistant", "tool", "function")
    answers = sum(one.get("role") in ("tool", "function") for one in messages)
    told = sum(not told.missing for turn in _turns(messages) for told in turn.told)
    return answers - told + sum(one.get("role") not in known for one in messages)


def _old_call(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The one call of a message in OpenAI's older form."""
    given = message.get("function_call")
    return [{"function": given}] if isinstance(given, dict) else []


def _calls(given: Any) -> Iterator[Call]:
    for number, one in enumerate(given if isinstance(given, list) else []):
        if not isinstance(one, dict):
            continue
        function = one.get("function")
        if isinstance(function, dict):  # OpenAI: {"function": {"name", "arguments": text}}
            name, raw = text_of(function.get("name")), function.get("arguments", {})
        else:  # AgentDojo: {"function": name, "args": {...}}
            name, raw = text_of(function or one.get("name")), one.get("args", one.get("arguments", {}))
        yield _call(text_of(one.get("id")) or f"call-{number}", name, raw)


def _call(id_: str, name: str, raw: Any) -> Call:
    broken = "" if name else "the call names no tool"
    arguments: Any = raw
    if isinstance(raw, str):
        try:
            arguments = msgspec.json.decode(raw) if raw.strip() else {}
        except (msgspec.DecodeError, RecursionError) as error:
            broken = broken or f"the arguments are not valid JSON: {error}"
    if not broken and not isinstance(arguments, dict):
        broken = f"the arguments are not an object but {type(arguments).__name__}"
    if broken:
        return Call(id=id_, tool=name or "unnamed", raw=text_of(raw)[:4000], broken=broken)
    return Call(id=id_, tool=name, arguments={str(key): value for key, value in arguments.items()})


def _answers(calls: Sequence[Call], answers: list[dict[str, Any]]) -> Iterator[Told]:
    left = list(answers)
    for call in calls:
        named = next((one for one in left if one.get("tool_call_id") == call.id), None)
        found = named or next((one for one in left if not one.get("tool_call_id")), None)
        if found is None:
            yield Told(missing=True)
            continue
        left.remove(found)
        text = text_of(found.get("content"))
        error = found.get("error") or failure_in(text)
        yield Told(text=text, error=text_of(error) if error else "", at_ms=time_of(found))


# --- AgentDojo --------------------------------------------------------------------------------------------------


def _agentdojo(run: dict[str, Any]) -> Trajectory:
    messages = [one for one in run["messages"] if isinstance(one, dict)]
    wanted = (
        "suite_name",
        "user_task_id",
        "injection_task_id",
        "attack_type",
        "utility",
        "security",
        "duration",
        "error",
    )
    facts = {key: run[key] for key in wanted if isinstance(run.get(key), str | int | float | bool)}
    name = "/".join(
        text_of(run.get(key)) for key in ("suite_name", "user_task_id", "injection_task_id") if run.get(key)
    )
    return Trajectory(
        format="agentdojo",
        turns=tuple(_turns(messages)),
        name=name,
        model=text_of(run.get("pipeline_name") or ""),
        system=_system(messages),
        facts=facts,
        left_out=_left_out(messages),
    )


# --- Claude Code ------------------------------------------------------------------------------------------------


def _claude_code(documents: Sequence[Any]) -> list[Trajectory]:
    """The main conversation of each session, and each subagent's as one of its own."""
    threads: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in documents:
        if (
            isinstance(one, dict)
            and one.get("type") in ("user", "assistant")
            and isinstance(one.get("message"), dict)
        ):
            side = text_of(one.get("agentId") or "sidechain") if one.get("isSidechain") else ""
            threads.setdefault((text_of(one.get("sessionId")), side), []).append(one)
    return [
        Trajectory(
            format="claude-code",
            turns=tuple(_claude_turns(lines)),
            name="/".join(part for part in (session, side) if part),
            facts={
                key: lines[0][key] for key in ("cwd", "version", "gitBranch") if isinstance(lines[0].get(key), str)
            },
        )
        for (session, side), lines in threads.items()
    ]


def _claude_turns(lines: Sequence[dict[str, Any]]) -> Iterator[Turn]:
    results: dict[str, Told] = {}
    for one in lines:
        for block in _blocks(one["message"].get("content")):
            if block.get("type") == "tool_result":
                text = text_of(block.get("content"))
                failed = text or "an error"
                error = failed if block.get("is_error") else failure_in(text)
                told = Told(text=text, error=error, at_ms=time_of(one))
                results[text_of(block.get("tool_use_id"))] = told
    seen: dict[str, int] = {}
    grouped: list[list[dict[str, Any]]] = []
    for one in lines:  # one answer comes as several lines with one id, a block each
        id_ = text_of(one["message"].get("id")) if one["type"] == "assistant" else ""
        if id_ and id_ in seen:
            grouped[seen[id_]].append(one)
            continue
        if id_:
            seen[id_] = len(grouped)
        grouped.append([one])
    for group in grouped:
        blocks = [block for one in group for block in _blocks(one["message"].get("content"))]
        text = "\n".join(text_of(block.get("text")) for block in blocks if block.get("type") == "text").strip()
        if group[0]["type"] == "user":
            if text and not group[0].get("isMeta"):
                yield Turn(said=text, at_ms=time_of(group[0]))
            continue
        calls = tuple(
            _call(text_of(block.get("id")), text_of(block.get("name")), block.get("input", {}))
            for block in blocks
            if block.get("type") == "tool_use"
        )
        if not calls and not text:
            continue  # thinking alone
        usage = group[-1]["message"].get("usage")
        yield Turn(
            text=text,
            calls=calls,
            told=tuple(results.get(call.id, Told(missing=True)) for call in calls),
            usage=usage_of(usage) if isinstance(usage, dict) else None,
            model=text_of(group[0]["message"].get("model")),
            at_ms=time_of(group[0]),
        )


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []
