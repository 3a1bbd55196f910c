"""Examples, each of which runs as it stands; ``tests/test_examples.py`` runs them all."""
