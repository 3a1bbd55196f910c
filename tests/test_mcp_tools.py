"""Tools from a real MCP server, a process that speaks over its standard input and output."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from logact.errors import ArgumentError, MissingExtra, ToolDefinitionError
from logact.tools import ImageResult, Tool, Toolbox, ToolContext, ToolError, mcp_tools

SERVER = """
import asyncio, base64, os, pathlib, sys
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp_types import ToolAnnotations

app = MCPServer("upstream", version="4.5")
done = pathlib.Path(sys.argv[1])

@app.tool(annotations=ToolAnnotations(read_only_hint=True))
def lookup(name: str, limit: int = 3) -> str:
    "Look a name up."
    return f"{name} {limit}"

@app.tool(annotations=ToolAnnotations(idempotent_hint=True))
def put(name: str, value: dict[str, int]) -> dict[str, int]:
    return value

@app.tool(annotations=ToolAnnotations(destructive_hint=False))
def add(context: str, arguments: str, self: str) -> str:
    return context + arguments + self

@app.tool(name="wipe.all")
def wipe(ctx: Context) -> str:
    meta = ctx.request_context.meta
    return repr(meta)

@app.tool()
def broken() -> str:
    raise ValueError("it broke")

@app.tool()
def picture() -> Image:
    return Image(data=b"PNG", format="png")

@app.tool()
def environment() -> str:
    return "\\n".join(sorted(os.environ))

@app.tool()
async def slow() -> str:
    with done.open("a") as file:
        file.write("began\\n")
    await asyncio.sleep(60)
    return "done"

@app.tool()
def die() -> str:
    os._exit(3)

app.run("stdio")
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    path = tmp_path / "server.py"
    path.write_text(textwrap.dedent(SERVER))
    return [sys.executable, str(path), str(tmp_path / "done")]


async def call(tools: list[Tool], tool_name: str, /, **arguments: Any) -> Any:
    target = Toolbox(tools)[tool_name]
    return await target.call(target.check(arguments), ToolContext(agent="a", run=1, action=2, key="key-7"))


async def failure(tools: list[Tool], tool_name: str, /, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await call(tools, tool_name, **arguments)
    return caught.value


def test_tools_of_a_server(command: list[str]) -> None:
    """Names, schemas, effects from annotations, results of all kinds, and errors."""

    async def main() -> None:
        async with mcp_tools(command) as tools:
            box = Toolbox(tools)
            assert {name: box[name].effect for name in box} == {
                "lookup": "read",
                "put": "idempotent",
                "add": "irreversible",
                "wipe_all": "irreversible",
                "broken": "irreversible",
                "picture": "irreversible",
                "environment": "irreversible",
                "slow": "irreversible",
                "die": "irreversible",
            }
            assert all(item.untrusted for item in tools)
            assert box["lookup"].description == "Look a name up."
            assert box["lookup"].parameters["properties"]["limit"]["type"] == "integer"
            assert box["lookup"].version == "4.5"
            assert await call(tools, "lookup", name="n") == "n 3"
            assert await call(tools, "put", name="n", value={"a": 1}) == {"a": 1}
            assert await call(tools, "picture") == ImageResult(b"PNG", "image/png")
            assert "key-7" in await call(tools, "wipe_all")
            error = await failure(tools, "broken")
            assert str(error) == "Error executing tool broken"
            assert not error.definite
            for wrong in ({}, {"name": 1}, {"name": "n", "limit": True}, {"name": "n", "more": 1}):
                with pytest.raises(ArgumentError):
                    box["lookup"].check(wrong)

    asyncio.run(main())


def test_declared_effects_win(command: list[str]) -> None:
    """The operator's declaration beats the server's hint; without trust all hints are ignored."""

    async def main() -> None:
        options: dict[str, Any] = {"only": ["lookup", "put", "wipe.all"], "prefix": "up_"}
        async with mcp_tools(command, effects={"put": "irreversible", "wipe.all": "idempotent"}, **options) as tools:
            assert [(item.name, item.effect) for item in tools] == [
                ("up_lookup", "read"),
                ("up_put", "irreversible"),
                ("up_wipe_all", "idempotent"),
            ]
        async with mcp_tools(command, trust_annotations=False, **options) as tools:
            assert {item.effect for item in tools} == {"irreversible"}
        for wrong in ({"effects": {"nothing": "read"}}, {"only": ["nothing"]}):
            with pytest.raises(ToolDefinitionError, match="no tool 'nothing'"):
                async with mcp_tools(command, **wrong):
                    pass

    asyncio.run(main())


def test_the_server_gets_no_secrets(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's process gets a small environment plus what it is given, not all of ours."""
    monkeypatch.setenv("SECRET_TOKEN", "s3cr3t")

    async def main() -> None:
        async with mcp_tools(command, environment={"GIVEN": "1"}) as tools:
            names = (await call(tools, "environment")).splitlines()
            assert "SECRET_TOKEN" not in names
            assert "GIVEN" in names

    asyncio.run(main())


def test_a_server_that_dies_leaves_a_doubt(command: list[str]) -> None:
    """A call that gets no answer is never definite; the block ends without hanging."""

    async def main() -> None:
        async with mcp_tools(command) as tools:
            error = await failure(tools, "die")
            assert not error.definite
            assert error.kind == "ambiguous"
            later = await failure(tools, "lookup", name="n")
            assert not later.definite

    asyncio.run(asyncio.wait_for(main(), 30))


def test_timeouts_leave_a_doubt(command: list[str], tmp_path: Path) -> None:
    """A call that takes too long ends as a timeout, with the effect unknown; the next call works."""

    async def main() -> None:
        async with mcp_tools(command, timeout_s=1.5) as tools:
            error = await failure(tools, "slow")
            assert (error.kind, error.definite) == ("timeout", False)
            assert await call(tools, "lookup", name="n") == "n 3"

    asyncio.run(asyncio.wait_for(main(), 30))
    assert (tmp_path / "done").read_text() == "began\n"


def test_calls_at_the_same_time_and_cancelling(command: list[str]) -> None:
    """Calls from several tasks share a session; a cancelled one does not disturb the others."""

    async def main() -> None:
        async with mcp_tools(command) as tools:
            slow = asyncio.ensure_future(call(tools, "slow"))
            answers = await asyncio.gather(*(call(tools, "lookup", name=f"n{number}") for number in range(10)))
            assert answers == [f"n{number} 3" for number in range(10)]
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await call(tools, "lookup", name="after") == "after 3"

    asyncio.run(asyncio.wait_for(main(), 30))


def test_arguments_with_names_of_our_own(command: list[str]) -> None:
    """A server's arguments may be named as our own parameters; nothing is mixed up."""

    async def main() -> None:
        async with mcp_tools(command) as tools:
            assert await call(tools, "add", context="a", arguments="b", self="c") == "abc"

    asyncio.run(main())


def test_errors_of_the_block_come_through(command: list[str]) -> None:
    """What the block raises is what the caller gets, not a group and not an error of the connection."""

    async def main() -> None:
        with pytest.raises(KeyError, match="mine"):
            async with mcp_tools(command):
                raise KeyError("mine")

    asyncio.run(main())


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    """No such program, one that ends at once, and nobody at the URL: definite, with the reason, soon."""

    async def main(server: Any) -> None:
        with pytest.raises(ToolError, match="cannot be used") as caught:
            async with mcp_tools(server, timeout_s=5):
                pass
        assert caught.value.definite
        assert caught.value.kind == "environment"

    for server in ([str(tmp_path / "missing")], [sys.executable, "-c", "pass"], "http://127.0.0.1:9/mcp"):
        asyncio.run(asyncio.wait_for(main(server), 30))


def test_the_servers_process_ends_with_the_block(command: list[str]) -> None:
    """No server process is left behind."""

    async def main() -> None:
        async with mcp_tools(command):
            pass

    asyncio.run(main())
    running = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    assert not [path for path in running if path.exists() and command[1].encode() in path.read_bytes()]


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error names the exact command that installs it."""
    monkeypatch.setitem(sys.modules, "mcp", None)

    async def main() -> None:
        with pytest.raises(MissingExtra, match=r"pip install 'logact\[mcp\]'"):
            async with mcp_tools(["anything"]):
                pass

    asyncio.run(main())
