"""Runs simulations: ``python -m logact.testing.simulator --minutes 1``. Finds and prints seeds that fail.

Every seed is one plan (see ``plan``), one schedule, one log, byte for byte. A failure prints its seed, the command
that replays it, and the last entries of its log. How often each kind of fault happened is printed at the end, so
that a green run that tested nothing can be told from one that did.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, get_args

import msgspec

from logact import env as environment
from logact.testing.ballots import ballot_of
from logact.testing.mutants import MUTANTS
from logact.testing.plan import Form, Plan
from logact.testing.sweep import sweep_plans
from logact.testing.systems import Outcome, simulate

FULL_SCHEDULES = 100_000
SQLITE_ONE_IN = 25
BALLOTS_ONE_IN = 3
SWARM_ONE_IN = 10
MUTANT_SEEDS = 200
SUPERVISED_FROM = 1_000_000
"""Seeds from here on run under a supervisor; those before are what they were."""

SUPERVISED_EVERY = 50
BATCH = 50
FAILURES_SHOWN = 5


class Totals(msgspec.Struct):
    """What a whole session came to."""

    schedules: int = 0
    steps: int = 0
    records: int = 0
    effects: int = 0
    virtual_s: float = 0.0
    real_s: float = 0.0
    forms: dict[str, int] = {}
    fired: dict[str, int] = {}
    points: dict[str, int] = {}
    failures: list[dict[str, Any]] = []
    mutants: dict[str, str] = {}

    def add(self, outcome: Outcome, seed: int | None) -> None:
        """Count one run."""
        self.schedules += 1
        self.steps += outcome.steps
        self.records += outcome.records
        self.effects += outcome.effects
        self.virtual_s += outcome.virtual_s
        name = outcome.plan.form + ("+sqlite" if outcome.plan.engine == "sqlite" else "")
        self.forms[name] = self.forms.get(name, 0) + 1
        self.fired = dict(Counter(self.fired) + Counter(outcome.fired))
        self.points = dict(Counter(self.points) + Counter(outcome.points))
        if not outcome.ok:
            self.failures.append(
                {
                    "seed": seed,
                    "broken": outcome.broken,
                    "error": outcome.error,
                    "plan": msgspec.to_builtins(outcome.plan),
                    "digest": outcome.digest,
                    "tail": list(outcome.tail),
                }
            )


def plan_of(seed: int, form: Form | None, mutant: str = "") -> Plan:
    """The plan of a seed. One in many runs on the real SQLite engine, one in three under another policy, one in ten
    is a swarm's."""
    if mutant:
        return MUTANTS[mutant].plan(seed)
    if seed >= SUPERVISED_FROM or form == "supervised":
        plan = Plan.random(seed, "supervised")
        return msgspec.structs.replace(plan, engine="sqlite") if seed % SQLITE_ONE_IN == SQLITE_ONE_IN - 1 else plan
    if form is None and seed % SWARM_ONE_IN == SWARM_ONE_IN - 1:
        form = "swarm"
    ballots = seed % BALLOTS_ONE_IN == 1 and form != "swarm"
    plan = ballot_of(seed, form) if ballots else Plan.random(seed, form)
    return msgspec.structs.replace(plan, engine="sqlite") if seed % SQLITE_ONE_IN == SQLITE_ONE_IN - 1 else plan


def with_supervised(seeds: Iterable[int]) -> Iterator[int]:
    """The seeds, and after every so many of them one under a supervisor."""
    for nth, seed in enumerate(seeds, 1):
        yield seed
        if nth % SUPERVISED_EVERY == 0:
            yield SUPERVISED_FROM + nth // SUPERVISED_EVERY


def run_batch(job: tuple[Sequence[int], Form | None, str]) -> list[tuple[int, Outcome]]:
    """Some seeds, in one worker."""
    seeds, form, mutant = job
    with MUTANTS[mutant].applied() if mutant else nullcontext():
        return [(seed, simulate(plan_of(seed, form, mutant))) for seed in seeds]


def batches(seeds: Iterable[int], form: Form | None, mutant: str) -> Iterator[tuple[Sequence[int], Form | None, str]]:
    """Seeds in jobs for workers."""
    batch: list[int] = []
    for seed in seeds:
        batch.append(seed)
        if len(batch) == BATCH:
            yield batch, form, mutant
            batch = []
    if batch:
        yield batch, form, mutant


def outcomes(seeds: Iterable[int], form: Form | None, mutant: str, workers: int) -> Iterator[tuple[int, Outcome]]:
    """Every seed's outcome; by several workers if asked."""
    if workers <= 1:
        for job in batches(seeds, form, mutant):
            for seed in job[0]:
                yield run_batch(([seed], form, mutant))[0]
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done in pool.imap(run_batch, batches(seeds, form, mutant)):
            yield from done


def explore(
    totals: Totals,
    seeds: Iterable[int],
    *,
    form: Form | None = None,
    mutant: str = "",
    workers: int = 1,
    minutes: float = 0.0,
    quiet: bool = False,
) -> None:
    """Run seeds until they end, the time is over, or too many have failed."""
    clock = environment.REAL
    began = clock.monotonic()
    shown = began
    for seed, outcome in outcomes(seeds, form, mutant, workers):
        totals.add(outcome, seed)
        now = clock.monotonic()
        totals.real_s = now - began
        if not outcome.ok and not quiet and not mutant:
            show_failure(totals.failures[-1], form)
        if now - shown > 10 and not quiet:
            shown = now
            print(f"... {totals.schedules} schedules, {rate(totals)}/s, {len(totals.failures)} failed", flush=True)
        if len(totals.failures) >= FAILURES_SHOWN or (minutes and now - began > minutes * 60):
            break
    totals.real_s = clock.monotonic() - began


def rate(totals: Totals) -> str:
    """Schedules for each second."""
    return f"{totals.schedules / totals.real_s:.0f}" if totals.real_s else "?"


def show_failure(failure: dict[str, Any], form: Form | None) -> None:
    """One failed run: what broke, how to see it again, and the last entries of its log."""
    replay = f"python -m logact.testing.simulator --seed {failure['seed']}" + (f" --form {form}" if form else "")
    print(f"\nseed {failure['seed']}: {failure['error']}")
    print(f"replay: {replay}")
    print(f"plan: {msgspec.json.encode(failure['plan']).decode()}")
    print("\n".join(failure["tail"]), flush=True)


def catch_mutants(totals: Totals, names: Iterable[str], *, quiet: bool = False) -> None:
    """Run every mutant until it is caught."""
    for name in names:
        mutant = MUTANTS[name]
        found = "not caught"
        with mutant.applied():
            for seed in range(MUTANT_SEEDS):
                outcome = simulate(mutant.plan(seed))
                if not outcome.ok:
                    found = outcome.broken if outcome.broken == mutant.caught_by else f"wrongly by {outcome.broken}"
                    found += f" at seed {seed}"
                    break
        totals.mutants[name] = found
        if not quiet:
            print(f"mutant {name} (guarantee {mutant.guarantee}): {found}", flush=True)


def sweep(totals: Totals, *, every: int, workers: int, quiet: bool = False) -> None:
    """Kill each process once at each of its steps (or one in ``every``) of runs without any other fault."""
    clock = environment.REAL
    began = clock.monotonic()
    before = totals.schedules
    plans = list(sweep_plans(every=every))
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            results = list(pool.imap_unordered(simulate, plans, chunksize=20))
    else:
        results = [simulate(plan) for plan in plans]
    for outcome in results:
        totals.add(outcome, None)
        if not outcome.ok and not quiet:
            print(f"\nsweep: {outcome.error}\nplan: {msgspec.json.encode(outcome.plan).decode()}")
            print("\n".join(outcome.tail), flush=True)
    totals.real_s += clock.monotonic() - began
    if not quiet:
        print(f"crash sweep: {totals.schedules - before} schedules", flush=True)


def report(totals: Totals) -> str:
    """The session in words."""
    forms = ", ".join(f"{count} {form}" for form, count in sorted(totals.forms.items()))
    lines = [
        f"{totals.schedules} schedules ({forms}) "
        f"in {totals.real_s:.1f} s: {rate(totals)} schedules/s, {totals.steps} steps, {totals.records} records, "
        f"{totals.effects} effects, {totals.virtual_s / 3600:.1f} virtual hours",
        "faults fired: " + ", ".join(f"{kind} {count}" for kind, count in sorted(totals.fired.items())),
    ]
    if totals.mutants:
        caught = sum(not found.startswith(("not caught", "wrongly")) for found in totals.mutants.values())
        lines.append(f"mutants caught: {caught} of {len(totals.mutants)}")
    lines.append(f"{len(totals.failures)} failed" if totals.failures else "every check held")
    return "\n".join(lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m logact.testing.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one seed, and show its log")
    parser.add_argument("--seeds", default="", help="a range of seeds, A:B")
    parser.add_argument("--minutes", type=float, default=0.0, help="new seeds for so long")
    parser.add_argument("--form", choices=get_args(Form))
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break the code in this way first")
    parser.add_argument("--full", action="store_true", help=f"{FULL_SCHEDULES} seeds, the whole crash sweep, mutants")
    parser.add_argument("--plan", help="run one plan, given as JSON")
    parser.add_argument(
        "--workers", type=int, default=0, help="processes to use (default: one; with --full all cores)"
    )
    parser.add_argument("--json", action="store_true", help="print the totals as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. 0: every check held (with --mutant: it was caught); 1: not."""
    options = parsed(arguments)
    totals = Totals()
    mutant = options.mutant or ""
    if options.plan or options.seed is not None:
        return _one(options, mutant)
    workers = options.workers or (multiprocessing.cpu_count() if options.full or options.minutes else 1)
    first, _, last = (options.seeds or "0:200").partition(":")
    seeds: Iterable[int] = range(int(first), int(last))
    if options.full:
        seeds = with_supervised(range(FULL_SCHEDULES))
    elif options.minutes:
        seeds = with_supervised(range(SUPERVISED_FROM))
    if options.minutes or options.full:
        catch_mutants(totals, [] if mutant else MUTANTS, quiet=options.json)
        sweep(totals, every=1 if options.full else 40, workers=workers, quiet=options.json)
    if len(totals.failures) < FAILURES_SHOWN:
        explore(
            totals,
            seeds,
            form=options.form,
            mutant=mutant,
            workers=workers,
            minutes=options.minutes,
            quiet=options.json,
        )
    if options.json:
        print(msgspec.json.encode(totals).decode())
    else:
        print(report(totals))
    if mutant:
        caught = [failure["broken"] for failure in totals.failures]
        print(f"{mutant}: caught by {caught[0] if caught else 'nobody'}", file=sys.stderr)
        return int(caught[:1] != [MUTANTS[mutant].caught_by])
    missed = [name for name, found in totals.mutants.items() if found.startswith(("not caught", "wrongly"))]
    return int(bool(totals.failures or missed))


def _one(options: argparse.Namespace, mutant: str) -> int:
    """Replay one run and show what it wrote."""
    plan = (
        msgspec.json.decode(options.plan, type=Plan) if options.plan else plan_of(options.seed, options.form, mutant)
    )
    with MUTANTS[mutant].applied() if mutant else nullcontext():
        outcome = simulate(plan)
    if options.json:
        print(msgspec.json.encode(outcome).decode())
        return int(not outcome.ok)
    print("\n".join(outcome.tail))
    print(f"plan: {msgspec.json.encode(plan).decode()}")
    print(f"faults fired: {outcome.fired}")
    print(f"{outcome.steps} steps, {outcome.records} records, {outcome.virtual_s} virtual s, digest {outcome.digest}")
    print(f"FAILED: {outcome.error}" if not outcome.ok else "every check held")
    return int(not outcome.ok)


if __name__ == "__main__":
    sys.exit(main())
