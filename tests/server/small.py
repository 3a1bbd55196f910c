"""``logact serve`` with limits that a test can reach: `python -m tests.server.small --log URL --port 0 --json`."""

from __future__ import annotations

import asyncio
import json
import sys

from logact.server import serving
from logact.server.app import LogServer
from logact.server.limits import Limits

LIMITS = Limits(
    body_bytes_max=400_000,
    head_s_max=0.5,
    body_s_max=0.5,
    send_s_max=0.5,
    ping_s=0.2,
    wait_s_max=0.2,
    requests_per_s=30.0,
    failures_per_s=2.0,
    notices_per_s=2.0,
    page_bytes_max=500_000,
    streams_per_token_max=4,
)


def main() -> None:
    """Serve until SIGTERM."""
    url = sys.argv[sys.argv.index("--log") + 1]

    def ready(address: str) -> None:
        print(json.dumps({"event": "serving", "url": address}), flush=True)

    asyncio.run(serving.serve(LogServer(url, LIMITS), "127.0.0.1", 0, ready=ready))


if __name__ == "__main__":
    main()
