"""What every engine says when it refuses: the same error in the same words, wherever a log is kept.

This file decides nothing: an engine has found out what stands against a draft or a read, and asks for the error.
"""

from __future__ import annotations

from logact import codec
from logact.entry import record_of
from logact.errors import (
    SALVAGE,
    ChainConflict,
    ConditionFailed,
    KeyConflict,
    LogCorrupt,
    LogSealed,
    LogTrimmed,
    TooLarge,
    UsageError,
)
from logact.logs.base import Draft


def check_size(draft: Draft) -> None:
    """TooLarge if no engine could hold the record."""
    if len(draft.body) > codec.RECORD_BYTES_MAX:
        raise TooLarge(
            "A record is too large",
            received=f"{len(draft.body)} bytes",
            expected=f"at most {codec.RECORD_BYTES_MAX}",
            todo="split the batch, or move large values to blobs",
        )


def other_bytes(draft: Draft, record: int) -> ChainConflict:
    """The writer's number is taken by other bytes, which stand at ``record``."""
    return ChainConflict(
        f"Writer {draft.writer} already wrote another record number {draft.number}",
        received=f"other bytes for number {draft.number}",
        expected=f"the bytes of record {record}",
        todo="start a new incarnation",
    )


def out_of_step(draft: Draft, expected: int) -> ChainConflict:
    """The writer's next number is ``expected``."""
    return ChainConflict(
        f"Writer {draft.writer} is out of step",
        received=f"record number {draft.number}",
        expected=str(expected),
        todo="start a new incarnation",
    )


def key_conflict(draft: Draft, record: int) -> KeyConflict:
    """The key stands for other content, that of ``record``."""
    return KeyConflict(
        "The idempotency key was used with other content",
        received=draft.key,
        expected=f"the content of record {record}",
        todo="use a fresh key for other content",
    )


def sealed(tail: int) -> LogSealed:
    """Nothing comes after ``tail``."""
    return LogSealed(
        "The log is sealed", received=f"an append after record {tail}", todo="go on where its Seal entry says"
    )


def condition_beyond(draft: Draft, tail: int) -> ConditionFailed:
    """The condition names a record after ``tail``, the last one."""
    return ConditionFailed(
        "The condition names a record that is not there",
        received=f"record {_after(draft)}",
        expected=f"at most {tail}",
        todo="the log went back, perhaps to an old copy: run `logact log verify`",
    )


def condition_trimmed(draft: Draft, first: int) -> ConditionFailed:
    """The condition looks at records before ``first``, the first one that is kept."""
    return ConditionFailed(
        "The condition looks at records that were trimmed",
        received=f"after record {_after(draft)}",
        expected=f"record {first - 1} or later",
        todo="fold again and retry",
    )


def came_between(draft: Draft, record: int) -> ConditionFailed:
    """``record`` matches what the condition excludes."""
    return ConditionFailed(
        "Something relevant came in between",
        received=f"record {record}",
        expected=f"nothing that matches after record {_after(draft)}",
        todo="fold again and retry",
    )


def trimmed(after: int, first: int) -> LogTrimmed:
    """A read after ``after`` looks at records before ``first``."""
    return LogTrimmed(
        "These records were trimmed",
        received=f"after record {after}",
        expected=f"{first - 1} or later",
        todo="start from a checkpoint",
    )


def bad_checksum(record: int, size: int, checksum: int) -> LogCorrupt:
    """The stored bytes are not those that were written."""
    return LogCorrupt(
        f"Record {record} does not match its checksum",
        received=f"{size} bytes",
        expected=f"checksum {checksum}",
        todo=SALVAGE,
    )


def no_record(record: int, first: int, tail: int) -> UsageError:
    """There is nothing to erase at ``record``."""
    return UsageError("There is no such record", received=str(record), expected=f"{first} to {tail}")


def check_index(index: int, entries: int) -> None:
    """UsageError if a record of so many entries has none at ``index``."""
    if not 0 <= index < entries:
        raise UsageError("There is no such entry", received=str(index), expected=f"0 to {entries - 1}")


def _after(draft: Draft) -> int:
    return record_of(draft.condition.after) if draft.condition is not None else 0
