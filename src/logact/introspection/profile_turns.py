"""The part of the profile's fold that is about the model's turns: tokens, contexts, and questions that came before.

What a model was shown is known by digest: that of the turn before it, of what that turn said, and of everything that
came into the context since. So the same input is the same digest in another run too, and nothing is read twice.
"""

from __future__ import annotations

import hashlib

import msgspec

from logact.core.settling import ANSWER
from logact.core.state import State
from logact.entry import Compaction, Entry, Inference, Input, ToolSpec
from logact.introspection.profile import (
    AGAIN_KEPT,
    ASKED_KEPT,
    HEARD_KEPT,
    NAMES_KEPT,
    POSITIONS_KEPT,
    TURNS_KEPT,
    Again,
    Profile,
    RunProfile,
    Small,
)
from logact.introspection.profile_sums import aside, asked_again, named, of, short_digest, sums_for, top, used

SMALL_OUTPUT, SMALL_INPUT = 150, 8000
"""A turn is short if it says at most so many tokens and is shown at most so many."""

CHARS_PER_TOKEN = 4
UNNAMED = "(unnamed)"

_encode = msgspec.json.Encoder().encode


def on_inference(profile: Profile, state: State, entry: Entry, said: Inference) -> None:
    """One answer of the model: what it cost, how large its context was, and whether it was asked before."""
    name = said.model or UNNAMED
    usage = said.usage
    run = of(profile, said.run, entry)
    sums = sums_for(profile, run, entry.agent)
    used(named(sums.models, name), usage, said.latency_ms, entry.position)
    asked_again(sums, entry, name, said.retried)
    kinds = sums.kinds.setdefault(name, {}) if len(sums.kinds) < NAMES_KEPT else {}
    kind = ",".join(sorted({call.tool for call in said.calls})) or ANSWER
    if kind in kinds or len(kinds) < NAMES_KEPT:
        kinds[kind] = kinds.get(kind, 0) + 1
    tokens = usage.input_tokens + usage.output_tokens
    top(sums.dearest, usage.cost_usd if usage.cost_usd is not None else tokens / 1e9, entry.position, name)
    top(sums.slowest, said.latency_ms, entry.position, f"model {name}")
    if run is None:
        return
    if name not in profile.named and len(profile.named) < NAMES_KEPT and profile.models.get(run.agent):
        profile.named[name] = profile.models[run.agent]
    close_turn(run)
    used(run.model, usage, said.latency_ms, entry.position)
    run.turns += 1
    run.context_first = run.context_first or usage.input_tokens
    run.contexts.append(usage.input_tokens)
    run.contexts_at.append(entry.position)
    del run.contexts[:-TURNS_KEPT], run.contexts_at[:-TURNS_KEPT]
    run.turn_at, run.turn_tokens, run.turn_usd = entry.position, tokens, usage.cost_usd or 0.0
    run.turn_useful = not said.calls  # an answer; it may still be refused
    broken = any(call.broken for call in said.calls)
    simple = len(said.calls) <= 1 and not broken
    short = usage.output_tokens <= SMALL_OUTPUT and usage.input_tokens <= SMALL_INPUT
    run.turn_model = name if simple and short else ""
    _asked(profile, run, entry, said)


def close_turn(run: RunProfile) -> None:
    """The turn is over: if nothing of it settled anything new, what it cost was wasted."""
    if run.turn_at and not run.turn_useful:
        run.wasted_tokens += run.turn_tokens
        run.wasted_usd += run.turn_usd
        run.wasted_at = [*run.wasted_at, run.turn_at][-POSITIONS_KEPT:]
    elif run.turn_at and run.turn_model:
        small = run.sums.small.setdefault(run.turn_model, Small())
        small.turns += 1
        small.tokens += run.turn_tokens
        small.cost_usd += run.turn_usd
        small.positions = [*small.positions, run.turn_at][-POSITIONS_KEPT:]
    run.turn_at = 0


def on_compaction(profile: Profile, state: State, entry: Entry, done: Compaction) -> None:
    """The context was shortened: what that cost."""
    run = of(profile, done.run, entry)
    sums = sums_for(profile, run, entry.agent)
    used(named(sums.models, done.model or UNNAMED), done.usage)
    asked_again(sums, entry, done.model or UNNAMED, done.retried)
    if run is not None:
        run.compactions += 1
        aside(run, done.usage)
        hear(run, entry.position, short_digest(done.summary))


# --- what was asked before -----------------------------------------------------------------------------------------


def hear(run: RunProfile, position: int, digest: str) -> None:
    """Something that the next turn may be shown, by the digest of what it says."""
    run.heard[position] = digest
    if len(run.heard) > HEARD_KEPT:
        del run.heard[next(iter(run.heard))]


def digest_of_input(given: Input) -> str:
    """What a user's words are known by."""
    return short_digest([given.text, given.parts]) if given.parts else short_digest(given.text)


def _asked(profile: Profile, run: RunProfile, entry: Entry, said: Inference) -> None:
    """Whether this model was shown exactly this before; an inference that does not say what it was shown (it was
    recorded elsewhere) was shown everything."""
    shown = hashlib.blake2b(said.tools_digest.encode(), digest_size=12)
    shown.update(said.model.encode())
    told = said.context or tuple(run.heard)
    if said.base or not said.context:
        shown.update(run.asked.encode())
    for one in told:
        digest = one if isinstance(one, str) else run.heard.get(one, f"unknown {one}")
        shown.update(b" " + digest.encode())
    key = shown.hexdigest()
    if told:
        first = profile.asked.setdefault(key, entry.position)
        if first != entry.position:
            _repeated(run, entry, said, key, first)
        elif len(profile.asked) > ASKED_KEPT:
            del profile.asked[next(iter(profile.asked))]
    answer = [said.text, [(call.tool, call.arguments, call.broken) for call in said.calls]]
    run.asked = key + short_digest(answer)
    seen = frozenset(said.context)  # what came while the model was thinking is shown to it the next time
    run.heard = {at: digest for at, digest in run.heard.items() if seen and at not in seen}


def _repeated(run: RunProfile, entry: Entry, said: Inference, key: str, first: int) -> None:
    again = run.sums.again.get(key)
    if again is None:
        again = run.sums.again[key] = Again(said.model or UNNAMED, first)
        if len(run.sums.again) > AGAIN_KEPT:
            del run.sums.again[next(iter(run.sums.again))]
    usage = said.usage
    again.count += 1
    again.tokens += usage.input_tokens + usage.output_tokens
    run.again_tokens += usage.input_tokens + usage.output_tokens
    again.ms += said.latency_ms
    again.cost_usd += usage.cost_usd or 0.0
    again.priced += usage.cost_usd is not None
    again.positions = [*again.positions, entry.position][-POSITIONS_KEPT:]


def size_of_offer(tool: ToolSpec) -> int:
    """About how many tokens a tool takes in each request that offers it."""
    return (len(tool.name) + len(tool.description) + len(_encode(tool.parameters))) // CHARS_PER_TOKEN
