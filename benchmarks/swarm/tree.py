"""The code tree of the benchmark: a package of the standard library, copied, with deprecated calls in its modules.

Each module gets functions that call deprecated helpers of ``compat``; the guide says what replaces each. The
package's own check imports a module with deprecations as errors, runs its functions, and compares what they return.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

GUIDE = "MIGRATION.md"
RULES = 80
NOUNS = ("header", "address", "charset", "payload", "boundary", "policy", "parser", "folding", "encoding", "mailbox")
VERBS = ("decode", "encode", "split", "join", "quote", "strip", "parse", "render")

CHECK = '''\
"""The package's own check: python check.py MODULE... (all modules without one)."""
import importlib, pathlib, sys, warnings
warnings.simplefilter("error", DeprecationWarning)
stems = sorted(path.stem for path in pathlib.Path("mailkit").glob("*.py"))
names = sys.argv[1:] or [stem for stem in stems if stem not in ("__init__", "compat")]
for name in names:
    module = importlib.import_module(f"mailkit.{name}")
    for function, expected in getattr(module, "EXPECTED", {}).items():
        found = getattr(module, function)("ab")
        assert found == expected, (name, function, found, expected)
print(f"{len(names)} modules are fine")
'''


def old_and_new() -> list[tuple[str, str]]:
    """Every deprecated helper and what replaces it."""
    names = [f"{verb}_{noun}" for noun in NOUNS for verb in VERBS][:RULES]
    return [(f"{name}_compat", f"{name}_strict") for name in names]


def build(where: Path, seed: int, count: int) -> list[str]:
    """Make the tree, the same for the same seed. The modules that hold deprecated calls, as paths in it."""
    draw = random.Random(seed)
    package = where / "mailkit"
    source = Path(sysconfig.get_paths()["stdlib"]) / "email"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "mime", "architecture.rst"))
    rules = old_and_new()
    _write_compat(package / "compat.py", rules)
    _write_guide(where / GUIDE, rules)
    (where / "check.py").write_text(CHECK)
    stock = sorted(path for path in package.glob("*.py") if path.stem not in ("__init__", "compat"))
    small = [path for path in stock if path.stat().st_size < 20_000]
    weights = [1 / (place + 1) for place in range(len(rules))]  # a few helpers are used everywhere, most hardly
    draw.shuffle(rules)
    changed = []
    for number in range(count):
        path = package / f"part_{number:02}.py"
        base = small[number % len(small)].read_text().replace("from email", "from mailkit")
        names = sorted({rules[at][0] for at in draw.choices(range(len(rules)), weights, k=3)})
        path.write_text(base + _calls(names))
        changed.append(f"mailkit/{path.name}")
    return changed


def _calls(names: list[str]) -> str:
    lines = ["\n\nfrom mailkit import compat\n"]
    expected = {}
    for name in names:
        function = f"use_{name.removesuffix('_compat')}"
        lines.append(f"\n\ndef {function}(value):\n    return compat.{name}(value)\n")
        expected[function] = f"{name.removesuffix('_compat')}:ab"
    lines.append(f"\n\nEXPECTED = {expected!r}\n")
    return "".join(lines)


def _write_compat(path: Path, rules: list[tuple[str, str]]) -> None:
    parts = ["import warnings\n"]
    for old, new in rules:
        name = old.removesuffix("_compat")
        parts.append(f"\n\ndef {new}(value):\n    return '{name}:' + value\n")
        warned = f"    warnings.warn('{old} is deprecated', DeprecationWarning, stacklevel=2)\n"
        parts.append(f"\n\ndef {old}(value):\n{warned}    return {new}(value)\n")
    path.write_text("".join(parts))


def _write_guide(path: Path, rules: list[tuple[str, str]]) -> None:
    lines = ["# Moving away from the compatibility helpers: replace each call as its line says"]
    for old, new in rules:
        what = old.removesuffix("_compat").replace("_", " of a ")
        lines.append(
            f"{old} -> {new}: the {what} was lenient about malformed input and hid it; the strict form raises at "
            "once, takes the same arguments, and returns the same for well-formed input"
        )
    path.write_text("\n".join(lines) + "\n")


def check(where: Path, *modules: str) -> tuple[bool, str]:
    """Run the package's own check: whether it passes, and what it says."""
    done = subprocess.run(
        [sys.executable, "-B", "check.py", *modules],
        check=False,
        cwd=where,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode == 0, (done.stdout + done.stderr)[-600:]


def digest(where: Path) -> str:
    """A digest of every file of the tree."""
    found = hashlib.sha256()
    for path in sorted(where.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(str(path.relative_to(where)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
