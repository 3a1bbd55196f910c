"""LogAct: reliable LLM agents through a shared log.

An agent proposes; voters judge what stands in the log; only what is committed runs; the result is written back.
Names are loaded on first use, so that ``import logact`` is fast and needs no extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logact.agent import LogActAgent as LogActAgent
    from logact.agent_results import AgentState as AgentState
    from logact.agent_results import Answer as Answer
    from logact.agent_results import ExecutionResult as ExecutionResult
    from logact.agent_results import ValidationResult as ValidationResult
    from logact.core.breaking import Breaker as Breaker
    from logact.core.retrying import Backoff as Backoff
    from logact.core.views import Action as Action
    from logact.core.views import LogEntry as LogEntry
    from logact.entry import Limits as Limits
    from logact.entry import Policy as Policy
    from logact.entry import Vote as Vote
    from logact.errors import LogActError as LogActError
    from logact.introspection.agentic import AgenticIntrospection as AgenticIntrospection
    from logact.introspection.semantic_recovery import SemanticRecovery as SemanticRecovery
    from logact.logs.base import SharedLog as SharedLog
    from logact.logs.url import open_log as open_log
    from logact.models import ScriptedModel as ScriptedModel
    from logact.runtime.retry import RetryRecovery as RetryRecovery
    from logact.runtime.watcher import Watch as Watch
    from logact.tools import Tool as Tool
    from logact.tools import ToolContext as ToolContext
    from logact.tools import ToolError as ToolError
    from logact.tools import Workspace as Workspace
    from logact.tools import tool as tool
    from logact.voters import ActionInterceptor as ActionInterceptor
    from logact.voters import ActionRule as ActionRule
    from logact.voters import HumanVoter as HumanVoter
    from logact.voters import ResourceVoter as ResourceVoter
    from logact.voters import SafetyVoter as SafetyVoter
    from logact.voters import SemanticVoter as SemanticVoter
    from logact.voters import Voter as Voter

__version__ = "0.1.0"

_FROM = {
    "Action": "core.views",
    "ActionInterceptor": "voters",
    "ActionRule": "voters",
    "AgentState": "agent_results",
    "AgenticIntrospection": "introspection.agentic",
    "Answer": "agent_results",
    "Backoff": "core.retrying",
    "Breaker": "core.breaking",
    "ExecutionResult": "agent_results",
    "Limits": "entry",
    "LogActAgent": "agent",
    "LogActError": "errors",
    "LogEntry": "core.views",
    "MultiAgentLogAct": "swarm",
    "Policy": "entry",
    "RetryRecovery": "runtime.retry",
    "HumanVoter": "voters",
    "ResourceVoter": "voters",
    "SafetyVoter": "voters",
    "SemanticVoter": "voters",
    "ScriptedModel": "models",
    "SemanticRecovery": "introspection.semantic_recovery",
    "SharedLog": "logs.base",
    "SubTask": "swarm",
    "Swarm": "swarm",
    "Tool": "tools",
    "ToolContext": "tools",
    "ToolError": "tools",
    "ValidationResult": "agent_results",
    "Vote": "entry",
    "Voter": "voters",
    "Watch": "runtime.watcher",
    "Workspace": "tools",
    "open_log": "logs.url",
    "tool": "tools",
}

__all__ = [*sorted(_FROM), "__version__"]  # noqa: PLE0604 - computed from the table above, strings all


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module 'logact' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"logact.{_FROM[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
