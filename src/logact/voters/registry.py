"""Voters by name: those that come with LogAct, and those that other packages add.

A package adds a voter by an entry point of the group ``logact.voters``::

    [project.entry-points."logact.voters"]
    sundays = "my_package.voters:NoSundays"

The object is a class of voters, or anything that returns one when it is called with a specification's options. The
built-in ones stand in this project's own metadata in the same way. A name of theirs cannot be taken over.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from logact.env_guest import guest
from logact.errors import SpecError

GROUP = "logact.voters"

BUILT_IN = {
    "safety": "logact.voters.safety:SafetyVoter",
    "rules": "logact.voters.rules:ActionInterceptor",
    "resources": "logact.voters.resources:ResourceVoter",
    "provenance": "logact.voters.provenance:ProvenanceVoter",
    "semantic": "logact.voters.semantic:SemanticVoter",
    "human": "logact.voters.human:HumanVoter",
    "conflict": "logact.voters.conflict:ConflictVoter",
}
"""The voters that come with LogAct; the same table stands in ``pyproject.toml`` (a test compares them)."""


def installed() -> dict[str, EntryPoint]:
    """The voters of other packages, by name. Nothing is imported."""
    return {one.name: one for one in entry_points(group=GROUP) if one.name not in BUILT_IN}


def known() -> list[str]:
    """Every name of a voter here."""
    return [*BUILT_IN, *sorted(installed())]


def voter_class(name: str) -> Any:
    """What makes voters of this name. Raises SpecError if there is none, or it cannot be imported."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(import_module(module), attribute)
    found = installed().get(name)
    if found is None:
        raise SpecError(
            "There is no voter of this name",
            received=name,
            expected=", ".join(known()) + ", package.module:object or file.py:object",
        )
    try:
        with guest():
            return found.load()
    except Exception as error:
        package = found.dist.name if found.dist is not None else "an unknown package"
        raise SpecError(
            f"The voter {name!r} of {package} cannot be imported", received=f"{type(error).__name__}: {error}"
        ) from error
