"""What the agents of a swarm may say to and see of each other: mail with replies, and a look at others' actions.

Mail is an entry, so it is durable, ordered, and seen by voters and people. Whom an agent may look at, a function of
the swarm says. It changes nothing but by mail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from logact.agent import LogActAgent
from logact.core.views import LogEntry
from logact.entry import Mail
from logact.logs.base import SharedLog, where
from logact.swarm.tasks import SubTask
from logact.tools import Tool, Toolbox, ToolContext

LOOK_MAX = 20
MAIL_KEPT = 20
BODY_CHARS_MAX = 4000
VALUE_CHARS_MAX = 400


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of mail, and where it stands."""

    position: int
    sender: str
    to: str
    body: str
    in_reply_to: int = 0


class Talk:
    """Mail and looks of one swarm. ``sees(viewer, other)`` says whom an agent may look at (None: everybody)."""

    def __init__(self, log: SharedLog, sees: Callable[[str, str], bool] | None = None) -> None:
        self.log = log
        self.sees = sees
        self.equipped = False

    async def send(self, sender: str, to: str, body: str, *, in_reply_to: int = 0, key: str = "") -> int:
        """Write to an agent, a person, or everybody (``*``). Where the mail stands."""
        mail = Mail(to=to, sender=sender, body=body[:BODY_CHARS_MAX], in_reply_to=in_reply_to)
        return (await self.log.append(mail, role="client", name=sender, key=key)).position

    async def inbox(self, agent: str, after: int = 0) -> list[Letter]:
        """What was written to an agent (or to everybody, by others) after a position, oldest first; what is kept."""
        return [
            Letter(
                position=entry.position,
                sender=said.sender,
                to=said.to,
                body=said.body,
                in_reply_to=said.in_reply_to,
            )
            async for entry in self.log.read_kept(after, matching=where(kinds=["Mail"]))
            if isinstance(said := entry.payload, Mail)
            and (said.to == agent or (said.to == "*" and said.sender != agent))
        ]

    async def look(self, viewer: str, limit: int = LOOK_MAX) -> list[LogEntry]:
        """The latest actions of the others, with what became of them: of those whom the viewer may see."""
        from logact.logs import queries

        def shown(name: str) -> bool:
            return name != viewer and (self.sees is None or self.sees(viewer, name))

        return await queries.history(self.log, shown, latest=limit)

    # --- for models ----------------------------------------------------------------------------------------------

    def equip(self, agent: LogActAgent) -> None:
        """Give an agent the tools ``send_mail``, ``read_mail`` and ``look_around``."""
        self.equipped = True
        me = agent.agent_id

        async def send_mail(to: str, body: str, in_reply_to: int, context: ToolContext) -> str:
            """Write to another agent.

            Args:
                to: the name of the agent, or * for all of them
                body: what you want to say
                in_reply_to: the number of the mail that you answer, or 0
            """
            at = await self.send(me, to, body, in_reply_to=in_reply_to, key=f"mail:{context.key}")
            return f"sent as {at}"

        async def read_mail() -> list[dict[str, Any]]:
            """The latest mail to you."""
            return [msgspec.to_builtins(one) for one in (await self.inbox(me))[-MAIL_KEPT:]]

        async def look_around() -> list[dict[str, Any]]:
            """What the other agents intend to do and did lately."""
            return [_shown(entry) for entry in await self.look(me)]

        extra = [
            Tool(send_mail, effect="idempotent"),
            Tool(read_mail, effect="read", untrusted=True),
            Tool(look_around, effect="read", untrusted=True),
        ]
        for one in extra:
            one.lent = True
        agent.tools = Toolbox([*agent.tools.values(), *extra])

    async def prepare(self, agent: LogActAgent, task: SubTask) -> str:
        """Says how much mail waits for an agent ("" if none)."""
        count = len(await self.inbox(agent.agent_id))
        return f"[{count} pieces of mail for you: read_mail]" if count else ""


def _shown(entry: LogEntry) -> dict[str, Any]:
    arguments = msgspec.json.encode(entry.action.arguments).decode()[:VALUE_CHARS_MAX]
    return {
        "action": entry.position,
        "agent": entry.agent_id,
        "tool": entry.action.tool,
        "arguments": arguments,
        "status": entry.status,
        "reason": entry.reason,
    }
