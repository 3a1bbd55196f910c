"""Specifications: what they may say, what a mistake is answered with, and that writing them loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logact.errors import SpecError, ToolDefinitionError, UnknownLogUrl
from logact.spec import SpecFile, build_agent, dump_spec, load_spec, parse_spec, save_spec
from logact.spec_tables import AgentTable, LimitsTable, VoterTable
from tests.cli_help import make

GOOD = """\
[agent]
name = "ops"
model = "openai:gpt-4o"
limits = { turns = 5 }

[[tools]]
use = "files"
root = "."

[[voters]]
use = "parts.py:careful"

[secrets]
github = "env:GITHUB_TOKEN"
"""

MISTAKES = [
    ("name =", "nmae =", ["line 2", "nmae", "Did you mean 'name'"]),
    ("turns = 5", "turns = 'x'", ["line 4", "agent.limits.turns", "a whole number", "a text"]),
    ("turns = 5", "trns = 5", ["line 4", "trns", "Did you mean 'turns'"]),
    ("[agent]", "[agnt]", ["line 1", "Did you mean 'agent'"]),
    ('name = "ops"', "", ["line 1", "agent lacks name"]),
    ('"ops"', "ops", ["not valid TOML", "line 2"]),
    ("root =", "rot =", ["line 8", "rot", "Did you mean 'root'"]),
    ('"files"', '"file"', ["line 7", "'file'", 'Did you mean "files"']),
    ("[[tools]]", "[tools]", ["line 6", "two brackets"]),
    ("[[voters]]", "[voters]", ["line 10", "two brackets"]),
    ("parts.py:careful", "safty", ["line 11", "safety"]),
    ('"env:GITHUB_TOKEN"', '"ghp_secret"', ["line 14", "given literally", "env:VARIABLE"]),
    ('use = "parts.py:careful"', 'use = "rules"', ["line 11", "exactly one"]),
    ('use = "parts.py:careful"', 'use = "a:b"\non_failure = "aprove"', ["line 12", "on_failure"]),
    ("[secrets]", "[checkpoints]\nevery = 0\n[secrets]", ["line 14", "checkpoints.every"]),
    (
        "[secrets]",
        '[recovery]\nmode = "skip"\nmax_retries = 2\n[secrets]',
        ["line 13", "not tried again"],
    ),
    ("[secrets]", "[recovery.semantic]\nturns_max = 0\n[secrets]", ["recovery.semantic.turns_max", "from 1"]),
    ("[secrets]", '[recovery.semantic]\ncheck = "in_order"\n[secrets]', ["check is no function", "module:name"]),
    ('use = "files"\nroot', 'use = "shell"\ntimeout_s = 0\nroot', ["line 8", "timeout_s", "above 0"]),
    ("[agent]", 'path = "x"\n[agent]', ["line 1", "no key 'path'"]),
]


@pytest.mark.parametrize(("old", "new", "said"), MISTAKES, ids=[one[1] or "no name" for one in MISTAKES])
def test_mistakes_are_named(old: str, new: str, said: list[str]) -> None:
    """A mistake is one SpecError with the file, the line, what stood there, and what to do; secrets are not shown."""
    assert old in GOOD
    with pytest.raises(SpecError) as error:
        parse_spec(GOOD.replace(old, new, 1), path="ops.toml")
    text = str(error.value)
    for part in ["ops.toml", *said]:
        assert part in text, text
    assert "ghp_secret" not in text


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """A missing specification is answered with the command that writes one."""
    with pytest.raises(SpecError, match="logact init"):
        load_spec(tmp_path / "none.toml")


NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,8}", fullmatch=True)
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first draw reads Unicode's tables
@given(
    name=NAMES,
    system=st.text(st.characters(exclude_categories=["Cs"])),
    turns=st.integers(0, 10**6),
    options=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), PLAIN, max_size=3),
    wait=st.none() | st.floats(0.1, 1e6),
)
def test_written_specifications_read_back(
    name: str, system: str, turns: int, options: dict[str, object], wait: float | None
) -> None:
    """What is written reads back as equal, whatever texts, names and numbers it holds."""
    spec = SpecFile(
        agent=AgentTable(name=name, system=system, limits=LimitsTable(turns=turns)),
        voters=[VoterTable(use="a.b:C", options=options, timeout_s=wait)],
        secrets={"a b": "env:X"},
    )
    assert parse_spec(dump_spec(spec)) == spec


def test_saving_never_overwrites(tmp_path: Path) -> None:
    """``save_spec`` refuses a file that exists, unless it is told to."""
    spec = load_spec(make(tmp_path))
    target = save_spec(spec, tmp_path / "copy.toml")
    with pytest.raises(SpecError, match="exists"):
        save_spec(spec, target)
    assert load_spec(save_spec(spec, target, force=True)).tools == spec.tools


def test_built_agent_is_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are relative to the file, from whatever directory it is used."""
    monkeypatch.delenv("LOGACT_MODEL", raising=False)
    path = make(tmp_path)
    monkeypatch.chdir("/")
    agent = build_agent(load_spec(path))
    assert agent.agent_id == "ops"
    assert agent.log.url == f"sqlite:///{tmp_path / 'ops.db'}"
    assert {"pay", "read_file"} <= set(agent.tools)
    assert [voter.name for voter in agent.voters] == ["careful"]
    assert agent.model is not None
    assert agent.model.name == "scripted"
    assert not (tmp_path / "ops.db").exists()


def test_model_from_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LOGACT_MODEL goes before the file's model, and an argument before both."""
    spec = load_spec(make(tmp_path))
    monkeypatch.setenv("LOGACT_MODEL", "ollama:llama3")
    model = build_agent(spec).model
    assert model is not None
    assert "llama3" in model.name
    model = build_agent(spec, model="openai:gpt-4o").model
    assert model is not None
    assert "gpt-4o" in model.name


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("parts.py:pay", "nowhere:pay", SpecError, "cannot be imported"),
        ("parts.py:pay", "nowhere.py:pay", SpecError, "there is no file"),
        ("parts.py:pay", "parts.py:pya", SpecError, "has no 'pya'"),
        ("parts.py:pay", "untyped.py:bad", ToolDefinitionError, "bad"),
        ("parts.py:careful", "parts.py:HERE", SpecError, "is not a voter"),
        ('root = "workspace"', 'root = "nowhere"', SpecError, "mkdir -p"),
        ("sqlite:///ops.db", "foo://x", UnknownLogUrl, "No engine"),
        ('use = "parts.py:shred"', 'use = "parts.py:shred"\neffects = {shed = "read"}', SpecError, "shed"),
        ('use = "parts.py:shred"', 'use = "parts.py:shred"\neffects = {shred = "reversible"}', SpecError, "undo"),
        ("[[voters]]", '[secrets]\nx = "env:NOT_SET_ANYWHERE"\n[[voters]]', SpecError, "NOT_SET_ANYWHERE"),
        ("[[voters]]", '[policy]\nneed = {any = ["carefull"]}\n[[voters]]', SpecError, "carefull"),
    ],
)
def test_building_says_what_is_wrong(tmp_path: Path, old: str, new: str, error: type[Exception], said: str) -> None:
    """What cannot be built is a typed error that names it."""
    (tmp_path / "untyped.py").write_text("def bad(x):\n    return x\n")
    path = make(tmp_path, **{old: new})
    with pytest.raises(error, match=said):
        build_agent(load_spec(path))


def test_code_tools_never_reach_the_log(tmp_path: Path) -> None:
    """A shell in a directory that holds the log or the specification is refused."""
    path = make(tmp_path, **{'use = "files"\nroot = "workspace"': 'use = "shell"\nroot = "."'})
    with pytest.raises(SpecError, match="could change the log"):
        build_agent(load_spec(path))


async def read(tool: object, path: str) -> object:
    from logact.tools import Tool, ToolContext

    assert isinstance(tool, Tool)
    return await tool.call({"path": path}, ToolContext())


def test_file_tools_never_reach_the_log(tmp_path: Path) -> None:
    """Where the workspace holds the log and the specification, the file tools cannot see them."""
    import asyncio

    from logact.tools import ToolError

    path = make(tmp_path, **{'root = "workspace"': 'root = "."'})
    (tmp_path / "ops.db").write_text("x")
    tool = build_agent(load_spec(path)).tools["read_file"]
    assert asyncio.run(read(tool, "workspace/notes.txt"))
    for hidden in ("ops.db", "logact.toml"):
        with pytest.raises(ToolError):
            asyncio.run(read(tool, hidden))


def test_secrets_come_from_where_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read from the environment and from files; they are nowhere in the specification."""
    monkeypatch.setenv("THE_TOKEN", "abc-123")
    (tmp_path / "key").write_text("def-456\n")
    path = make(tmp_path, **{"[[voters]]": '[secrets]\na = "env:THE_TOKEN"\nb = "file:key"\n[[voters]]'})
    agent = build_agent(load_spec(path))
    assert agent.secrets.resolve("secret://a secret://b") == "abc-123 def-456"


def test_operator_may_declare_effects(tmp_path: Path) -> None:
    """``effects`` replaces a tool's declared effect for this agent, and only there."""
    path = make(tmp_path, **{'use = "parts.py:shred"': 'use = "parts.py:shred"\neffects = {shred = "idempotent"}'})
    agent = build_agent(load_spec(path))
    assert agent.tools["shred"].effect == "idempotent"


RULES = """use = "rules"
[[voters.rules]]
name = "no shredding"
tool = "shred"
decision = "deny"
"""


def test_built_in_voters(tmp_path: Path) -> None:
    """``safety`` watches the workspace of the file tools; ``rules`` come inline, or from a file beside the spec."""
    own = 'use = "parts.py:careful"'
    agent = build_agent(load_spec(make(tmp_path, **{own: f'use = "safety"\n[[voters]]\n{RULES}'})))
    assert [voter.name for voter in agent.voters] == ["safety", "rules"]
    (tmp_path / "rules.toml").write_text(RULES.partition("\n")[2].replace("voters.", ""))
    agent = build_agent(load_spec(make(tmp_path, **{own: 'use = "rules"\nfile = "rules.toml"\nname = "office"'})))
    assert [voter.name for voter in agent.voters] == ["office"]


@pytest.mark.parametrize(
    ("old", "new", "said"), [("decision =", "decisoin =", "decisoin"), ('"shred"', '"shrd"', "shrd")]
)
def test_wrong_rules_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    """A rule with a key that does not exist, or about a tool that the agent does not have, is refused."""
    path = make(tmp_path, **{'use = "parts.py:careful"': RULES.replace(old, new)})
    with pytest.raises(SpecError, match=said):
        build_agent(load_spec(path))
