"""Judges Python code by its tree: what it imports, calls, opens, writes, deletes. What isn't followed is refused."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Sequence

from logact.voters.safety_finding import Finding, Unsafe, undecidable
from logact.voters.safety_places import UNKNOWN, Places
from logact.voters.safety_pymodules import (
    ATTRIBUTES_REFUSED,
    DANGERS,
    DENIED_ATTRIBUTES,
    DUNDERS_ALLOWED,
    LIMITED,
    NAMES_REFUSED,
    PURE,
)
from logact.voters.safety_pyvalues import Values
from logact.voters.safety_secrets import is_secret_name
from logact.voters.shell_parse import ODD

CODE_CHARS_MAX = 100_000
_ALIKE = frozenset(
    ("numpy.random", "scipy.stats", "os.path", "xml.etree", "collections.abc", "concurrent.futures", "html.parser")
)
_READS = frozenset(("read_text", "read_bytes", "iterdir", "glob", "rglob", "walk"))
_WRITES = frozenset(("write_text", "write_bytes", "touch", "mkdir"))
_SAVES = frozenset(
    ("to_csv", "to_json", "to_excel", "to_parquet", "to_html", "to_markdown", "to_feather", "savefig", "save")
)
_OPENS = frozenset(("open", "gzip.open", "bz2.open", "lzma.open", "zipfile.ZipFile", "tarfile.open", "io.open"))
_ASKS = frozenset(
    [
        "getcwd",
        "sep",
        "linesep",
        "name",
        "cpu_count",
        "getpid",
        "fspath",
        "PathLike",
        "path",
        "pathsep",
        "curdir",
        "pardir",
        "extsep",
        "altsep",
        "R_OK",
        "W_OK",
        "X_OK",
        "F_OK",
        "get_terminal_size",
        "DirEntry",
        "fsencode",
        "fsdecode",
    ]
)
_TELLING = (
    "__globals__",
    "__class__",
    "__subclasses__",
    "__builtins__",
    "__import__",
    "__mro__",
    "__base",
    "__dict__",
    "__code__",
)


class PythonJudge:
    """Judges programs against what may be touched."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def judge(self, text: str) -> Finding | None:
        """The first thing that is wrong with a program; None if nothing is."""
        try:
            self.check(text)
        except Unsafe as error:
            return error.finding
        return None

    def check(self, text: str, bases: Sequence[str] = ()) -> None:
        """Raise Unsafe for the first thing that is wrong with a program."""
        if len(text) > CODE_CHARS_MAX:
            raise undecidable(f"longer than {CODE_CHARS_MAX} characters", "python")
        if ODD.search(text):
            raise undecidable("it holds invisible or control characters", "python")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(text)
            _Program(tree, self.places, bases).run()
        except (SyntaxError, ValueError, MemoryError) as error:
            raise undecidable("it is not Python that can be read", "python") from error
        except RecursionError as error:
            raise undecidable("nested too deeply", "python") from error


class _Program:
    def __init__(self, tree: ast.Module, places: Places, bases: Sequence[str]) -> None:
        self.tree = tree
        self.places = places
        self.bases = bases
        self.modules: dict[str, str] = {}
        self.imported: dict[str, str] = {}
        self.nodes = list(ast.walk(tree))
        for node in self.nodes:
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
        self.values = Values(tree, self.dotted)
        self.heads: set[int] = set()
        """Names and attributes that are part of a longer dotted name, or called: judged there."""

    def dotted(self, node: ast.expr) -> str:
        """The dotted name that an expression means, through imports; a builtin's own name; "" otherwise."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id) or self.imported.get(node.id) or node.id
        if isinstance(node, ast.Attribute):
            head = self.dotted(node.value)
            first = head.split(".")[0]
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and (root.id in self.modules or root.id in self.imported) and first:
                return f"{head}.{node.attr}"
        return ""

    def _import(self, node: ast.Import) -> None:
        for one in node.names:
            self._allowed(one.name)
            if (one.asname or "").startswith("_"):
                raise undecidable("a module under a hidden name", "python")
            if one.asname:
                self.modules[one.asname] = one.name
            else:
                self.modules[one.name.split(".")[0]] = one.name.split(".")[0]

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            raise undecidable("a relative import", "python")
        for one in node.names:
            full = f"{module}.{one.name}"
            if one.name == "*":
                raise undecidable("it imports everything", "python")
            if full in PURE or full in LIMITED or full in DANGERS:
                self._allowed(full)
                self.modules[one.asname or one.name] = full
            else:
                self._allowed(module)
                self._member(module, one.name)
                self.imported[one.asname or one.name] = full

    def _allowed(self, module: str) -> None:
        parts = module.split(".")
        for end in range(len(parts), 0, -1):
            danger = DANGERS.get(".".join(parts[:end]))
            if danger and module not in PURE:
                raise Unsafe(danger[0], f"the module {module}: {danger[1]}")
        if module not in PURE and module not in LIMITED:
            raise undecidable(f"the module {module[:60]!r} is not known", "python")

    def _member(self, module: str, name: str) -> None:
        """Raise Unsafe if a module's name must not be used."""
        full = f"{module}.{name}"
        if full in DANGERS:
            raise Unsafe(DANGERS[full][0], f"{full}: {DANGERS[full][1]}")
        if module in LIMITED:
            if name not in LIMITED[module]:
                code = (
                    "python.process"
                    if name in ATTRIBUTES_REFUSED or name.startswith(("exec", "spawn"))
                    else "python.undecidable"
                )
                raise Unsafe(code, f"it cannot be judged: {full}")
        elif module in PURE:
            alike = name in sys.stdlib_module_names and full not in _ALIKE
            alike = alike and name != module.rsplit(".", maxsplit=1)[-1]
            if name.startswith("_") or name == "open" or alike or name in DENIED_ATTRIBUTES.get(module, ()):
                raise undecidable(full, "python")

    # --- the walk ------------------------------

    def run(self) -> None:
        """Judge every node."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                self._call(node)
        for node in self.nodes:
            if isinstance(node, ast.Attribute):
                self._attribute(node)
        for node in self.nodes:
            if isinstance(node, ast.Name):
                self._name(node)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if any(one in node.value for one in _TELLING):
                    raise undecidable("a text with names of Python's insides", "python")
            elif isinstance(node, ast.Global | ast.Nonlocal):
                continue

    def _name(self, node: ast.Name) -> None:
        name = node.id
        if name in NAMES_REFUSED or (name.startswith("__") and name not in DUNDERS_ALLOWED):
            raise undecidable(f"{name} makes or runs code", "python")
        if id(node) in self.heads or not isinstance(node.ctx, ast.Load):
            if name in self.modules and not isinstance(node.ctx, ast.Load):
                raise undecidable(f"{name} is given another meaning", "python")
            return
        if name in self.modules:
            raise undecidable(f"the module {name} is used as a value", "python")
        if name in ("open", "getattr", "type_") or self._acts(self.imported.get(name, "")):
            raise undecidable(f"{name} is used as a value", "python")

    def _acts(self, full: str) -> bool:
        """Whether a function's arguments have to be judged, so that it must be called by its name."""
        module, _, name = full.rpartition(".")
        if full in _OPENS or (
            full.startswith("shutil.") and name not in ("disk_usage", "which", "get_terminal_size", "copyfileobj")
        ):
            return True
        if module == "os":
            return name in LIMITED["os"] and name not in _ASKS
        acts = ("logging.basicConfig", "xml.etree.ElementTree.parse", "xml.etree.ElementTree.iterparse")
        return module == "glob" or full in acts or full.startswith("pandas.read_")

    def _attribute(self, node: ast.Attribute) -> None:
        name = node.attr
        head = self.dotted(node.value)
        root: ast.expr = node.value
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(root, ast.Name):
            self.heads.add(id(root))
        if head in self._module_names():
            full = f"{head}.{name}"
            if full in PURE or full in LIMITED:
                if id(node) not in self.heads and not self._is_head(node):
                    raise undecidable(f"the module {full} is used as a value", "python")
                return
            self._member(head, name)
            if full == "os.environ":
                raise Unsafe("python.secrets", "it reads the environment")
            if self._acts(full) and id(node) not in self.heads:
                raise undecidable(f"{full} is used as a value", "python")
            return
        if name.startswith("__") and name not in DUNDERS_ALLOWED:
            raise undecidable(f"the attribute {name}", "python")
        if name in ATTRIBUTES_REFUSED:
            raise undecidable(f"the attribute {name}", "python")
        judged = name in _READS | _WRITES or name in (
            "unlink",
            "rmdir",
            "chmod",
            "symlink_to",
            "hardlink_to",
            "rmtree",
        )
        if judged and id(node) not in self.heads:
            raise undecidable(f"the method {name} is used as a value", "python")

    def _is_head(self, node: ast.Attribute) -> bool:
        return any(isinstance(one, ast.Attribute) and one.value is node for one in self.nodes)

    def _module_names(self) -> set[str]:
        found = set(self.modules.values())
        return found | {one for one in (*PURE, *LIMITED) if one.split(".")[0] in found}

    # --- calls ------------------------------

    def _call(self, node: ast.Call) -> None:
        self.heads.add(id(node.func))
        full = self.dotted(node.func)
        if isinstance(node.func, ast.Name):
            self._name_called(node.func.id, node)
        if full in _OPENS:
            self._open(node)
        elif full.startswith(("os.", "shutil.", "glob.")):
            self._system(node, full)
        elif full == "logging.basicConfig" and any(
            one.arg in ("filename", "handlers", None) for one in node.keywords
        ):
            raise undecidable("logging to a file", "python")
        elif full.startswith("pandas.read_") or full in (
            "xml.etree.ElementTree.parse",
            "xml.etree.ElementTree.iterparse",
        ):
            self._read(node.args[0] if node.args else None)
        elif any(one.arg == "fromfile_prefix_chars" for one in node.keywords):
            raise undecidable("arguments that are read from files", "python")
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func)

    def _name_called(self, name: str, node: ast.Call) -> None:
        if name == "getattr":
            second = node.args[1] if len(node.args) > 1 else None
            wanted = second.value if isinstance(second, ast.Constant) else None
            if not isinstance(wanted, str) or wanted.startswith("_") or wanted in ATTRIBUTES_REFUSED:
                raise undecidable("an attribute that is made while it runs", "python")
            if self.dotted(node.args[0]) in self._module_names() or wanted in _READS | _WRITES | {"unlink", "rmdir"}:
                raise undecidable("an attribute of a module by its name", "python")
        if name == "type" and len(node.args) == 3:
            raise undecidable("a class that is made while it runs", "python")

    def _read(self, node: ast.expr | None) -> None:
        for one in self.values.of(node):
            self._plain(one)
            self.places.read(one, self.bases, "python")

    def _write(self, node: ast.expr | None) -> None:
        for one in self.values.of(node):
            self._plain(one)
            self.places.write(one, self.bases, "python")

    def _plain(self, path: str) -> None:
        if UNKNOWN in path:
            raise undecidable("a path that is not known", "python")
        if "://" in path:
            raise Unsafe("python.network", "it opens an address on the network")

    def _open(self, node: ast.Call) -> None:
        if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
            raise undecidable("open with arguments that are not seen", "python")
        given = {one.arg: one.value for one in node.keywords}
        if "opener" in given:
            raise undecidable("open with an opener", "python")
        path = node.args[0] if node.args else given.get("file") or given.get("filename") or given.get("name")
        self._by_mode(node.args[1] if len(node.args) > 1 else given.get("mode"), path)

    def _by_mode(self, mode: ast.expr | None, path: ast.expr | None) -> None:
        text = "r" if mode is None else mode.value if isinstance(mode, ast.Constant) else None
        if not isinstance(text, str):
            raise undecidable("open in a mode that is not known", "python")
        if any(one in text for one in "wax+"):
            self._write(path)
        if "r" in text or "+" in text or not text:
            self._read(path)

    def _system(self, node: ast.Call, full: str) -> None:
        if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
            raise undecidable(f"{full} with arguments that are not seen", "python")
        keywords = {one.arg: one.value for one in node.keywords}
        if any("dir_fd" in str(one) for one in keywords):
            raise undecidable("a directory by its handle", "python")
        first = node.args[0] if node.args else next(iter(keywords.values()), None)
        second = node.args[1] if len(node.args) > 1 else keywords.get("dst")
        name = full.split(".", 1)[1]
        if full in ("os.remove", "os.unlink", "os.truncate"):
            self._delete(first)
        elif full in ("os.rmdir", "os.removedirs", "shutil.rmtree"):
            self._delete(first, recursive=name != "rmdir")
        elif full in ("os.rename", "os.replace", "shutil.move"):
            for one in self.values.of(first):
                self._plain(one)
                self.places.move(one, self.bases, "python")
                self._displace(one, second)
            self._write(second)
        elif full in ("shutil.copy", "shutil.copy2", "shutil.copyfile", "shutil.copytree"):
            self._read(first)
            self._write(second)
        elif full in ("os.makedirs", "os.mkdir", "os.utime"):
            self._write(first)
        elif full in ("os.symlink", "os.link", "os.chmod"):
            raise Unsafe("python.permissions", f"{full} opens ways that are not seen here")
        elif full in (
            "os.listdir",
            "os.walk",
            "os.scandir",
            "os.stat",
            "os.lstat",
            "glob.glob",
            "glob.iglob",
            "os.access",
        ):
            if first is not None:
                self._read(first)
            if "root_dir" in keywords:
                raise undecidable("a glob elsewhere", "python")
        elif full == "os.getenv":
            value = first.value if isinstance(first, ast.Constant) else None
            if not isinstance(value, str) or is_secret_name(value):
                raise Unsafe("python.secrets", "it reads the environment")
        elif full.startswith("os.environ"):
            raise Unsafe("python.secrets", "it reads the environment")

    def _displace(self, old: str, target: ast.expr | None) -> None:
        for new in self.values.of(target):
            self._plain(new)
            self.places.displace(old, new, self.bases, "python")

    def _delete(self, node: ast.expr | None, *, recursive: bool = False) -> None:
        for one in self.values.of(node):
            self._plain(one)
            self.places.delete(one, self.bases, "python", recursive=recursive)

    def _method(self, node: ast.Call, function: ast.Attribute) -> None:
        name = function.attr
        if name in _READS:
            self._read(function.value)
            for one in node.args:
                if any(".." in value or UNKNOWN in value for value in self.values.of(one)):
                    raise undecidable("a glob that is not known", "python")
        elif name in _WRITES:
            self._write(function.value)
        elif name in ("unlink", "rmdir", "rmtree"):
            self._delete(function.value, recursive=name == "rmtree")
        elif name in ("chmod", "symlink_to", "hardlink_to", "lchmod"):
            raise Unsafe("python.permissions", f"{name} opens ways that are not seen here")
        elif name in ("rename", "replace") and any(one.arg == "target" for one in node.keywords):
            raise undecidable("a move with named arguments", "python")
        elif name == "read" and node.args and "configparser" in self.modules.values():
            self._read(node.args[0])
        elif name == "write" and node.args and "xml.etree.ElementTree" in self.modules.values():
            self._write(node.args[0])
        elif (name == "rename" and node.args) or (name == "replace" and len(node.args) == 1):
            for old in self.values.of(function.value):
                self._plain(old)
                self.places.move(old, self.bases, "python")
                self._displace(old, node.args[0])
            self._write(node.args[0])
        elif name in _SAVES and (
            node.args or any(one.arg not in ("index", "orient", "indent", "dpi") for one in node.keywords)
        ):
            self._write(node.args[0] if node.args else node.keywords[0].value)
        elif name == "open":
            mode = (
                node.args[0] if node.args else next((one.value for one in node.keywords if one.arg == "mode"), None)
            )
            self._by_mode(mode, function.value)
        elif (
            name in ("query", "format")
            and name == "query"
            and any("@" in value for one in node.args for value in self.values.of(one))
        ):
            raise undecidable("a query that reaches into the program", "python")
