"""What texts and paths a Python program may make: constants, and paths below a known directory. The rest is unknown.

Names are taken together over the whole program: whatever a name is ever given, it may hold everywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from logact.voters.safety_places import GLOBS, HOME, INSIDE, UNKNOWN

VALUES_MAX = 32
ROUNDS_MAX = 6
_TO_GLOB = {plain: private for private, plain in GLOBS.items()}
_JOINS = frozenset(("pathlib.Path", "pathlib.PurePath", "pathlib.PosixPath", "pathlib.PurePosixPath", "os.path.join"))
_SAME = frozenset(
    [
        "os.fspath",
        "os.path.abspath",
        "os.path.normpath",
        "os.path.realpath",
        "sorted",
        "list",
        "set",
        "tuple",
        "str",
        "iter",
        "reversed",
        "os.path.splitext",
        "frozenset",
        "open",
        "next",
    ]
)
_SAME_METHODS = frozenset(
    (*("resolve", "absolute", "as_posix", "lower", "upper", "strip", "removesuffix", "relative_to", "copy"),)
)

Resolve = Callable[[ast.expr], str]
"""The dotted name of what an expression calls, through imports; "" if it is none."""


class Values:
    """The possible values of names and expressions of one program."""

    def __init__(self, tree: ast.AST, resolve: Resolve) -> None:
        self.resolve = resolve
        self.names: dict[str, list[str]] = {}
        self.functions: dict[str, list[ast.arg]] = {}
        self.nodes = list(ast.walk(tree))
        called = {id(node.func) for node in self.nodes if isinstance(node, ast.Call)}
        loose = {
            node.id
            for node in self.nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in called
        }
        for node in self.nodes:
            if isinstance(node, ast.FunctionDef):
                known = node.name not in loose and not node.decorator_list
                known = known and not (
                    node.args.vararg or node.args.kwarg or node.args.kwonlyargs or node.args.posonlyargs
                )
                if known and node.name not in self.functions:
                    self.functions[node.name] = node.args.args
                    for argument, default in zip(node.args.args[::-1], node.args.defaults[::-1], strict=False):
                        self.add(argument.arg, self.of(default))
                else:
                    self.functions.pop(node.name, None)
                    self._unknown(node.args)
            elif isinstance(node, ast.Lambda | ast.AsyncFunctionDef):
                self._unknown(node.args)
        for _ in range(ROUNDS_MAX):
            before = {name: list(values) for name, values in self.names.items()}
            for node in self.nodes:
                self._learn(node)
            if before == self.names:
                return
        self.names = {name: [UNKNOWN] for name in self.names}

    def _unknown(self, arguments: ast.arguments) -> None:
        for one in (
            *arguments.args,
            *arguments.kwonlyargs,
            *arguments.posonlyargs,
            arguments.vararg,
            arguments.kwarg,
        ):
            if one is not None:
                self.add(one.arg, [UNKNOWN])

    def add(self, name: str, values: Iterable[str]) -> None:
        """A name may hold these, too."""
        known = self.names.setdefault(name, [])
        for value in values:
            if value not in known:
                known.append(value)
        if len(known) > VALUES_MAX:
            self.names[name] = [UNKNOWN]

    def _learn(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, self.of(node.value))
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self._bind(node.target, self.of(node.value))
        elif isinstance(node, ast.AugAssign):
            self._bind(node.target, [UNKNOWN])
        elif isinstance(node, ast.NamedExpr):
            self._bind(node.target, self.of(node.value))
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            self._iterate(node.target, node.iter)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._bind(node.optional_vars, [UNKNOWN])
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            self.add(node.name, [UNKNOWN])
        elif isinstance(node, ast.MatchMapping) and node.rest:
            self.add(node.rest, [UNKNOWN])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
            self._call(node, self.functions[node.func.id])

    def _call(self, node: ast.Call, parameters: list[ast.arg]) -> None:
        if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
            for one in parameters:
                self.add(one.arg, [UNKNOWN])
            return
        for parameter, given in zip(parameters, node.args, strict=False):
            self.add(parameter.arg, self.of(given))
        for keyword in node.keywords:
            self.add(str(keyword.arg), self.of(keyword.value))

    def _bind(self, target: ast.expr, values: list[str]) -> None:
        if isinstance(target, ast.Name):
            self.add(target.id, values)
        elif isinstance(target, ast.Tuple | ast.List):
            kept = values if all(one == INSIDE for one in values) else [UNKNOWN]
            for one in target.elts:
                self._bind(one, kept)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, [UNKNOWN])

    def _iterate(self, target: ast.expr, source: ast.expr) -> None:
        called = self.resolve(source.func) if isinstance(source, ast.Call) else ""
        if isinstance(target, ast.Tuple) and isinstance(source, ast.Call):
            if called == "enumerate" and len(target.elts) == 2 and source.args:
                self._bind(target.elts[0], [INSIDE])
                self._bind(target.elts[1], self._elements(source.args[0]))
                return
            walks = called == "os.walk" or (isinstance(source.func, ast.Attribute) and source.func.attr == "walk")
            if walks and len(target.elts) == 3:
                self._bind(target.elts[0], self.of(source))
                self._bind(target.elts[1], [INSIDE])
                self._bind(target.elts[2], [INSIDE])
                return
        self._bind(target, self._elements(source))

    def _elements(self, source: ast.expr) -> list[str]:
        """What stands in an iterable; the letters of a text are not followed."""
        if isinstance(source, ast.Constant):
            return [UNKNOWN]
        if isinstance(source, ast.Name):
            texts = [
                node.value
                for node in self.nodes
                if isinstance(node, ast.Assign)
                and any(isinstance(one, ast.Name) and one.id == source.id for one in node.targets)
            ]
            if any(not isinstance(one, ast.List | ast.Tuple | ast.Call | ast.ListComp | ast.Set) for one in texts):
                return [UNKNOWN]
        return self.of(source)

    # --- expressions ------------------------------

    def of(self, node: ast.expr | None) -> list[str]:
        """The texts or paths that an expression may give."""
        found = self._of(node) if node is not None else [UNKNOWN]
        return found if len(found) <= VALUES_MAX else [UNKNOWN]

    def _of(self, node: ast.expr) -> list[str]:
        if isinstance(node, ast.Constant):
            return [str(node.value)] if isinstance(node.value, str | int) else [UNKNOWN]
        if isinstance(node, ast.Name):
            return self.names.get(node.id, [UNKNOWN])
        if isinstance(node, ast.JoinedStr):
            return self._formatted(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [left + right for left in self.of(node.left) for right in self.of(node.right)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return [_join(left, right) for left in self.of(node.left) for right in self.of(node.right)]
        if isinstance(node, ast.IfExp):
            return [*self.of(node.body), *self.of(node.orelse)]
        if isinstance(node, ast.BoolOp):
            return [value for one in node.values for value in self.of(one)]
        if isinstance(node, ast.NamedExpr):
            return self.of(node.value)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [value for one in node.elts for value in self.of(one)] or [INSIDE]
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
            return self.of(node.elt)
        if isinstance(node, ast.Subscript):
            values = self.of(node.value)
            return values if values and all(INSIDE in one and UNKNOWN not in one for one in values) else [UNKNOWN]
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        return self._called(node) if isinstance(node, ast.Call) else [UNKNOWN]

    def _formatted(self, node: ast.JoinedStr) -> list[str]:
        found = [""]
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                values = self.of(part.value)
                if part.conversion != -1 or part.format_spec is not None:
                    values = [one if one == INSIDE else UNKNOWN for one in values]
            else:
                values = self.of(part)
            found = [before + value for before in found for value in values][: VALUES_MAX + 1]
        return found

    def _attribute(self, node: ast.Attribute) -> list[str]:
        values = self.of(node.value)
        if any(UNKNOWN in one for one in values):
            return [UNKNOWN]
        if node.attr in ("name", "stem", "suffix"):
            return [
                INSIDE
                if INSIDE in one or any(glob in one for glob in GLOBS)
                else getattr(PurePosixPath(one), node.attr)
                for one in values
            ]
        if node.attr == "path":
            return values
        if node.attr == "parent":
            return [above for one in values for above in _parents(one)]
        return [UNKNOWN]

    def _called(self, node: ast.Call) -> list[str]:
        name = self.resolve(node.func)
        values = [self.of(one) for one in node.args]
        first = values[0] if values else ["."]
        if name in _JOINS:
            found = first
            for more in values[1:]:
                found = [_join(left, right) for left in found for right in more]
            return found
        if name in _SAME and len(values) >= 1:
            return first
        if name in ("os.getcwd", "pathlib.Path.cwd"):
            return ["."]
        if name in ("pathlib.Path.home", "os.path.expanduser"):
            return [HOME]
        if name in (
            "os.listdir",
            "os.path.basename",
            "range",
            "len",
            "int",
            "round",
            "sum",
            "max_",
            "min_",
            "enumerate",
        ):
            return [INSIDE]
        if name in ("os.walk", "os.scandir"):
            return [one for base in first for one in (base, _join(base, INSIDE))]
        if name in ("glob.glob", "glob.iglob"):
            return ["".join(_TO_GLOB.get(letter, letter) for letter in one) for one in first]
        if name == "os.path.dirname":
            return [above for one in first for above in _parents(one)]
        if isinstance(node.func, ast.Attribute):
            return self._method(node.func, node, values)
        return [UNKNOWN]

    def _method(self, function: ast.Attribute, node: ast.Call, values: list[list[str]]) -> list[str]:
        base = self.of(function.value)
        method = function.attr
        if any(UNKNOWN in one for one in base):
            return [UNKNOWN]
        if method in ("iterdir", "glob", "rglob", "walk"):
            given = values[0] if values else []
            if any(".." in one or UNKNOWN in one or one.startswith("/") for one in given):
                return [UNKNOWN]
            return [*(base if method == "walk" else []), *(_join(one, INSIDE) for one in base)]
        if method == "joinpath":
            for more in values:
                base = [_join(left, right) for left in base for right in more]
            return base
        if method in ("with_name", "with_stem") and len(values) == 1:
            return [_join(above, name) for one in base for above in _parents(one) for name in values[0]]
        if method == "with_suffix":
            return [
                one if INSIDE in one else str(PurePosixPath(one).with_suffix("")) + end
                for one in base
                for end in values[0]
            ]
        if method in _SAME_METHODS:
            return base
        return [UNKNOWN]


def _join(left: str, right: str) -> str:
    return right if right.startswith(("/", UNKNOWN)) else f"{left}/{right}"


def _parents(path: str) -> list[str]:
    if INSIDE not in path:
        return [path.rsplit("/", 1)[0] or "/"] if "/" in path else ["."] if path != "." else [".."]
    head = path.rsplit("/", 1)[0] if "/" in path else "."
    return [head, path]


def _is_open(path: str) -> bool:
    return INSIDE in path or any(glob in path for glob in GLOBS)
