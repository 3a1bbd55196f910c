"""The world: a till that opens with a key, and a ledger of what was paid. Only who acts gets at both."""

from __future__ import annotations

import os
from pathlib import Path

from logact import tool


@tool(effect="irreversible")
def pay(invoice: str, cents: int, key: str) -> str:
    """Pay an invoice from the till."""
    if key != os.environ["TILL_KEY"]:
        raise PermissionError("the key does not fit")
    with Path(os.environ["TILL_LEDGER"]).open("a") as ledger:
        ledger.write(f"{invoice} {cents}\n")
    return f"paid {cents} cents for {invoice}"
