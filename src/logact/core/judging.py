"""What votes, commits, aborts and expiries mean, and when they take no effect. Pure."""

from __future__ import annotations

from logact.core import voting
from logact.core.settling import mark, reject, scopes_of
from logact.core.state import State
from logact.entry import Abort, Author, Commit, Entry, Expiry, Vote


def on_vote(state: State, entry: Entry, vote: Vote) -> str:
    action = state.actions.get(vote.intent)
    if action is None:
        return f"there is no open action {vote.intent}"
    if vote.shadow and action.status != "proposed" and entry.author.name == vote.voter:
        return ""  # it never counts, so it may come late
    if action.status != "proposed":
        return f"action {action.id} is {action.status} already"
    policy = state.policy_for(action)
    known = policy.voters.get(vote.voter) if policy else None
    if known is None:
        return f"{vote.voter!r} is not a voter of the policy in force at the intent"
    if not may_vote(entry.author, vote.voter, known.kind):
        return f"{entry.author.role} {entry.author.name!r} may not vote as {vote.voter!r}"
    if vote.voter in action.votes:
        return f"{vote.voter!r} voted on action {action.id} already"
    if vote.arguments_digest and vote.arguments_digest != action.intent.arguments_digest:
        return "the vote is for other arguments"
    if vote.scope and vote.scope not in scopes_of(action.intent):
        return f"{vote.scope!r} is no scope of this intent"
    if vote.scope and action.marks.get(vote.scope, 0) > vote.seen:
        return f"something in scope {vote.scope!r} came between position {vote.seen} and the intent"
    if not (vote.shadow or known.shadow):
        action.votes[vote.voter] = vote
    return ""


def may_vote(author: Author, voter: str, kind: str) -> bool:
    """Whether an author may cast a voter's vote: a voter in its own name; a person, as a client, in their own.

    People stand in policies as ``human:NAME``, or just ``NAME``; ``human:*`` is any person.
    """
    if kind != "human":
        return author.role == "voter" and author.name == voter
    return author.role == "client" and (voter.partition(":")[2] or voter) in (author.name, "*")


def on_commit(state: State, entry: Entry, commit: Commit) -> str:
    action = state.actions.get(commit.intent)
    if action is None:
        return f"there is no open action {commit.intent}"
    if action.status != "proposed":
        return f"action {action.id} is {action.status} already"
    bound = state.bound_since(action.intent.agent)
    if bound > action.id and not state.torn(action.intent.run):
        return f"the binding policy at {bound} is newer than the intent"
    verdict = voting.evaluate(state.policy_for(action), action.intent.effect, action.votes, action.intent.tool)
    if verdict.outcome != "approve" and not state.torn(action.intent.run):  # else votes, or the policy, may be gone
        return f"the votes do not carry it: {verdict.reason}"
    action.status = "validated"
    action.decided_at = entry.position
    action.reason = commit.reason or verdict.reason
    action.start_by_ms = commit.start_by_ms
    mark(state, action, entry.position)
    return ""


def on_abort(state: State, entry: Entry, abort: Abort) -> str:
    return reject(state, entry, abort.intent, abort.code, abort.reason, hint=abort.hint)


def on_expiry(state: State, entry: Entry, expiry: Expiry) -> str:
    action = state.actions.get(expiry.intent)
    if action is None:
        return f"there is no open action {expiry.intent}"
    if action.status == "proposed" and action.intent.deadline_ms:
        return reject(state, entry, action.id, "expired", expiry.reason or "no decision before the deadline")
    if action.status == "validated" and action.start_by_ms:
        return reject(state, entry, action.id, "expired", expiry.reason or "not started in time", started_too=True)
    return f"action {action.id} is {action.status}: nothing to expire"
