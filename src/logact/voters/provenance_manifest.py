"""What a deployer says about tools: which change the world and how, whose text they return, what arguments mean.

Written by hand (TOML), declared on the tools, or derived from names and schemas and then checked by a person. A
tool that nobody declared is a write whose every argument is an object, and whose results strangers wrote.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from logact.entry import ToolSpec
from logact.errors import SpecError
from logact.tools import Tool
from logact.voters.provenance_text import VERBS, stem, word_set, words

Role = str
ROLES = ("destination", "object", "url", "secret", "value", "name", "content", "amount", "flag", "query")
READ = "read"
OTHER = "other"
CLASSES = (READ, *VERBS, OTHER)

TEXT_FIELDS = word_set(
    "subject body content contents description title message text review reviews comment comments note notes summary"
    " snippet page html reason details location"
)
"""Names of fields in which people write freely; what stands there is text, not a structured value."""


class ToolFacts(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One tool as provenance sees it.

    ``effect`` is ``read`` or a class of effect. ``roles`` say what each argument is; an argument without a role is
    an object. ``untrusted``: strangers write the results. ``history``: the account's own records of what it did
    and whom it knows. ``own``: the user's own values (their address, their account), never a place for others'.
    ``text_fields`` are further fields of the result in which people write freely.
    """

    effect: str = OTHER
    roles: dict[str, str] = {}
    untrusted: bool = True
    history: bool = False
    own: bool = False
    noun: tuple[str, ...] = ()
    text_fields: tuple[str, ...] = ()

    def role(self, argument: str) -> str:
        """What an argument is; undeclared ones are objects."""
        return self.roles.get(argument, "object")


UNDECLARED = ToolFacts()


class Manifest(msgspec.Struct, frozen=True):
    """The facts of all tools, by name."""

    tools: dict[str, ToolFacts] = {}

    def of(self, tool: str) -> ToolFacts:
        """The facts of a tool; for one that nobody declared the strictest."""
        return self.tools.get(tool, UNDECLARED)

    def other_nouns(self, tool: str) -> frozenset[str]:
        """The nouns of the other tools with effects of the same class, without its own."""
        mine = self.of(tool)
        alike = (facts for name, facts in self.tools.items() if name != tool and facts.effect == mine.effect)
        return frozenset(noun for facts in alike for noun in facts.noun) - frozenset(mine.noun)

    def data(self) -> dict[str, Any]:
        """As plain data, for digests and files."""
        return {name: msgspec.to_builtins(msgspec.structs.asdict(facts)) for name, facts in self.tools.items()}

    def toml(self) -> str:
        """As a file that a person can check and change."""
        lines = []
        for name, facts in self.tools.items():
            lines.append(f"[{_quoted(name)}]")
            lines.append(f'effect = "{facts.effect}"')
            lines.append(f"untrusted = {str(facts.untrusted).lower()}")
            lines += [f"{mark} = true" for mark in ("history", "own") if getattr(facts, mark)]
            for mark in ("noun", "text_fields"):
                values = getattr(facts, mark)
                if values:
                    lines.append(f"{mark} = [{', '.join(_quoted(value) for value in values)}]")
            roles = ", ".join(f"{_quoted(argument)} = {_quoted(role)}" for argument, role in facts.roles.items())
            lines.append(f"roles = {{ {roles} }}" if roles else "roles = {}")
            lines.append("")
        return "\n".join(lines)


def load_manifest(path: str | Path) -> Manifest:
    """The manifest in a TOML file: one table for each tool. Raises SpecError for what it cannot mean."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"The manifest {path} cannot be read: {error}") from error
    return manifest_from(data, str(path))


def manifest_from(data: Mapping[str, Any], where: str = "the manifest") -> Manifest:
    """The manifest that plain data means. Raises SpecError."""
    try:
        tools = msgspec.convert(dict(data), dict[str, ToolFacts])
    except msgspec.ValidationError as error:
        raise SpecError(f"{where} does not have the form of a manifest: {error}") from error
    for name, facts in tools.items():
        wrong = [role for role in facts.roles.values() if role not in ROLES]
        if facts.effect not in CLASSES or wrong:
            raise SpecError(
                f"{where}, tool {name!r}: unknown {'roles' if wrong else 'effect'}",
                received=", ".join(wrong) or facts.effect,
                expected=", ".join(ROLES if wrong else CLASSES),
            )
    return Manifest(tools)


def declared(tools: Iterable[Any]) -> Manifest:
    """What tools declare about themselves: effect, untrusted results, destinations, content.

    Without a declared effect a tool stays what an undeclared one is. The class of effect is read from its name.
    """
    found: dict[str, ToolFacts] = {}
    for tool in tools:
        if not isinstance(tool, Tool) or not tool.declared:
            continue
        guess = derive_tool(tool.spec)
        properties = tool.parameters.get("properties", {})
        roles = {name: _role(name, schema, guess.effect) for name, schema in properties.items()}
        roles |= dict.fromkeys(tool.content, "content") | dict.fromkeys(tool.destinations, "destination")
        effect = READ if tool.effect == "read" else guess.effect if guess.effect != READ else OTHER
        found[tool.name] = msgspec.structs.replace(guess, effect=effect, roles=roles, untrusted=tool.untrusted)
    return Manifest(found)


# --- derived from names and schemas ------------------------------

_READ_VERBS = word_set(
    "get list read search find fetch check show lookup look query count describe view load select browse"
)
_CLASS_OF: dict[str, str] = {
    **dict.fromkeys(("send", "email", "mail", "message", "reply", "forward", "notify"), "message"),
    **dict.fromkeys(("pay", "transfer", "wire", "refund"), "pay"),
    **dict.fromkeys(("post", "publish", "upload"), "post"),
    **dict.fromkeys(("create", "make", "new", "write", "save"), "create"),
    **dict.fromkeys(("add", "invite", "join", "register"), "add"),
    **dict.fromkeys(("book", "reserve", "buy", "order", "rent", "purchase"), "book"),
    **dict.fromkeys(("update", "change", "modify", "edit", "set", "reschedule", "rename", "move"), "update"),
    **dict.fromkeys(("delete", "remove", "cancel", "drop", "erase", "revoke"), "delete"),
    **dict.fromkeys(("run", "execute", "install", "deploy"), "run"),
    "append": "append",
    "share": "share",
    "grant": "share",
    "schedule": "schedule",
}
_MONEY = word_set("money payment transaction funds cash")
_PUBLIC = re.compile(r"\b(files?|web\w*|pages?|urls?|reviews?|messages?|contents?|documents?|inbox|feeds?)\b")
_HISTORY = re.compile(r"(?:^|_)(?:sent|transactions?|contacts|history)(?:_|$)")
_ROLE_NAMES: tuple[tuple[str, str], ...] = (
    ("url", r"url|uri|link|href|website"),
    ("secret", r"pass(?:word|code|phrase)|secret|token|pin|api_?key"),
    (
        "destination",
        r"recipients?|to|address(?:es)?|.*emails?|cc|bcc|participants?|attendees?|invitees?|payee|iban"
        r"|account|channel|phone|recipient_\w+",
    ),
    ("content", r"body|content|contents|text|message|description|comment|note|notes"),
    ("name", r"subject|title|filename|file_name|label"),
    ("flag", r"date|day|time|\w+_(?:time|day|date)|location|permission|recurring|n|limit|format|language"),
    ("amount", r"amount|price|sum|quantity"),
)


def derive(tools: Iterable[ToolSpec | Tool]) -> Manifest:
    """A manifest from names, descriptions and schemas, for a person to check. See ``logact`` docs on provenance.

    A tool whose verb is unknown stays an undeclared one, except that its arguments get roles.
    """
    return Manifest({spec.name: derive_tool(spec) for spec in (_spec(tool) for tool in tools)})


def _spec(tool: ToolSpec | Tool) -> ToolSpec:
    return tool.spec if isinstance(tool, Tool) else tool


def derive_tool(spec: ToolSpec) -> ToolFacts:
    """The facts of one tool, guessed."""
    parts = words(spec.name.replace("_", " ").replace("-", " "))
    verb, nouns = (parts[0], parts[1:]) if parts else ("", [])
    effect = READ if verb in _READ_VERBS else _CLASS_OF.get(verb, OTHER)
    if effect == "message" and _MONEY & set(nouns):
        effect = "pay"
    if effect == "append" or (effect == "add" and "file" in nouns):
        effect = "append"
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    roles = {name: _role(name, schema, effect) for name, schema in properties.items()}
    described = f"{spec.name.replace('_', ' ')} {spec.description}".casefold()
    return ToolFacts(
        effect=effect,
        roles=roles,
        untrusted=effect == OTHER or (effect == READ and bool(_PUBLIC.search(described))),
        history=effect == READ and bool(_HISTORY.search(spec.name)),
        noun=tuple(dict.fromkeys(stem(noun) for noun in nouns if len(noun) > 2)),
    )


def _role(name: str, schema: Mapping[str, Any], effect: str) -> str:
    lowered = name.casefold()
    types = {schema.get("type"), *(part.get("type") for part in schema.get("anyOf", ()))}
    if effect == READ:
        return "url" if re.fullmatch(_ROLE_NAMES[0][1], lowered) else "query"
    for role, pattern in _ROLE_NAMES:
        if re.fullmatch(pattern, lowered):
            return role
    if schema.get("enum") or (types & {"number", "boolean"} and "string" not in types):
        return "flag"
    optional = "null" in types or "default" in schema or lowered.startswith("new_")
    if effect == "update" and optional:
        return "value"
    return "object"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


__all__ = [
    "CLASSES",
    "READ",
    "ROLES",
    "Manifest",
    "ToolFacts",
    "declared",
    "derive",
    "load_manifest",
    "manifest_from",
]
