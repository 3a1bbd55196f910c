"""Reads the options of programs: clusters, values, abbreviations, and paths within them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from logact.voters.safety_finding import undecidable
from logact.voters.safety_places import GLOBS, UNKNOWN
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

PATH_IN_OPTION = re.compile(r"(?:/|~|\.\./|\.\.$|\./).*", re.DOTALL)


def split_options(arguments: list[str], values: str = "") -> tuple[list[str], list[str], list[str]]:
    """Options, operands, and the values of those short options that take one."""
    options: list[str] = []
    operands: list[str] = []
    given: list[str] = []
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        if one == "--":
            operands.extend(rest)
            break
        if one.startswith("-") and one != "-":
            options.append(one)
            if not one.startswith("--"):
                for place, letter in enumerate(one[1:], 1):
                    if letter in values:
                        if one[place + 1 :]:
                            given.append(one[place + 1 :])
                        elif rest:
                            given.append(rest.pop(0))
                        break
        else:
            operands.append(one)
    return options, operands, given


def has(options: list[str], letters: str, *long: str) -> bool:
    """Whether one of these options is given, in a cluster or abbreviated."""
    for one in options:
        if one.startswith("--"):
            name = one.split("=", 1)[0]
            if any(each == name or (len(name) > 3 and each.startswith(name)) for each in long):
                return True
        elif any(letter in one[1:] for letter in letters):
            return True
        if UNKNOWN in one or any(glob in one for glob in GLOBS):
            raise undecidable("options that are not known")
    return False


def option_paths(shell: ShellJudge, options: list[str], scope: Scope) -> None:
    """Paths within options (``--file=/x``, ``-f/x``) are read."""
    for one in options:
        if UNKNOWN in one:
            raise undecidable("options that are not known")
        value = one.split("=", 1)[1] if one.startswith("--") and "=" in one else ""
        found = PATH_IN_OPTION.search(one)
        if value or found:
            shell.places.read(value or (found[0] if found else ""), scope.bases, "shell")


def first_read_then_written(shell: ShellJudge, operands: list[str], scope: Scope) -> None:
    """The first operand is read, those after it are written."""
    for place, one in enumerate(operands):
        if one != "-":
            (shell.places.write if place else shell.places.read)(one, scope.bases, "shell")
