"""What users import: one frozen list, light to load, with the names of the description that LogAct came from."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys

import pytest

import logact

PUBLIC = {
    "Action",
    "ActionInterceptor",
    "ActionRule",
    "AgentState",
    "AgenticIntrospection",
    "Answer",
    "Backoff",
    "Breaker",
    "ExecutionResult",
    "HumanVoter",
    "Limits",
    "LogActAgent",
    "LogActError",
    "LogEntry",
    "MultiAgentLogAct",
    "Policy",
    "RetryRecovery",
    "ResourceVoter",
    "SafetyVoter",
    "ScriptedModel",
    "SemanticRecovery",
    "SemanticVoter",
    "SharedLog",
    "SubTask",
    "Swarm",
    "Tool",
    "ToolContext",
    "ToolError",
    "ValidationResult",
    "Vote",
    "Voter",
    "Watch",
    "Workspace",
    "__version__",
    "open_log",
    "tool",
}
"""Names that users may rely on. A name is never taken away; new ones are added here and to the changelog."""

EXTRAS = (
    "pydantic",
    "pydantic_ai",
    "openai",
    "anthropic",
    "mcp",
    "sqlglot",
    "cel",
    "httpx",
    "opentelemetry",
    "asyncpg",
)

CALLS = {
    "LogActAgent": [
        "propose_action",
        "validate_action",
        "execute_action",
        "recover_from_failure",
        "reconstruct_state",
        "propose_next_action",
        "propose_alternative",
        "skip_failed_action",
        "apply_optimization",
        "id",
        "run",
        "state",
    ],
    "SharedLog": [
        "append",
        "read",
        "follow",
        "tail",
        "hint",
        "put_blob",
        "get_blob",
        "seal",
        "trim",
        "update",
        "get_history",
        "get_recent",
        "get_last_executed",
        "get_proposed",
        "get_validated_ordered",
    ],
    "Voter": ["check", "observe"],
    "SafetyVoter": ["check", "is_safe"],
    "ResourceVoter": ["check", "resources_available"],
    "SemanticVoter": ["check", "llm_validate"],
    "ActionInterceptor": ["check"],
    "AgentState": ["snapshot"],
    "SemanticRecovery": ["recover_with_introspection", "llm_analyze"],
    "RetryRecovery": ["recover"],
    "AgenticIntrospection": [
        "debug_performance",
        "health_check",
        "optimize_token_usage",
        "get_swarm_log",
        "llm_analyze",
    ],
    "MultiAgentLogAct": ["coordinate_task", "find_agent"],
}
"""Methods that the description and the design name."""


def in_a_fresh_process(code: str) -> dict[str, list[str]]:
    """What a piece of code prints as JSON, in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_the_public_list_is_frozen() -> None:
    """No public name was taken away, and none came without being listed here."""
    missing = sorted(PUBLIC - set(logact.__all__))
    added = sorted(set(logact.__all__) - PUBLIC)
    assert (missing, added) == ([], [])


@pytest.mark.parametrize("name", sorted(logact.__all__))
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """Each public name can be imported, and says what it is."""
    found = getattr(logact, name)
    if name != "__version__":
        assert inspect.getdoc(found)


def test_other_names_are_not_there() -> None:
    """What is not public is an AttributeError that says so; ``dir`` lists what is."""
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = logact.nonsense
    assert dir(logact) == sorted(logact.__all__)


@pytest.mark.parametrize(("owner", "names"), CALLS.items(), ids=list(CALLS))
def test_the_calls_of_the_description_exist(owner: str, names: list[str]) -> None:
    """Every method of the description that belongs here exists under its name, with a docstring."""
    for name in names:
        assert inspect.getdoc(getattr(getattr(logact, owner), name)), name


def test_importing_logact_is_light() -> None:
    """``import logact`` loads nothing of its own but itself."""
    code = (
        "import logact, sys, json; print(json.dumps({'m': sorted(n for n in sys.modules if n.startswith('logact'))}))"
    )
    assert in_a_fresh_process(code)["m"] == ["logact"]


def test_the_core_needs_no_extra() -> None:
    """Everything public loads, and a scripted agent runs, without any optional package being imported."""
    code = """
import json, sys
import logact
for name in logact.__all__:
    getattr(logact, name)
log = logact.open_log("memory:")
agent = logact.LogActAgent("ann", log, model=logact.ScriptedModel(["done"]))
assert agent.run_sync("hello").text == "done"
print(json.dumps({"m": sorted(set(name.partition(".")[0] for name in sys.modules))}))
"""
    loaded = in_a_fresh_process(code)["m"]
    assert [name for name in EXTRAS if name in loaded] == []


def test_the_package_is_typed() -> None:
    """Type checkers see the annotations."""
    from pathlib import Path

    assert (Path(logact.__file__).parent / "py.typed").exists()


def test_versions_agree() -> None:
    """The package's version is that of its metadata."""
    metadata = importlib.import_module("importlib.metadata")
    assert metadata.version("logact") == logact.__version__
