"""From ``[recovery]`` to how an agent recovers: retries, a plain mode, and a model that is asked where it is wanted.

It makes objects only. A check is imported where the agent is built, never where the file is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from logact.core.retrying import Backoff
from logact.errors import SpecError, UsageError
from logact.introspection.semantic_recovery import Plain, SemanticRecovery
from logact.runtime.retry import RetryRecovery
from logact.spec_model import at_home, model_of
from logact.spec_tables import BackoffTable, RecoveryTable, SemanticTable

if TYPE_CHECKING:
    from logact.spec import SpecFile


def recovery_of(table: RecoveryTable) -> Plain:
    """What a table says for the case that no model is asked. Raises UsageError."""
    if table.mode != "retry":
        said = sorted(name for name in ("by_class", *BackoffTable.__struct_fields__) if _said(table, name))
        if said:
            raise UsageError(
                f"With the mode {table.mode!r} failed actions are not tried again",
                received=", ".join(said),
                expected='mode = "retry", or none of these',
            )
        return table.mode
    usual = _backoff(table)
    return RetryRecovery(
        **msgspec.structs.asdict(usual), by_class={name: _backoff(one) for name, one in table.by_class.items()}
    )


def table_of(plain: Plain) -> RecoveryTable | None:
    """The table of a plain recovery; None if none leads back to it: a class switched off, or code of one's own."""
    if isinstance(plain, str):
        return RecoveryTable(mode=plain)
    usual = msgspec.structs.asdict(plain.usual)
    other = {name: one for name, one in plain.rules.items() if one != plain.usual}
    by_class = {name: BackoffTable(**msgspec.structs.asdict(one)) for name, one in other.items()}
    table = RecoveryTable(**usual, by_class=by_class)
    again = recovery_of(table)
    same = isinstance(again, RetryRecovery) and again.rules == plain.rules
    return table if same and type(plain) is RetryRecovery else None


def check_recovery(table: RecoveryTable) -> None:
    """Raise UsageError for what fits its type and cannot be used."""
    recovery_of(table)
    for name, value in msgspec.structs.asdict(table.semantic).items() if table.semantic is not None else ():
        if isinstance(value, int) and value < 1:
            raise UsageError(
                f"recovery.semantic.{name} is not usable", received=str(value), expected="a limit from 1"
            )
    check = table.semantic.check if table.semantic is not None else ""
    if check and ":" not in check:
        raise UsageError("recovery.semantic.check is no function", received=check, expected="package.module:name")


def recovering(spec: SpecFile) -> Plain | SemanticRecovery | None:
    """The agent's recovery as a specification says. Imports the check, if one is named. Raises SpecError."""
    if spec.recovery is None:
        return None
    plain, table = recovery_of(spec.recovery), spec.recovery.semantic
    return plain if table is None else _semantic(spec, table, plain)


def _semantic(spec: SpecFile, table: SemanticTable, plain: Plain) -> SemanticRecovery:
    from logact.spec_parts import load_object

    check = load_object(table.check, spec) if table.check else None
    if check is not None and not callable(check):
        raise SpecError("recovery.semantic.check is no function", received=table.check, expected="a function")
    limits = {name: value for name, value in msgspec.structs.asdict(table).items() if name.endswith("_max")}
    model = model_of(spec, at_home(table.model, spec.directory)) if table.model else None
    return SemanticRecovery(model, table.tools, fallback=plain, check=check, **limits)


def _said(table: RecoveryTable, name: str) -> bool:
    return bool(getattr(table, name) != getattr(RecoveryTable(), name))


def _backoff(table: BackoffTable) -> Backoff:
    return Backoff(**{name: getattr(table, name) for name in Backoff.__struct_fields__})
