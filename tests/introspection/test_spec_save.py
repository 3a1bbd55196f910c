"""An agent built in Python, saved as a specification, built again from it: the same tools, voters and policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from logact import (
    ActionInterceptor,
    ActionRule,
    HumanVoter,
    Limits,
    LogActAgent,
    ResourceVoter,
    RetryRecovery,
    SafetyVoter,
    ScriptedModel,
    SemanticRecovery,
    Swarm,
    Vote,
    Voter,
    Workspace,
    open_log,
    tool,
)
from logact.core.breaking import Breaker
from logact.core.retrying import Backoff
from logact.entry import Abort, Intent, Result
from logact.errors import SpecError
from logact.introspection.trials import price_of
from logact.models import call
from logact.models.provider import Price, ProviderModel
from logact.runtime.watcher import Watch
from logact.spec import build_agent, load_spec
from logact.spec_save import save_agent
from logact.spec_tables import HealthTable, SuperviseTable
from logact.tools import Shell, Web
from logact.tools.sandbox import Limits as ShellLimits
from logact.tools.shell import UNSANDBOXED
from logact.voters.combine import any_of
from logact.voters.conflict import ConflictVoter
from tests.runtime.kit import run


@tool(effect="read")
def peek(place: str) -> str:
    """Look."""
    return place


@tool(effect="irreversible")
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def careful(entry: Any) -> Vote:
    """Nothing above ten."""
    return Vote(approved=entry.action.arguments.get("amount", 0) <= 10, reason="small sums only")


class Strict(Voter):
    """A voter with an option."""

    def __init__(self, limit: int = 5) -> None:
        super().__init__("strict")
        self.limit = limit

    def check(self, entry: Any) -> Vote:
        return Vote(approved=True, reason="fine")

    def config(self) -> dict[str, Any]:
        return {"limit": self.limit}


def built(home: Path, **options: Any) -> LogActAgent:
    work = home / "work"
    work.mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "voters": [
            SafetyVoter(work, many=7),
            ActionInterceptor([ActionRule("no-wipe", "deny", tool="pay", arguments={"amount": {"min": 100}})]),
            careful,
            Strict(limit=9),
            ResourceVoter(actions=50),
            ConflictVoter({"pay": []}, root=work),
            ConflictVoter(name="by-name"),
            HumanVoter("bosses", ["ann", "bob"], 2, expires_s=900),
        ],
        "tools": [*Workspace(work).tools, pay],
        "model": "openai:gpt-4o",
        "system": "Be careful.",
        "limits": Limits(turns=20, tokens=5000),
        "context_tokens_max": 9000,
        "checkpoint_every": 700,
        **options,
    }
    return LogActAgent("clerk", open_log(f"sqlite:///{home}/a.db"), **given)


def test_saved_and_built_again(tmp_path: Path) -> None:
    """Tools, voters with their settings, policy, limits and texts are the same; paths are relative to the file."""
    agent = built(tmp_path)
    path = save_agent(agent, tmp_path / "clerk.toml")
    again = build_agent(load_spec(path))
    assert again.tools.specs() == agent.tools.specs()
    assert [one.name for one in again.voters] == [one.name for one in agent.voters]
    assert [one.config() for one in again.voters] == [one.config() for one in agent.voters]
    assert agent.policy is not None
    assert again.policy is not None
    assert again.policy.need == agent.policy.need
    assert list(again.policy.voters) == list(agent.policy.voters)
    assert (again.system, again.limits, again.context_tokens_max) == (
        "Be careful.",
        Limits(turns=20, tokens=5000),
        9000,
    )
    assert again.checkpoint_every == 700
    assert again.model is not None
    assert agent.model is not None
    assert again.model.name == agent.model.name
    text = path.read_text()
    assert 'root = "work"' in text
    assert 'url = "sqlite:///a.db"' in text
    assert str(tmp_path) not in text.replace(str(Path(__file__).parent), "")


def in_order() -> str:
    """What is wrong with the world."""
    return ""


def closure() -> Any:
    """A check that no file can name."""
    return lambda: "wrong"


@pytest.mark.parametrize("fallback", ["skip", "exact", RetryRecovery(5, 0.1)], ids=["skip", "exact", "retry"])
@pytest.mark.parametrize("semantic", [False, True], ids=["plain", "semantic"])
def test_every_way_to_recover_comes_back(tmp_path: Path, fallback: Any, semantic: bool) -> None:
    """Retries, skip, exact; and a model with its tools, check and limits, with each of these as its fallback."""
    asked = SemanticRecovery(
        ProviderModel("openai:gpt-4o", price=Price(input_usd=2.5, output_usd=10.0)),
        ["peek"],
        fallback=fallback,
        check=in_order,
        turns_max=3,
        tokens_max=7000,
        seconds_max=50,
        plan_actions_max=4,
        history_chars_max=900,
    )
    agent = built(tmp_path, voters=[careful], tools=[peek, pay], recovery=asked if semantic else fallback)
    again = build_agent(load_spec(save_agent(agent, tmp_path / "clerk.toml")))
    assert (again.recovery is None) == isinstance(fallback, str), "the executor's own retries"
    found = again.recovers
    if isinstance(found, SemanticRecovery):
        assert found.model is not None and found.model.name == "openai:gpt-4o"
        assert price_of(found.model) == Price(input_usd=2.5, output_usd=10.0)
        assert found.check is in_order
        mine = (asked.tools, asked.limits, asked.plan_actions_max, asked.history_chars_max)
        assert (found.tools, found.limits, found.plan_actions_max, found.history_chars_max) == mine
        found = found.fallback
    assert isinstance(again.recovers, SemanticRecovery) == semantic
    assert vars(found)["rules"] == fallback.rules if isinstance(fallback, RetryRecovery) else found == fallback


def test_how_long_tools_may_take_comes_back(tmp_path: Path) -> None:
    """The web's and a shell's own time limits; other limits of a shell are refused, not left out."""
    (tmp_path / "work").mkdir()
    shell = Shell(tmp_path / "work", limits=ShellLimits(seconds=7), unsandboxed=UNSANDBOXED)
    agent = built(tmp_path, voters=[careful], tools=[*shell.tools, *Web(["example.org"], timeout_s=4).tools])
    again = build_agent(load_spec(save_agent(agent, tmp_path / "clerk.toml")))
    times = {one.name: one.timeout_ms for one in again.tools.specs()}
    assert times == {"run_shell": 22_000, "run_python": 22_000, "http_get": 9000}
    small = Shell(tmp_path / "work", limits=ShellLimits(processes=2), unsandboxed=UNSANDBOXED)
    with pytest.raises(SpecError, match="limits of a shell"):
        save_agent(built(tmp_path, voters=[careful], tools=small.tools), tmp_path / "small.toml")


def test_it_runs(tmp_path: Path) -> None:
    """The agent that is built from the file works, under the votes of the one that was saved."""
    agent = built(tmp_path, voters=[careful], tools=[pay], model=None)
    path = save_agent(agent, tmp_path / "clerk.toml")

    async def work() -> None:
        again = build_agent(
            load_spec(path), model=ScriptedModel([call("pay", amount=99), "refused, as it should be"])
        )
        async with again.log:
            await again.run("pay 99")
            entries = [entry async for entry in again.log.read()]
        assert "Abort" in [entry.kind for entry in entries]

    run(work())


def test_it_behaves_the_same(tmp_path: Path) -> None:
    """One script through the agent that was saved and the one that was built: the same votes, ends and effects."""
    script: list[Any] = [
        [call("pay", amount=3), call("pay", amount=99), call("write_file", path="a.txt", text="x")],
        [
            call("read_file", path="a.txt"),
            call("write_file", path="../b.txt", text="x"),
            call("delete_file", path="a.txt"),
        ],
        "done",
    ]

    async def played(agent: LogActAgent) -> list[Any]:
        async with agent.log as log:
            answer = await agent.run("do it")
            entries = [entry async for entry in log.read()]
        told: list[Any] = [answer.ok, answer.text]
        for entry in entries:
            said = entry.payload
            if isinstance(said, Intent):
                told.append((said.tool, said.arguments, said.effect, said.pins))
            elif isinstance(said, Vote):
                told.append((said.voter, said.approved, said.reason, said.hint))
            elif isinstance(said, Abort):
                told.append(said.reason)
            elif isinstance(said, Result):
                told.append((said.value, said.error and said.error.kind))
        return told

    async def both() -> tuple[list[Any], list[Any]]:
        voters = [
            SafetyVoter(tmp_path / "work"),
            careful,
            ResourceVoter(actions=50),
            ConflictVoter(root=tmp_path / "work"),
        ]
        first = built(tmp_path, voters=voters, model=ScriptedModel(list(script)), secrets=None)
        path = save_agent(first, tmp_path / "clerk.toml")
        one = await played(first)
        for left in (tmp_path / "work").iterdir():
            left.unlink()
        again = build_agent(load_spec(path), model=ScriptedModel(list(script)), log=open_log("memory:"))
        return one, await played(again)

    one, two = run(both())
    assert one == two and len(one) > 20


def test_a_policy_of_its_own(tmp_path: Path) -> None:
    """An expression over voters is written, and is the one in force again."""
    agent = built(tmp_path, voters=[careful, Strict()], policy=any_of("careful", "strict"))
    path = save_agent(agent, tmp_path / "clerk.toml")
    assert build_agent(load_spec(path)).policy == agent.policy


def test_secrets_are_named_and_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret's value is not in the file; its place has to be given."""
    agent = built(tmp_path, secrets={"bank": "hunter2-hunter2"})
    with pytest.raises(SpecError, match="Each secret of the agent needs its place"):
        save_agent(agent, tmp_path / "clerk.toml")
    monkeypatch.setenv("BANK", "hunter2-hunter2")
    path = save_agent(agent, tmp_path / "clerk.toml", secrets={"bank": "env:BANK"})
    assert "hunter2" not in path.read_text()
    assert build_agent(load_spec(path)).secrets.names() == ["bank"]


def test_a_tool_of_the_running_script(tmp_path: Path) -> None:
    """What is defined in a file beside the specification is named by that file."""
    import subprocess

    script = tmp_path / "mine.py"
    script.write_text(
        "from logact import LogActAgent, open_log, tool\n"
        "from logact.spec_save import save_agent\n"
        '@tool(effect="read")\ndef look() -> str:\n    "Look."\n    return "seen"\n'
        'if __name__ == "__main__":\n'
        '    save_agent(LogActAgent("ann", open_log("sqlite:///b.db"), tools=[look]), "mine.toml")\n'
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, timeout=60)
    spec = load_spec(tmp_path / "mine.toml")
    assert spec.tools[0].use == "mine.py:look"
    assert list(build_agent(spec).tools) == ["look"]


def test_what_supervises_it(tmp_path: Path) -> None:
    """Retries, a breaker, a watch and a witness come back as they were (were refused, though a file can say them)."""
    agent = built(
        tmp_path,
        recovery=RetryRecovery(5, 0.1, by_class={"failed": Backoff(max_retries=1), "timeout": Backoff(jitter=0.0)}),
        breaker=Breaker(failures=7, wait_s=60),
        watch=Watch(loop="pause", idle=30),
        witness=tmp_path / "heads",
        signing_key=tmp_path / "heads.key",
    )
    path = save_agent(agent, tmp_path / "clerk.toml")
    again = build_agent(load_spec(path))
    assert again.recovery is not None
    assert agent.recovery is not None
    assert again.recovery.rules == agent.recovery.rules
    assert again.recovery.usual == Backoff(max_retries=5, base_delay=0.1)
    assert (again.breaker, again.watch) == (agent.breaker, agent.watch)
    assert [Path(str(again.witness)), Path(str(again.signing_key))] == [tmp_path / "heads", tmp_path / "heads.key"]
    assert 'witness = "heads"' in path.read_text()


def test_what_the_model_is_offered(tmp_path: Path) -> None:
    """Tools that are hidden, and for how long reads are answered from the log, come back as they were."""
    path = save_agent(built(tmp_path, hide_tools=["look"], reuse_reads_s=90), tmp_path / "clerk.toml")
    again = build_agent(load_spec(path))
    assert (again.hide_tools, again.reuse_reads_s) == (("look",), 90)


@pytest.mark.parametrize("how", ["reuse", "swarm"])
def test_what_stands_before_its_tools_is_no_part_of_it(tmp_path: Path, how: str) -> None:
    """An agent that reuses reads, or was in a swarm with mail, is saved with its own tools, and no others."""
    options: dict[str, Any] = {"reuse_reads_s": 60} if how == "reuse" else {}
    agent = built(tmp_path, tools=[peek], voters=[ResourceVoter(actions=5, memory_free_mb=1)], **options)
    if how == "swarm":
        Swarm([agent], talk=True)
        assert "send_mail" in agent.tools
    again = build_agent(load_spec(save_agent(agent, tmp_path / "clerk.toml")))
    assert set(again.tools) == {"peek"} and again.reuse_reads_s == agent.reuse_reads_s
    assert again.policy == agent.policy


def test_what_a_model_costs(tmp_path: Path) -> None:
    """A price given in code stands in the file, by the model's name, and comes back."""
    price = Price(input_usd=2.5, output_usd=10, cached_usd=1.25)
    model = ProviderModel("openai:gpt-4o", price=price)
    path = save_agent(built(tmp_path, model=model), tmp_path / "clerk.toml")
    assert '"openai:gpt-4o" = { input_usd = 2.5, output_usd = 10, cached_usd = 1.25 }' in path.read_text().replace(
        "{", "{ "
    ).replace("}", " }").replace("  ", " ")
    spec = load_spec(path)
    again = build_agent(spec).model
    assert isinstance(again, ProviderModel)
    assert again.price == price
    other = build_agent(spec, model="openai:gpt-4o-mini").model
    assert isinstance(other, ProviderModel)
    assert other.price is None, "it is the price of another model"


def test_keys_are_named_and_never_written(tmp_path: Path) -> None:
    """Of a key that signs only the file's name is written; what is in it stands nowhere."""
    key = tmp_path / "heads.key"
    key.write_text("ed25519-private:SECRETSECRETSECRET")
    path = save_agent(built(tmp_path, witness=tmp_path / "heads", signing_key=key), tmp_path / "clerk.toml")
    assert 'signing_key = "heads.key"' in path.read_text()
    assert "SECRET" not in path.read_text()


def test_tables_that_no_agent_holds(tmp_path: Path) -> None:
    """Health checks and supervision are given beside the agent; in a file that is replaced they stay."""
    health = HealthTable(cron="*/15 * * * *", on={"stuck": "recover"})
    supervise = SuperviseTable(parts=["agent"], restarts=3)
    path = save_agent(built(tmp_path), tmp_path / "clerk.toml", health=health, supervise=supervise)
    assert (load_spec(path).health, load_spec(path).supervise) == (health, supervise)
    save_agent(built(tmp_path, system="Be brief."), path, force=True)
    spec = load_spec(path)
    assert (spec.agent.system, spec.health, spec.supervise) == ("Be brief.", health, supervise)
    other = HealthTable(cron="0 * * * *")
    save_agent(built(tmp_path), path, health=other, force=True)
    assert load_spec(path).health == other


def test_a_key_ring_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key ring that only code names is refused (was left out in silence); one of the environment stays there."""
    ring = tmp_path / "keys.toml"
    ring.write_text('[[keys]]\npublic = "ed25519:mjAzcHWLTJ4K3yX0X0mXzq2dGd0kmqVDVo1sXyqkYlY"\nroles = ["voter"]\n')
    url = f"sqlite:///{tmp_path}/a.db"
    agent = LogActAgent("clerk", open_log(url, keyring=str(ring)))
    with pytest.raises(SpecError, match="the key ring of the log"):
        save_agent(agent, tmp_path / "clerk.toml")
    monkeypatch.setenv("LOGACT_KEYRING", str(ring))
    save_agent(LogActAgent("clerk", open_log(url)), tmp_path / "clerk.toml")


class Patient(RetryRecovery):
    """Retries in code of one's own."""


def made_inside() -> Any:
    @tool(effect="read")
    def inner() -> str:
        """Look."""
        return "seen"

    return inner


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": [made_inside()]}, "the tool inner"),
        ({"voters": [lambda entry: True]}, "the voter"),
        ({"voters": [ActionInterceptor([ActionRule("odd", "deny", when=lambda action: True)])]}, "the rule odd"),
        ({"answer_type": int}, "answer_type"),
        ({"recovery": RetryRecovery(by_class={"timeout": None})}, "recovery"),
        ({"recovery": Patient()}, "recovery"),
        ({"recovery": SemanticRecovery(check=closure())}, "check"),
    ],
)
def test_what_a_file_cannot_say_is_named(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    """A closure, a rule made of code or a form of answer is refused by name, and no file is written."""
    with pytest.raises(SpecError, match=says):
        save_agent(built(tmp_path, **options), tmp_path / "clerk.toml")
    assert not (tmp_path / "clerk.toml").exists()


def test_a_voter_that_says_too_little_is_caught(tmp_path: Path) -> None:
    """If what is built again judges by something else, that is an error and not a file."""
    odd = Strict()
    odd.config = lambda: {"limit": 5, "mood": "bad"}  # type: ignore[method-assign]
    with pytest.raises(SpecError, match="its voters came out differently"):
        save_agent(built(tmp_path, voters=[odd]), tmp_path / "clerk.toml")
