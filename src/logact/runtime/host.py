"""What the parts of one agent in one process share: the log, the fold, one pen, and the clock.

Every append of the process goes through :meth:`Host.append`, so that the incarnation's chain has one writer, and
the fold holds what was appended before the caller goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from logact import codec
from logact import env as environment
from logact.core.leasing import AGENT, LEASE_S
from logact.core.state import Action, State
from logact.entry import Checkpoint, Entry, Heartbeat, Intent, NewEntry, Payload, Role, Spec
from logact.errors import SALVAGE, AppendUnknown, ConditionFailed, LogActError, LogCorrupt, LogError
from logact.logs.base import Appended, Condition, Filter, SharedLog
from logact.logs.half_forks import half_fork
from logact.runtime.tail import Tail

NO_ARGUMENTS = codec.digest_of({})


STUCK_SAID_S = 1.0
"""After how long of trying again somebody is told, who would else see nothing."""

SPECS = "specifications"
"""What is counted beside a fold: the last specification of each agent."""


class _Specs:
    """The last specification of each agent."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    def observe(self, state: State, entry: Entry) -> None:
        if isinstance(entry.payload, Spec) and not state.verdict:
            self.digests[entry.payload.agent] = entry.payload.digest

    async def restore(self, checkpoint: Checkpoint | None) -> bool:
        self.digests.clear()
        return True


class Host:
    """One incarnation of one process that plays parts of an agent."""

    def __init__(
        self, log: SharedLog, agent: str, *, tail: Tail | None = None, part: str = AGENT, lease_s: float = LEASE_S
    ) -> None:
        self.log = log
        self.agent = agent
        self.part = part
        self.lease_ms = int(lease_s * 1000)
        self.working = 0  # how many things of this incarnation are under way that may take long
        self.env = environment.current()
        self.tail = tail or Tail(log)
        self.writer = log.writer()
        self.riding: list[NewEntry] = []
        self.stuck: Callable[[LogActError | None, float], None] | None = None
        self.appends = 0
        self.wrote_at = (
            self.env.monotonic()
        )  # when the last append that succeeded was begun: its lease counts from it
        self.tail.beside(SPECS, _Specs())
        self.env.playing[self.incarnation] = lambda: True

    def leaves(self, at_work: Callable[[], bool] = lambda: False) -> None:
        """This incarnation is over, but for what ``at_work`` says of its threads; others here may take up from it."""
        if at_work():
            self.env.playing[self.incarnation] = at_work
        else:
            self.env.playing.pop(self.incarnation, None)

    @property
    def last_spec(self) -> dict[str, str]:
        """By agent: the digest of its last specification, as far as it was read here."""
        found: dict[str, str] = self.tail.counted(SPECS).digests
        return found

    @property
    def incarnation(self) -> str:
        """This life's id; it stands in everything that this process writes."""
        return self.writer.incarnation

    @property
    def state(self) -> State:
        """The fold, as far as this process has read."""
        return self.tail.state

    def is_fenced(self, state: State) -> bool:
        """Whether this life was fenced off, by this state of the log."""
        return self.incarnation in state.fenced

    def entry(
        self, payload: Payload, role: Role, name: str = "", *, run: int = 0, tool: str = "", agent: str = ""
    ) -> NewEntry:
        """A payload as one of this agent's parts says it."""
        return NewEntry(payload=payload, role=role, name=name or role, agent=agent or self.agent, run=run, tool=tool)

    @staticmethod
    def about(intent: Intent, payload: Payload, role: Role, name: str) -> NewEntry:
        """A payload about an action, so that filters by its agent, run and tool find it."""
        return NewEntry(payload=payload, role=role, name=name, agent=intent.agent, run=intent.run, tool=intent.tool)

    async def append(
        self,
        entries: Sequence[NewEntry],
        *,
        unless: Filter | None = None,
        after: int | None = None,
        key: str = "",
        blobs: Sequence[tuple[str, bytes]] = (),
    ) -> Appended:
        """Append a record, with what rides along in front of it, and fold up to it.

        Returns the position of the first of ``entries``. ``unless`` makes it conditional on nothing that matches
        having come after position ``after`` (as far as this fold has read, if not given). References inside
        ``entries`` are relative to ``entries``; what rides in front of them is accounted for here.
        """
        if self.state.forking:
            raise half_fork(self.state.forking)
        if key and self.riding:
            await self.flush()  # what a key stands for must be the same the next time
        riding, self.riding = self.riding, []
        if riding:
            entries = [shifted(entry, len(riding)) for entry in entries]
        condition = Condition(self.state.position if after is None else after, unless) if unless is not None else None
        began = self.env.monotonic()
        if self.env.points:
            self.env.point(f"before_{_point(entries or riding)}")
        try:
            done = await self.writer.append([*riding, *entries], condition=condition, key=key, blobs=blobs)
        except ConditionFailed:
            self.riding = riding + self.riding  # what rides has no condition of its own: it goes with the next
            await self.tail.catch_up()
            await self.tail.check_not_behind()
            raise
        except BaseException:
            # unknown or failed: results are appended again; the fold takes the first and drops the second
            self.riding = riding + self.riding
            raise
        self.appends += 1
        self.wrote_at = began
        if self.env.points:
            self.env.point(f"after_{_point(entries or riding)}")
        if not (done.fresh and self.tail.apply_own(self.writer.last_body, done.position)):
            await self.tail.catch_up()
        return Appended(done.position + len(riding), done.fresh) if riding else done

    async def insist(self, entries: Sequence[NewEntry], blobs: Sequence[tuple[str, bytes]], limit_s: float) -> None:
        """Append what happened and must not be forgotten; while the log is away, try again for ``limit_s``.

        ``stuck`` is told of that once it has lasted a moment, with the error and the time left, and once it is over.
        """
        began = self.env.monotonic()
        pause_s = 0.05
        said = False
        while True:
            try:
                await self.append(entries, blobs=blobs)
                break
            except (AppendUnknown, LogError) as error:
                tried_s = self.env.monotonic() - began
                if tried_s > limit_s:
                    raise
                if self.stuck is not None and not said and tried_s >= STUCK_SAID_S:
                    said = True
                    self.stuck(error, limit_s - tried_s)
            await self.env.sleep(pause_s * (0.5 + self.env.random()))
            pause_s = min(pause_s * 2, 2.0)
        if said and self.stuck is not None:
            self.stuck(None, 0.0)

    async def full_intent(self, action: Action) -> Intent:
        """An action's intent with its arguments, wherever they are. BlobMissing or LogCorrupt if they are gone."""
        intent = action.intent
        if not intent.arguments and intent.arguments_blob is None and intent.arguments_digest != NO_ARGUMENTS:
            entry = await self.log.get(action.id)  # the fold lets go of what a settled action was about
            intent = entry.payload if isinstance(entry.payload, Intent) else intent
        if intent.arguments_blob is not None:
            data = await self.log.get_blob(intent.arguments_blob.digest)
            try:
                arguments = msgspec.json.decode(data, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError) as error:
                raise LogCorrupt(
                    f"The arguments of action {action.id} cannot be read", received=str(error)
                ) from error
            intent = msgspec.structs.replace(intent, arguments=arguments)
        return intent

    async def flush(self) -> None:
        """Make what rides durable now."""
        if self.riding:
            await self.append([])

    def birth(self) -> NewEntry:
        """The first sign of life: which process this incarnation is."""
        me = self.env.process()
        return self.entry(
            Heartbeat(
                agent=self.agent,
                part=self.part,
                lease_ms=self.lease_ms,
                host=me.host,
                pid=me.pid,
                started=me.started,
                boot=me.boot,
            ),
            "executor",
            self.agent,
        )

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Something that may take long is under way: the lease is renewed meanwhile."""
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1

    def gone(self, incarnation: str) -> bool | None:
        """Whether an incarnation is proven gone: True, False (it lives), None (nobody can tell from here)."""
        if incarnation == self.incarnation:
            return False
        life = self.state.incarnations.get(incarnation)
        if life is None or life.birth is None:
            return None
        if life.left:
            return True
        birth = life.birth
        mine = self.env.process()
        if (birth.host, birth.pid, birth.started, birth.boot) == (mine.host, mine.pid, mine.started, mine.boot):
            at_work = self.env.playing.get(incarnation)
            return at_work is None or not at_work()  # an earlier life of this very process
        alive = self.env.alive(
            environment.ProcessIdentity(host=birth.host, pid=birth.pid, started=birth.started, boot=birth.boot)
        )
        return None if alive is None else not alive

    def end(self, incarnation: str) -> bool:
        """Kill the process of an incarnation, if it is certainly that one and runs on this host."""
        birth = self.state.incarnations[incarnation].birth
        if birth is None:
            return False
        return self.env.end(
            environment.ProcessIdentity(host=birth.host, pid=birth.pid, started=birth.started, boot=birth.boot)
        )


def refuse_damaged(state: State) -> None:
    """Raise LogCorrupt if what was read of the log does not verify: it may be looked at, and not acted on."""
    if state.forking:
        raise half_fork(state.forking)
    if state.broken:
        raise LogCorrupt("The log does not verify", received=state.broken, todo=SALVAGE)


def _point(entries: Sequence[NewEntry]) -> str:
    """The name of a record for crash tests: the kinds that it holds."""
    return "_".join(dict.fromkeys(type(entry.payload).__name__.lower() for entry in entries))


def shifted(entry: NewEntry, by: int) -> NewEntry:
    """The same entry with its batch-relative references moved ``by`` places."""
    changes = {
        field: getattr(entry.payload, field) - by
        for field in type(entry.payload).REFERENCES
        if getattr(entry.payload, field) < 0
    }
    payload = msgspec.structs.replace(entry.payload, **changes) if changes else entry.payload
    run = entry.run - by if entry.run < 0 else entry.run
    causes = tuple(cause - by if cause < 0 else cause for cause in entry.causes)
    return msgspec.structs.replace(entry, payload=payload, run=run, causes=causes)
