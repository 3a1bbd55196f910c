"""The moving parts: each tails the log, asks the pure core one question, does one thing, appends one record."""
