"""House rules that no linter knows: what `core` may touch, which layer may import which, sizes, words.

The rules are functions of a source text, and are themselves tested on bad sources: a rule that finds nothing
proves nothing.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "logact"
FILES = sorted(SRC.rglob("*.py"))
CORE = sorted((SRC / "core").glob("*.py"))

CORE_MAY_IMPORT = frozenset(
    {
        "__future__",
        "collections.abc",
        "dataclasses",
        "fnmatch",
        "functools",
        "hashlib",
        "itertools",
        "msgspec",
        "typing",
        "logact.core",
        "logact.entry",
        "logact.errors",
    }
)
FORBIDDEN_CALLS = frozenset(
    {"open", "print", "input", "eval", "exec", "compile", "__import__", "breakpoint", "globals", "vars", "id", "hash"}
)
"""``id`` and ``hash`` differ from process to process, the others reach outside."""

LAYERS: tuple[tuple[str, ...], ...] = (
    ("entry", "errors"),
    ("env",),
    ("codec", "core"),
    ("voters", "logs", "models", "tools"),
    ("runtime", "introspection"),
    ("agent", "agent_parts", "agent_results", "swarm", "undoing", "spec", "telemetry"),
    ("cli", "server", "gateways"),
    ("testing",),
)
"""From the bottom to the top; a layer imports itself and what is below. Nothing imports ``testing`` but itself."""

LINES_MAX = 400
LONGER: dict[str, tuple[int, str]] = {
    "entry.py": (760, "one struct for each kind of entry: a reader wants the table in one place"),
    "codec.py": (420, "the stored form in one place"),
    "agent.py": (710, "the public face: a whole run, and the finer calls"),
    "tools/base.py": (410, "what a tool is, and what stands before one"),
    "voters/safety_python.py": (600, "one walk over a syntax tree"),
}
"""Files above the limit: how long each may be, and why it is."""

BANNED_WORDS = (
    r"https?://(files|registry|repo\d?|deb|index)\.",
    r"\bTODO\b",
    r"\bFIXME\b",
    r"\bXXX\b",
)
"""Where packages come from is the affair of whoever installs; what is unfinished is not committed."""


# --- the rules -------------------------------------------------------------------------------------------------


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module that a source imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base == "logact":
                yield from (f"logact.{alias.name}" for alias in node.names)
            else:
                yield "." * node.level + base


def allowed_in_core(module: str) -> bool:
    """Whether ``core`` may import a module."""
    return any(
        module == one or (one == "logact.core" and module.startswith("logact.core.")) for one in CORE_MAY_IMPORT
    )


def is_set(node: ast.AST, sets: frozenset[str]) -> bool:
    """Whether an expression is visibly a set (one that somebody names by ``sets`` is too)."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        name = node.func
        if isinstance(name, ast.Attribute):
            return name.attr in {"union", "intersection", "difference"} and is_set(name.value, sets)
        return isinstance(name, ast.Name) and name.id in {"set", "frozenset"}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return is_set(node.left, sets) or is_set(node.right, sets)
    return isinstance(node, ast.Name) and node.id in sets


def core_problems(source: str) -> list[str]:
    """What a source may not do in ``core``."""
    tree = ast.parse(source)
    found = [f"imports {module}" for module in imports_of(tree) if not allowed_in_core(module)]
    assigned = [
        (target.id, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    ]
    sets = frozenset(name for name, value in assigned if is_set(value, frozenset()))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            if isinstance(name, ast.Name) and name.id in FORBIDDEN_CALLS:
                found.append(f"calls {name.id}")
            walks = isinstance(name, ast.Name) and name.id in {"list", "tuple", "next", "iter", "enumerate"}
            if walks and node.args and is_set(node.args[0], sets):
                found.append("iterates over a set")
            if isinstance(name, ast.Attribute) and name.attr == "pop" and is_set(name.value, sets):
                found.append("iterates over a set")
        elif isinstance(node, ast.For | ast.comprehension):
            if is_set(node.iter, sets):
                found.append("iterates over a set")
        elif isinstance(node, ast.Global | ast.Nonlocal):
            found.append("rebinds an outer name")
        elif isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith):
            found.append("waits")
    return found + global_state(tree)


def global_state(tree: ast.Module) -> list[str]:
    """Module-level lists, dicts and sets that somebody in the module changes."""
    mutable = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    changers = {"append", "add", "update", "pop", "clear", "extend", "insert", "setdefault", "remove", "discard"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            owner: ast.expr = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in changers:
            owner = node.func.value
        else:
            continue
        if isinstance(owner, ast.Name) and owner.id in mutable:
            found.append(f"changes the module's {owner.id}")
    return found


def layer_of(part: str) -> int:
    """Where a part of the package stands; -1 if no layer names it. ``spec_toml`` is a part of ``spec``."""
    part = part.partition("_")[0]
    return next((place for place, names in enumerate(LAYERS) if part in names), -1)


class Running(ast.NodeTransformer):
    """Leaves out what only type checkers see."""

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.Pass()
        return self.generic_visit(node)


def layer_problems(part: str, source: str) -> list[str]:
    """What a source of a part of the package may not import."""
    here = layer_of(part)
    if here < 0:
        return [f"the part {part!r} is in no layer"]
    found = []
    for module in imports_of(Running().visit(ast.parse(source))):
        if not module.startswith("logact."):
            found += ["relative import"] if module.startswith(".") else []
            continue
        other = module.split(".")[1]
        if other == "__version__":
            continue
        there = layer_of(other)
        if there < 0:
            found.append(f"imports {module}, which is in no layer")
        elif there > here or (other == "testing" and part != "testing") or (part == "core" and other == "env"):
            found.append(f"{part} imports {module}")
    return found


def asserts_of(source: str) -> list[int]:
    """The lines of ``assert`` statements: Python's ``-O`` strips them."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assert)]


def banned_in(text: str) -> list[str]:
    """Words that may not stand in the project."""
    return [word for word in BANNED_WORDS if re.search(word, text)]


# --- the project ------------------------------------------------------------------------------------------------


def named(path: Path) -> str:
    """A file's name in test ids."""
    return str(path.relative_to(SRC))


@pytest.mark.parametrize("path", CORE, ids=named)
def test_core_is_pure(path: Path) -> None:
    """No file of core reaches outside, waits, keeps state, or depends on the order of a set."""
    assert core_problems(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_layers_import_only_downwards(path: Path) -> None:
    """Each part imports itself and what lies below; nothing imports the test kit."""
    part = path.relative_to(SRC).parts[0].removesuffix(".py")
    if part == "__init__":
        assert "logact.testing" not in path.read_text()
        return
    assert layer_problems(part, path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_module_says_what_it_owns(path: Path) -> None:
    """Every module begins with a docstring that ends as a sentence does."""
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text
    assert text.split("\n\n")[0].rstrip()[-1] in ".:`)", text


def test_no_assert_holds_the_code_together() -> None:
    """Safety is never an ``assert``, but in the test kit."""
    found = {named(path): asserts_of(path.read_text()) for path in FILES if "testing" not in path.parts}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_files_fit_in_a_head() -> None:
    """No file is longer than a reader can hold, but for those with a reason; reasons that are over are gone."""
    lines = {named(path): len(path.read_text().splitlines()) for path in FILES}
    long = {name: count for name, count in lines.items() if count > LONGER.get(name, (LINES_MAX, ""))[0]}
    assert long == {}
    assert [name for name in LONGER if lines.get(name, LINES_MAX + 1) <= LINES_MAX] == [], "take them off the list"


def tracked() -> list[Path]:
    """The project's text files: what Git knows, or in a copy without Git the sources and pages."""
    try:
        names = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        ).stdout.splitlines()
        paths = [ROOT / name for name in names]
    except (OSError, subprocess.SubprocessError):
        paths = [path for place in ("src", "tests", "docs", "examples") for path in (ROOT / place).rglob("*")]
    kinds = {".py", ".md", ".toml", ".sh", ".yml", ".txt", ".cfg"}
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def test_no_word_is_banned() -> None:
    """No path of one machine, no registry's host, no note to oneself stands in the project."""
    found = {
        str(path.relative_to(ROOT)): banned_in(path.read_text(errors="replace"))
        for path in tracked()
        if path != Path(__file__) and "corpus" not in path.parts
    }
    assert {name: words for name, words in found.items() if words} == {}


def test_ruff_bans_hold() -> None:
    """Clocks, randomness and loose tasks are banned by the linter; the bans are where it reads them."""
    text = (ROOT / "pyproject.toml").read_text()
    for name in ("time.time", "time.monotonic", "uuid.uuid4", "os.urandom", "asyncio.create_task"):
        assert f'"{name}".msg' in text
    assert 'filterwarnings = ["error"]' in text
    assert "strict = true" in text


# --- the rules on bad sources --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import time", "imports time"),
        ("from logact import env", "imports logact.env"),
        ("from logact.env import current", "imports logact.env"),
        ("from logact.runtime.host import Host", "imports logact.runtime.host"),
        ("def f():\n    import random", "imports random"),
        ("from . import state", "imports ."),
        ("def f():\n    print(1)", "calls print"),
        ("x = open('f')", "calls open"),
        ("x = eval('1')", "calls eval"),
        ("x = input()", "calls input"),
        ("for x in {1, 2}:\n    pass", "iterates over a set"),
        ("y = [x for x in set(z)]", "iterates over a set"),
        ("s = {1} | t\nfor x in s:\n    pass", "iterates over a set"),
        ("y = list(frozenset(z))", "iterates over a set"),
        ("y = [x for x in set(z).union(w)]", "iterates over a set"),
        ("y = set(z).pop()", "iterates over a set"),
        ("seen = {}\ndef f(x):\n    seen[x] = 1", "changes the module's seen"),
        ("seen: list[int] = []\ndef f(x):\n    seen.append(x)", "changes the module's seen"),
        ("n = 0\ndef f():\n    global n\n    n = 1", "rebinds an outer name"),
        ("async def f():\n    await g()", "waits"),
    ],
)
def test_the_rule_for_core_finds(source: str, problem: str) -> None:
    """A bad source in core is found."""
    assert problem in core_problems(source)


def test_the_rule_for_core_leaves_good_sources_alone() -> None:
    """Sets may be built, asked for membership and sorted; module tables may be read."""
    source = (
        "import hashlib\nfrom logact.core import machine\nfrom logact.entry import Entry\n"
        "TABLE = {'a': 1}\nKNOWN = frozenset({'a'})\n"
        "def f(x, found):\n    found[x] = 1\n    s = {1, 2}\n    return x in s, x in KNOWN, sorted(s), TABLE['a']\n"
    )
    assert core_problems(source) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("core", "from logact import env"),
        ("core", "from logact.logs.base import Filter"),
        ("entry", "from logact import codec"),
        ("voters", "from logact.runtime.host import Host"),
        ("runtime", "from logact.agent import LogActAgent"),
        ("agent", "from logact.cli.main import root"),
        ("runtime", "def f():\n    from logact.testing.faults import Plan"),
        ("agent", "from logact.surprise import x"),
        ("surprise", "import os"),
        ("logs", "from ..runtime import tail"),
    ],
)
def test_the_rule_for_layers_finds(part: str, source: str) -> None:
    """An import upwards, sideways out of the table, or of the test kit is found."""
    assert layer_problems(part, source)


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("runtime", "from logact.core import machine\nfrom logact.runtime.host import Host\nimport asyncio"),
        ("testing", "from logact.agent import LogActAgent"),
        ("core", "from logact.core.state import State"),
        ("runtime", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from logact.agent import LogActAgent"),
    ],
)
def test_the_rule_for_layers_leaves_good_sources_alone(part: str, source: str) -> None:
    """Imports of the own layer and of those below are fine."""
    assert layer_problems(part, source) == []


def test_the_other_rules_find() -> None:
    """Asserts and banned words are found."""
    assert asserts_of("def f(x):\n    assert x\n") == [2]
    assert len(banned_in("from https://" + "files.example.org/x.whl")) == 1
    assert banned_in("# TO" + "DO: later") == [r"\bTODO\b"]
    assert banned_in("todo = 'a field of errors'") == []
