"""Engines beyond one machine, against real servers that the tests start and stop themselves."""
