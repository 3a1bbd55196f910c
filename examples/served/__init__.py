"""The four parts of an agent, and more, as processes with tokens of their own, on a served log."""
