"""Which argument of a tool is a shell command, code, SQL, a path, an address or content: by declaration or name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from logact.errors import SpecError

Kind = Literal["shell", "python", "sql", "path", "read", "write", "delete", "move", "url", "content", "ignore"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_BY_NAME: dict[str, Kind] = {}
for _kind, _names in (
    ("shell", "command cmd shell bash command_line commandline shell_command commands script_text"),
    ("python", "code python python_code source_code"),
    ("sql", "sql sql_query statement sql_statement"),
    ("path", "path paths file file_path filepath filename file_name dir directory folder source target destination"
             " dest src dst from_path to_path root output output_path input_path file_paths old_path new_path cwd"
             " workdir working_directory source_path target_path destination_path location_path"
             " save_path local_path"),
    ("url", "url uri urls endpoint webhook webhook_url href link base_url address_url"),
    ("content", "body content text message data payload subject html markdown comment description attachment"
                " attachments"),
):  # fmt: skip
    for _name in _names.split():
        _BY_NAME[_name] = _kind  # type: ignore[assignment]

_RUNS = re.compile(r"(^|_)(shell|bash|exec|execute|command|terminal|sh|run_command|system|subprocess|console)(_|$)")
_SQL_TOOL = re.compile(r"(^|_)(sql|db|database|postgres|mysql|sqlite|bigquery|snowflake)(_|$)")
_SQL_TEXT = re.compile(
    r"(?is)^\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(drop\s+(table|database|schema|view|index|user)\b"
    r"|truncate\s+(table\s+)?\w|delete\s+from\s"
    r"|update\s+\S+\s+set\s|alter\s+(table|database|user|role)\s|grant\s+.+\s+to\s|insert\s+into\s|select\s.+\sfrom\s"
    r"|with\s+\w+\s+as\s*\(|create\s+(or\s+replace\s+)?(table|user|role|function|trigger)\s)"
)
_OTHER_CODE = re.compile(
    r"(^|_)(js|javascript|node|typescript|ruby|perl|php|lua|powershell|r|julia|applescript)(_|$)"
)
_LOOKS_LIKE_PATH = re.compile(r"(?:~|\.{1,2})?/[^\s]*")
SENDS = re.compile(
    r"(?i)(^|_)(send|post|email|mail|message|reply|forward|publish|upload|share|tweet|notify|http|request|webhook|put"
    r"|submit|comment|slack|fetch|get_url|browse|call_api|invite|pay|transfer)(_|$)"
)
DELETES = re.compile(
    r"(?i)(^|_)(delete|remove|unlink|rm|erase|wipe|purge|trash|destroy|drop|truncate|shred|clear|terminate)(_|$)"
)
MOVES = re.compile(r"(?i)(^|_)(move|rename|mv|archive)(_|$)")
READING = re.compile(
    r"(?i)^(read|list|ls|cat|view|show|get|search|find|stat|checksum|count|exists|head|tail|open|load|describe)(_|$)"
)


def check_inputs(inputs: Mapping[str, str]) -> dict[str, Kind]:
    """The declared kinds, checked: keys are ``tool.argument`` or ``*.argument``. Raises SpecError."""
    found: dict[str, Kind] = {}
    for key, kind in inputs.items():
        if kind not in KINDS or not isinstance(key, str) or "." not in key:
            raise SpecError(
                f"inputs[{key!r}] is not usable",
                received=repr(kind),
                expected=f'"tool.argument" with one of {", ".join(KINDS)}',
            )
        found[key] = kind
    return found


def kind_of(tool: str, argument: str, value: str, arguments: Mapping[str, Any], effect: str) -> Kind:
    """What a text argument is. ``path`` is refined into what happens to it."""
    name = argument.lower()
    named = _BY_NAME.get(name)
    lowered = tool.lower()
    if named is None:
        named = _by_suffix(name)
    if name == "source" and ("\n" in value or "://" in value):
        named = "url" if "://" in value else None
    if name in ("code", "script", "program", "source_code"):
        if _RUNS.search(lowered) and "python" not in lowered:
            named = "shell"
        elif _OTHER_CODE.search(lowered):
            return "shell"  # not a language that is read here: it will not parse, and so be refused
        elif name in ("script", "program"):
            named = "shell" if not re.search(r"python|^py_|_py$", lowered) else "python"
    if named == "shell" and re.search(r"python|_py$", lowered) and name not in ("command", "cmd"):
        named = "python"
    if (
        named is None
        and (name == "query" or _SQL_TOOL.search(lowered))
        and (_SQL_TOOL.search(lowered) or _SQL_TEXT.match(value))
    ):
        named = "sql"
    if named == "path":
        return _path_kind(lowered, name, arguments, effect)
    return named or _sniffed(lowered, name, value, effect)


def _by_suffix(name: str) -> Kind | None:
    if name.endswith(("_path", "_file", "_dir", "_directory", "_paths", "_folder", "_filename")):
        return "path"
    if name.endswith(("_url", "_uri", "_endpoint")):
        return "url"
    if name.endswith(("_command", "_cmd")):
        return "shell"
    return "sql" if name.endswith("_sql") else None


def _path_kind(tool: str, name: str, arguments: Mapping[str, Any], effect: str) -> Kind:
    into = name in ("target", "destination", "dest", "dst", "output") or name.startswith(
        ("to_", "new_", "output", "save", "target", "dest")
    )
    if effect == "read" or (READING.match(tool) and not into and not DELETES.search(tool) and not MOVES.search(tool)):
        return "read"
    if DELETES.search(tool):
        return "delete"
    if into:
        return "write"
    if MOVES.search(tool):
        return "move"
    others = (
        "target",
        "destination",
        "dest",
        "dst",
        "output",
        "output_path",
        "to_path",
        "target_path",
        "destination_path",
    )
    if name in ("source", "src", "from_path", "input_path", "source_path", "cwd", "workdir", "working_directory"):
        return "read"
    return "read" if any(one in arguments for one in others) else "write"


def _sniffed(tool: str, name: str, value: str, effect: str) -> Kind:
    if _SQL_TEXT.match(value) and name not in ("prompt", "instructions", "question"):
        return "sql"
    if value.startswith("#!"):
        return "python" if "python" in value.partition("\n")[0] else "shell"
    if re.match(r"(https?|ftp|file|gopher|dict|ldap)://\S+$", value):
        return "url"
    if _RUNS.search(tool) and name in (
        "args",
        "arguments",
        "input",
        "line",
        "argv",
        "expression",
        "string",
        "value",
        "text",
    ):
        return "shell"
    if _LOOKS_LIKE_PATH.fullmatch(value) and effect != "read":
        return "write"
    if _LOOKS_LIKE_PATH.fullmatch(value):
        return "read"
    return "content" if SENDS.search(tool) else "ignore"
