"""``logact simulate``: one's own agent under simulated crashes and faults. ``logact skill``: how to use LogAct.

The simulator is part of the test kit, which nothing else imports: it is looked up by name when the command runs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec

from logact.cli import look
from logact.cli.common import existing_log, go, json_option, put, put_json
from logact.errors import LogUnavailable, UsageError

KIT = "logact.testing.own_agent"


@click.command("simulate")
@click.argument("spec", type=click.Path())
@click.argument("task")
@click.option("--model", default="", metavar="NAME", help="A scripted or recorded model, instead of the file's.")
@click.option(
    "--form",
    type=click.Choice(["both", "inline", "decoupled"]),
    default="both",
    show_default=True,
    help="In one process, or each part a process of its own; both: in turn.",
)
@click.option("--seeds", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many runs.")
@click.option("--seed", type=int, metavar="N", help="Only the run of this seed, with its log.")
@json_option
def simulate_command(
    spec: str, task: str, *, model: str, form: str, seeds: int, seed: int | None, as_json: bool
) -> None:
    """Run SPEC's agent through crashes, lost answers, cut connections, failing tools and voters; say what broke.

    Its policy, voters and limits are the real ones; its model is scripted or recorded; its tools only write down
    what they would have done. What tools returned in the agent's real log is returned again. Voters raise, answer
    nonsense, are slow or silent now and then. Equal seeds give equal runs.

    \b
    Examples:
      logact simulate logact.toml "tidy up" --seeds 200
      logact simulate logact.toml "tidy up" --seed 17

    \b
    Exit codes: 0 every check held; 1 something broke.
    """
    kit: Any = import_module(KIT)
    if not spec.endswith(".toml"):
        raise UsageError("What is simulated stands in a specification", received=spec, expected="logact.toml")
    mine = kit.own(spec, task, model=model, results=_results(spec, kit))
    shown: list[Any] = []
    chosen = range(seeds) if seed is None else [seed]
    forms = kit.FORMS if form == "both" else (form,)
    report = kit.play(mine, chosen, lambda number, outcome: shown.append(outcome), forms=forms)
    if as_json:
        put_json({"ok": report.ok, **msgspec.to_builtins(report)})
    else:
        if seed is not None:
            put([look.clean(line) for line in shown[0].tail])
        put(_lines(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _results(spec: str, kit: Any) -> Any:
    """What the agent's tools returned in its real log; nothing if there is none yet."""

    async def work() -> Any:
        async with existing_log(spec) as log:
            return await kit.results_of(log)

    try:
        return go(work())
    except LogUnavailable:
        return {}


def _lines(report: Any) -> list[str]:
    fired = ", ".join(f"{count} {name}" for name, count in sorted(report.fired.items(), key=lambda one: -one[1]))
    forms = ", ".join(f"{count} {form}" for form, count in report.forms.items())
    ended = ", ".join(f"{count} {look.clean(how)}" for how, count in report.ended.items())
    lines = [
        *look.wrapped("runs", f"{report.runs} ({forms}), {report.finished} answered, {report.effects} effects"),
        *look.wrapped("faults", fired or "none"),
        *look.wrapped("ended", ended or "none"),
    ]
    for seed, what in report.broken.items():
        lines += look.wrapped("BROKE", f"seed {seed}: {look.clean(what)}")
    for one in report.advice:
        lines += look.wrapped("note", look.clean(one))
    return [*lines, "Every check held." if report.ok else f"{len(report.broken)} of {report.runs} runs broke."]


@click.command("skill")
@click.option("--path", is_flag=True, help="Only where the file is.")
def skill_command(path: bool) -> None:
    """Print the SKILL.md that teaches an agent to use LogAct.

    \b
    Example:
      logact skill > .claude/skills/logact/SKILL.md
    """
    import logact

    file = Path(logact.__file__).parent / "skill" / "SKILL.md"
    put(str(file) if path else file.read_text(encoding="utf-8").rstrip())
