"""How long a call of a tool has to wait for its circuit: by the log's time, or less if a wall clock jumped back."""

from __future__ import annotations

from logact.core.state import State, circuit_key
from logact.runtime.host import Host

SEEN_KEPT = 1000


class Circuits:
    """The open circuits of a log as this process has to mind them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._ends: dict[int, float] = {}  # by where an opening stands: when its delay is over, by a steady clock

    def left_s(self, agent: str, tool: str) -> float:
        """Seconds until a call of this tool may be the trial; 0.0 if nothing but a running trial is in its way."""
        state = self.host.state
        circuit = state.circuits.get(circuit_key(agent, tool)) if state.circuits else None
        if circuit is None or not circuit.at:
            return 0.0
        env = self.host.env
        if circuit.at not in self._ends:
            if len(self._ends) > SEEN_KEPT:
                self._ends.clear()
            self._ends[circuit.at] = env.monotonic() + circuit.delay_ms / 1000
        by_the_log = (circuit.until_ms - env.wall_ms()) / 1000
        return max(0.0, min(by_the_log, self._ends[circuit.at] - env.monotonic()))

    def tried(self, agent: str, tool: str) -> bool:
        """Whether an action is trying right now whether the tool's environment is back."""
        state = self.host.state
        circuit = state.circuits.get(circuit_key(agent, tool)) if state.circuits else None
        trial = state.actions.get(circuit.trial) if circuit is not None and circuit.at else None
        return trial is not None and trial.status == "executing"

    @staticmethod
    def mark(state: State) -> tuple[int, ...]:
        """Which circuits are open: it changes when one opens, opens again or closes."""
        return tuple(one.at for one in state.circuits.values()) if state.circuits else ()
