"""The pure core: what entries mean. No clock, no randomness, no I/O; a test enforces it by an allow-list."""
