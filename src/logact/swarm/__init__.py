"""Many agents on one log: a plan of sub-tasks, claims on them, mail, shared results, and a join.

Everything that the agents agree on is an entry, so they may live in one process or in many, on any engine.
"""

from logact.swarm.claims import Claims
from logact.swarm.multi import MultiAgentLogAct, Task
from logact.swarm.plan import in_order
from logact.swarm.swarm import Swarm, SwarmResult
from logact.swarm.tasks import SubTask

__all__ = ["Claims", "MultiAgentLogAct", "SubTask", "Swarm", "SwarmResult", "Task", "in_order"]
