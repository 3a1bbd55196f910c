"""Logs: the contract (``base``), the engines (one file each), and URLs (``url``)."""
