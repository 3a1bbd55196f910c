"""The table of errors: codes, what is definite, exit codes, and the page that is made of it."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from logact import errors
from logact.errors import LogActError, all_errors

ROOT = Path(__file__).parent.parent
KINDS = all_errors()


def name_of(kind: type[LogActError]) -> str:
    """An error's name in test ids."""
    return kind.__name__


def page() -> str:
    """The page as today's code makes it."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.errors_page())


def test_the_page_is_current() -> None:
    """docs/errors.md says what the code says."""
    assert (ROOT / "docs" / "errors.md").read_text() == page(), "run: make docs"


def test_the_page_names_every_error() -> None:
    """Every error stands in the page, with its code."""
    text = page()
    for kind in KINDS:
        assert f"`{kind.__name__}`" in text
        assert f"| `{kind.code}` |" in text


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_an_error_is_complete(kind: type[LogActError]) -> None:
    """Each error has a code of its own, a meaning of a sentence, and an exit code."""
    assert re.fullmatch(r"[a-z_]+", kind.code)
    assert [other for other in KINDS if other.code == kind.code] == [kind]
    assert kind.__doc__
    assert kind.__doc__.strip().split("\n\n")[0].endswith((".", "``."))
    assert 1 <= kind.exit_code <= 70


def test_what_is_indefinite_is_a_short_list() -> None:
    """Only a lost answer to an append, and an action in doubt, leave open what happened."""
    assert [kind.__name__ for kind in KINDS if not kind.definite] == ["AppendUnknown", "InDoubt"]


def test_all_errors_are_listed_parents_first() -> None:
    """Every class of the module is in the list, after its parents."""
    tree = ast.parse(Path(errors.__file__).read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sorted(defined) == sorted(kind.__name__ for kind in KINDS)
    for place, kind in enumerate(KINDS):
        assert all(parent in KINDS[:place] for parent in kind.__mro__[1:] if parent in KINDS)


def test_a_message_says_what_and_what_to_do() -> None:
    """An error's text holds the message, what was received and expected, and what to do."""
    error = errors.UsageError("It does not fit.", received=3, expected="4", todo="add one")
    assert str(error) == "It does not fit; received 3; expected 4. Add one"
    assert (error.message, error.received, error.expected, error.todo) == ("It does not fit.", 3, "4", "add one")
    assert str(errors.UsageError("Short")) == "Short"
    assert str(errors.InvariantViolated("name", "what")) == "name: what"
    assert errors.ModelRateLimited("slow down", retry_after_s=2.0).retry_after_s == 2.0


def test_every_error_is_raised_somewhere() -> None:
    """No error is only a word: each is raised (or is the parent of one that is), or somebody outside may raise it."""
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py") if path.name != "errors.py")
    unused = [
        kind.__name__
        for kind in KINDS
        if not re.search(rf"\b{kind.__name__}\b\(", sources) and not kind.__subclasses__()
    ]
    assert unused == []
