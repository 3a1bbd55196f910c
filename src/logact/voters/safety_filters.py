"""The judges of filters that are languages of their own: sed, awk, jq, find."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_options import first_read_then_written, has, split_options
from logact.voters.safety_places import INSIDE, UNKNOWN, is_sensitive, pattern_reaches_secrets
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)


def uniq(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``uniq``: a second operand is written."""
    _, operands, _ = split_options(arguments, "fsw")
    first_read_then_written(shell, operands, scope)
    return INSIDE if scope.fed == INSIDE and not operands else UNKNOWN


def xxd(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``xxd``: a second operand is written."""
    _, operands, _ = split_options(arguments, "clsgon")
    first_read_then_written(shell, operands, scope)
    return UNKNOWN


def sed(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``sed``: its script may run commands and write files."""
    options, operands, given = split_options(arguments, "el")
    if has(options, "f", "--file"):
        raise undecidable("a sed script in a file")
    scripts = list(given)
    scripts += [one.split("=", 1)[1] for one in options if one.startswith("--expression=")]
    if not scripts:
        if not operands:
            return UNKNOWN
        scripts = [operands.pop(0)]
    for script in scripts:
        if not _sed_is_plain(script):
            raise undecidable("a sed script that is not simple")
    in_place = any(re.match(r"-[nErsz]*i", one) or one.startswith("--in") for one in options)
    for one in operands:
        (shell.places.write if in_place else shell.places.read)(one, scope.bases, "shell")
    return UNKNOWN


_SED_ADDRESS = r"(?:(?:\d+|\$|/(?:[^/\\\n]|\\.)*/I?)(?:,(?:[+~]?\d+|\$|/(?:[^/\\\n]|\\.)*/I?))?\s*!?\s*)?"
_SED_COMMAND = re.compile(
    rf"\s*{_SED_ADDRESS}(?:[pdqQhHgGxnNlDP=]\d*|s([/|,#@:!%])(?:(?!\1)[^\\\n]|\\.)*\1(?:(?!\1)[^\\\n]|\\.)*\1[gpIim\d]*"
    r"|y/(?:[^/\\]|\\.)*/(?:[^/\\]|\\.)*/|[aic]\s+[^\n;]*)?\s*"
)


def _sed_is_plain(script: str) -> bool:
    if UNKNOWN in script:
        return False
    at = 0
    while at < len(script):
        found = _SED_COMMAND.match(script, at)
        if not found:
            return False
        at = found.end()
        if at < len(script):
            if script[at] not in ";\n":
                return False
            at += 1
    return True


def awk(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``awk``: its program may run commands, write files and read the environment."""
    options, operands, given = split_options(arguments, "Fvfi")
    if has(options, "fiElDe", "--file", "--include", "--exec", "--load", "--source") or any(
        UNKNOWN in one for one in given
    ):
        raise undecidable("an awk program that is not seen")
    if not operands:
        raise undecidable("awk without a program")
    program = operands.pop(0)
    bare = re.sub(r"\"(?:[^\"\\]|\\.)*\"", '""', program)
    bare = re.sub(r"(?<=[~(,!&|])\s*/(?:[^/\\\n]|\\.)+/", " 0", bare)
    bare = re.sub(r"^\s*/(?:[^/\\\n]|\\.)+/", " 0", bare)
    if UNKNOWN in program or re.search(
        r"\b(system|getline|ENVIRON|PROCINFO|ARGV|ARGC|close|fflush)\b|@|(?<!\|)\|(?!\|)", bare
    ):
        raise undecidable("an awk program that runs or reads something else")
    for statement in re.split(r"[;{}\n]", bare):
        if re.search(r"\bprintf?\b", statement) and ">" in re.sub(r"\([^()]*\)", "", statement):
            raise undecidable("an awk program that writes files")
    for one in operands:
        if not _ASSIGNMENT.fullmatch(one):
            shell.places.read(one, scope.bases, "shell")
        elif "=/" in one or "=~" in one:
            raise undecidable("an assignment in awk")
    return UNKNOWN


def jq(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``jq`` and ``yq``: their programs may read the environment, and other files."""
    options, operands, given = split_options(arguments, "fL")
    if has(options, "fLi", "--from-file", "--in-place", "--inplace") or given:
        raise undecidable("a jq program that is not seen")
    program = operands[0] if operands else ""
    if UNKNOWN in program or re.search(
        r"\benv\b|\$ENV|\b(input_filename|load\w*|import|include|strenv|envsubst|system)\b", program
    ):
        raise Unsafe("shell.secrets", "its program reads the environment or other files")
    skip = 1
    for one in options:
        if one in ("--arg", "--argjson", "--slurpfile", "--rawfile"):
            skip = 0
    for one in operands[skip:]:
        shell.places.read(one, scope.bases, "shell")
    return UNKNOWN


def find(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``find``: may delete and run commands on what it finds."""
    rest = list(arguments)
    roots: list[str] = []
    while rest and not rest[0].startswith(("-", "(", "!")):
        roots.append(rest.pop(0))
    while rest and rest[0] in ("-L", "-H", "-P"):
        if rest.pop(0) == "-L":
            raise undecidable("find through links")
        while rest and not rest[0].startswith(("-", "(", "!")):
            roots.append(rest.pop(0))
    for one in roots:
        shell.places.read(one, scope.bases, "shell")
    found = [(root.rstrip("/") + "/" if root not in (".", "./") else "./") + INSIDE for root in roots or ["."]]
    while rest:
        word = rest.pop(0)
        if UNKNOWN in word:
            raise undecidable("tests of find that are not known")
        if word == "-delete":
            for root in roots or ["."]:
                shell.places.delete(root.rstrip("/") + "/x", scope.bases, "shell", recursive=True, count=1000)
        elif word in ("-fprint", "-fls", "-fprintf", "-fprint0"):
            shell.places.write(rest.pop(0) if rest else UNKNOWN, scope.bases, "shell")
        elif word in ("-exec", "-execdir", "-ok", "-okdir"):
            end = next((place for place, one in enumerate(rest) if one in (";", "+")), None)
            if end is None:
                raise undecidable("-exec without its end")
            command, rest = rest[:end], rest[end + 1 :]
            for one in found:
                fields = [part.replace("{}", one) for part in command]
                if fields:
                    inner = scope.copy()
                    inner.fed = ""
                    shell.command(fields, inner)
        elif word in ("-files0-from", "-newerXY"):
            raise undecidable(word)
        elif word in ("-name", "-iname", "-path", "-wholename", "-regex") and rest:
            pattern = rest.pop(0)
            part = pattern.rsplit("/", 1)[-1]
            masked = "".join({"*": "\ue002", "?": "\ue003", "[": "\ue004"}.get(one, one) for one in part)
            aimed = pattern_reaches_secrets(masked) if masked != part else is_sensitive(part)
            if aimed:
                raise Unsafe("shell.secrets", "it looks for files that hold credentials")
    plain_roots = all(not one.startswith("/") for one in roots)
    return INSIDE if plain_roots else UNKNOWN
