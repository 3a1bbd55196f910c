"""A process that follows a log and says when it saw each position: ``python -m benchmarks.engines.follower URL``."""

from __future__ import annotations

import asyncio
import sys
import time

from logact import open_log


async def main(url: str) -> None:
    """Print "ready", then POSITION NANOSECONDS of the system's monotonic clock for each entry, until killed."""
    async with open_log(url) as log:
        tail = await log.tail()
        print("ready", flush=True)
        async for entry in log.follow(after=tail):
            print(entry.position, time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
