"""The peers' side of ``benchmarks.recovery``; runs in an environment of its own. One workflow of many small steps.

``python recovery_peers.py dbos|langgraph PLACE STEPS``: the process that reaches step STEPS for the first time writes
``PLACE/reached`` and hangs there; the next one writes the time into ``PLACE/first``, which is the first resumed step.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

place, steps = Path(sys.argv[2]), int(sys.argv[3])


def body(number: int) -> int:
    """One step; the last one is where the first process is killed."""
    if number == steps:
        if (place / "reached").exists():
            (place / "first").write_text(repr(time.time()))
            os._exit(0)
        (place / "reached").write_text("yes")
        time.sleep(600)
    return number


def dbos() -> None:
    """A workflow with one recorded step after the other, on SQLite."""
    from dbos import DBOS, SetWorkflowID

    settings: Any = {
        "name": "bench",
        "system_database_url": f"sqlite:///{place}/dbos.sqlite",
        "run_admin_server": False,
    }
    DBOS(config={**settings, "log_level": "ERROR", "application_version": "1", "executor_id": "bench"})

    @DBOS.step()
    def step(number: int) -> int:
        return body(number)

    @DBOS.workflow()
    def work(count: int) -> int:
        for number in range(1, count + 1):
            step(number)
        return count

    DBOS.launch()
    if (place / "reached").exists():
        time.sleep(300)  # recovery began at launch
    with SetWorkflowID("bench"):
        work(steps)


def langgraph() -> None:
    """A graph that goes round, with a checkpoint after each node, constant in size, on SQLite."""
    from typing import TypedDict

    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, StateGraph

    class State(TypedDict):
        number: int

    def step(state: State) -> State:
        return {"number": body(state["number"] + 1)}

    graph = StateGraph(State)
    graph.add_node("step", step)
    graph.add_edge(START, "step")
    graph.add_conditional_edges("step", lambda state: END if state["number"] >= steps else "step")
    with SqliteSaver.from_conn_string(f"{place}/langgraph.sqlite") as saver:
        compiled = graph.compile(checkpointer=saver)
        settings: Any = {"configurable": {"thread_id": "1"}, "recursion_limit": steps + 100}
        again = (place / "reached").exists()
        compiled.invoke(None if again else {"number": 0}, settings, durability="sync")


if __name__ == "__main__":
    {"dbos": dbos, "langgraph": langgraph}[sys.argv[1]]()
