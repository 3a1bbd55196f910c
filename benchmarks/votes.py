"""Microseconds for each vote, per kind of voter, and for a whole inline vote of five rule voters.

At histories of 10, 1,000 and 10,000 actions: a voter's memory is folded entry by entry and may not make later votes
dearer, where it need not. The inline vote goes through the real host: five voters asked, votes completed, a decision.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.common import Benchmark, median
from logact import codec, open_log
from logact.core import deciding, machine
from logact.core.state import Action
from logact.core.views import LogEntry, log_entry
from logact.entry import Author, Entry, Inference, Input, Intent, Policy, Result, Run, Started, ToolSpec, Usage, own
from logact.models import ScriptedModel
from logact.models.scripted import Reply, call
from logact.runtime.entering import policy_for
from logact.runtime.host import Host
from logact.runtime.voter_host import VoterHost, counted
from logact.voters.base import Voter
from logact.voters.combine import cases, escalate, k_of, override
from logact.voters.resources import Budget, ResourceVoter
from logact.voters.rules import ActionInterceptor, ActionRule
from logact.voters.semantic import SemanticVoter

RUN = 2000
AGENT = "ops"


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run it all; the figures."""
    bench = Benchmark("votes", "Times votes of each kind at growing lengths of the history.", argv)
    lengths = (10, 1_000) if bench.quick else (10, 1_000, 10_000)
    repeats = bench.options.repeat or (5 if bench.quick else 15)
    bench.progress(f"histories of {', '.join(map(str, lengths))} actions, {repeats} repeats each")
    by_history: dict[str, dict[str, Any]] = {}
    for length in lengths:
        entries = history(length)
        by_history[str(length)] = asyncio.run(at_length(bench, entries, length, repeats))
        bench.progress(f"{length} actions: {by_history[str(length)]}")
    last = by_history[str(lengths[-1])]
    return bench.finish(
        {
            "rule_vote_us": last["rule_vote_us"],
            "five_rules_inline_us": last["five_rules_inline_us"],
            "provenance_us": last["provenance_us"],
            "policy_us": policy_us(repeats),
            "by_history": by_history,
        }
    )


def history(length: int) -> list[Entry]:
    """The entries of so many actions, as a log would hold them."""
    found: list[Entry] = []

    def add(payload: Any, role: str, tool: str = "") -> int:
        place = len(found) + 1
        found.append(
            Entry(
                position=place * 1000,
                kind=type(payload).__name__,
                payload=payload,
                author=Author(role, AGENT, "one"),
                time_ms=1_700_000_000_000 + 1000 * place,
                agent=AGENT,
                run=RUN,
                tool=tool,
                number=place,
                record_hash=str(place),
            )
        )
        return place * 1000

    add(Policy(version=1, need={"open": "a benchmark"}), "operator")
    run = add(Run(agent=AGENT, title="send the report to bob@example.org"), "client")
    add(Input(run=run, text="Read the report of this week and send it to bob@example.org."), "client")
    for number in range(length):
        add(
            Inference(run=run, turn=number + 1, usage=Usage(input_tokens=100, output_tokens=10, cost_usd=0.001)),
            "driver",
        )
        intent = add(wanted(number), "driver", "send_mail")
        add(Started(intent=intent), "executor", "send_mail")
        add(Result(intent=intent, value={"sent": True, "number": number}), "executor", "send_mail")
    return found


def wanted(number: int) -> Intent:
    """An action such as the history holds."""
    arguments = {"to": "bob@example.org", "subject": f"report {number}", "body": "as agreed " * 20}
    return Intent(
        run=RUN,
        agent=AGENT,
        tool="send_mail",
        arguments=arguments,
        arguments_digest=codec.digest_of(arguments),
        effect="irreversible",
    )


def rules(name: str) -> ActionInterceptor:
    """Five rules, one of which looks back."""
    return ActionInterceptor(
        [
            ActionRule("no-delete", "deny", tool="delete_*"),
            ActionRule("known", "deny", tool="send_mail", arguments={"to": {"full": r".*@evil\.org"}}),
            ActionRule("short", "deny", tool="send_mail", arguments={"subject": {"full": r"x{200}"}}),
            ActionRule("paths", "deny", tool="write_file", arguments={"path": {"under": "/etc"}}),
            ActionRule("many", "deny", tool="send_mail", more_than={"count": 1000, "per": "minute"}),
        ],
        name=name,
    )


def tools() -> list[ToolSpec]:
    """What the provenance voter is told of the tools."""
    return [ToolSpec(name="send_mail", description="Send a mail.", effect="irreversible")]


async def judge(request: Any) -> Reply:
    """A model that says yes at once: what is left is the voter's own work."""
    number = request.messages[0].text.split()[1]
    return call("verdict", case=number, verdict="approve", confidence=0.9, reason="it is what was asked for")


def voters(bench: Benchmark) -> dict[str, Voter]:
    """One voter of each kind."""
    found: dict[str, Voter] = {
        "rule_vote_us": rules("rules"),
        "resources_us": ResourceVoter(
            [
                Budget(what="actions", most=1e6),
                Budget(what="actions", most=10_000, per="agent", window_s=60),
                Budget(what="tokens", most=1e9, per="log"),
                Budget(what="concurrent", most=1e6),
            ]
        ),
        "semantic_us": SemanticVoter(ScriptedModel(judge)),
    }
    try:
        from logact.voters.provenance import ProvenanceVoter
        from logact.voters.safety import SafetyVoter

        found["provenance_us"] = ProvenanceVoter(tools())
        found["safety_us"] = SafetyVoter()
    except Exception as error:  # another kind of voter that is not there is a reason, not an end
        bench.notes.append(f"not measured: {type(error).__name__}: {error}")
    return found


async def at_length(bench: Benchmark, entries: list[Entry], length: int, repeats: int) -> dict[str, Any]:
    """Every figure at one length of the history."""
    figures: dict[str, Any] = dict.fromkeys(
        ("rule_vote_us", "five_rules_inline_us", "provenance_us", "resources_us", "semantic_us", "safety_us")
    )
    for name, voter in voters(bench).items():
        memory, began = voter.initial(), time.perf_counter()
        for entry in entries:
            memory = voter.observe(memory, entry)
        figures[name.replace("_us", "_observe_us")] = round((time.perf_counter() - began) / len(entries) * 1e6, 2)
        shown = [
            msgspec.structs.replace(log_entry(wanted(length + place), task="send the report", memory=memory))
            for place in range(repeats * 20)
        ]
        figures[name] = await timed(voter, shown)
    figures["five_rules_inline_us"] = await inline_us(entries, length, repeats)
    return figures


async def timed(voter: Voter, shown: list[LogEntry]) -> float:
    """The median of single votes."""
    times = []
    for entry in shown:
        began = time.perf_counter()
        answer = voter.check(entry)
        vote: Any = await answer if not hasattr(answer, "approved") else answer
        times.append(time.perf_counter() - began)
        if vote.approved is False and voter.kind in ("rules", "resources"):
            raise SystemExit(f"{voter.name} rejected what it should approve: {vote.reason}")
    return round(median(times[len(times) // 10 :]) * 1e6, 1)


async def inline_us(entries: list[Entry], length: int, repeats: int) -> float:
    """A whole inline vote of five rule voters: asked by the host, completed, and turned into a decision."""
    async with open_log("memory:") as log:
        host = Host(log, AGENT)
        five: list[Voter] = [rules(f"rules{number}") for number in range(5)]
        hosted = VoterHost(host, five)
        await host.tail.start()
        host.tail.state.log = ""
        for entry in entries:
            host.tail.state = machine.apply(host.tail.state, entry)
            hosted._observe(host.tail.state, entry)
        policy = policy_for(five, AGENT)
        times = []
        for place in range(repeats * 20):
            intent = wanted(length + place)
            began = time.perf_counter()
            votes = await hosted.ask_inline(policy, intent, "send the report")
            decision = deciding.judge(policy, Action(id=own(0), intent=intent), counted(votes), 0)
            times.append(time.perf_counter() - began)
            if len(votes) != 5 or type(decision).__name__ != "Commit":
                raise SystemExit(f"the inline vote went wrong: {decision}")
        return round(median(times[len(times) // 10 :]) * 1e6, 1)


def policy_us(repeats: int) -> float:
    """Combining votes alone, under a nested policy."""
    from logact.core.voting import evaluate
    from logact.entry import Vote, VoterInPolicy

    need = cases(otherwise=override(escalate("a", k_of(2, "b", "c", "d")), "e", ["x"]))
    need["cases"] = [{"tool": "nothing*", "need": "a"}]
    policy = Policy(version=1, voters={name: VoterInPolicy() for name in "abcde"}, need=need)
    votes = {"a": Vote(approved=None), "b": Vote(approved=True), "c": Vote(approved=False, code="x")}
    return round(median(measure(lambda: evaluate(policy, "irreversible", votes, "pay"), repeats)) * 1e6, 2)


def measure(function: Callable[[], object], repeats: int) -> list[float]:
    """The seconds of one call, by repeats of a hundred calls each."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(100):
            function()
        times.append((time.perf_counter() - began) / 100)
    return times


if __name__ == "__main__":
    main()
