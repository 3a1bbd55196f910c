"""What ships for tests: the engines' conformance suite and a log that fails on purpose."""
