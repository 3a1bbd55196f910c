"""The benchmark of swarms, small: the tree is really broken and really fixed, and the model cannot know the mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.swarm import tree
from benchmarks.swarm.provider import Provider, decide
from benchmarks.swarm.scale import scale


def test_the_tree_is_the_same_for_a_seed_and_its_own_check_judges_it(tmp_path: Path) -> None:
    """One seed, one tree; the package's check fails on it, and passes once every call is replaced."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    paths = [tree.build(where, 3, 2) for where in (one, two)]
    assert paths[0] == paths[1] and tree.digest(one) == tree.digest(two)
    assert not tree.check(one)[0]
    for path in paths[0]:
        text = (one / path).read_text()
        (one / path).write_text(text.replace("_compat(", "_strict("))
    assert tree.check(one)[0]
    assert tree.digest(one) != tree.digest(two)


def test_the_model_looks_up_only_what_is_not_in_front_of_it() -> None:
    """The same conversation with the rule in the system prompt skips the guide; prefixes are cached."""
    asked = {
        "id": "c0",
        "type": "function",
        "function": {"name": "read_file", "arguments": '{"path": "mailkit/a.py"}'},
    }
    talk: list[dict[str, Any]] = [
        {"role": "system", "content": "s " * 2000},
        {"role": "user", "content": "Fix mailkit/a.py"},
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": "c0", "content": "compat.a_compat(1)"},
    ]
    assert decide(talk)["tool_calls"][0]["function"]["arguments"] == '{"path": "MIGRATION.md"}'
    told = [{"role": "system", "content": "a_compat -> a_strict"}, *talk[1:]]
    assert decide(told)["tool_calls"][0]["function"]["name"] == "edit"
    with Provider() as provider:
        provider.answer({"model": "m", "messages": talk})
        assert provider.counted["cached"] == 0
        usage = provider.answer({"model": "m", "messages": talk})["usage"]
        assert usage["prompt_tokens"] > usage["prompt_tokens_details"]["cached_tokens"] >= 1024


def test_claims_hold_while_processes_are_killed(tmp_path: Path) -> None:
    """Twenty agents in two processes, one of them killed: no task is completed twice, and none is lost."""
    found = scale(tmp_path, 20, 1, kills=1, tasks=80)
    assert found["kills"] == 1
    assert (found["claims_doubled"], found["claims_lost"], found["marks_missing"]) == (0, 0, 0)
