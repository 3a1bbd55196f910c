"""One life of the agent: what ``logact run SPEC TASK`` does, through the Python API."""

from __future__ import annotations

import asyncio
import sys

from logact.errors import LogActError, RunFinished
from logact.spec import build_agent, load_spec


async def main(spec: str, task: str) -> int:
    """Run, or go on. Returns the exit code."""
    agent = build_agent(load_spec(spec))
    try:
        answer = await agent.run(task)
        print(answer.text)
        return 0 if answer.ok else 1
    except RunFinished:
        return 0
    except LogActError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    finally:
        await agent.log.close()


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main(sys.argv[1], sys.argv[2])))
