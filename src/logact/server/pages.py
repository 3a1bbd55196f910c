"""Pages of a log that fit into an answer.

An engine cuts a page by its number of records; a server also has to cut it by its bytes.
"""

from __future__ import annotations

from logact.logs.base import Filter, Page, SharedLog


async def read_page(log: SharedLog, after: int, limit: int, matching: Filter | None, bytes_max: int) -> Page:
    """Like an engine's read; at least one record if any fits, and then no more than ``bytes_max``."""
    page = await log.engine.read(after, limit, matching)
    if page.records and b'"Seal"' in page.records[-1].body:
        await log.move_on()  # perhaps it goes on elsewhere
    size = 0
    for place, stored in enumerate(page.records):
        size += len(stored.body)
        if place and size > bytes_max:
            return Page(page.records[:place], page.records[place - 1].record)
    return page
