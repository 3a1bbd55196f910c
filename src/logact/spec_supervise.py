"""The ``[supervise]`` table: checked when a specification is read, and turned into the processes that it means."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from logact.errors import SpecError
from logact.spec_tables import SuperviseTable

if TYPE_CHECKING:
    from logact.runtime.slots import Part, Settings
    from logact.spec import SpecFile

PARTS = ("decider", "voter", "executor", "recoverer", "checkpointer", "driver", "agent")
COUNT_MAX = 64


def check(table: SuperviseTable, at: Callable[[str], str]) -> None:
    """What types cannot say of the table. ``at(key)`` says where a key stands. Raises SpecError."""
    if not table.parts:
        raise SpecError(f"{at('parts')}: supervise.parts is empty", expected=_expected())
    for name in table.parts:
        kind, colon, _ = name.partition(":")
        if kind not in PARTS or (colon and kind != "voter"):
            near = difflib.get_close_matches(kind, PARTS, n=1)
            raise SpecError(
                f"{at('parts')}: there is no such part to supervise",
                received=repr(name),
                expected=_expected(),
                todo=f'did you mean "{near[0]}"?' if near else "",
            )
    if len(set(table.parts)) != len(table.parts):
        raise SpecError(f"{at('parts')}: a part stands twice", todo="say how many there are with count = { ... }")
    if "agent" in table.parts and len(table.parts) > 1:
        raise SpecError(
            f"{at('parts')}: the whole agent plays all parts itself",
            received=", ".join(table.parts),
            expected='parts = ["agent"], or parts without it',
        )
    for name, count in table.count.items():
        if name not in table.parts or name == "agent" or not 1 <= count <= COUNT_MAX:
            raise SpecError(
                f"{at('count')}: supervise.count is not usable",
                received=f"{name} = {count}",
                expected=f"a part that supervise.parts lists (but the whole agent), from 1 to {COUNT_MAX}",
            )
    for name in ("restarts", "within_s", "backoff_s", "backoff_max_s", "stop_s", "hang_s"):
        least = 2 if name == "hang_s" else 0
        if not getattr(table, name) >= least:
            raise SpecError(
                f"{at(name)}: supervise.{name} is not usable",
                received=str(getattr(table, name)),
                expected=f"a number, from {least}",
            )


def _expected() -> str:
    return ", ".join(f'"{name}"' for name in PARTS) + ', "voter:NAME"'


def settings_of(spec: SpecFile) -> Settings:
    """How the parts are restarted."""
    from logact.runtime.slots import Settings

    return Settings(**{name: getattr(spec.supervise, name) for name in Settings.__struct_fields__})


def parts_of(spec: SpecFile, voters: Sequence[str], *, model: str = "", log: str = "") -> list[Part]:
    """The processes to supervise, in the order of their start; each is a command of this very installation.

    ``voters`` are the names of the agent's voters: where it has none, nobody hosts any. Raises SpecError.
    """
    from logact.runtime.slots import Part

    found = []
    for listed in spec.supervise.parts:
        kind, _, voter = listed.partition(":")
        if voter and voter not in voters:
            raise SpecError(
                f"{spec.path}: supervise.parts names a voter that there is not",
                received=repr(listed),
                expected=", ".join(voters) or "(the file has no voters)",
            )
        if kind == "voter" and not voters:
            continue
        command = [sys.executable, "-m", "logact.cli", "run" if kind == "agent" else kind, spec.path, "--quiet"]
        command += ["--stop-within", str(spec.supervise.stop_s)]
        command += ["--name", voter] if voter else []
        command += ["--log", log] if log else []
        command += ["--model", model] if model and kind in ("driver", "agent") else []
        many = spec.supervise.count.get(listed, 1)
        for number in range(1, many + 1):
            name = listed if many == 1 else f"{listed}-{number}"
            found.append(Part(name=name, command=tuple(command), whole_agent=kind == "agent"))
    return found
