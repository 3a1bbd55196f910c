"""The judges of single programs: what their options and operands read, write, delete, run or send."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from logact.voters.safety_filters import awk, find, jq, sed, uniq, xxd
from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_git import git
from logact.voters.safety_network import aws, curl, gcloud, rsync, wget
from logact.voters.safety_options import has, option_paths, split_options
from logact.voters.safety_places import INSIDE, UNKNOWN
from logact.voters.safety_secrets import is_secret_name
from logact.voters.safety_tables import READS, SELECTORS
from logact.voters.safety_words import Scope
from logact.voters.safety_writers import (
    archive,
    cd,
    chmod,
    cp,
    ln,
    mktemp,
    mv,
    rm,
    rmdir,
    split,
    tar,
    truncate,
    writes,
)

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

Judge = Callable[["ShellJudge", "list[str]", Scope], str]
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)


def plain(shell: ShellJudge, name: str, arguments: list[str], scope: Scope) -> str:
    """Programs and builtins that touch no files."""
    if name in ("export", "declare", "typeset", "local", "readonly"):
        return _declare(shell, name, arguments, scope)
    if name == "read":
        _, operands, _ = split_options(arguments, "dnNptu")
        for one in operands or ["REPLY"]:
            shell.assign(one, [scope.fed[1:] if scope.fed.startswith("=") else scope.fed or UNKNOWN], scope)
        return ""
    if name == "printf" and any(one.startswith("-v") for one in arguments):
        raise undecidable("printf -v")
    if name in ("mapfile", "readarray", "let", "hash", "getopts") or (name == "wait" and "-p" in arguments):
        raise undecidable(name)
    if name == "set":
        return _set(arguments)
    if name == "umask" and not all(re.fullmatch(r"0?[0-7][2-7][2-7]|-S", one) for one in arguments):
        raise Unsafe("shell.permissions", "new files would be open to everyone")
    if name == "shopt":
        allowed = {
            "-s",
            "-u",
            "-q",
            "nullglob",
            "globstar",
            "failglob",
            "nocaseglob",
            "nocasematch",
            "inherit_errexit",
        }
        if not set(arguments) <= allowed:
            raise undecidable("shopt")
        return ""
    if name == "unset":
        for one in arguments:
            if one in ("-f", "-v"):
                continue
            scope.variables[one] = [""]
        return ""
    if name in ("date", "hostname", "ulimit") and any(
        one in ("-F", "-b", "-r") or one.startswith(("--s", "--f", "--ref", "-s", "-f")) for one in arguments
    ):
        raise Unsafe("shell.system", f"{name} would change the system")
    if name == "hostname" and any(not one.startswith("-") for one in arguments):
        raise Unsafe("shell.system", "it would rename the machine")
    if name == "ps" and any("e" in one for one in arguments if not one.startswith("-")):
        raise Unsafe("shell.secrets", "it would show environments")
    harmless = ("pwd", "basename", "nproc", "seq", "date", "whoami", "uname", "hostname", "mktemp_name", "id", "arch")
    if name == "basename" and not any(UNKNOWN in one for one in arguments):
        return INSIDE
    return INSIDE if name in harmless and name not in ("basename", "pwd", "date", "uname") else _pwd(name)


def _pwd(name: str) -> str:
    return INSIDE if name in ("nproc",) else UNKNOWN


def _declare(shell: ShellJudge, name: str, arguments: list[str], scope: Scope) -> str:
    named = [one for one in arguments if not one.startswith(("-", "+"))]
    options = "".join(one for one in arguments if one.startswith(("-", "+")))
    if not named or "p" in options:
        raise Unsafe("shell.secrets", f"{name} would show every variable")
    if set(options) & set("naAi") - {"n" if name == "export" else ""}:
        raise undecidable(f"{name} {options}")
    for one in named:
        found = _ASSIGNMENT.fullmatch(one)
        if found:
            shell.assign(found[1], [UNKNOWN if found[2] else found[3]], scope)
        elif UNKNOWN in one:
            raise undecidable("an assignment that is not known")
        elif name == "local":
            scope.variables[one] = [""]
    return ""


def _set(arguments: list[str]) -> str:
    if not arguments:
        raise Unsafe("shell.secrets", "set would show every variable")
    for one in arguments:
        if one == "--":
            break
        if not re.fullmatch(r"[-+][euxfvCo]+|pipefail|errexit|nounset|xtrace|noglob|noclobber|posix", one):
            raise undecidable(f"set {one[:40]}")
    return ""


def environment(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``printenv``: single harmless variables only."""
    named = [one for one in arguments if not one.startswith("-")]
    if not named or any(is_secret_name(one) or UNKNOWN in one for one in named):
        raise Unsafe("shell.secrets", "it would show the environment")
    return UNKNOWN


def reads(shell: ShellJudge, name: str, arguments: list[str], scope: Scope) -> str:
    """Programs whose operands are paths to read."""
    spec = READS[name]
    values = {"grep": "efmABCd", "egrep": "efmABC", "fgrep": "efmABC", "rg": "efgtTmABCM", "head": "nc", "tail": "nc"}
    values |= {
        "sort": "ktS",
        "cut": "dfcb",
        "paste": "d",
        "join": "t12oe",
        "fold": "w",
        "ls": "IwT",
        "tree": "LIP",
        "du": "dt",
    }
    values |= {"od": "AjNtw", "hexdump": "nsefC", "strings": "nte", "nl": "bdfhilnsvw", "column": "tsoc", "shuf": "n"}
    options, operands, given = split_options(arguments, values.get(name, ""))
    if has(options, spec.denied, *spec.long_denied):
        raise undecidable(f"options of {name}")
    option_paths(shell, options, scope)
    skip = spec.skip
    if skip and has(options, "ef", "--regexp", "--file", "--files"):
        skip = 0
        for value in given:
            if has(options, "f", "--file"):
                shell.places.read(value, scope.bases, "shell")
    for one in operands[skip:]:
        if one != "-":
            shell.places.read(one, scope.bases, "shell")
    if name == "ls" and not scope.fed.startswith("x"):
        return (
            INSIDE
            if all(not one.startswith(("/", "..")) for one in operands) and not has(options, "lis")
            else UNKNOWN
        )
    if name in SELECTORS and not operands[skip:] and scope.fed == INSIDE:
        return INSIDE
    if name in ("grep", "egrep", "fgrep", "rg") and has(
        options, "lL", "--files-with-matches", "--files-without-match"
    ):
        return INSIDE
    return INSIDE if name == "wc" and scope.fed else UNKNOWN


def _never(why: str) -> str:
    raise undecidable(why)


JUDGES: dict[str, Judge] = {
    "rm": rm,
    "unlink": rm,
    "rmdir": rmdir,
    "mv": mv,
    "rename": lambda shell, arguments, scope: _never("rename runs code"),
    "cp": cp,
    "install": cp,
    "ln": ln,
    "link": ln,
    "mkdir": writes,
    "touch": writes,
    "tee": writes,
    "mkfifo": writes,
    "truncate": truncate,
    "chmod": chmod,
    "cd": cd,
    "find": find,
    "sed": sed,
    "awk": awk,
    "gawk": awk,
    "mawk": awk,
    "nawk": awk,
    "jq": jq,
    "yq": jq,
    "uniq": uniq,
    "xxd": xxd,
    "tar": tar,
    "gzip": archive,
    "gunzip": archive,
    "bzip2": archive,
    "bunzip2": archive,
    "xz": archive,
    "unxz": archive,
    "zstd": archive,
    "zip": archive,
    "unzip": archive,
    "split": split,
    "mktemp": mktemp,
    "printenv": environment,
    "export": lambda shell, arguments, scope: plain(shell, "export", arguments, scope),
    "git": git,
    "curl": curl,
    "wget": wget,
    "rsync": rsync,
    "aws": aws,
    "gcloud": gcloud,
    "gsutil": gcloud,
    "az": gcloud,
}
