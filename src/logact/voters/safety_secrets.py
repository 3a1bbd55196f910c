"""Finds secrets in texts: well-known key formats, and random-looking values that are assigned to telling names."""

from __future__ import annotations

import math
import re
from collections import Counter

FORMATS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("an AWS key id", r"\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{16}\b"),
        ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_[A-Za-z0-9_]{22,}"),
        ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{16,}"),
        ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+"),
        ("a private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
        ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
        ("an API key", r"\bsk-(?:ant-|proj-|live-)?[A-Za-z0-9_-]{20,}|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
        ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
        ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("a PyPI token", r"\bpypi-[A-Za-z0-9_-]{40,}"),
        ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
        ("a Telegram token", r"\b\d{8,10}:AA[A-Za-z0-9_-]{32,}"),
        ("a password in a URL", r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:[^\s/@'\"]{3,}@[\w.-]+"),
        ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{30,}"),
    )
)
_ASSIGNED = re.compile(
    r"(?i)[\w.-]*(?:secret|token|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key|credential|auth)"
    r"[\w.-]*[\"']?\s*(?:=|:|=>)\s*[\"']?([A-Za-z0-9+/=_!@#$%^&*.~-]{12,})"
)
SECRET_NAME = re.compile(
    r"(?i)(^|_)(secret|token|passw(or)?d|passwd|pwd|passphrase|api_?key|key|credentials?|auth|private|session|cookie)s?(_|$)"
    r"|^(aws|azure|gcp|google_application|openai|anthropic|github|gitlab|npm|pypi|slack|stripe|database_url|db_)"
)
BITS_MIN = 3.2
_PLACEHOLDER = re.compile(r"(?i)secret://|example|placeholder|changeme|your[-_]|x{4,}|\*{3,}|<.*>|\$\{")


def bits_per_character(text: str) -> float:
    """The Shannon entropy of a text's characters."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values()) if text else 0.0


def secret_in(text: str) -> str:
    """What kind of secret a text holds; "" if none is seen."""
    for name, pattern in FORMATS:
        if pattern.search(text):
            return name
    for found in _ASSIGNED.finditer(text):
        value = found[1]
        mixed = sum(any(test(one) for one in value) for test in (str.isdigit, str.islower, str.isupper))
        if mixed >= 2 and bits_per_character(value) >= BITS_MIN and not _PLACEHOLDER.search(found[0]):
            return "a random-looking value named as a secret"
    return ""


def is_secret_name(name: str) -> bool:
    """Whether a variable is named like a secret."""
    return SECRET_NAME.search(name) is not None
