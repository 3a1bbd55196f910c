"""Judges shell commands as the shell will read them. Whatever is not understood is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from logact.voters import safety_commands as commands
from logact.voters import shell_parse as shell
from logact.voters.safety_finding import Finding, Unsafe, undecidable
from logact.voters.safety_places import INSIDE, UNKNOWN, Places
from logact.voters.safety_words import Scope, expand, text_of

NESTING_MAX = 12
BASES_MAX = 16
_HARMLESS_VARIABLES = frozenset(("LC_ALL", "LANG", "TZ", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "CI"))
_DANGEROUS_VARIABLE = re.compile(
    r"PATH|LD_\w+|DYLD_\w+|BASH_ENV|ENV|BASH_\w+|PROMPT_COMMAND|PS[0-4]|SHELLOPTS|BASHOPTS|SHELL|CDPATH|GLOBIGNORE"
    r"|PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$|PATH$|WARNINGS$|HASHSEED$|IOENCODING$|UTF8$)\w+|PERL\w*|RUBY\w*|NODE_OPTIONS"
    r"|NODE_PATH|GIT_\w+|EDITOR|VISUAL|\w*PAGER|LESS\w*|BROWSER|TAR_OPTIONS|RSYNC_\w+|SSH_\w+|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS"
    r"|CLASSPATH|GREP_OPTIONS|MAKEFLAGS|MAKEFILES|CC|CXX|LDFLAGS|CFLAGS|GCC_\w+|PIP_\w+|npm_config_\w+|NPM_CONFIG_\w+"
    r"|HOME|TMPDIR|XDG_\w+|AWS_\w+|KUBECONFIG|DOCKER_\w+|GOFLAGS|CARGO_\w+|RUSTC\w*|RUSTFLAGS|OPENSSL_\w+|CURL_HOME|WGETRC"
    r"|(https?|all|ftp)_proxy|(HTTPS?|ALL|FTP)_PROXY|MALLOC_\w+|HISTFILE|FPATH|GCONV_PATH|LOCPATH|TERMINFO\w*|AWKPATH|MANPATH"
)


class ShellJudge:
    """Judges commands against what may be touched. Holds no state between judgements."""

    def __init__(self, places: Places, options: commands.Options, python: Any) -> None:
        self.places = places
        self.options = options
        self.python = python
        self.depth = 0

    def judge(self, text: str) -> Finding | None:
        """The first thing that is wrong with a command; None if nothing is."""
        try:
            self.script(text, Scope([self.places.root]))
        except Unsafe as error:
            return error.finding
        except shell.Undecidable as error:
            return undecidable(str(error)).finding
        except RecursionError:
            return undecidable("nested too deeply").finding
        return None

    def script(self, text: str, scope: Scope) -> None:
        """Judge a script in a scope. Raises Unsafe or shell.Undecidable."""
        if UNKNOWN in text or INSIDE in text:
            raise undecidable("code that is made while it runs")
        self.depth += 1
        try:
            if self.depth > NESTING_MAX:
                raise undecidable("nested too deeply")
            self.run(shell.parse(text), scope)
        finally:
            self.depth -= 1

    # --- the tree ------------------------------

    def run(self, node: Any, scope: Scope) -> str:
        """Judge a node; answers what its output is: "" (harmless text), INSIDE or UNKNOWN."""
        if isinstance(node, shell.Simple):
            return self.simple(node, scope)
        if isinstance(node, shell.Sequence):
            out = ""
            for one in node.commands:
                out = _worse(out, self.run(one, scope))
            return out
        if isinstance(node, shell.Pipeline):
            return self.pipeline(node, scope)
        if isinstance(node, shell.Function):
            return self.function(node, scope)
        return self.compound(node, scope)

    def pipeline(self, node: shell.Pipeline, scope: Scope) -> str:
        """Each part runs in its own subshell, fed by the one before."""
        inner = scope.copy()
        for one in node.commands:
            inner = inner.copy()
            inner.fed = self.run(one, inner) or UNKNOWN
        return inner.fed

    def function(self, node: shell.Function, scope: Scope) -> str:
        """A definition: its body is judged at once, with unknown arguments."""
        if not re.fullmatch(r"[A-Za-z_][\w-]*", node.name) or commands.is_known(node.name, self.options):
            raise Unsafe(
                "shell.fork_bomb" if node.name == ":" else "shell.undecidable", f"a function named {node.name!r}"
            )
        inner = scope.copy()
        inner.running = (*scope.running, node.name)
        inner.functions[node.name] = node
        scope.functions[node.name] = node
        self.run(node.body, inner)
        return ""

    def compound(self, node: shell.Compound, scope: Scope) -> str:
        """Groups, subshells, loops and conditions."""
        inner = scope.copy() if node.kind == "subshell" else scope
        before = inner.fed
        for redirect in node.redirects:
            fed = self.redirect(redirect, inner)
            inner.fed = fed or inner.fed
        outer_loop = inner.loop
        inner.loop = outer_loop or node.kind == "loop"
        if node.variable:
            values = [one for word in node.values for one in expand(word, inner, self.substitute)]
            if len(values) > 200:
                raise undecidable("a loop over too many values")
            self.assign(node.variable, values or [""], inner)
        out = ""
        rounds = 2 if node.kind == "loop" else 1  # a loop's second round sees what the first one set
        for _ in range(rounds):
            for body in node.bodies:
                known = dict(inner.variables)
                out = _worse(out, self.run(body, inner))
                if node.kind in ("if", "loop", "case"):
                    _merge(inner.variables, known)
        inner.loop, inner.fed = outer_loop, before
        return out

    def substitute(self, tree: Any, scope: Scope) -> str:
        """The output of ``$(…)``: judged, and then INSIDE, UNKNOWN or a harmless word."""
        self.depth += 1
        try:
            if self.depth > NESTING_MAX:
                raise undecidable("nested too deeply")
            inner = scope.copy()
            inner.fed = ""
            return self.run(tree, inner) or UNKNOWN
        finally:
            self.depth -= 1

    def redirect(self, redirect: shell.Redirect, scope: Scope) -> str:
        """Judge a redirection; answers what it feeds."""
        operator = redirect.operator
        if operator in ("<<", "<<-"):
            body = shell.body_of(redirect)
            texts = text_of(body or (), scope, self.substitute)
            return "=" + texts[0] if len(texts) == 1 else UNKNOWN
        if operator == "<<<":
            texts = text_of(redirect.target, scope, self.substitute)
            return "=" + texts[0] if len(texts) == 1 else UNKNOWN
        for target in expand(redirect.target, scope, self.substitute):
            if operator in ("<&", ">&") and re.fullmatch(r"\d*-?", target):
                continue
            if re.match(r"/dev/(tcp|udp)/", target):
                raise Unsafe("shell.network", "it opens a network connection")
            if operator == "<":
                if target != "/dev/stdin":
                    self.places.read(target, scope.bases, "shell")
            else:
                self.places.write(target, scope.bases, "shell")
                if operator == "<>":
                    self.places.read(target, scope.bases, "shell")
        return UNKNOWN if operator in ("<", "<>") else ""

    # --- simple commands ------------------------------

    def simple(self, node: shell.Simple, scope: Scope) -> str:
        """Judge assignments, redirections and the command itself."""
        fields: list[str] = []
        for number, word in enumerate(node.words):
            found = expand(word, scope, self.substitute)
            alternatives = word and word[0].kind == "variable" and len(scope.values(word[0].text)) > 1
            if number == 0 and alternatives:
                raise undecidable("a command that is not known")
            fields.extend(found)
        inner = scope.copy() if fields else scope
        fed = scope.fed
        for redirect in node.redirects:
            fed = self.redirect(redirect, scope) or fed
        for name, word in node.assignments:
            values = text_of(word, scope, self.substitute)
            if name == "IFS" and fields and fields[0] == "read":
                continue
            self.assign(name, values, inner)
        if not fields:
            return ""
        before, scope.fed = scope.fed, fed
        try:
            return self.command(fields, scope)
        finally:
            scope.fed = before

    def assign(self, name: str, values: Sequence[str], scope: Scope) -> None:
        """Give a variable its values. Raises Unsafe for those that change how programs work."""
        if name in _HARMLESS_VARIABLES and not any(UNKNOWN in value for value in values):
            scope.variables[name] = list(values)
            return
        if name == "PYTHONPATH":
            for value in values:
                for part in value.split(":"):
                    self.places.read(part or ".", scope.bases, "shell")
            return
        if name == "IFS" or _DANGEROUS_VARIABLE.fullmatch(name):
            raise Unsafe("shell.environment", f"setting {name} changes what commands do")
        scope.variables[name] = list(dict.fromkeys(values))

    def command(self, fields: list[str], scope: Scope) -> str:
        """Judge a command with its arguments as the program gets them; answers what its output is."""
        fields = ["test", *fields[1:]] if fields[0] == "\ue004" else fields  # "[" is a program
        name = fields[0]
        if UNKNOWN in name or INSIDE in name or not name.isascii() or any(one > "\ud000" for one in name):
            raise undecidable("a command that is not known")
        if name in scope.functions:
            if name in scope.running:
                raise Unsafe("shell.fork_bomb", f"the function {name} calls itself")
            inner = scope.copy()
            inner.running = (*scope.running, name)
            self.run(scope.functions[name].body, inner)
            _merge(scope.variables, inner.variables)
            scope.bases = list(dict.fromkeys([*scope.bases, *inner.bases]))
            return UNKNOWN
        self.depth += 1
        try:
            if self.depth > NESTING_MAX:
                raise undecidable("nested too deeply")
            return commands.judge(self, fields, scope)
        finally:
            self.depth -= 1

    def change_directory(self, path: str, scope: Scope) -> None:
        """``cd``: what follows may run in either place, since it can fail."""
        if scope.loop:
            raise undecidable("cd in a loop")
        self.places.read(path, scope.bases, "shell")
        added = [self.places.resolve(path, base, "shell") for base in scope.bases]
        if not all(self.places.inside(one) for one in added):
            raise Unsafe("shell.outside", "it leaves the workspace", "Stay in the workspace.")
        scope.bases = list(dict.fromkeys([*scope.bases, *added]))
        if len(scope.bases) > BASES_MAX:
            raise undecidable("too many directories")


def _worse(first: str, second: str) -> str:
    order = ["", INSIDE, UNKNOWN]
    return max(first, second, key=lambda one: order.index(one) if one in order else 2)


def _merge(into: dict[str, list[str]], known: dict[str, list[str]]) -> None:
    """After a branch that may not have run: every variable may have its old values, too."""
    for name, values in known.items():
        if into.get(name) != values:
            # what was set nowhere else before is, in the other case, whatever the environment says
            into[name] = list(dict.fromkeys([*values, *into.get(name, [])]))
