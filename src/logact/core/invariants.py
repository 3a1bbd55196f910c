"""The properties that always hold, each under one name. The worker, the simulator and ``log verify`` share them.

Checks are calls, not ``assert``: Python's ``-O`` would strip those.
"""

from __future__ import annotations

from logact.core.state import State
from logact.errors import InvariantViolated

NAMES: dict[str, str] = {
    "nothing_acts_unseen": "Intent, required votes, commit and Started are durable before an action runs.",
    "closed_by_default": "What fails, times out or cannot be read leads to an abort with its reason in the log.",
    "holes_hide_nothing": "What was started without a result stays in doubt, whichever entry is erased or lost.",
    "policy_is_kept": "A commit or a rejection is what the policy in force makes of the votes that count.",
    "deadlines_end_in_the_log": "Nobody is told 'refused' while the log may still say 'committed'.",
    "store_then_replay": "Inferences, votes and results are read back, never asked again.",
    "no_double_effect": "An irreversible effect happens at most once; a lost one is in doubt, never guessed.",
    "no_lost_effect": "Every committed action ends settled, and an idempotent effect that was started happens.",
    "one_bad_entry_never_stops": "A malformed, unknown or forged entry changes nothing and stops nothing.",
    "cancelled_stays_cancelled": "What a person cancelled is not tried again unless the model or a caller asks anew.",
    "read_error_is_no_absence": "A failed read is an error; entries are never skipped.",
    "approval_binds": "What runs is what was approved: tool, arguments by digest, pins.",
    "tampering_shows": "A changed, dropped or reordered entry is found.",
    "recovery_is_bounded": "A restart reads what came after the last checkpoint, and what it names.",
    "roles_are_enforced": "An entry by a role that may not append it takes no effect.",
    "leases_are_honoured": "Only who gave no sign of life for a whole lease is fenced off, and ended.",
    "fenced_begin_nothing": "Who was fenced off begins nothing any more, notices it, and goes on as another life.",
    "breakers_hold": "While a tool's circuit is open nothing of it starts before its time, and then one trial.",
    "claims_are_honoured": "Of two claims the first holds, until its holder ends it, is gone or long silent.",
    "no_task_done_twice": "A sub-task is completed once, and what must not happen twice only its holder does.",
    "no_task_lost": "Every sub-task is completed in the end, by an answer that its holder gave to it.",
    "one_life_of_each_part": "A supervisor starts no life of a part while another life of it goes on.",
    "restarts_are_limited": "A supervisor that counted too many ends in too short a time starts nothing more.",
    "backoff_is_kept": "A part waits after each end, longer each time, whichever supervisor it was that saw it end.",
    "restarts_are_explained": "What the log says of starts and ends of parts is true, and it names who lives.",
    "supervision_ends_whole": "A supervisor that ends leaves no part behind.",
    "hung_parts_are_replaced": "A part that hangs is ended by its supervisor.",
}
"""Every invariant's name and what it says."""


def require(name: str, holds: bool, message: str) -> None:
    """Raise InvariantViolated under a known name unless ``holds``."""
    if name not in NAMES:
        raise InvariantViolated(name, "this invariant is not in the table")
    if not holds:
        raise InvariantViolated(name, message)


def check_may_run(state: State, action_id: int, attempt: int, incarnation: str, arguments_digest: str) -> None:
    """What must hold of the fold at the moment before an effect. The executor calls it, and so does the simulator."""
    action = state.actions.get(action_id)
    require("nothing_acts_unseen", action is not None, f"action {action_id} is not in the log")
    if action is None:  # for the type checker: require raised
        return
    current = action.current
    require(
        "nothing_acts_unseen",
        action.decided_at > 0 and action.status == "executing",
        f"action {action_id} is {action.status}, not executing under an effective commit",
    )
    require(
        "no_double_effect",
        current is not None and current.number == attempt and current.incarnation == incarnation,
        f"attempt {attempt} of action {action_id} is not this incarnation's",
    )
    require(
        "approval_binds",
        action.intent.arguments_digest == arguments_digest,
        f"action {action_id} would run with other arguments than those approved",
    )


def check_state(state: State) -> None:
    """What must hold of every fold, after every entry. Cheap: looks at open actions only."""
    for key in state.open_actions:
        action = state.actions[key]
        if action.attempts:
            require("nothing_acts_unseen", action.decided_at > 0, f"action {key} started without a commit")
        numbers = [attempt.number for attempt in action.attempts]
        require(
            "no_double_effect",
            numbers == list(range(1, len(numbers) + 1)),
            f"action {key} has attempts {numbers}",
        )
        if len(numbers) > 1:
            require(
                "no_double_effect",
                action.intent.effect in ("read", "idempotent"),
                f"action {key} ({action.intent.effect}) was started {len(numbers)} times",
            )
