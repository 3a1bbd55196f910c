"""Voters by name: built-in ones, those of other packages, and in specifications."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logact.errors import SpecError
from logact.spec import build_agent, parse_spec
from logact.voters import registry
from logact.voters.base import Voter
from logact.voters.human import HumanVoter
from logact.voters.resources import ResourceVoter
from logact.voters.semantic import SemanticVoter

ROOT = Path(__file__).resolve().parents[2]


def test_built_ins_register_as_others_do() -> None:
    """The project's metadata lists the built-in voters under the group that others use, and all of them load."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == registry.BUILT_IN
    for name in registry.BUILT_IN:
        assert issubclass(registry.voter_class(name), Voter)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of somebody else, installed beside this one."""
    (tmp_path / "sundays.py").write_text(
        "from logact import Vote, Voter\n"
        "class NoSundays(Voter):\n"
        "    def __init__(self, day='sunday'):\n"
        "        super().__init__('sundays')\n"
        "        self.day = day\n"
        "    def check(self, entry):\n"
        "        return Vote(approved=True)\n"
    )
    info = tmp_path / "sundays-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sundays\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[logact.voters]\nsundays = sundays:NoSundays\nbroken = sundays:Nothing\nsafety = sundays:NoSundays\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield "sundays"
    sys.modules.pop("sundays", None)


def voters(text: str) -> list[Voter]:
    spec = parse_spec(f'[agent]\nname = "ops"\n[log]\nurl = "memory:"\n{text}')
    return build_agent(spec).voters


def test_other_packages_add_voters(package: str) -> None:
    """An installed package's voter is used by its name; a built-in name cannot be taken over."""
    (found,) = voters('[[voters]]\nuse = "sundays"\noptions = {day = "monday"}\n')
    assert type(found).__name__ == "NoSundays" and found.day == "monday"  # type: ignore[attr-defined]
    assert registry.voter_class("safety").__module__ == "logact.voters.safety"
    with pytest.raises(SpecError, match="of sundays cannot be imported"):
        registry.voter_class("broken")


def test_unknown_names() -> None:
    """A name that nobody registered is refused with the nearest one."""
    with pytest.raises(SpecError, match=r'[Dd]id you mean "resources"'):
        voters('[[voters]]\nuse = "resource"\n')
    with pytest.raises(SpecError, match="no voter of this name"):
        registry.voter_class("nobody")


def test_specifications_build_every_kind(tmp_path: Path) -> None:
    """Budgets, a judging model and people can be set up in a file, and combined there."""
    script = tmp_path / "judge.json"
    script.write_text('["ok"]')
    found: dict[str, Any] = {
        voter.name: voter
        for voter in voters(
            f"""
[[voters]]
use = "resources"
options = {{actions = 5, budgets = [{{what = "sum", argument = "amount", most = 100, tool = "pay"}}]}}
[[voters]]
use = "semantic"
options = {{model = "scripted:{script}", guidance = "be strict"}}
[[voters]]
use = "human"
options = {{approvers = ["alice", "bob"], needed = 2}}
[policy]
need = {{cases = [{{effect = "read", need = "resources"}}], else = {{escalate = ["semantic", "human"]}}}}
"""
        )
    }
    assert isinstance(found["resources"], ResourceVoter) and len(found["resources"].budgets) == 2
    assert isinstance(found["semantic"], SemanticVoter) and found["semantic"].guidance == "be strict"
    assert isinstance(found["human"], HumanVoter) and found["human"].needed == 2
    for wrong in ("{actions = -1}", "{acts = 1}", "{}"):
        with pytest.raises(SpecError):
            voters(f'[[voters]]\nuse = "resources"\noptions = {wrong}\n')
