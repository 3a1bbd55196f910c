"""Tools: what an agent can do, with declared effects. The built-in ones are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logact.tools.answers import FailureKind, ImageResult, ProbeAnswer, ToolContext, ToolError, failure_of
from logact.tools.base import Tool, Toolbox, as_tools, tool

if TYPE_CHECKING:
    from logact.tools.files import Workspace as Workspace
    from logact.tools.mcp import mcp_tools as mcp_tools
    from logact.tools.sandbox import sandbox_status as sandbox_status
    from logact.tools.shell import Shell as Shell
    from logact.tools.web import Web as Web

__all__ = [
    "FailureKind",
    "ImageResult",
    "ProbeAnswer",
    "Tool",
    "ToolContext",
    "ToolError",
    "Toolbox",
    "as_tools",
    "failure_of",
    "tool",
]

_LATER = {
    "Workspace": "files",
    "Shell": "shell",
    "sandbox_status": "sandbox",
    "Web": "web",
    "mcp_tools": "mcp",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
