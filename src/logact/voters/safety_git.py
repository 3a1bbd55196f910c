"""Judges ``git``: reading and committing pass; rewriting, discarding, running and sending elsewhere do not."""

# ruff: noqa: SIM905, E501 - tables of words are read as words
from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_places import UNKNOWN, is_sensitive
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

SHOWS = frozenset(
    "status log diff show blame annotate shortlog describe rev-parse rev-list ls-files ls-tree cat-file name-rev merge-base"
    " for-each-ref show-ref count-objects whatchanged cherry range-diff version help grep var check-ignore fsck verify-commit"
    " diff-tree diff-index diff-files show-branch ls-remote".split()
)
ADDS = frozenset("add commit switch merge fetch init mv notes cherry-pick revert pull apply format-patch am".split())
REWRITES = frozenset(
    "filter-branch filter-repo rebase reflog gc prune update-ref replace fast-import reset clean rm checkout-index read-tree"
    " restore worktree repack pack-refs unpack-objects symbolic-ref".split()
)
_SAFE_CONFIG = re.compile(r"(?i)user\.(name|email)|init\.defaultBranch|core\.(quotepath|autocrlf|eol|filemode)|color\.\w+|advice\.\w+"
                          r"|pull\.(ff|rebase)|push\.default|merge\.conflictstyle|fetch\.prune")  # fmt: skip
_REWRITE = "shell.git_rewrite"
_KEEP = "Commit first, or make a branch, so that nothing is lost."


def git(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """Judge one call of git."""
    if any(UNKNOWN in one for one in arguments[:2]) or any(
        UNKNOWN in one for one in arguments if one.startswith("-")
    ):
        raise undecidable("arguments of git that are not known")
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        one = rest.pop(0)
        if one in ("--version", "--help", "--no-pager", "-P", "--no-optional-locks", "--literal-pathspecs"):
            continue
        if one == "-C" and rest:
            shell.places.read(rest.pop(0), scope.bases, "shell")
            continue
        if one == "-c" and rest and _SAFE_CONFIG.match(rest[0].split("=", 1)[0]):
            rest.pop(0)
            continue
        raise undecidable(f"the option {one[:40]!r} of git")
    if not rest:
        return UNKNOWN
    verb, rest = rest[0], rest[1:]
    options = [one for one in rest if one.startswith("-")]
    if any(re.match(r"--(exec|upload-pack|receive-pack|ext-diff|textconv|open-files-in-pager|output|edit-description)", one)
           or one.startswith("-O") for one in options):  # fmt: skip
        raise undecidable("an option of git that runs or writes something")
    operands = [one for one in rest if not one.startswith("-")]
    for one in operands:
        if one.startswith(("/", "~", "../")) or "/../" in one:
            shell.places.read(one, scope.bases, "shell")
        if is_sensitive(one.rsplit(":", 1)[-1]) and verb not in ("add", "commit", "branch", "tag", "switch", "merge"):
            raise Unsafe("shell.secrets", f"{one[:80]!r} holds credentials, by its name")
        if one.startswith(("ext::", "fd::")):
            raise undecidable("a transport that runs something")
    if verb in SHOWS:
        if verb in ("show", "cat-file", "diff", "grep"):
            for one in operands:
                if ":" in one:
                    shell.places.read(one.split(":", 1)[1] or ".", scope.bases, "shell")
        if verb in ("fsck", "ls-remote") and any(":" in one or "lost" in one for one in rest):
            raise undecidable(f"git {verb}")
        return "\ue001" if verb == "ls-files" or (verb in ("diff", "show") and "--name-only" in options) else UNKNOWN
    if verb == "push":
        return _push(rest, options, operands)
    if verb in REWRITES:
        raise Unsafe(_REWRITE, f"git {verb} rewrites history or discards work", _KEEP)
    if verb == "checkout":
        _checkout(shell, rest, options, operands, scope)
    elif verb == "branch":
        if any(re.fullmatch(r"-[a-zA-Z]*[dDMCf][a-zA-Z]*|--(del|for|mov|cop)\w*", one) for one in options):
            raise Unsafe(_REWRITE, "git branch would delete or move a branch", _KEEP)
    elif verb == "tag":
        if any(re.fullmatch(r"-[a-zA-Z]*[df][a-zA-Z]*|--(del|for)\w*", one) for one in options):
            raise Unsafe(_REWRITE, "git tag would delete or move a tag", _KEEP)
    elif verb == "stash":
        if operands[:1] and operands[0] not in ("list", "show", "push", "save", "apply", "branch"):
            raise Unsafe(_REWRITE, f"git stash {operands[0]} may lose what is stashed", _KEEP)
    elif verb == "remote":
        if operands and operands[0] not in ("show", "get-url", "-v"):
            raise Unsafe("shell.git_remote", "it changes where work is sent")
    elif verb == "config":
        _config(rest, options, operands)
    elif verb == "clone":
        _clone(shell, operands, options, scope)
    elif verb == "archive":
        if any(one.startswith(("--remote", "-o")) for one in options):
            raise undecidable("git archive elsewhere")
    elif verb in ADDS:
        _adds(verb, options, operands)
    else:
        raise undecidable(f"git {verb[:40]}")
    return UNKNOWN


def _push(rest: list[str], options: list[str], operands: list[str]) -> str:
    forced = any(re.fullmatch(r"-[a-zA-Z]*[fd][a-zA-Z]*|--(for|mir|del|pru)\S*", one) for one in options)
    if forced or any(one.startswith(("+", ":")) for one in operands[1:]):
        raise Unsafe(_REWRITE, "this push overwrites or deletes what others have", "Push without force.")
    if any(UNKNOWN in one for one in rest) or any(
        "/" in one and (":" in one or one.startswith(("/", "."))) for one in operands[:1]
    ):
        raise Unsafe("shell.exfiltration", "a push to somewhere else than a named remote", "Push to a named remote.")
    if any(":" in one for one in operands[:1]):
        raise Unsafe("shell.exfiltration", "a push to somewhere else than a named remote", "Push to a named remote.")
    return UNKNOWN


def _checkout(shell: ShellJudge, rest: list[str], options: list[str], operands: list[str], scope: Scope) -> None:
    if "-b" not in options and any(
        Path(base, one).exists() for base in scope.bases for one in operands if "\0" not in one and len(one) < 200
    ):
        raise Unsafe(_REWRITE, "git checkout of paths discards changes", _KEEP)
    if any(re.fullmatch(r"-[a-zA-Z]*[fBp][a-zA-Z]*|--(for|our|the|mer|pat|ove|orp)\w*", one) for one in options):
        raise Unsafe(_REWRITE, "git checkout would discard changes", _KEEP)
    if "--" in rest or (len(operands) != 1 and not any(one in ("-b", "--track", "-t") for one in options)):
        raise Unsafe(_REWRITE, "git checkout of paths discards changes", _KEEP)
    if any(one in (".", "./", "*", ":/") or "\ue002" in one for one in operands):
        raise Unsafe(_REWRITE, "git checkout of paths discards changes", _KEEP)


def _config(rest: list[str], options: list[str], operands: list[str]) -> None:
    if any(one in ("--get", "--list", "-l", "--get-all") for one in options) or operands[:1] in (["get"], ["list"]):
        if {"--list", "-l", "list"} & set(rest):
            raise Unsafe("shell.secrets", "git's settings may hold credentials", "Ask for single settings.")
        if any("credential" in one or "token" in one or "extraheader" in one.lower() for one in rest):
            raise Unsafe("shell.secrets", "it would show credentials")
        if any(one in ("--global", "--system") or one.startswith(("-f", "--file")) for one in options):
            raise undecidable("git's own configuration")
        return
    if options and set(options) - {"--local"}:
        raise undecidable("git config with options")
    if len(operands) == 1 and "." in operands[0] and not re.search(r"(?i)credential|token|extraheader", operands[0]):
        return
    if not operands or not _SAFE_CONFIG.fullmatch(operands[0]):
        raise undecidable("a setting of git that may run something")


def _clone(shell: ShellJudge, operands: list[str], options: list[str], scope: Scope) -> None:
    if any(re.match(r"--(config|template|recurse|upload|ref)|-[cu]", one) for one in options):
        raise undecidable("options of git clone")
    source = operands[0] if operands else ""
    if not re.fullmatch(r"https://[\w.-]+(:\d+)?/[\w./~-]+|[\w.-]+@[\w.-]+:[\w./~-]+", source):
        raise undecidable("where git would clone from")
    for one in operands[1:]:
        shell.places.write(one, scope.bases, "shell")


def _adds(verb: str, options: list[str], operands: list[str]) -> None:
    if any(re.match(r"--(abo|qui|ski)", one) for one in options) or (
        verb == "notes" and operands[:1] not in ([], ["show"], ["list"])
    ):
        raise Unsafe(_REWRITE, f"this git {verb} discards work", _KEEP)
    if verb == "switch" and any(re.fullmatch(r"-[a-zA-Z]*[fC][a-zA-Z]*|--(for|dis)\S*", one) for one in options):
        raise Unsafe(_REWRITE, "git switch would discard changes", _KEEP)
    if verb == "pull" and any(re.fullmatch(r"-[a-zA-Z]*[fr][a-zA-Z]*|--(for|reb)\S*", one) for one in options):
        raise Unsafe(_REWRITE, "this pull rewrites history", "Pull without rebase or force.")
    if verb == "fetch" and any(re.fullmatch(r"-[a-zA-Z]*[fu][a-zA-Z]*|--(for|upd)\S*", one) for one in options):
        raise Unsafe(_REWRITE, "this fetch overwrites branches", "Fetch without force.")
    if verb in ("fetch", "pull") and (
        any("://" in one or "@" in one for one in operands) or any(one.startswith("+") for one in operands[1:])
    ):
        raise undecidable("a remote that is not named")
    if verb in ("apply", "am", "init") and any(
        re.match(r"--(unsafe|template|directory|separate|exec)|-p", one) for one in options
    ):
        raise undecidable(f"options of git {verb}")
    if verb == "commit" and any(re.fullmatch(r"--amen\w*", one) for one in options):
        raise Unsafe(_REWRITE, "it replaces a commit", "Make a new commit instead.")
