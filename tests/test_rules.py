"""Rules: what they match, what they decide, and what is refused when it is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from logact.core.views import Action, LogEntry, log_entry
from logact.entry import Abort, Author, Entry, Intent, Payload, Result, Started, ToolSpec, Vote
from logact.errors import LogActError, MissingExtra, SpecError
from logact.voters.rules import ActionInterceptor, ActionRule, check_rules, explain
from logact.voters.rules_rule import DECISIONS


def entry(
    tool: str, /, *, run: int = 1, agent: str = "a", effect: Any = "irreversible", **arguments: Any
) -> LogEntry:
    return log_entry(Intent(run=run, agent=agent, tool=tool, arguments=arguments, effect=effect))


def holds(condition: Any, value: Any, decision: Any = "deny", **options: Any) -> bool:
    """Whether a rule with one condition on one argument matches a value."""
    return ActionRule("r", decision, arguments={"x": condition}, **options).matches_entry(entry("t", x=value))


TOOLS = [
    ToolSpec(
        name="send_mail",
        parameters={
            "type": "object",
            "properties": {
                "to": {"type": "string"},
                "amount": {"type": "integer"},
                "mode": {"type": "string", "enum": ["fast", "slow"]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "additionalProperties": False,
        },
    ),
    ToolSpec(
        name="read_file", effect="read", parameters={"type": "object", "properties": {"path": {"type": "string"}}}
    ),
]

# --- decisions ------------------------------


def test_deny_over_allow_over_ask_over_default() -> None:
    """The order in which rules stand never matters."""
    allow, deny, ask = (ActionRule(one, one, tool="t") for one in DECISIONS)
    assert ActionInterceptor([ask, allow, deny]).check(entry("t")).approved is False
    assert ActionInterceptor([ask, allow], "deny").check(entry("t")).approved is True
    assert ActionInterceptor([ask], "allow", ask="abstain").check(entry("t")).approved is None
    assert ActionInterceptor([deny], "allow").check(entry("other")).approved is True
    assert ActionInterceptor([allow], "deny").check(entry("other")).approved is False
    assert ActionInterceptor([], "ask", ask="abstain").check(entry("t")).approved is None


def test_reasons_and_hints_name_the_rule() -> None:
    """A denial says which rule, and what would be acceptable."""
    rules = [
        ActionRule("no-etc", tool="write", arguments={"path": {"not_under": "data"}}),
        ActionRule("never", tool="wipe"),
        ActionRule("told", tool="told", hint="use move instead"),
        ActionRule("person", "ask", tool="pay"),
    ]
    voter = ActionInterceptor(rules)
    vote = voter.check(entry("write", path="/etc/x"))
    assert vote.reason == "stopped by rule: no-etc"
    assert "acceptable unless path not under 'data'" in vote.hint
    assert "Do not retry" in voter.check(entry("wipe")).hint
    assert voter.check(entry("told")).hint == "use move instead"
    assert "person" in voter.check(entry("pay")).reason
    assert voter.check(entry("other")) == Vote(approved=True, reason="no rules matched")
    closed = ActionInterceptor(
        [ActionRule("ok", "allow", tool="write", arguments={"path": {"under": "data"}})], "deny"
    )
    assert "path under 'data'" in closed.check(entry("write", path="/x")).hint


def test_ask_rejects_unless_a_person_can_be_asked() -> None:
    """Nobody was asked: beside another voter's approval an abstention would let it through (it did)."""
    rules = [ActionRule("p", "ask", tool="t")]
    vote = ActionInterceptor(rules).check(entry("t"))
    assert vote.approved is False and "there is none" in vote.reason
    assert ActionInterceptor(rules, ask="abstain").check(entry("t")).approved is None


def test_rules_of_other_classes_work() -> None:
    """Any object with name, matches and should_stop is a rule, as in the text the project came from."""

    class Rule:
        name = "mine"
        should_stop = True

        def matches(self, action: Action) -> bool:
            return action.tool == "t"

    voter = ActionInterceptor([Rule()])
    assert voter.check(entry("t")).reason == "stopped by rule: mine"
    assert voter.check(entry("u")).approved is True

    class Quiet(Rule):
        should_stop = False

    assert ActionInterceptor([Quiet()]).check(entry("t")).approved is True

    class Sub(ActionRule):
        def matches(self, action: Any) -> bool:
            return bool(action.arguments.get("x") == 1)

    assert ActionInterceptor([Sub("sub")]).check(entry("t", x=1)).reason == "stopped by rule: sub"
    with pytest.raises(SpecError):
        ActionInterceptor([object()])
    with pytest.raises(SpecError):
        ActionInterceptor([Rule])


def test_tool_effect_agent_and_functions() -> None:
    """The plain conditions, one by one."""
    assert ActionRule("r", tool="del*").matches_entry(entry("delete"))
    assert not ActionRule("r", tool="del*").matches_entry(entry("undelete"))
    assert ActionRule("r", effect="read").matches_entry(entry("t", effect="read"))
    assert not ActionRule("r", effect=["read", "idempotent"]).matches_entry(entry("t"))
    assert ActionRule("r", agent="bot-*").matches_entry(entry("t", agent="bot-1"))
    assert not ActionRule("r", agent="bot-*").matches_entry(entry("t", agent="x"))
    rule = ActionRule("r", when=lambda action: "secret" in action.arguments.get("text", ""))
    assert rule.matches(Action(tool="t", arguments={"text": "a secret"})) and rule.should_stop
    # a bare action has no agent and no history: the reading that permits less
    assert ActionRule("r", agent="x").matches(Action(tool="t"))
    assert not ActionRule("r", "allow", agent="x").matches(Action(tool="t"))


# --- values ------------------------------


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        (5, [5, 5.0], [6, "5", True]),
        (True, [True], [1, "true"]),
        (["a", "b"], ["a", ["c", "a"]], ["c", 1, ["c"]]),
        ({"full": "a.c"}, ["abc"], ["xabc", "abcd"]),
        ({"search": "b"}, ["abc"], ["xyz"]),
        ({"min": 1, "max": 3}, [1, 3, 2.5], [0, 4]),
        ({"above": 1, "below": 3}, [2], [1, 3]),
        ({"min_length": 2}, ["ab", [1, 2]], ["a", []]),
        ({"contains": "b"}, ["abc", ["b"]], ["xyz", ["c"]]),
        ({"equals": [1, 2]}, [[1, 2]], [[2, 1], 1]),
        ({"not_one_of": ["a"]}, ["b"], ["a"]),
        (
            {"host": "*.example.com"},
            ["https://API.example.com./x"],
            ["https://example.com", "https://example.com.evil"],
        ),
        ({"host": "good.com"}, ["http://good.com:80/"], ["http://good.com@evil.com/", "http://evil.com/good.com"]),
        ({"scheme": "http"}, ["HTTP://a.b"], ["https://a.b"]),
        ({"port": 443}, ["https://a.b", "http://a.b:443"], ["http://a.b"]),
        ({"url_path": "/api/*"}, ["https://a.b/api/x"], ["https://a.b/x"]),
        ({"email_domain": "good.com"}, ["a@good.com", "A B <a@GOOD.com>"], ["a@evil.com", "a@sub.good.com"]),
        ({"under": "data"}, ["data/x", "data", "a/../data/x"], ["data/../x", "database", "/etc"]),
        ({"same_path": "a.txt"}, ["a.txt", "./a.txt", "b/../a.txt"], ["b.txt"]),
        ({"present": True}, ["x", None], []),
    ],
)
def test_operators(condition: Any, yes: list[Any], no: list[Any]) -> None:
    """Each operator reads the value as what it is."""
    for value in yes:
        assert holds(condition, value), value
    for value in no:
        assert not holds(condition, value), value


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ({"max": 100}, "50"),
        ({"host": "good.com"}, "http://0x7f.1/"),
        ({"host": "good.com"}, "http://good.com\\@evil.com/"),
        ({"host": "good.com"}, "//good.com/"),
        ({"host": "good.com"}, 5),
        ({"email_domain": "good.com"}, "a@good.com, b@evil.com"),
        ({"email_domain": "good.com"}, "a@evil.com <a@good.com>"),
        ({"email_domain": "good.com"}, "a@good.com\nBcc: x@evil.com"),
        ({"under": "data"}, "~/data"),
        ({"under": "data"}, "data/\0x"),
        ({"full": "a+"}, ["a", 5]),
        ({"not_host": "evil.com"}, "http://%65vil.com/"),
    ],
)
def test_what_cannot_be_told_permits_less(condition: Any, value: Any) -> None:
    """Unreadable values match in rules that deny, and never in rules that allow."""
    assert holds(condition, value)
    assert not holds(condition, value, "allow")


def test_lists_need_all_to_allow_and_one_to_deny() -> None:
    """One bad recipient among many is enough."""
    good = {"email_domain": "good.com"}
    assert not holds(good, ["a@good.com", "b@evil.com"], "allow")
    assert holds(good, ["a@good.com", "b@good.com"], "allow")
    assert holds({"not_email_domain": "good.com"}, ["a@good.com", "b@evil.com"])
    assert not holds(good, [], "allow")


def test_missing_arguments() -> None:
    """A missing argument satisfies nothing, except for denials of what is not among some values."""
    rule = ActionRule("r", arguments={"x": {"not_one_of": ["a"]}})
    assert rule.matches_entry(entry("t"))
    assert not ActionRule("r", "allow", arguments={"x": {"not_one_of": ["a"]}}).matches_entry(entry("t"))
    assert not ActionRule("r", arguments={"x": 1}).matches_entry(entry("t"))
    assert ActionRule("r", arguments={"x": {"present": False}}).matches_entry(entry("t"))
    assert ActionRule("r", arguments={"a.b": 1}).matches_entry(entry("t", a={"b": 1}))


def test_paths_follow_links(tmp_path: Path) -> None:
    """A link out of the directory is out of it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "other")
    assert not holds({"under": "."}, "link/new.txt", root=tmp_path / "root")
    assert holds({"under": "."}, "new/new.txt", root=tmp_path / "root")


# --- what is refused ------------------------------


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"tool": []}, "tool"),
        ({"tool": ""}, "tool"),
        ({"effect": "harmless"}, "effect"),
        ({"effect": []}, "effect"),
        ({"decision": "block"}, "decision"),
        ({"when_tool": "x"}, "when_tool"),
        ({"argument": {"x": 1}}, "argument"),
        ({"arguments": {"x": {"equal": 1}}}, "arguments.x"),
        ({"arguments": {"x": []}}, "arguments.x.one_of"),
        ({"arguments": {"x": {}}}, "arguments.x"),
        ({"arguments": {"x": {"min": 3, "max": 1}}}, "arguments.x"),
        ({"arguments": {"x": {"above": 1, "below": 1}}}, "arguments.x"),
        ({"arguments": {"x": {"min_length": 3, "max_length": 1}}}, "arguments.x"),
        ({"arguments": {"x": {"full": "("}}}, "arguments.x.full"),
        ({"arguments": {"x": {"equals": "a", "one_of": ["b"]}}}, "arguments.x"),
        ({"arguments": {"x": {"equals": 5, "max": 3}}}, "arguments.x"),
        ({"arguments": {"x": {"one_of": ["a", "b"], "full": "c"}}}, "arguments.x"),
        ({"arguments": {"x": {"present": False, "equals": 1}}}, "arguments.x"),
        ({"arguments": {"x": {"min": "3"}}}, "arguments.x.min"),
        ({"arguments": {"x": {"host": "https://x"}}}, "arguments.x.host"),
        ({"arguments": {"x": {"port": 0}}}, "arguments.x.port"),
        ({"arguments": {"x": {"under": "~/x"}}}, "arguments.x.under"),
        ({"more_than": {"count": -1}}, "more_than.count"),
        ({"more_than": {"count": 1, "per": "week"}}, "more_than.per"),
        ({"more_than": 5}, "more_than"),
        ({"at_most": {"count": 0}}, "at_most.count"),
        ({"after": {"tol": "x"}}, "after"),
        ({"after": {"tool": "x", "within": "world"}}, "after.within"),
        ({"same": ""}, "same"),
        ({"cel": "action.tyep == 'delete'"}, "cel"),
        ({"cel": "tool == 'delete"}, "cel"),
        ({"cel": "tool =~ 'del.*'"}, "cel"),
        ({"cel": "'drop' in tool"}, "cel"),
        ({"cel": "re.match('drop', tool)"}, "cel"),
        ({"cel": "nonsense((("}, "cel"),
        ({"cel": "1 == 1"}, "cel"),
        ({"cel": "tool"}, "cel"),
        ({"cel": "arguments.x > 1 && nofunction(tool)"}, "cel"),
        ({"cel": "tool.matches('[')"}, "cel"),
    ],
)
def test_refused_when_loaded(table: dict[str, Any], key: str) -> None:
    """What could never match, or isn't understood, never waits silently: the error names rule and key."""
    with pytest.raises(SpecError) as caught:
        ActionInterceptor.from_toml({"rules": [{"name": "the-rule", "decision": "deny", **table}]})
    assert "'the-rule'" in str(caught.value)
    assert key.rsplit(".", 1)[-1] in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        ({"tool": "sendmail"}, "tool"),
        ({"tool": ["send_mail", "wipe*"]}, "tool"),
        ({"tool": "send_mail", "arguments": {"recipient": "x"}}, "recipient"),
        ({"tool": "read_file", "effect": "irreversible"}, "effect"),
        ({"tool": "send_mail", "arguments": {"to": {"min": 1}}}, "arguments.to"),
        ({"tool": "send_mail", "arguments": {"amount": "five"}}, "arguments.amount"),
        ({"tool": "send_mail", "arguments": {"amount": {"host": "x.com"}}}, "arguments.amount"),
        ({"tool": "send_mail", "arguments": {"mode": "medium"}}, "arguments.mode"),
        ({"tool": "send_mail", "arguments": {"tags": {"one_of": [1]}}}, "arguments.tags"),
        ({"tool": "send_mail", "after": "read_fil"}, "after.tool"),
        ({"tool": "send_mail", "same": "recipient"}, "same"),
        ({"tool": "send_mail", "cel": "arguments.recipient == 'x'"}, "cel"),
    ],
)
def test_refused_against_tools(rule: dict[str, Any], key: str) -> None:
    """With the tools at hand, unknown tools, arguments and impossible types are refused."""
    table = {"rules": [{"name": "the-rule", "decision": "deny", **rule}]}
    ActionInterceptor.from_toml(table)
    with pytest.raises(SpecError, match="the-rule") as caught:
        ActionInterceptor.from_toml(table, tools=TOOLS)
    assert key in str(caught.value)


@pytest.mark.parametrize(
    "table",
    [
        {"rules": []},
        {"rules": {}},
        {"default": "maybe", "rules": [{"name": "r", "decision": "deny"}]},
        {"rules": [{"decision": "deny"}]},
        {"rules": [{"name": "r"}]},
        {"rules": ["x"]},
        {"tool": "x", "rules": []},
        {"rules": [{"name": "r", "decision": "deny"}, {"name": "r", "decision": "allow"}]},
        {"ask": "later", "rules": [{"name": "r", "decision": "deny"}]},
    ],
)
def test_broken_tables_are_refused(table: dict[str, Any]) -> None:
    """Typing errors in the table itself."""
    with pytest.raises(SpecError):
        ActionInterceptor.from_toml(table)


def test_from_a_file(tmp_path: Path) -> None:
    """Paths in a file are relative to it; a file that can't be read is an error of its own."""
    path = tmp_path / "rules.toml"
    rule = 'name = "data"\ndecision = "allow"\ntool = "write"\narguments.path.under = "data"\n'
    path.write_text(f'default = "deny"\n[[rules]]\n{rule}')
    voter = ActionInterceptor.from_toml(path)
    assert voter.check(entry("write", path=str(tmp_path / "data" / "x"))).approved is True
    assert voter.check(entry("write", path="/etc/x")).approved is False
    path.write_text("rules = [")
    with pytest.raises(SpecError):
        ActionInterceptor.from_toml(path)
    with pytest.raises(SpecError):
        ActionInterceptor.from_toml(tmp_path / "none.toml")


# --- findings ------------------------------


def test_rules_that_never_decide_are_found() -> None:
    """Shadowed and unreachable rules are named, with the one that goes first."""
    rules = [
        ActionRule("all", "deny", tool="send_*"),
        ActionRule("some", "allow", tool="send_mail"),
        ActionRule("again", "deny", tool="send_mail", arguments={"to": "x"}),
        ActionRule("free", "allow", tool="read_file"),
    ]
    found = {one.rule: one for one in check_rules(rules)}
    assert found["some"].code == "unreachable" and "'all'" in found["some"].message
    assert found["again"].code == "shadowed"
    assert "free" not in found
    assert all(one.severity == "warning" for one in found.values())
    assert check_rules([ActionRule("x"), ActionRule("x")])[0].code == "duplicate"


def test_explain() -> None:
    """Which rule decides, why, and which others speak of the action."""
    voter = ActionInterceptor([ActionRule("a", "allow", tool="t"), ActionRule("d", arguments={"x": 1})])
    told = voter.explain(Action(tool="t", arguments={"x": 1}))
    assert (told.decision, told.rule) == ("deny", "d")
    assert told.matched == (("d", "deny"), ("a", "allow"))
    assert "x equals 1" in told.reason
    assert explain([], Action(tool="t")).decision == "allow"


# --- history ------------------------------


class History:
    """A little log: entries with positions and times, folded into the voter's memory as a host does it."""

    def __init__(self, voter: ActionInterceptor) -> None:
        self.voter = voter
        self.memory = voter.initial()
        self.position = 0

    def add(self, payload: Payload, time_ms: int = 0) -> int:
        self.position += 1000
        made = Entry(
            position=self.position,
            kind=type(payload).__name__,
            payload=payload,
            author=Author("driver", "x", "y"),
            time_ms=time_ms,
        )
        before = msgspec.json.encode(self.memory)
        after = self.voter.observe(self.memory, made)
        assert msgspec.json.encode(self.memory) == before  # hosts keep earlier memories
        self.memory = msgspec.json.decode(msgspec.json.encode(after))  # it travels in checkpoints
        return self.position

    def propose(self, tool: str, /, time_ms: int = 0, *, run: int = 1, agent: str = "a", **arguments: Any) -> int:
        return self.add(Intent(run=run, agent=agent, tool=tool, arguments=arguments), time_ms)

    def run(self, tool: str, /, time_ms: int = 0, **arguments: Any) -> int:
        """Propose, start and finish an action."""
        position = self.propose(tool, time_ms, **arguments)
        self.add(Started(intent=position), time_ms)
        self.add(Result(intent=position, value=1), time_ms)
        return position

    def vote(self, tool: str, /, time_ms: int = 0, **arguments: Any) -> bool | None:
        given = msgspec.structs.replace(entry(tool, **arguments), memory=self.memory, timestamp=time_ms)
        return self.voter.check(given).approved


def test_at_most_n_per_run() -> None:
    """Undecided intents count; refused ones don't; another run has its own number."""
    voter = ActionInterceptor([ActionRule("few", tool="send", more_than={"count": 2, "per": "run"})])
    assert voter.scope == "run"
    log = History(voter)
    assert log.vote("send")
    log.run("send")
    refused = log.propose("send")
    assert not log.vote("send")
    log.add(Abort(intent=refused))
    assert log.vote("send")
    log.run("send")
    assert not log.vote("send") and log.vote("other") and log.vote("send", run=2)


def test_at_most_n_per_hour_by_the_entries_times() -> None:
    """Time is that of entries; an intent that isn't in the log yet is judged by the latest one."""
    rule = ActionRule("few", tool="send", more_than={"count": 2, "per": "hour"})
    log = History(ActionInterceptor([rule]))
    assert log.voter.scope == "agent"
    log.run("send", 1_000)
    log.run("send", 2_000)
    assert not log.vote("send", 3_000) and not log.vote("send")
    assert not log.vote("send", 3_600_999)
    assert log.vote("send", 3_601_500)
    log.run("other", 3_700_000)
    assert log.vote("send")


def test_allowed_at_most() -> None:
    """An allowance that is used up leaves the default."""
    log = History(ActionInterceptor([ActionRule("two", "allow", at_most={"count": 2, "per": "log"})], "deny"))
    assert log.voter.scope == "log"
    log.run("t")
    assert log.vote("t")
    log.run("t")
    assert not log.vote("t")


def test_not_after_and_only_after() -> None:
    """What may have happened forbids; only what surely happened permits."""
    never = ActionRule(
        "no-send-after-read", tool="send", after={"tool": "read_*", "arguments": {"path": {"under": "private"}}}
    )
    log = History(ActionInterceptor([never]))
    assert log.vote("send")
    log.run("read_file", path="public/x")
    assert log.vote("send")
    waiting = log.propose("read_file", path="private/x")
    assert not log.vote("send")
    log.add(Abort(intent=waiting))
    assert log.vote("send")
    first = ActionRule("tests-first", tool="deploy", not_after="run_tests")
    log = History(ActionInterceptor([first]))
    assert not log.vote("deploy")
    running = log.propose("run_tests")
    assert not log.vote("deploy")
    log.add(Started(intent=running))
    log.add(Result(intent=running, value=1))
    assert log.vote("deploy") and not log.vote("deploy", run=2)


def test_same_value_as_before() -> None:
    """The second action must go where the first went."""
    rule = ActionRule("one-recipient", "deny", tool="send", after="send", not_same="to")
    log = History(ActionInterceptor([rule]))
    assert log.vote("send", to="a")
    log.run("send", to="a")
    assert log.vote("send", to="a") and not log.vote("send", to="b")
    twice = History(ActionInterceptor([ActionRule("no-repeat", tool="send", same="to")]))
    twice.run("send", to="a")
    assert not twice.vote("send", to="a") and twice.vote("send", to="b")


# --- CEL, configuration ------------------------------


def test_cel() -> None:
    """An expression decides; where it fails it counts as what permits less."""
    rule = ActionRule("big", cel="tool == 'pay' && arguments.amount > 100")
    voter = ActionInterceptor([rule])
    assert not voter.check(entry("pay", amount=200)).approved
    assert voter.check(entry("pay", amount=5)).approved
    assert voter.check(entry("send", amount=200)).approved
    assert not voter.check(entry("pay", amount="200")).approved
    assert not voter.check(entry("pay")).approved
    allow = ActionInterceptor([ActionRule("small", "allow", cel="arguments.amount <= 100")], "deny")
    assert allow.check(entry("pay", amount=5)).approved and not allow.check(entry("pay", amount="5")).approved


def test_cel_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package: an error with the exact command, not a rule that never matches."""
    monkeypatch.setitem(sys.modules, "cel", None)
    with pytest.raises(MissingExtra, match=r"[Pp]ip install 'logact\[cel\]'"):
        ActionRule("x", cel="tool == 'x'")


def test_config_is_plain_and_tells_rules_apart() -> None:
    """The digest of the configuration on every vote changes with the rules."""
    one = ActionInterceptor([ActionRule("a", arguments={"x": {"one_of": {1, 2}}})])
    two = ActionInterceptor([ActionRule("a", arguments={"x": {"one_of": [1, 3]}})])
    msgspec.json.encode(one.config())
    assert one.in_policy().config != two.in_policy().config
    again = ActionInterceptor([ActionRule("a", arguments={"x": {"one_of": {2, 1}}})])
    assert one.in_policy().config == again.in_policy().config
    assert isinstance(SpecError("x"), LogActError)


def test_a_rejection_carries_its_rule_as_class() -> None:
    """A policy can let another voter overturn one named class of rejections: the rule's name."""
    vote = ActionInterceptor([ActionRule("no-wipe", tool="wipe")]).check(entry("wipe"))
    assert vote.code == "no-wipe"
