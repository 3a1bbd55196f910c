"""The ProvenanceVoter: who says so? For each value of an action, and for the action itself.

It judges by the log alone: the user's words, the results of tools with what is declared about them, and what the
agent wrote before. A third party's text may inform; it may not order. See ``docs/voters/provenance.md``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from logact.core.settling import ANSWER
from logact.core.views import LogEntry
from logact.entry import Entry, Vote
from logact.errors import SpecError
from logact.logs.base import SharedLog
from logact.voters import provenance_memory
from logact.voters.base import Voter
from logact.voters.provenance_answer import judge_answer
from logact.voters.provenance_labels import Context
from logact.voters.provenance_manifest import Manifest, declared, derive, load_manifest, manifest_from
from logact.voters.provenance_rules import judge
from logact.voters.provenance_verdict import Verdict

Setting = Literal["delegating", "strict"]
RULES_VERSION = 2


class ProvenanceVoter(Voter):
    """Rejects actions whose kind, destination or object comes only from untrusted content.

    ``tools`` are read for what they declare (effect, untrusted, destinations, content); ``manifest`` (a path to a
    TOML file, a table, or a :class:`Manifest`) says it in more detail and wins. ``setting``: in ``delegating``,
    data in a source that the user named may fill a destination; in ``strict`` that is a question to a person.
    ``asks`` says how a question votes: ``reject`` (with a hint to ask the user), or ``abstain``, for policies in
    which a person is asked where this voter abstains. Reasons of questions begin with ``ask:``. ``log`` lets it
    read large results, which the log keeps beside its entries; without it only their first 2,000 characters count,
    as text of strangers.
    """

    quick = True

    kind = "provenance"

    def __init__(
        self,
        tools: Iterable[Any] = (),
        *,
        manifest: Manifest | str | Path | dict[str, Any] | None = None,
        setting: Setting = "delegating",
        asks: Literal["reject", "abstain"] = "reject",
        log: SharedLog | None = None,
        name: str = "",
    ) -> None:
        super().__init__(name or "provenance")
        for given, known in ((setting, ("delegating", "strict")), (asks, ("reject", "abstain"))):
            if given not in known:
                raise SpecError("ProvenanceVoter: no such option", received=repr(given), expected=" or ".join(known))
        if isinstance(manifest, str | Path):
            manifest = load_manifest(manifest)
        elif isinstance(manifest, dict):
            manifest = manifest_from(manifest)
        given_facts = manifest.tools if manifest is not None else {}
        self.manifest = Manifest({**declared(tools).tools, **given_facts})
        self.setting: Setting = setting
        self.asks = asks
        self.log = log
        self._expanded: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # the last run with large results

    def initial(self) -> Any:
        return provenance_memory.initial()

    def observe(self, memory: Any, entry: Entry) -> Any:
        return provenance_memory.observe(memory, entry, self.manifest)

    def config(self) -> dict[str, Any]:
        return {
            "rules": RULES_VERSION,
            "setting": self.setting,
            "asks": self.asks,
            "manifest": self.manifest.data(),
        }

    def check(self, entry: LogEntry) -> Vote | Awaitable[Vote]:
        run = provenance_memory.run_of(entry.memory, entry.run)
        if run["large"] and self.log is not None:
            return self._with_large_results(entry, run, self.log)
        return self._vote(self.judge(entry, run))

    async def _with_large_results(self, entry: LogEntry, run: dict[str, Any], log: SharedLog) -> Vote:
        """Results beside the log are read by digest, so that what the fold holds stays small."""
        wanted = [large["digest"] for large in run["large"]]
        key = (entry.run, *wanted, len(run["records"]), len(run["words"]), len(run["effects"]))
        if self._expanded is None or self._expanded[0] != key:
            values = {digest: msgspec.json.decode(await log.get_blob(digest)) for digest in dict.fromkeys(wanted)}
            self._expanded = (key, provenance_memory.expanded(run, values, self.manifest))
        return self._vote(self.judge(entry, self._expanded[1]))

    def _vote(self, verdict: Verdict) -> Vote:
        if verdict.outcome == "commit":
            return Vote(approved=True, reason=verdict.reason)
        if verdict.outcome == "ask":
            approved = False if self.asks == "reject" else None
            return Vote(approved=approved, reason=f"ask: {verdict.reason}", hint=verdict.hint)
        return Vote(approved=False, reason=verdict.reason, hint=verdict.hint)

    def judge(self, entry: LogEntry, run: dict[str, Any]) -> Verdict:
        """The verdict behind the vote (``commit``, ``ask`` or ``abort``), from what is remembered of the run."""
        strict = self.setting == "strict"
        context = Context(entry.memory, run, entry.task, firm=strict)
        if entry.action.tool == ANSWER:
            return judge_answer(context, entry.action.arguments)
        tool = entry.action.tool
        facts, others = self.manifest.of(tool), self.manifest.other_nouns(tool)
        return judge(context, tool, facts, entry.action.arguments, strict=strict, others=others)


__all__ = ["Manifest", "ProvenanceVoter", "declared", "derive", "load_manifest", "manifest_from"]
