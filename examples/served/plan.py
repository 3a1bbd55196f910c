"""What stands in for a model: it pays two invoices, one of which is too large."""

from __future__ import annotations

from logact.models.base import ModelRequest
from logact.models.scripted import Reply, call, say, turn_of


def plan(request: ModelRequest) -> Reply:
    """The next answer, by how many there were before."""
    if turn_of(request) == 0:
        return call("pay", invoice="A17", cents=1250, key="secret://till")
    if turn_of(request) == 1:
        return call("pay", invoice="B99", cents=99_000, key="secret://till")
    return say("A17 is paid. B99 was not allowed.")
