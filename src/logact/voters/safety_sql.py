"""Judges SQL by its tree, through the optional package ``sqlglot``.

Without the package only one plain SELECT passes; the rest is undecidable, and so refused.
"""

from __future__ import annotations

import re
from typing import Any

from logact.voters.safety_finding import Finding, Unsafe
from logact.voters.shell_parse import ODD

QUERY_CHARS_MAX = 50_000
_WORDS_REFUSED = re.compile(
    r"(?i)\b(insert|update|delete|drop|truncate|alter|create|grant|revoke|merge|replace|call|exec|execute|copy|load|attach"
    r"|detach|pragma|vacuum|set|into|begin|commit|rollback|lock|rename|handler|do|declare|shutdown|kill|outfile|dumpfile)\b"
)
_FUNCTIONS_REFUSED = re.compile(
    r"(?i)^(pg_sleep|sleep|benchmark|load_file|load_extension|lo_(import|export|unlink)|pg_read_\w+|pg_ls_\w+|pg_write_\w+"
    r"|pg_terminate_backend|pg_cancel_backend|pg_reload_conf|pg_rotate_logfile|dblink\w*|xp_\w+|sp_\w+|sys_exec|sys_eval"
    r"|query_to_xml\w*|database_to_xml\w*|table_to_xml\w*|readfile|writefile|edit|fts3_tokenizer|utl_\w+|dbms_\w+|setval"
    r"|nextval|set_config|current_setting|pg_switch_wal|pg_promote|openrowset|opendatasource|openquery|eval|system|url|file|s3"
    r"|read_csv\w*|read_parquet|read_json\w*|read_text|read_blob|glob|extractvalue|updatexml|name_const|txid_\w+)$"
)
_SYSTEM_TABLES = re.compile(r"(?i)^(pg_shadow|pg_authid|pg_user_mapping\w*|pg_hba_file_rules)$|^(mysql\.)?user$")
_HINT = "Say one statement that names its rows: WHERE with a key."


def _bad(code: str, reason: str, hint: str = _HINT) -> Unsafe:
    return Unsafe(f"sql.{code}", reason, hint)


class SqlJudge:
    """Judges statements. ``dialect`` is sqlglot's name of one, such as postgres."""

    def __init__(self, dialect: str = "") -> None:
        self.dialect = dialect

    def judge(self, text: str) -> Finding | None:
        """The first thing that is wrong with a statement; None if nothing is."""
        try:
            self.check(text)
        except Unsafe as error:
            return error.finding
        return None

    def check(self, text: str) -> None:
        """Raise Unsafe for the first thing that is wrong with a statement."""
        if len(text) > QUERY_CHARS_MAX:
            raise _bad("undecidable", f"longer than {QUERY_CHARS_MAX} characters")
        if ODD.search(text) or "/*!" in text or "/*+" in text or "--+" in text:
            raise _bad("undecidable", "it holds hidden characters or comments that are run")
        try:
            import sqlglot
        except ImportError:
            self._without_parser(text)
            return
        try:
            trees = [one for one in sqlglot.parse(text, dialect=self.dialect or None) if one is not None]
        except Exception as error:  # parse errors, token errors, recursion: in every case it is not understood
            raise _bad("undecidable", "it is not SQL that can be read") from error
        if len(trees) != 1:
            raise _bad("several_statements", f"{len(trees)} statements at once", "Send one statement at a time.")
        _Tree(trees[0]).check()

    def _without_parser(self, text: str) -> None:
        bare = re.sub(r"'(?:[^'\\]|'')*'", "''", text)
        bare = re.sub(r'"[^"]*"', '""', bare).strip().removesuffix(";")
        odd = any(one in bare for one in (";", "--", "/*", "#", "\\", "$$", "`", "'" * 3, "("))
        allowed = re.sub(r"(?i)\b(count|sum|min|max|avg|lower|upper|coalesce|length|round|date)\s*\(", " ", bare)
        odd = odd and any(one in allowed for one in (";", "--", "/*", "#", "\\", "$$", "`", "'" * 3, "("))
        odd = odd or any(one in bare.replace("''", "").replace('""', "") for one in "'\"")
        if not re.match(r"(?i)select\b", bare) or odd or _WORDS_REFUSED.search(bare):
            raise _bad(
                "undecidable",
                "it cannot be judged: only one plain SELECT can, without a parser",
                "An operator can install one: pip install 'logact[sql]'.",
            )


class _Tree:
    """One statement's tree. Typed loosely, since the parser is optional."""

    def __init__(self, tree: Any) -> None:
        from sqlglot import exp

        self.exp: Any = exp
        self.tree = tree

    def check(self) -> None:
        """Raise Unsafe for the first thing that is wrong."""
        exp, tree = self.exp, self.tree
        nodes = list(tree.walk())
        for node in nodes:
            self._node(node)
        if isinstance(tree, exp.Query):
            return
        if isinstance(tree, exp.Insert):
            if tree.args.get("overwrite") or tree.args.get("conflict") or tree.args.get("alternative"):
                raise _bad("overwrites", "this INSERT replaces rows")
            return
        if isinstance(tree, exp.Create):
            self._create()
            return
        if isinstance(tree, exp.Alter):
            if all(isinstance(one, exp.ColumnDef) for one in tree.args.get("actions") or [None]):
                return
            raise _bad("alter", "this ALTER may drop or change what is there")
        if isinstance(tree, exp.Update | exp.Delete):
            return  # judged with the nodes
        if isinstance(tree, exp.Describe):
            if not isinstance(tree.this, exp.Table | exp.Query):
                raise _bad("undecidable", "an EXPLAIN that may run its statement")
            return
        if type(tree).__name__ in ("Show",):
            return
        raise _bad("undecidable", f"it cannot be judged: the statement {type(tree).__name__.upper()}")

    def _node(self, node: Any) -> None:
        exp = self.exp
        name = type(node).__name__
        if name in ("Drop", "TruncateTable"):
            raise _bad("drop", "it drops or empties what is there", "Ask the user; make a backup first.")
        if name in ("Grant", "Revoke"):
            raise _bad("grant", "it changes who may do what", "Ask the user.")
        if isinstance(node, exp.Update | exp.Delete):
            self._narrow(node, name.upper())
        if name in (
            "Merge",
            "Copy",
            "LoadData",
            "Attach",
            "Detach",
            "Pragma",
            "Set",
            "Use",
            "Command",
            "Kill",
            "Into",
            "Export",
        ):
            raise _bad("undecidable", f"it cannot be judged: {name.upper()}")
        if isinstance(node, exp.Anonymous | exp.AnonymousAggFunc) and _FUNCTIONS_REFUSED.match(str(node.this)):
            raise _bad("function", f"the function {str(node.this)[:40]} does more than compute")
        if (
            isinstance(node, exp.Func)
            and not isinstance(node, exp.Anonymous)
            and _FUNCTIONS_REFUSED.match(node.sql_name())
        ):
            raise _bad("function", f"the function {node.sql_name()[:40]} does more than compute")
        if isinstance(node, exp.Table) and (
            _SYSTEM_TABLES.match(node.name) and (node.db.lower() == "mysql" or node.name.lower() != "user")
        ):
            raise _bad("secrets", f"the table {node.name[:40]} holds credentials")
        if isinstance(node, exp.Table) and re.search(r"[/\\]|\.(csv|parquet|json|txt)$", node.name):
            raise _bad("undecidable", "a file as a table")

    def _create(self) -> None:
        kind = str(self.tree.args.get("kind") or "").upper()
        if self.tree.args.get("replace") or kind not in ("TABLE", "VIEW", "INDEX", "SCHEMA"):
            raise _bad("undecidable", f"it cannot be judged: CREATE {kind or '?'}")

    def _narrow(self, node: Any, name: str) -> None:
        """UPDATE and DELETE have to say which rows."""
        where = node.args.get("where")
        if where is None:
            raise _bad("no_where", f"{name} without WHERE changes every row")
        if node.args.get("joins") or node.args.get("using") or node.args.get("tables"):
            raise _bad("undecidable", f"{name} over several tables")
        if not self._selects(where.this):
            raise _bad("broad_where", f"the WHERE of this {name} holds for every row, or nearly")

    def _selects(self, condition: Any) -> bool:
        """Whether a condition surely narrows: in each alternative some column is compared with something narrow."""
        exp = self.exp
        if isinstance(condition, exp.Paren):
            return self._selects(condition.this)
        if isinstance(condition, exp.And):
            return self._selects(condition.left) or self._selects(condition.right)
        if isinstance(condition, exp.Or):
            return self._selects(condition.left) and self._selects(condition.right)
        if isinstance(condition, exp.EQ):
            return self._sides(condition) and not self._same(condition)
        if isinstance(condition, exp.In):
            return (
                self._is_column(condition.this)
                and all(self._is_value(one) for one in condition.expressions)
                and (bool(condition.expressions) or self._narrow_query(condition.args.get("query")))
            )
        if isinstance(condition, exp.Between):
            return self._is_column(condition.this) and not self._vast(condition.args["low"], condition.args["high"])
        if isinstance(condition, exp.Like | exp.ILike):
            pattern = condition.expression
            return self._is_column(condition.this) and pattern.is_string and bool(re.match(r"[^%_]", pattern.this))
        if isinstance(condition, exp.GT | exp.GTE | exp.LT | exp.LTE):
            return self._sides(condition) and not self._open_ended(condition)
        if isinstance(condition, exp.Is):
            return self._is_column(condition.this) and isinstance(condition.expression, exp.Null | exp.Boolean)
        if isinstance(condition, exp.Column):
            return not condition.this.is_string and condition.name.lower() not in ("true", "rowid", "rownum")
        if isinstance(condition, exp.Not):
            inner = condition.this
            return isinstance(inner, exp.Column) and inner.name.lower() not in ("false",)
        return False

    def _narrow_query(self, query: Any) -> bool:
        inner = query.this if query is not None and hasattr(query, "this") else None
        where = inner.args.get("where") if inner is not None and hasattr(inner, "args") else None
        return where is not None and self._selects(where.this)

    def _sides(self, node: Any) -> bool:
        left, right = node.left, node.right
        return (self._is_column(left) and self._is_value(right)) or (self._is_value(left) and self._is_column(right))

    def _is_column(self, node: Any) -> bool:
        exp = self.exp
        if isinstance(node, exp.Lower | exp.Upper | exp.Cast | exp.Paren | exp.Trim | exp.Date | exp.TsOrDsToDate):
            return self._is_column(node.this)
        return isinstance(node, exp.Column) and not (node.this.quoted and node.this.name == "")

    def _is_value(self, node: Any) -> bool:
        exp = self.exp
        if isinstance(node, exp.Neg | exp.Cast | exp.Paren):
            return self._is_value(node.this)
        if isinstance(node, exp.Sub | exp.Add):
            return self._is_value(node.left) and self._is_value(node.right)
        return isinstance(
            node,
            exp.Literal
            | exp.Placeholder
            | exp.Parameter
            | exp.Boolean
            | exp.CurrentDate
            | exp.CurrentTimestamp
            | exp.Interval
            | exp.Tuple,
        )

    def _same(self, node: Any) -> bool:
        return bool(node.left.sql() == node.right.sql())

    def _number(self, node: Any) -> float | None:
        try:
            return float(node.sql().strip("'\"() "))
        except ValueError:
            return None

    def _open_ended(self, node: Any) -> bool:
        """``id > 0`` and the like: a bound that keeps nothing out."""
        flipped = not self._is_column(node.left)
        bound = node.left if flipped else node.right
        upwards = isinstance(node, self.exp.GT | self.exp.GTE) is not flipped
        number = self._number(bound)
        if number is None:
            text = bound.sql().strip("'\"")
            return (
                not text or (upwards and (text < "1975" or not text[0].isdigit())) or (not upwards and text > "2100")
            )
        return number <= 1 if upwards else number >= 1_000_000

    def _vast(self, low: Any, high: Any) -> bool:
        first, last = self._number(low), self._number(high)
        return first is not None and last is not None and last - first > 100_000
