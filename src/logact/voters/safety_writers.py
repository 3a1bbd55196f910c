"""The judges of programs that write, move, pack or delete files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_options import PATH_IN_OPTION, first_read_then_written, has, option_paths, split_options
from logact.voters.safety_places import UNKNOWN
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge


def rm(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``rm``."""
    options, operands, _ = split_options(arguments)
    recursive = has(options, "rR", "--recursive", "--no-preserve-root")
    if has(options, "", "--no-preserve-root"):
        raise Unsafe("shell.recursive_delete", "it is told not to spare the root")
    for one in operands:
        if recursive and re.fullmatch(r"(/|~|/home/~|\.\.?|\ue002|/\ue002)/*", one):
            raise Unsafe("shell.recursive_delete", "everything there would be lost")
        shell.places.delete(one, scope.bases, "shell", recursive=recursive, count=len(operands))
    return ""


def rmdir(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``rmdir``: only empty directories go."""
    _, operands, _ = split_options(arguments)
    for one in operands:
        shell.places.move(one, scope.bases, "shell")
    return ""


def mv(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``mv``: neither its sources nor its target may lie outside."""
    options, operands, given = split_options(arguments, "tS")
    given += [one.split("=", 1)[1] for one in options if one.startswith("--t") and "=" in one]
    if has(options, "", "--suffix", "--strip-trailing-slashes") or "--target-directory" in options:
        raise undecidable("options of mv")
    target = given[0] if given else operands[-1] if operands else ""
    for one in operands[:-1] if not given else operands:
        shell.places.move(one, scope.bases, "shell")
        shell.places.read(one, scope.bases, "shell")
        if target != "/dev/null":
            shell.places.displace(one, target, scope.bases, "shell")
    if target == "/dev/null":
        raise Unsafe("shell.delete", "what is moved there is lost")
    if target:
        shell.places.write(target, scope.bases, "shell")
    return ""


def cp(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``cp``, ``install`` and ``ln``: sources are read, the target is written."""
    options, operands, given = split_options(arguments, "tSmgo")
    if has(options, "", "--strip-program", "--preserve-context"):
        raise undecidable("options of install")
    given = given if has(options, "t") else []
    given += [one.split("=", 1)[1] for one in options if one.startswith("--t") and "=" in one]
    if "--target-directory" in options:
        raise undecidable("options of cp")
    sources = operands if given else operands[:-1] or operands
    targets = given or operands[-1:]
    for one in sources:
        shell.places.read(one, scope.bases, "shell")
    for one in targets:
        shell.places.write(one, scope.bases, "shell")
    option_paths(shell, options, scope)
    return ""


def ln(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``ln``: a link out of the workspace would open the way out."""
    options, operands, given = split_options(arguments, "tS")
    for one in operands:
        shell.places.read(one, scope.bases, "shell")
        if not all(shell.places.inside(shell.places.resolve(one, base, "shell")) for base in scope.bases):
            raise Unsafe("shell.outside", "a link out of the workspace")
        if one.startswith("..") or "/../" in one:
            raise undecidable("a link upwards")
    if any(one.startswith("--t") for one in options):
        raise undecidable("options of ln")
    for one in [*given, *operands[-1:]]:
        shell.places.write(one, scope.bases, "shell")
        for base in scope.bases:
            if shell.places.is_deletable(shell.places.resolve(one, base, "shell") + "/x"):
                raise undecidable("a link among what may be deleted")
    option_paths(shell, options, scope)
    return ""


def writes(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``mkdir``, ``touch``, ``tee``: every operand is written."""
    options, operands, given = split_options(arguments, "mdrt")
    for one in operands:
        shell.places.write(one, scope.bases, "shell")
    for one in given:
        if PATH_IN_OPTION.search(one):
            shell.places.read(one, scope.bases, "shell")
    option_paths(shell, options, scope)
    return ""


def truncate(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``truncate``: what is cut off is lost."""
    _, operands, _ = split_options(arguments, "sro")
    for one in operands:
        shell.places.delete(one, scope.bases, "shell")
    return ""


def chmod(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``chmod``: not for whole trees, not for everyone, not with other rights."""
    options, operands, _ = split_options([one for one in arguments if not re.fullmatch(r"-[rwxX]+", one)])
    if has(options, "R", "--recursive"):
        raise Unsafe("shell.permissions", "it changes the rights of a whole tree", "Name the files.")
    if has(options, "", "--reference"):
        raise undecidable("chmod by another file")
    mode = operands.pop(0) if operands and len(operands) > 1 else ""
    if re.fullmatch(r"0?[1-7]\d{3}|0?\d?\d\d[2367]|0?00\d", mode) or re.search(
        r"s|t|[oa]\S*\+\S*w|(^|,)\+\S*w\S*,|o=\S*w|a=\S*w", mode
    ):
        raise Unsafe("shell.permissions", f"the mode {mode[:20]} is too open, or gives rights away")
    if mode in ("000", "0", "0000") or UNKNOWN in mode:
        raise Unsafe("shell.permissions", "it takes all rights away")
    for one in operands:
        shell.places.write(one, scope.bases, "shell")
    return ""


def cd(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``cd``: stays in the workspace."""
    _, operands, _ = split_options(arguments)
    if len(operands) != 1 or arguments == ["-"] or not operands[0] or operands[0] == "-":
        raise Unsafe("shell.outside", "it leaves the workspace", "Stay in the workspace.")
    shell.change_directory(operands[0], scope)
    return ""


def tar(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``tar``: packs, lists or unpacks in the workspace."""
    given = list(arguments)
    if given and re.fullmatch(r"[a-zA-Z]+", given[0]) and not given[0].startswith("-"):
        given[0] = "-" + given[0]
    options, operands, values = split_options(given, "fCTXI")
    if has(options, "PI", "--to-command", "--checkpoint-action", "--use-compress-program", "--absolute-names") or has(
        options, "TX", "--remove-files", "--rsh-command", "--info-script", "--new-volume-script", "--files-from"
    ):
        raise Unsafe("shell.undecidable", "it cannot be judged: tar with options that run, write or delete elsewhere")
    if has(options, "F", "--unlink-first", "--recursive-unlink", "--overwrite-dir", "--delete"):
        raise undecidable("options of tar")
    for one in [*values, *(one.split("=", 1)[1] for one in options if "=" in one)]:
        if ":" in one:
            raise Unsafe("shell.network", "an archive on another machine")
        if one != "-":
            shell.places.write(one, scope.bases, "shell")
    for one in operands:
        shell.places.read(one, scope.bases, "shell")
    return UNKNOWN


def archive(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``gzip``, ``zip`` and their kind: every path is written."""
    options, operands, given = split_options(arguments, "dxiPS")
    if has(options, "mT", "--move", "--unzip-command", "--test", "--rm"):
        raise undecidable("options that delete or run something")
    for one in [*operands, *given]:
        if one != "-":
            shell.places.write(one, scope.bases, "shell")
    option_paths(shell, options, scope)
    return UNKNOWN


def split(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``split``: reads one path, writes with a prefix."""
    options, operands, _ = split_options(arguments, "lbnCa")
    if has(options, "", "--filter"):
        raise undecidable("split into a command")
    first_read_then_written(shell, operands, scope)
    return ""


def mktemp(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``mktemp``: makes a new file; its name is not known."""
    _, operands, given = split_options(arguments, "p")
    for one in [*operands, *given]:
        shell.places.write(one, scope.bases, "shell")
    return UNKNOWN
