"""The main job: real files, an agent that is killed with SIGKILL on the way, and the proof that nothing was lost.

``python -m examples.main_job`` (or ``make demo``) prepares a workspace in ``.demo``, starts the agent as a process of
its own, kills it at random moments, starts it again with the same command, and checks the outcome against a copy that
the agent never saw.
"""
