"""The oracle of a simulation: folds what is durable, and judges every effect, every answer and the end.

It reads the base engine and the ledger, never the components' own memory, except to compare the fold of each with
its own. Each check fails under a name of ``core.invariants``.
"""

from __future__ import annotations

from collections.abc import Callable

from logact import codec
from logact.core import invariants, machine, voting
from logact.core.acting import HUNG
from logact.core.invariants import require
from logact.core.state import OPEN, Action, State
from logact.entry import MAY_APPEND, Abort, Cancel, Checkpoint, Commit, Entry, Finding, Intent, Output, Vote
from logact.errors import InvariantViolated
from logact.logs.base import Draft
from logact.runtime.leases import SIGNS
from logact.testing.ballots import could_pass, may_pass
from logact.testing.loop import ProcessDied
from logact.testing.simulated_log import SimulatedLog
from logact.testing.town import FORBIDDEN, Effect, Town
from logact.testing.world import EPOCH_MS, Process, World
from logact.tools import ToolContext

BEGINNINGS = ("Inference", "Compaction", "Intent", "Vote", "Commit", "Abort", "Expiry", "Started", "Recovery")
"""What only who is not fenced off may write."""


class Checker:
    """Sees every record the moment it is durable."""

    def __init__(self, world: World, log: SimulatedLog, town: Town) -> None:
        self.world = world
        self.log = log
        self.town = town
        self.state: State = machine.initial(log.base.log_id, keep=True)
        self.entries: list[Entry] = []
        self.verdicts: dict[int, str] = {}
        self.chains: dict[int, str] = {}
        self.votes: dict[int, dict[str, Vote]] = {}
        self.halted_at = 0
        self.forged: dict[str, str] = {}  # incarnation of a forger -> the invariant its effect would break
        self.checkpoints: list[tuple[int, int]] = []  # (record of the checkpoint, position up to which it folds)
        self.watches = 0
        self.folds: dict[str, State] = {}  # by process: what its present life knows
        self.fenced: dict[str, int] = {}  # by incarnation: where it was fenced off
        self.cancelled: set[int] = set()  # actions
        self.heard: dict[str, float] = {}  # by incarnation: when its last sign of life became durable
        self.supervision: Callable[[Entry], None] = lambda entry: None
        log.committed = self.committed
        town.checker = self

    # --- every record ------------------------------

    def committed(self, record: int, draft: Draft) -> None:
        """A new record is durable."""
        for entry in codec.decode_record(draft.body, record):
            self._apply(entry)

    def _apply(self, entry: Entry) -> None:
        self.entries.append(entry)
        try:
            self.state = machine.apply(self.state, entry)
        except Exception as error:
            raise InvariantViolated(
                "one_bad_entry_never_stops", f"the fold fails at {entry.kind} {entry.position}: {error!r}"
            ) from error
        state, position = self.state, entry.position
        self.verdicts[position] = state.verdict
        self.chains[position] = state.chain
        if state.halted and not self.halted_at:
            self.halted_at = position
        if entry.kind in SIGNS:
            self.heard[entry.author.incarnation] = self.world.loop.time()
        if state.verdict:
            self.world.fired["fenced_spoke"] += entry.author.incarnation in self.fenced
            return
        begins = entry.kind in BEGINNINGS and entry.author.incarnation in self.fenced
        require(
            "fenced_begin_nothing", not begins, f"{entry.kind} {position} takes effect, and its writer was fenced"
        )
        allowed = MAY_APPEND.get(entry.author.role, frozenset())  # type: ignore[call-overload]
        require(
            "roles_are_enforced",
            entry.kind in allowed,
            f"{entry.kind} {position} by {entry.author.role} takes effect",
        )
        broken = self.forged.get(entry.author.incarnation)
        if broken and entry.kind not in ("Notice", "Heartbeat"):
            require(broken, False, f"the forged {entry.kind} {position} takes effect")
        invariants.check_state(state)
        self.supervision(entry)
        payload = entry.payload
        if isinstance(payload, Finding) and payload.code == HUNG:
            self._hung(payload)
        if isinstance(payload, Vote):
            self._vote(entry, payload)
        elif isinstance(payload, Cancel):
            self.cancelled |= {payload.intent} - {0}
        elif isinstance(payload, Intent):
            require(
                "cancelled_stays_cancelled",
                payload.retry_of not in self.cancelled,
                f"action {position} tries {payload.retry_of} again, which was cancelled",
            )
        elif isinstance(payload, Commit):
            self._commit(payload)
        elif isinstance(payload, Output) and not payload.ok:
            self.world.count("run_gave_up")
        elif isinstance(payload, Abort) and payload.code == "rejected" and self.town.plan.policy:
            self._ballot(self.state.actions[payload.intent], passed=False)
        elif isinstance(payload, Checkpoint) and entry.author.role == "checkpointer":
            self.checkpoints.append((position // 1000, payload.upto))

    def _vote(self, entry: Entry, vote: Vote) -> None:
        self.votes.setdefault(vote.intent, {})[vote.voter] = vote
        if vote.approved:
            item = self.item(self.state.actions[vote.intent])
            require(
                "closed_by_default",
                True in self.town.answers.get((vote.voter, item), set()),
                f"{vote.voter} is on record as approving {item}, and never said so",
            )

    def _commit(self, commit: Commit) -> None:
        action = self.state.actions[commit.intent]
        if self.town.plan.policy:
            self._ballot(action, passed=True)
            return
        policy = self.state.policy_for(action)
        needed = voting.names(policy.need) if policy is not None else []
        heard = self.votes.get(commit.intent, {})
        missing = [name for name in needed if name not in heard or heard[name].approved is not True]
        require("nothing_acts_unseen", not missing, f"action {action.id} is committed without {', '.join(missing)}")
        if not needed:
            require(
                "closed_by_default", action.intent.effect == "read", f"{action.intent.tool} passes without voters"
            )

    def _ballot(self, action: Action, *, passed: bool) -> None:
        """A decision under the plan's policy: the votes carry it, by what the policy means."""
        votes, intent, name = self.votes.get(action.id, {}), action.intent, self.town.plan.policy
        allowed = may_pass if passed else could_pass
        said = ", ".join(f"{voter} {vote.approved}" for voter, vote in votes.items()) or "nobody voted"
        require(
            "policy_is_kept",
            allowed(name, votes, intent.tool, intent.effect) is passed,
            f"{self.item(action)} {'passes' if passed else 'is rejected'} under {name!r}, and {said}",
        )

    def _hung(self, finding: Finding) -> None:
        """Somebody is fenced off since its lease ran out: it did."""
        life = self.state.incarnations[finding.holder]
        self.fenced[finding.holder] = self.state.position
        self.world.count("fenced_off")
        lease_s = life.birth.lease_ms / 1000 if life.birth is not None else 0.0
        silent_s = self.world.loop.time() - self.heard.get(finding.holder, 0.0)
        require(
            "leases_are_honoured",
            silent_s >= lease_s - 0.001,
            f"{finding.holder} gave a sign of life {silent_s:.2f} s ago, and its lease is {lease_s:g} s",
        )

    def holders(self) -> frozenset[int]:
        """The process ids of those who began an action that is not settled."""
        found = []
        for action in self.open_actions():
            current = action.current
            life = self.state.incarnations.get(current.incarnation) if current is not None else None
            if life is not None and life.birth is not None:
                found.append(life.birth.pid)
        return frozenset(found)

    # --- moments ------------------------------

    def effect(self, effect: Effect) -> None:
        """The moment after an effect: everything that allows it must be durable by now."""
        action = self.state.actions.get(effect.action)
        if effect.delta > 0:
            digest = codec.digest_of({"item": effect.item})
            incarnation = self._incarnation(effect.action, effect.pid)
            if action is not None and action.status == "in_doubt" and action.current is not None:
                # an epoch fences appends, not effects: whoever was fenced off while at work may still finish
                mine = action.current.number == effect.attempt and action.current.incarnation == incarnation
                require("no_double_effect", mine, f"{effect.item} runs in doubt, and not by who started it")
                require("approval_binds", action.intent.arguments_digest == digest, f"{effect.item} was not approved")
            else:
                invariants.check_may_run(self.state, effect.action, effect.attempt, incarnation, digest)
            require("closed_by_default", effect.tool != FORBIDDEN, f"{effect.item} ran, which every guard refuses")
            require(
                "approval_binds",
                action is not None and action.intent.tool == effect.tool,
                f"{effect.item} is no call of action {effect.action}",
            )
            if action is not None and self.halted_at and action.current is not None:
                require(
                    "closed_by_default",
                    action.current.position < self.halted_at,
                    f"{effect.item} was started after something that is not understood",
                )
            require(
                "deadlines_end_in_the_log",
                effect.item not in self.town.refused,
                f"{effect.item} ran, and its caller was told that it was refused",
            )
        elif not (action is not None and action.undo_begun):
            by = self.state.actions.get(self.state.undoing.get(effect.action, 0))
            running = by is not None and by.status in ("executing", "in_doubt")
            require("nothing_acts_unseen", running, f"{effect.item} is taken back, and the log does not say so")
        idempotent = action is not None and action.intent.effect == "idempotent"
        lines = [one for one in self.town.ledger if one.item == effect.item]
        if idempotent:
            require("no_double_effect", len({one.key for one in lines}) <= 1, f"{effect.item} ran under several keys")
        else:
            net = self.town.net(effect.item)
            require("no_double_effect", net in (0, 1), f"{effect.item} happened {net} times")

    def _incarnation(self, action_id: int, pid: int) -> str:
        """The incarnation that this process has at work on an action, as the log has it ("": none)."""
        action = self.state.actions.get(action_id)
        current = action.current if action is not None else None
        life = self.state.incarnations.get(current.incarnation) if current is not None else None
        mine = life is not None and life.birth is not None and life.birth.pid == pid
        return current.incarnation if current is not None and mine else "(another process)"

    def crossing(self, context: ToolContext) -> None:
        """A tool is called whose environment may be gone: while its circuit is open, by one trial and in time."""
        action = self.state.actions.get(context.action)
        circuit = self.state.circuit(action.intent) if action is not None else None
        current = action.current if action is not None else None
        if action is None or circuit is None or current is None or current.position < circuit.at:
            return
        require(
            "breakers_hold", circuit.trial == action.id, f"{action.id} is called beside the trial {circuit.trial}"
        )
        early_ms = circuit.until_ms - EPOCH_MS - self.world.loop.time() * 1000
        jumped = self.world.fired["clock_jump"] > 0
        require("breakers_hold", jumped or early_ms <= 5, f"{action.id} is called {early_ms:.0f} ms too early")

    def reading(self, context: ToolContext, item: str) -> None:
        """A read runs: also only after everything is durable."""
        action = self.state.actions.get(context.action)
        holds = action is not None and action.status == "executing"
        if not holds:
            self.world.fail(InvariantViolated("nothing_acts_unseen", f"{item} is read before its start is durable"))

    def asked(self, task: str, turn: int, process: Process | None = None, agent: str = "") -> None:
        """The model is asked for a turn. Where two drive, a process may know less than the log holds."""
        known = self.folds.get(process.name) if process is not None and self.town.plan.has_twins else self.state
        for run in known.runs.values() if known is not None else ():
            if run.title == task:
                require(
                    "store_then_replay",
                    run.turn <= turn,
                    f"the model is asked for turn {turn + 1} of run {run.id}, which the log holds already",
                )

    def told_refused(self, item: str) -> None:
        """Somebody is told that an action was refused: the log must say so by now."""
        for action in self.state.actions.values():
            if self.item(action) == item:
                require(
                    "deadlines_end_in_the_log",
                    action.status in ("rejected", "skipped", "failed_final", "undone", "failed"),
                    f"{item} was told to be refused while it is {action.status}",
                )

    @staticmethod
    def item(action: Action) -> str:
        """The item that an action is about."""
        return str(action.intent.arguments.get("item", "answer"))

    # --- comparing folds ------------------------------

    def watch(self, process: Process) -> Watch:
        """An observer for one life of a component's fold."""
        self.watches += 1
        return Watch(self, process)

    # --- the end ------------------------------

    def open_actions(self) -> list[Action]:
        """Actions that are not settled."""
        return [action for action in self.state.actions.values() if action.status in OPEN]

    def at_the_end(self, *, proposals_may_stay: bool = False) -> None:
        """Everything settled, and everything that the log says of the world is true."""
        for process in self.world.live.values():
            awake = process.frozen_until <= self.world.loop.time()
            old = [key for key in process.env.playing if awake and key in self.fenced]
            require("fenced_begin_nothing", not old, f"{process.name} does not know that it was fenced off")
        for action in self.state.actions.values():
            item = self.item(action)
            if proposals_may_stay and action.status == "proposed":
                continue
            require("no_lost_effect", action.status not in OPEN, f"{item} ({action.id}) is still {action.status}")
            if action.intent.tool in ("answer", "look"):
                continue
            net = self.town.net(item)
            if action.status == "executed":
                require("no_lost_effect", net > 0, f"{item} is executed, and never happened")
            if action.happened is False and action.status != "rejected":
                retried = any(
                    one.intent.retry_of and self.item(one) == item and one.happened
                    for one in self.state.actions.values()
                )
                require("no_lost_effect", net == 0 or retried, f"{item} did not happen, says the log; it did")
            if action.status == "rejected" and not action.retried_by:
                again = any(
                    self.item(one) == item and one.happened
                    for one in self.state.actions.values()
                    if one is not action
                )
                require("nothing_acts_unseen", net == 0 or again, f"{item} was rejected, and happened")
        # a result that comes after its action was undone is shown as a conflict to be on the safe side: nobody knows
        # on which side of the undo the effect was. Any other conflict would mean that somebody guessed.
        guessed = [key for key in self.state.conflicts if self.state.actions[key].status != "undone"]
        require("no_double_effect", not guessed, f"conflicts: {guessed}")


class Watch:
    """Compares a component's fold with the oracle's, entry by entry."""

    def __init__(self, checker: Checker, process: Process) -> None:
        self.checker = checker
        self.process = process
        self.first = 0
        self.failed_reads = self._reads_failed()
        self.checkpoint = max(checker.checkpoints, default=(0, 0))

    def _reads_failed(self) -> int:
        fired = self.checker.world.fired
        return fired["read_failed"] + fired["read_cut_off"] + fired["read_deaf"]

    def __call__(self, state: State, entry: Entry) -> None:
        """After each entry that the component applied."""
        if self.process.dead:
            raise ProcessDied
        checker = self.checker
        try:
            if not self.first:
                self.first = entry.position
                if self._reads_failed() == self.failed_reads:
                    require(
                        "recovery_is_bounded",
                        self.first > self.checkpoint[1],
                        f"{self.process.name} reads from {self.first}, behind a checkpoint at {self.checkpoint[1]}",
                    )
            expected = checker.chains.get(entry.position)
            require(
                "read_error_is_no_absence",
                state.chain == expected,
                f"{self.process.name} folds {entry.kind} {entry.position} on another history than the log's",
            )
            require(
                "read_error_is_no_absence",
                state.verdict == checker.verdicts[entry.position],
                f"{self.process.name} says {state.verdict!r} of {entry.kind} {entry.position}, "
                f"the log's fold {checker.verdicts[entry.position]!r}",
            )
        except InvariantViolated as error:
            checker.world.fail(error)
        checker.folds[self.process.name] = state
