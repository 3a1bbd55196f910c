"""Erasing a payload: gone for every reader, and the log still verifies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from logact import open_log
from logact.entry import Control, ErasedPayload, Notice
from logact.errors import UsageError
from logact.logs.verify import verify


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{}/log.db"])
def test_an_erased_payload_is_gone_and_the_log_verifies(url: str, tmp_path: Path) -> None:
    """The text is nowhere any more, header and digest stay, an entry says who erased it, and the chain holds."""

    async def work() -> None:
        async with open_log(url.format(tmp_path)) as log:
            first = await log.append(Notice(code="note", message="a private word"))
            await log.append(Notice(code="note", message="something else"))
            await log.erase(first.position, "asked for")
            gone = await log.get(first.position)
            assert isinstance(gone.payload, ErasedPayload)
            assert gone.kind == "Notice"
            report = await verify(log)
            assert report.sound
            assert report.erased == 1
            assert [entry.kind async for entry in log.read()] == ["Notice", "Notice", "Erased"]

    asyncio.run(work())
    for path in tmp_path.glob("log.db*"):
        assert b"a private word" not in path.read_bytes()


def test_what_others_depend_on_cannot_be_erased() -> None:
    """A policy, control or fence stays: without it the log would stop acting for whoever folds it anew."""

    async def work() -> None:
        async with open_log("memory:") as log:
            done = await log.append(Control(verb="pause"), role="operator")
            with pytest.raises(UsageError, match="Control cannot be erased"):
                await log.erase(done.position, "no reason")
            assert isinstance((await log.get(done.position)).payload, Control)

    asyncio.run(work())
