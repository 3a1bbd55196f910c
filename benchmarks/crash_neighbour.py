"""Another program that writes to the same file: its own log in it, and its own entries on the log under test.

Commands come on standard input, one log URL per line: from then on it writes there. It ends with the input.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.crash_child import ReportingLog
from benchmarks.effect_recorder import RecorderClient
from logact.entry import Mail, NewEntry, Notice

PAUSE_S = 0.01


async def main(own_url: str, recorder_path: str) -> None:
    """Write until the input ends."""
    recorder = RecorderClient(recorder_path)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    own = ReportingLog(own_url, recorder, "neighbour")
    shared: ReportingLog | None = None
    wanted = ""
    over = False

    async def listen() -> None:
        nonlocal wanted, over
        while line := await reader.readline():
            wanted = line.decode().strip()
        over = True

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        print("ready", flush=True)
        count = 0
        while not over:
            count += 1
            if shared is None or shared.url != wanted:
                if shared is not None:
                    await shared.close()
                shared = ReportingLog(wanted, recorder, "neighbour") if wanted else None
            note = Notice(code="neighbour", message=f"note {count}", agent="neighbour")
            await own.append(NewEntry(payload=note, role="client", name="neighbour", agent="neighbour"))
            if shared is not None:
                mail = Mail(to="nobody", sender="neighbour", body=f"letter {count}")
                await shared.append(NewEntry(payload=mail, role="client", name="neighbour", agent="neighbour"))
            await asyncio.sleep(PAUSE_S)
    if shared is not None:
        await shared.close()
    await own.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
