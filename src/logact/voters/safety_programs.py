"""The judges of single programs: what their options and operands read, write, delete, run or send."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_git import git
from logact.voters.safety_network import aws, curl, gcloud, rsync, wget
from logact.voters.safety_places import GLOBS, INSIDE, UNKNOWN, pattern_reaches_secrets
from logact.voters.safety_secrets import is_secret_name
from logact.voters.safety_tables import READS, SELECTORS
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

Judge = Callable[["ShellJudge", "list[str]", Scope], str]
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_PATH_IN_OPTION = re.compile(r"(?:/|~|\.\./|\.\.$|\./).*", re.DOTALL)


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
        found = _PATH_IN_OPTION.search(one)
        if value or found:
            shell.places.read(value or (found[0] if found else ""), scope.bases, "shell")


# --- programs that only show or compute ------------------------------


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


# --- programs that read ------------------------------


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


def uniq(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``uniq``: a second operand is written."""
    _, operands, _ = split_options(arguments, "fsw")
    _first_read_then_written(shell, operands, scope)
    return INSIDE if scope.fed == INSIDE and not operands else UNKNOWN


def xxd(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``xxd``: a second operand is written."""
    _, operands, _ = split_options(arguments, "clsgon")
    _first_read_then_written(shell, operands, scope)
    return UNKNOWN


def _first_read_then_written(shell: ShellJudge, operands: list[str], scope: Scope) -> None:
    for place, one in enumerate(operands):
        if one != "-":
            (shell.places.write if place else shell.places.read)(one, scope.bases, "shell")


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
            aimed = pattern_reaches_secrets(masked) if masked != part else _named_secret(part)
            if aimed:
                raise Unsafe("shell.secrets", "it looks for files that hold credentials")
    plain_roots = all(not one.startswith("/") for one in roots)
    return INSIDE if plain_roots else UNKNOWN


def _named_secret(part: str) -> bool:
    from logact.voters.safety_places import is_sensitive

    return is_sensitive(part)


# --- programs that write ------------------------------


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
        if _PATH_IN_OPTION.search(one):
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
    _first_read_then_written(shell, operands, scope)
    return ""


def mktemp(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``mktemp``: makes a new file; its name is not known."""
    _, operands, given = split_options(arguments, "p")
    for one in [*operands, *given]:
        shell.places.write(one, scope.bases, "shell")
    return UNKNOWN


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


def _never(why: str) -> str:
    raise undecidable(why)
