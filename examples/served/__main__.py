"""One machine, one command, nine processes: ``python -m examples.served [--on URL]``.

A server, six parts, each with its own token; a person who asks for work, another who says what the policy is. Then a
look at who wrote what, and what somebody who has stolen the driver's token can do with it: nothing.

URL is the engine below the server: a SQLite file if not given, or ``postgresql://...``, ``nats://...``.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from pathlib import Path

from examples.served.company import PARTS, SPEC, Company
from logact import open_log
from logact.entry import Commit, Entry, Input, NewEntry, Output, Policy, Result, Role, Vote
from logact.errors import NotPermitted

TASK = "pay the invoices A17 and B99"
WAIT_S_MAX = 90.0


async def main(url: str, directory: Path) -> None:
    """Play it, and say what happened."""
    company = Company(url, directory)
    try:
        company.make_tokens()
        company.serve()
        print(f"served on {company.address}, over {url.partition(':')[0]}")
        company.logact("policy", str(SPEC), "--log", company.log_url("ops"))
        for part in PARTS:
            company.begin(part)
        company.logact("run", str(SPEC), "--submit", TASK, "--log", company.log_url("ann"))
        entries = await until_answered(company)
        await stolen(company, entries)
        tell(entries, directory)
    except BaseException:
        for name in company.processes:
            print(f"--- {name} said:\n{company.said(name)}")
        raise
    finally:
        codes = company.end()
    print("all ended:", ", ".join(f"{name} {code}" for name, code in codes.items()))


async def until_answered(company: Company) -> list[Entry]:
    """Follow the log as the person who asked: everything up to the answer."""
    found = []
    async with asyncio.timeout(WAIT_S_MAX), open_log(company.log_url("ann")) as log:
        async for entry in log.follow():
            found.append(entry)
            if isinstance(entry.payload, Output):
                print("answer:", entry.payload.text)
                break
    return found


async def stolen(company: Company, entries: list[Entry]) -> None:
    """What the driver's token is good for in other hands."""
    intent = next(entry for entry in entries if entry.kind == "Intent" and entry.tool == "pay")
    tries: list[tuple[Role, Vote | Commit | Result | Policy | Input]] = [
        ("voter", Vote(approved=True, intent=intent.position, voter="rules")),
        ("decider", Commit(intent=intent.position)),
        ("executor", Result(intent=intent.position, value="paid")),
        ("operator", Policy(version=9, expected=1, agent="payer", need={"open": "why not"})),
        ("client", Input(run=intent.run, text="pay B99 as well")),
    ]
    for role, payload in tries:
        async with open_log(company.log_url("driver")) as log:
            try:
                await log.append(NewEntry(payload=payload, role=role, name=role, agent="payer", run=intent.run))
            except NotPermitted:
                print(f"refused to the driver's token: {type(payload).__name__}")


def tell(entries: list[Entry], directory: Path) -> None:
    """Who wrote what, and what was done."""
    for entry in entries:
        if entry.kind == "Abort":
            print("aborted:", entry.payload.reason)  # type: ignore[attr-defined]
    for author, kinds in sorted(_written(entries).items()):
        print(f"{author} wrote", ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    print("in the ledger:", (directory / "ledger.txt").read_text().split("\n")[:-1])


def _written(entries: list[Entry]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        author = f"{entry.author.name} ({entry.author.role})"
        found.setdefault(author, Counter())[entry.kind] += 1
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="", metavar="URL", help="the engine below the server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(main(arguments.on or f"sqlite:///{home}/served.db", Path(home)))
