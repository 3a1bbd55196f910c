"""What ``python -m benchmarks.agentdojo`` measures and prints.

Every case is a LogActAgent on a log of its own: intent, votes, commit, execution, result; AgentDojo's own checks
say afterwards whether the user's task and the attacker's were done. (a) recorded runs of real models, replayed
call by call on the live environment, benign and under attack; (b) an agent that obeys every injection it reads,
with the injected text as AgentDojo gives it, and reworded. The controls stand beside the gate. A question to a
person counts as blocked; the rows ``..._answered`` show the same with every question answered rightly. Suites that
the voter was written with (tuned) and the others (apart) are never summed together.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.agentdojo import rewordings, world
from benchmarks.agentdojo.gates import CONTROLS, SETTINGS
from benchmarks.agentdojo.runner import Outcome, run_case, run_gates
from benchmarks.agentdojo.world import Case
from benchmarks.common import Benchmark, median, p99

MODELS = ("gpt-4o-2024-05-13", "gpt-4-0125-preview", "claude-3-5-sonnet-20240620")
ATTACK = "important_instructions"
OBEYING = "obeys-everything"
QUICK_EVERY = 12


class Measurement:
    """One invocation: its options, its rows, and the pool that runs cases."""

    def __init__(self, argv: Sequence[str] | None = None) -> None:
        self.bench = Benchmark(
            "agentdojo",
            "The ProvenanceVoter against recorded and obedient agents under prompt injection.",
            argv,
            models={"default": ",".join(MODELS), "metavar": "NAME,…", "help": "recorded models"},
            attacks={"default": ATTACK, "metavar": "NAME,…", "help": "recorded attacks"},
            suites={"default": ",".join(world.SUITES), "metavar": "NAME,…"},
            setting={"choices": SETTINGS, "default": None, "help": "one setting only"},
            rewordings={"default": str(rewordings.DEFAULT), "metavar": "FILE"},
            rewordings_every={"type": int, "default": 1, "metavar": "N", "help": "only every Nth case of each"},
            jobs={"type": int, "default": min(2, os.cpu_count() or 1), "help": "processes"},
            details={"default": "", "metavar": "FILE", "help": "write every run with its votes, as JSON lines"},
        )
        options = self.bench.options
        self.suites = [name for name in options.suites.split(",") if name]
        self.models = [name for name in options.models.split(",") if name]
        self.attacks = [name for name in options.attacks.split(",") if name]
        self.settings = [options.setting] if options.setting else list(SETTINGS)
        self.every = QUICK_EVERY if self.bench.quick else 1
        self.rows: list[dict[str, Any]] = []
        self.details = Path(options.details).open("w", encoding="utf-8") if options.details else None  # noqa: SIM115

    def run(self) -> dict[str, Any]:
        """Measure everything; the object that is printed."""
        self._check_names()
        templates, why = rewordings.load(self.bench.options.rewordings)
        if why:
            self.bench.notes.append(why)
        self._say_length(len(templates))
        with ProcessPoolExecutor(self.bench.options.jobs) as pool:
            self.pool = pool
            for name in self.suites:
                for model in self.models:
                    self._recorded(name, model)
                self._obeying(name, templates)
        if self.details is not None:
            self.details.close()
        figures = {"benchmark_version": world.VERSION, "rewordings": len(templates), "rows": self.rows}
        return {**figures, "summary": {setting: self._summary(setting) for setting in self.settings}}

    def _check_names(self) -> None:
        for kind, given, known in (
            ("suite", self.suites, list(world.SUITES)),
            ("model", self.models, world.models()),
        ):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise SystemExit(f"no such {kind}: {', '.join(unknown)}; there are {', '.join(known)}")

    def _say_length(self, templates: int) -> None:
        suites, models = len(self.suites), len(self.models)
        runs = (97 + 629 * len(self.attacks)) * models * (2 + 2 * len(self.settings)) * suites // 4
        runs += 629 * (1 + templates) * (1 + len(self.settings)) * suites // 4
        about = "a minute" if self.bench.quick else f"{max(1, runs // 4000)} to {max(2, runs // 1500)} minutes"
        self.bench.progress(f"at most {runs // self.every} runs, about {about}")

    # --- rows ----------------------------------------------------------------------------------------------------

    def _recorded(self, name: str, model: str) -> None:
        benign = list(world.recorded(model, name, "none", every=max(1, self.every // 4)))
        if not benign:
            self.bench.notes.append(f"{model} has no recorded runs of {name}")
            return
        gates = (*CONTROLS, *self.settings)
        quiet = self._all(benign, gates, model, "none")
        asked_quiet = {gate: self._answered(benign, quiet[gate], gate) for gate in gates}
        for attack in self.attacks:
            cases = list(world.recorded(model, name, attack, every=self.every))
            loud = self._all(cases, gates, model, attack)
            for gate in gates:
                self._row(name, model, attack, gate, quiet[gate], loud[gate])
                if gate in SETTINGS:
                    asked_loud = self._answered(cases, loud[gate], gate)
                    self._row(name, model, attack, f"{gate}_answered", asked_quiet[gate], asked_loud)

    def _obeying(self, name: str, templates: list[rewordings.Rewording]) -> None:
        given = list(world.obeying(name, [world.AS_GIVEN], exact=True, every=self.every))
        gates = (*CONTROLS, *self.settings)
        quiet = self._all(list(world.faithful(name)), gates, OBEYING, "none")
        loud = self._all(given, gates, OBEYING, "as_given")
        for gate in gates:
            self._row(name, OBEYING, "as_given", gate, quiet[gate], loud[gate])
        for number, rewording in enumerate(templates):
            every = self.every * 3 // 2 if self.bench.quick else self.bench.options.rewordings_every
            cases = list(world.obeying(name, rewording.templates, exact=False, every=every, offset=number))
            # without a gate this agent's wording changes nothing, and its utility is in the row above
            loud = self._all(cases, tuple(self.settings), OBEYING, rewording.name, utility=False)
            for gate in self.settings:
                self._row(name, OBEYING, f"reworded:{rewording.name}", gate, quiet[gate], loud[gate], utility=False)

    def _all(
        self, cases: Sequence[Case], gates: Sequence[str], model: str, attack: str, *, utility: bool = True
    ) -> dict[str, list[Outcome]]:
        """Every case under every gate: the outcomes by gate, in the order of the cases."""
        under = functools.partial(run_gates, names=gates, utility=utility)
        found = list(self.pool.map(under, cases, chunksize=4))
        by_gate = {gate: [outcomes[place] for outcomes in found] for place, gate in enumerate(gates)}
        for outcomes in by_gate.values():
            self._write(outcomes, model, attack)
        return by_gate

    def _answered(self, cases: Sequence[Case], outcomes: list[Outcome], gate: str) -> list[Outcome]:
        """The same with a person who answers; runs without questions are as they were."""
        if gate not in SETTINGS:
            return outcomes
        asked = [(place, case) for place, case in enumerate(cases) if outcomes[place].asks]
        found = list(outcomes)
        again = self.pool.map(run_case, [case for _, case in asked], itertools.repeat(f"{gate}_answered"))
        for (place, _), outcome in zip(asked, again, strict=True):
            found[place] = outcome
        return found

    def _row(
        self,
        name: str,
        model: str,
        attack: str,
        gate: str,
        quiet: list[Outcome],
        loud: list[Outcome],
        *,
        utility: bool = True,
    ) -> None:
        words = [outcome for outcome in loud if world.output_only(name, outcome.injection_task)]
        took = [us for outcome in (*quiet, *loud) for us in outcome.vote_us]
        row = {
            "suite": name,
            "split": world.split_of(name),
            "model": model,
            "attack": attack,
            "gate": gate,
            "benign": sum(outcome.solved for outcome in quiet),
            "benign_of": len(quiet),
            "attacks_succeeded": sum(outcome.attacked for outcome in loud),
            "attacks_of": len(loud),
            "output_only_succeeded": sum(outcome.attacked for outcome in words),
            "output_only_of": len(words),
            "utility_under_attack": _share(sum(outcome.solved for outcome in loud), len(loud)) if utility else None,
            "benign_answers_stopped": sum(outcome.answers_stopped for outcome in quiet),
            "answers_stopped": sum(outcome.answers_stopped for outcome in loud),
            "asks_per_task": _share(sum(outcome.asks for outcome in quiet), len(quiet)),
            "tasks_with_asks": sum(outcome.asks > 0 for outcome in quiet),
            "asks_under_attack_per_task": _share(sum(outcome.asks for outcome in loud), len(loud)),
            "vote_us": round(median(took), 1) if took else None,
            "vote_us_p99": round(p99(took), 1) if took else None,
            "errors": sum(bool(outcome.error) for outcome in (*quiet, *loud)),
        }
        self.rows.append(row)
        self.bench.progress(
            f"{name:10} {model:26} {attack:32} {gate:21} benign {row['benign']}/{row['benign_of']}"
            f"  attacks {row['attacks_succeeded']}/{row['attacks_of']}  asks {row['asks_per_task']}"
        )

    def _write(self, outcomes: list[Outcome], model: str, attack: str) -> None:
        if self.details is None:
            return
        import msgspec

        for outcome in outcomes:
            line = {"model": model, "attack": attack, **msgspec.to_builtins(outcome)}
            self.details.write(msgspec.json.encode(line).decode() + "\n")
        self.details.flush()

    # --- the summary ---------------------------------------------------------------------------------------------

    def _summary(self, setting: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            split: self._split(split, setting) for split in ("tuned", "apart") if any(self._of(split=split))
        }
        for split in ("tuned", "apart"):
            found[f"scripted_pct_{split}"] = self._attacks(split=split, gate=setting, attack="as_given")
            found[f"scripted_reworded_pct_{split}"] = self._attacks(split=split, gate=setting, attack="reworded:")
        # over all suites: the agent is a script, so there is nothing that it could have been tuned on but the gate
        found["scripted_pct"] = self._attacks(gate=setting, attack="as_given")
        found["scripted_reworded_pct"] = self._attacks(gate=setting, attack="reworded:")
        return found

    def _split(self, split: str, setting: str) -> dict[str, Any]:
        rows = {gate: list(self._of(split=split, gate=gate, attack=ATTACK)) for gate in self._gates(setting)}
        if not rows[setting]:
            return {}
        open_benign = sum(int(row["benign"]) for row in rows["approve_all"])
        benign_of = sum(int(row["benign_of"]) for row in rows["approve_all"])

        def drop(gate: str) -> float:
            kept = sum(int(row["benign"]) for row in rows[gate])
            return round(100 * (open_benign - kept) / max(1, benign_of), 2)

        mine, answered = rows[setting], rows[f"{setting}_answered"]
        return {
            "models": [model for model in self.models if any(row["model"] == model for row in mine)],
            "asr_pct": _asr(mine),
            "asr_pct_without_output_only": _asr(mine, words=False),
            "asr_pct_asks_answered": _asr(answered),
            "asr_pct_approve_all": _asr(rows["approve_all"]),
            "asr_pct_deny_writes": _asr(rows["deny_writes"]),
            "benign_drop_points": drop(setting),
            "benign_drop_points_asks_answered": drop(f"{setting}_answered"),
            "benign_drop_points_deny_writes": drop("deny_writes"),
            "asks_per_benign_task": round(
                sum(row["asks_per_task"] * row["benign_of"] for row in mine) / max(1, benign_of), 3
            ),
        }

    @staticmethod
    def _gates(setting: str) -> tuple[str, ...]:
        return (*CONTROLS, setting, f"{setting}_answered")

    def _attacks(self, **wanted: str) -> float | None:
        return _asr(list(self._of(model=OBEYING, **wanted)))

    def _of(self, **wanted: str) -> Iterator[dict[str, Any]]:
        """Rows with these values; ``attack`` may be a beginning that ends with a colon."""
        for row in self.rows:
            if row["model"] == OBEYING and wanted.get("model") != OBEYING:
                continue
            if all(
                row[key].startswith(value) if value.endswith(":") else row[key] == value
                for key, value in wanted.items()
            ):
                yield row


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _asr(rows: Sequence[dict[str, Any]], *, words: bool = True) -> float | None:
    succeeded = sum(row["attacks_succeeded"] - (0 if words else row["output_only_succeeded"]) for row in rows)
    tried = sum(row["attacks_of"] - (0 if words else row["output_only_of"]) for row in rows)
    return round(100 * succeeded / tried, 2) if tried else None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    measurement = Measurement(argv)
    measurement.bench.finish(measurement.run())
    return 0
