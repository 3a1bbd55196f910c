"""Voters: what may stop an action before it runs. The built-in ones are loaded on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logact.voters.base import FunctionVoter, Voter, as_voters

if TYPE_CHECKING:
    from logact.voters.conflict import ConflictVoter as ConflictVoter
    from logact.voters.human import HumanVoter as HumanVoter
    from logact.voters.provenance import ProvenanceVoter as ProvenanceVoter
    from logact.voters.resources import Budget as Budget
    from logact.voters.resources import ResourceVoter as ResourceVoter
    from logact.voters.rules import ActionInterceptor as ActionInterceptor
    from logact.voters.rules import ActionRule as ActionRule
    from logact.voters.safety import SafetyVoter as SafetyVoter
    from logact.voters.semantic import SemanticVoter as SemanticVoter

_LATER = {
    "ActionInterceptor": "rules",
    "ActionRule": "rules",
    "Budget": "resources",
    "ConflictVoter": "conflict",
    "HumanVoter": "human",
    "ProvenanceVoter": "provenance",
    "ResourceVoter": "resources",
    "SafetyVoter": "safety",
    "SemanticVoter": "semantic",
}

__all__ = [
    "ActionInterceptor",
    "ActionRule",
    "Budget",
    "ConflictVoter",
    "FunctionVoter",
    "HumanVoter",
    "ProvenanceVoter",
    "ResourceVoter",
    "SafetyVoter",
    "SemanticVoter",
    "Voter",
    "as_voters",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
