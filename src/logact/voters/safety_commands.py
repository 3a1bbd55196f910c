"""Judges one command with its arguments: finds the program, unwraps what runs others, and asks its judge."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from logact.voters import safety_programs as programs
from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_places import GLOBS, INSIDE, UNKNOWN
from logact.voters.safety_tables import CHECKERS, DENIED, NAMED_DANGERS, PLAIN, PROJECT, READS, SUBCOMMANDS
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

SYSTEM = frozenset(("systemctl", "crontab", "launchctl", "apt", "dpkg", "rpm", "brew", "conda"))
SCRIPT_BYTES_MAX = 200_000
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "ash", "rbash"))
OTHER_SHELLS = frozenset(("fish", "csh", "tcsh", "pwsh", "powershell", "nu", "xonsh", "elvish", "cmd", "cmd.exe"))
_DIRECTORIES = ("/bin/", "/usr/bin/", "/usr/local/bin/", "/sbin/", "/usr/sbin/", "/usr/local/sbin/")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator opened: programs known to be harmless, running a project's code, hosts to send to."""

    programs: frozenset[str] = frozenset()
    project_code: bool = False
    hosts: tuple[str, ...] = ()
    sql: Any = None


def is_known(name: str, options: Options) -> bool:
    """Whether a name means something by itself, so that a function must not have it."""
    tables: tuple[Any, ...] = (PLAIN, READS, SUBCOMMANDS, DENIED, PROJECT, CHECKERS, JUDGES, SHELLS, options.programs)
    return any(name in table for table in tables)


def judge(shell: ShellJudge, fields: list[str], scope: Scope) -> str:
    """Judge a command; answers what its output is. Raises Unsafe."""
    name, arguments = fields[0], fields[1:]
    if "/" in name:
        head, _, last = name.rpartition("/")
        if head + "/" not in _DIRECTORIES:
            return run_file(shell, name, arguments, scope)
        name = last
    if any(one in name for one in GLOBS):
        raise undecidable("a command given by a glob")
    if name in shell.options.programs:
        return UNKNOWN
    if name in SHELLS:
        return run_shell(shell, arguments, scope)
    if re.fullmatch(r"python[\d.]*|pypy3?", name):
        return run_python(shell, arguments, scope)
    special = JUDGES.get(name)
    if special is not None:
        return special(shell, arguments, scope)
    if name in PLAIN:
        return programs.plain(shell, name, arguments, scope)
    if name in READS:
        return programs.reads(shell, name, arguments, scope)
    if name in SUBCOMMANDS:
        return subcommand(shell, name, arguments)
    if name in DENIED or name.startswith("mkfs."):
        code, why = DENIED.get(name, DENIED["mkfs"])
        raise Unsafe(code, f"{name}: {why}")
    if name in OTHER_SHELLS:
        raise undecidable(f"a script for {name}")
    if name in CHECKERS:
        for one in arguments:
            shell.places.read(one.removeprefix("-") or ".", scope.bases, "shell")
        if any(re.match(r"-?-(plugin|config|rulesdir|rcfile|output|conf)", one) for one in arguments):
            raise undecidable(f"options of {name}")
        return UNKNOWN
    dangerous(name, arguments)
    if name in PROJECT:
        return project(shell, name, arguments)
    raise Unsafe(
        "shell.unknown_program",
        f"it cannot be judged: the program {name[:80]!r} is not known",
        "Use common commands; an operator can add programs.",
    )


def dangerous(name: str, arguments: list[str]) -> None:
    """Raise Unsafe where a program and one of its words stand for something that destroys or publishes."""
    for names, (words, code) in NAMED_DANGERS.items():
        if name in names and (not words or set(words.split()) & set(arguments)):
            raise Unsafe(code, f"{name} {' '.join(arguments[:3])[:100]}")


def project(shell: ShellJudge, name: str, arguments: list[str]) -> str:
    """A program that runs a project's own code."""
    if not shell.options.project_code:
        raise Unsafe(
            "shell.project_code",
            f"it cannot be judged: {name} runs code that is not seen here",
            "Ask the user; an operator can allow it (project_code).",
        )
    if any(UNKNOWN in one for one in arguments):
        raise undecidable("arguments that are not known")
    return UNKNOWN


def subcommand(shell: ShellJudge, name: str, arguments: list[str]) -> str:
    """A program whose first word says what it does."""
    if any(UNKNOWN in one for one in arguments):
        raise undecidable("arguments that are not known")
    words = [one for one in arguments if not one.startswith("-") or one in SUBCOMMANDS[name]]
    if (
        words
        and words[0] in SUBCOMMANDS[name]
        and (arguments[0] == words[0] or name in ("docker", "kubectl", "helm"))
    ):
        if any(re.search(r"(?i)^(secrets?|configmaps?|cm)(/|$|,)|token|password", one) for one in words[1:]):
            raise Unsafe("shell.secrets", f"{name} would show secrets")
        if name in ("ip", "dpkg") and any(one in ("set", "add", "del", "flush", "delete", "change") for one in words):
            raise Unsafe("shell.system", "it changes the system")
        if any(one.startswith(("--exec", "-exec", "-vettool", "-toolexec", "--eval")) for one in arguments):
            raise undecidable("an option that runs something")
        if name not in SYSTEM:
            dangerous(name, arguments)
        return UNKNOWN
    dangerous(name, arguments)
    if name in PROJECT:
        return project(shell, name, arguments)
    if name in DENIED:
        raise Unsafe(DENIED[name][0], f"{name}: {DENIED[name][1]}")
    raise Unsafe("shell.undecidable", f"it cannot be judged: {name} {' '.join(arguments[:2])[:80]}")


# --- what runs other commands ------------------------------


def run_shell(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``sh -c``, a script file, or a script from a here-document."""
    rest = list(arguments)
    code = False
    while rest and rest[0].startswith("-") and rest[0] != "-":
        if rest[0] == "--":
            rest.pop(0)
            break
        if not re.fullmatch(r"-[celuxvfn]+|--norc|--noprofile|-o|pipefail", rest[0]):
            raise undecidable(f"the option {rest[0]!r} of a shell")
        if rest[0] == "-o":
            rest = rest[2:]
            continue
        code = code or "c" in rest.pop(0).removeprefix("--")
    inner = scope.copy()
    inner.variables = {}
    inner.functions = {}
    if code:
        if not rest:
            raise undecidable("sh -c without a command")
        shell.script(_code(rest[0]), inner)
        return UNKNOWN
    if rest and rest[0] != "-":
        return run_file(shell, rest[0], rest[1:], scope, language="shell")
    if scope.fed.startswith("="):
        inner.fed = ""
        shell.script(_code(scope.fed[1:]), inner)
        return UNKNOWN
    raise Unsafe("shell.piped_code", "a shell reads commands that are not known", "Write the commands out.")


def run_python(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``python -c``, ``-m``, a file, or a here-document."""
    rest = list(arguments)
    while rest and re.fullmatch(r"-[IBEsSuqOb]+|-W|-X", rest[0]):
        rest = rest[2:] if rest[0] in ("-W", "-X") else rest[1:]
    if rest and rest[0] in ("--version", "-V", "-VV", "--help", "-h"):
        return UNKNOWN
    if rest and rest[0].startswith("-c"):
        text = rest[0][2:] or (rest[1] if len(rest) > 1 else "")
        shell.python.check(_code(text), scope.bases)
        return UNKNOWN
    if rest and rest[0].startswith("-m"):
        module = rest[0][2:] or (rest[1] if len(rest) > 1 else "")
        after = rest[1:] if rest[0][2:] else rest[2:]
        if module in ("pip", "pytest", "mypy", "ruff", "black", "isort", "flake8", "twine", "tox", "nox", "poetry"):
            return judge(shell, [module, *after], scope)
        if module in ("json.tool", "calendar", "tokenize", "ast", "dis", "base64", "platform", "this", "site"):
            operands = [one for one in after if not one.startswith("-")]
            for one in operands[:1]:
                shell.places.read(one, scope.bases, "shell")
            for one in operands[1:]:
                shell.places.write(one, scope.bases, "shell")
            return UNKNOWN
        if module in ("unittest", "build", "venv", "compileall", "timeit", "doctest", "coverage"):
            return project(shell, f"python -m {module}", after)
        raise undecidable(f"the module {module[:60]!r}")
    if rest and rest[0] != "-" and rest[0].startswith("-"):
        raise undecidable(f"the option {rest[0][:40]!r} of Python")
    if rest and rest[0] != "-":
        return run_file(shell, rest[0], rest[1:], scope, language="python")
    if scope.fed.startswith("="):
        shell.python.check(_code(scope.fed[1:]), scope.bases)
        return UNKNOWN
    raise Unsafe("shell.piped_code", "Python reads code that is not known", "Write the code out.")


def run_file(shell: ShellJudge, path: str, arguments: list[str], scope: Scope, language: str = "") -> str:
    """A script in the workspace: what stands in it now is judged. Anything else is undecidable."""
    shell.places.read(path, scope.bases, "shell")
    if shell.options.project_code and not any(UNKNOWN in one for one in (path, *arguments)):
        return UNKNOWN
    if not shell.places.real or len(scope.bases) != 1:
        raise undecidable("a script that is not seen here")
    place = Path(shell.places.resolve(path, scope.bases[0], "shell"))
    try:
        if not place.is_file() or place.stat().st_size > SCRIPT_BYTES_MAX or not shell.places.inside(str(place)):
            raise undecidable(f"the script {path[:80]!r} is not there, or is too large")
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise undecidable(f"the script {path[:80]!r} cannot be read") from error
    first = text.partition("\n")[0]
    if not language and first.startswith("#!"):
        language = "python" if "python" in first else "shell" if re.search(r"\b(ba|da)?sh\b", first) else ""
    if language == "python":
        shell.python.check(text, scope.bases)
        return UNKNOWN
    if language == "shell":
        inner = scope.copy()
        inner.variables, inner.functions, inner.fed = {}, {}, ""
        shell.script(text.partition("\n")[2] if first.startswith("#!") else text, inner)
        return UNKNOWN
    raise undecidable(f"what {path[:80]!r} is written in")


def _code(text: str) -> str:
    if UNKNOWN in text or INSIDE in text:
        raise undecidable("code that is made while it runs")
    return "".join(GLOBS.get(one, one) for one in text)


def wrapper(*, values: str = "", operands: int = 0, environment: bool = False) -> Callable[..., str]:
    """The judge of a program that runs its operands: its options that take a value, how many operands it has."""

    def unwrap(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
        rest = list(arguments)
        inner = scope.copy()
        while rest and (rest[0].startswith("-") or (environment and _ASSIGNMENT.fullmatch(rest[0]))):
            one = rest.pop(0)
            found = _ASSIGNMENT.fullmatch(one)
            if found and environment:
                shell.assign(found[1], [found[2]], inner)
            elif one == "--":
                break
            elif UNKNOWN in one or (
                environment and (one.startswith(("-S", "--split", "-C", "--chdir")) or "S" in one)
            ):
                raise undecidable("options that are not followed")
            elif len(one) == 2 and one[1] in values and rest:
                rest.pop(0)
        rest = rest[operands:]
        if not rest:
            if environment:
                raise Unsafe("shell.secrets", "it would show the environment")
            return UNKNOWN
        return shell.command(rest, inner)

    return unwrap


def evaluate(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``eval``: its words are a script."""
    shell.script(_code(" ".join(arguments)), scope)
    return UNKNOWN


def source(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``.`` and ``source``."""
    if not arguments:
        raise undecidable("source without a file")
    return run_file(shell, arguments[0], arguments[1:], scope, language="shell")


def trap(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``trap``: its first word is a script."""
    if arguments and arguments[0] not in ("-", "-p", "-l", ""):
        inner = scope.copy()
        shell.script(_code(arguments[0]), inner)
        if inner.variables != scope.variables or inner.bases != scope.bases:
            raise undecidable("a trap that changes what follows")
    return ""


def command(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``command`` and ``builtin``."""
    if arguments[:1] in (["-v"], ["-V"]):
        return UNKNOWN
    rest = arguments[1:] if arguments[:1] in (["-p"], ["--"]) else arguments
    return shell.command(rest, scope) if rest else ""


def xargs(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``xargs``: a command with arguments that come from its input."""
    rest = list(arguments)
    replace = ""
    while rest and rest[0].startswith("-"):
        one = rest.pop(0)
        if one in ("-a", "--arg-file") or one.startswith(("--arg", "-a")):
            raise undecidable("xargs of a file")
        if one == "-I" and rest:
            replace = rest.pop(0)
        elif one.startswith("-I") or one == "-i":
            replace = one[2:] or "{}"
        elif one in ("-n", "-P", "-d", "-L", "-s", "-E") and rest:
            rest.pop(0)
    given = INSIDE if scope.fed == INSIDE else UNKNOWN
    if not rest:
        return UNKNOWN
    fields = [one.replace(replace, given) for one in rest] if replace else [*rest, given, given]
    inner = scope.copy()
    inner.fed = ""
    return shell.command(fields, inner)


JUDGES: dict[str, Callable[..., str]] = {
    **programs.JUDGES,
    "env": wrapper(environment=True, values="u"),
    "nohup": wrapper(),
    "nice": wrapper(values="n"),
    "ionice": wrapper(values="cnp"),
    "timeout": wrapper(values="ks", operands=1),
    "time": wrapper(values="fo"),
    "stdbuf": wrapper(values="ioe"),
    "setsid": wrapper(),
    "chronic": wrapper(),
    "busybox": wrapper(),
    "toybox": wrapper(),
    "exec": wrapper(values="a"),
    "command": command,
    "builtin": command,
    "eval": evaluate,
    ".": source,
    "source": source,
    "trap": trap,
    "xargs": xargs,
}
