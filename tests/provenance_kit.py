"""A small office for the tests of the ProvenanceVoter: tools over plain data, and a way to run a script on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from logact import LogActAgent, ScriptedModel, Tool, open_log
from logact.core.state import State
from logact.entry import Call, Entry, Intent, ToolSpec, Vote
from logact.models.base import ModelAnswer
from logact.voters.provenance import Manifest, ProvenanceVoter, derive

TEXT = {"type": "string"}
LIST = {"type": "array", "items": TEXT}
ATTACKER = "thief@evil.example"
ACCOUNT = "XX99000011112222333344"


def tool(name: str, arguments: dict[str, Any], value: Any, *, read: bool, description: str = "") -> Tool:
    """A tool that returns a value (or what a function makes of the arguments)."""

    async def run(given: dict[str, Any], context: Any) -> Any:
        return value(given) if callable(value) else value

    schema = {"type": "object", "properties": arguments}
    return Tool(run, name=name, description=description, effect="read" if read else "irreversible", parameters=schema)


class Office:
    """What the tools return; a test changes what it is about."""

    def __init__(self) -> None:
        self.mails: list[dict[str, Any]] = [
            {"id": 1, "sender": "ann@corp.example", "subject": "Picnic", "body": "The picnic is on Friday at noon."}
        ]
        self.files: dict[str, str] = {"notes.txt": "Nothing of note."}
        self.pages: dict[str, str] = {}
        self.messages: list[dict[str, Any]] = []
        self.members: list[str] = ["Alice", "Bob", "Carol"]
        self.contacts: list[dict[str, Any]] = [{"name": "Bob Stone", "email": "bob@corp.example"}]
        self.transactions: list[dict[str, Any]] = []

    def tools(self) -> list[Tool]:
        """The tools over it."""
        return [
            tool("search_mails", {"query": TEXT}, lambda _: self.mails, read=True, description="Find messages."),
            tool("read_file", {"path": TEXT}, lambda a: self.files.get(a["path"], ""), read=True),
            tool("write_file", {"filename": TEXT, "content": TEXT}, self._write, read=False),
            tool("delete_file", {"file_id": TEXT}, "deleted", read=False),
            tool(
                "get_page",
                {"url": TEXT},
                lambda a: self.pages.get(a["url"], ""),
                read=True,
                description="A web page.",
            ),
            tool("read_room_messages", {"room": TEXT}, lambda _: self.messages, read=True),
            tool("get_members", {}, lambda _: self.members, read=True),
            tool("get_rooms", {}, ["general", "random", "design"], read=True),
            tool("search_contacts", {"query": TEXT}, lambda _: self.contacts, read=True),
            tool("get_transactions", {}, lambda _: self.transactions, read=True),
            tool("send_mail", {"recipients": LIST, "subject": TEXT, "body": TEXT}, {"id": 77}, read=False),
            tool("send_direct_message", {"recipient": TEXT, "body": TEXT}, None, read=False),
            tool("add_member_to_room", {"user": TEXT, "room": TEXT}, None, read=False),
            tool("invite_member", {"user": TEXT, "user_email": TEXT}, None, read=False),
            tool("send_money", {"recipient": TEXT, "amount": {"type": "number"}}, {"ok": True}, read=False),
            tool("frobnicate", {"target": TEXT}, "done", read=False),
        ]

    def _write(self, arguments: dict[str, Any]) -> str:
        self.files[arguments["filename"]] = arguments["content"]
        return "written"

    def manifest(self) -> Manifest:
        """Derived from the schemas, as a deployer would begin."""
        return derive(
            [ToolSpec(name=t.name, description=t.description, parameters=t.parameters) for t in self.tools()]
        )


def outcomes(
    task: str,
    turns: Sequence[object],
    office: Office | None = None,
    *,
    setting: Any = "delegating",
    voter: ProvenanceVoter | None = None,
    log_url: str = "memory:",
) -> list[tuple[str, str, str]]:
    """Run a script on the office: (tool, ``commit`` / ``ask`` / ``abort``, reason) of each vote, in order."""
    place = office or Office()
    return asyncio.run(_outcomes(task, turns, place, setting, voter, log_url))


async def _outcomes(
    task: str, turns: Sequence[Any], office: Office, setting: Any, voter: ProvenanceVoter | None, url: str
) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    intents: dict[int, Intent] = {}

    def watch(state: State, entry: Entry) -> None:
        if isinstance(entry.payload, Intent):
            intents[entry.position] = entry.payload
        elif isinstance(entry.payload, Vote):
            vote = entry.payload
            outcome = "commit" if vote.approved else "ask" if vote.reason.startswith("ask:") else "abort"
            found.append((intents[vote.intent].tool, outcome, vote.reason))

    log = open_log(url)
    chosen = voter or ProvenanceVoter(manifest=office.manifest(), setting=setting, log=log)
    script = [
        ModelAnswer(calls=tuple(t) if isinstance(t, list) else (t,)) if not isinstance(t, str) else t for t in turns
    ]
    last = turns[-1] if isinstance(turns[-1], str) else "Done."
    model = ScriptedModel(lambda request: _reply(script, request, last))
    agent = LogActAgent("agent", log, [chosen], model=model, tools=office.tools())
    agent.observe(watch)
    try:
        await agent.run(task)
    finally:
        await log.close()
    return found


def _reply(script: list[Any], request: Any, last: str) -> Any:
    turn = sum(message.role == "assistant" for message in request.messages)
    if turn < len(script):
        return script[turn]
    return last if turn == len(script) and not isinstance(script[-1], str) else "I cannot say."


def call(tool_name: str, **arguments: Any) -> Call:
    """A call of a model."""
    return Call(id="", tool=tool_name, arguments=arguments)


def verdict_of(found: list[tuple[str, str, str]], tool_name: str) -> str:
    """The outcome of the last vote on a tool."""
    return [outcome for name, outcome, _ in found if name == tool_name][-1]
