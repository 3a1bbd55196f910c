"""The model door: what a driver asks, and who answers (a provider, a script, a recording)."""
