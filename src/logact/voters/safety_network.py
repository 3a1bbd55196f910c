"""Judges programs that speak to the network: fetching a plain address passes; sending, and what isn't plain, does not."""

# ruff: noqa: SIM905, E501 - tables of words are read as words
from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from logact.voters.rules_values import host_matches, url_of
from logact.voters.safety_finding import Unsafe, undecidable
from logact.voters.safety_places import GLOBS, INSIDE, UNKNOWN
from logact.voters.safety_secrets import secret_in
from logact.voters.safety_words import Scope

if TYPE_CHECKING:
    from logact.voters.safety_shell import ShellJudge

_METADATA = frozenset(("metadata.google.internal", "metadata", "instance-data", "localhost"))
_CURL_PLAIN = frozenset(
    "-s -S -sS -f -fs -fsS -fsSL -sSL -sL -L -i -I -v -k -g -4 -6 -G -# --silent --show-error --fail --location --head --include"
    " --compressed --verbose --get --no-progress-meter --globoff --http1.1 --http2 --fail-with-body -O -JO -LO -LJO -OL -sO -J"
    " --remote-name --remote-header-name --version -V --help -h -N --no-buffer".split()
)
_CURL_VALUES = frozenset("-m --max-time --connect-timeout --retry --retry-delay -A --user-agent -r --range --max-filesize -w"
                         " --write-out --limit-rate --max-redirs -e --referer".split())  # fmt: skip
_CURL_DATA = re.compile(
    r"-d|--data(-ascii|-binary|-raw|-urlencode)?|-F|--form(-string)?|-T|--upload-file|--json|--url-query"
)


def url(text: str, hosts: tuple[str, ...] = (), kind: str = "shell") -> str:
    """Judge an address to fetch; answers its host. Raises Unsafe."""
    if UNKNOWN in text or INSIDE in text:
        raise Unsafe(
            f"{kind}.exfiltration", "an address that is made of what is not known", "Give the address literally."
        )
    plain = "".join(GLOBS.get(one, one) for one in text)
    if re.search(r"\{[^}]*,|\[\d+-\d+", plain):
        raise undecidable("many addresses at once", kind)
    found = url_of(plain if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", plain) else "http://" + plain)
    if found is None or found.scheme not in ("http", "https"):
        raise undecidable("an address that is not plain http", kind)
    if host_matches(found.host, hosts):
        return found.host
    if (
        found.host in _METADATA
        or found.host.endswith((".internal", ".local", ".localhost"))
        or _is_private(found.host)
    ):
        raise Unsafe(f"{kind}.internal_address", f"{found.host} is an internal address")
    if secret_in(text):
        raise Unsafe(f"{kind}.exfiltration", f"the address holds {secret_in(text)}")
    if re.search(
        r"(?i)[?&](data|d|payload|secret|token|env|key|exfil|leak|dump|q)=[A-Za-z0-9+/=_-]{64,}", plain
    ) or any(len(label) > 50 for label in found.host.split(".")):
        raise Unsafe(f"{kind}.exfiltration", "the address carries a long encoded value")
    return found.host


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private or address.is_loopback or address.is_link_local or address.is_reserved


def curl(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``curl``: gets plain addresses; sends only to hosts that the operator named."""
    rest = list(arguments)
    addresses: list[str] = []
    sends = ""
    while rest:
        one = rest.pop(0)
        value = rest[0] if rest else ""
        if one in _CURL_PLAIN:
            continue
        if one in _CURL_VALUES and rest:
            rest.pop(0)
            if UNKNOWN in value or value.startswith("@"):
                raise undecidable("options of curl")
        elif one in ("-H", "--header") and rest:
            rest.pop(0)
            _content(value)
            if value.startswith("@"):
                raise Unsafe("shell.exfiltration", "it sends a file as headers")
        elif one in ("-o", "--output") and rest:
            shell.places.write(rest.pop(0), scope.bases, "shell")
        elif one in ("-X", "--request") and rest:
            if rest.pop(0).upper() not in ("GET", "HEAD", "OPTIONS"):
                sends = f"a {value[:10]} request"
        elif _CURL_DATA.fullmatch(one) and rest:
            rest.pop(0)
            sends = "data"
            _content(value)
            if "@" in value or one in ("-T", "--upload-file") or "<" in value:
                path = re.split(r"[@<]", value)[-1].split(";")[0] if re.search(r"[@<]", value) else value
                if path in ("-", "."):
                    raise Unsafe("shell.exfiltration", "it sends what is not seen here")
                shell.places.read(path, scope.bases, "shell")
                sends = "a file"
        elif one == "--url" and rest:
            addresses.append(rest.pop(0))
        elif one.startswith("-"):
            raise undecidable(f"the option {one[:40]!r} of curl")
        else:
            addresses.append(one)
    for address in addresses:
        host = url(address, shell.options.hosts)
        if sends and not host_matches(host, shell.options.hosts):
            raise Unsafe("shell.exfiltration", f"it sends {sends} to {host}", "Ask the user to send it.")
    return UNKNOWN


def _content(value: str) -> None:
    if UNKNOWN in value or INSIDE in value:
        raise Unsafe("shell.exfiltration", "it sends what is not known here")
    if secret_in(value):
        raise Unsafe("shell.exfiltration", f"it sends {secret_in(value)}")


def wget(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``wget``: gets plain addresses."""
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        if one in (
            "-q",
            "-nv",
            "-c",
            "-N",
            "-nc",
            "--quiet",
            "--continue",
            "--no-verbose",
            "--version",
            "-S",
            "--spider",
        ):
            continue
        if one in ("-O", "-P", "--output-document", "--directory-prefix") and rest:
            target = rest.pop(0)
            if target != "-":
                shell.places.write(target, scope.bases, "shell")
        elif re.match(r"-[OP]\S|--(output-document|directory-prefix)=", one):
            target = one[2:] if not one.startswith("--") else one.split("=", 1)[1]
            if target != "-":
                shell.places.write(target, scope.bases, "shell")
        elif one in ("-T", "-t", "--timeout", "--tries") and rest:
            rest.pop(0)
        elif one.startswith(("--timeout=", "--tries=")):
            continue
        elif one.startswith(("--post", "--body", "--method")):
            raise Unsafe("shell.exfiltration", "it sends data", "Ask the user to send it.")
        elif one.startswith("-"):
            raise undecidable(f"the option {one[:40]!r} of wget")
        else:
            url(one, shell.options.hosts)
    return UNKNOWN


def rsync(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``rsync``: copies within the workspace; deletes nothing."""
    operands = [one for one in arguments if not one.startswith("-")]
    for one in arguments:
        if re.match(r"--(del|remove|max-del)", one):
            raise Unsafe("shell.recursive_delete", "rsync would delete files", "Copy without --delete.")
        if one.startswith("-") and not re.fullmatch(r"-[avrutlpzhnPDgoci]+|--(archive|verbose|recursive|update|dry-run|progress"
                                                    r"|stats|human-readable|checksum|exclude=[\w*./-]+|include=[\w*./-]+)", one):  # fmt: skip
            raise undecidable(f"the option {one[:40]!r} of rsync")
    if any(":" in one for one in operands):
        raise Unsafe("shell.exfiltration", "it copies to or from another machine")
    for one in operands[:-1]:
        shell.places.read(one, scope.bases, "shell")
    for one in operands[-1:]:
        shell.places.write(one, scope.bases, "shell")
    return UNKNOWN


def aws(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``aws``: only what lists and describes."""
    words = [one for one in arguments if not one.startswith("-")]
    _known(arguments)
    if len(words) >= 2 and words[0] == "s3" and words[1] == "ls":
        return UNKNOWN
    if len(words) >= 2 and re.match(r"(describe|list|get)-", words[1]):
        if re.search(r"secret|password|token|credential|parameter|key|login|export|object$", words[1]) or words[
            0
        ] in ("ssm", "kms"):
            raise Unsafe("shell.secrets", "it would show secrets")
        return UNKNOWN
    if words == ["--version"] or not words:
        return UNKNOWN
    _cloud("aws", words)
    return UNKNOWN


def gcloud(shell: ShellJudge, arguments: list[str], scope: Scope) -> str:
    """``gcloud``, ``gsutil`` and ``az``: only what lists and describes."""
    _known(arguments)
    words = [one for one in arguments if not one.startswith("-")]
    if words and (
        words[-1] in ("list", "version", "info")
        or "list" in words[1:4]
        or "describe" in words[1:4]
        or words[0] == "ls"
    ):
        if any(re.search(r"secret|auth|token|key|credential|connection-string", one) for one in words):
            raise Unsafe("shell.secrets", "it would show secrets")
        return UNKNOWN
    _cloud("this", words)
    return UNKNOWN


def _known(arguments: list[str]) -> None:
    if any(UNKNOWN in one for one in arguments):
        raise undecidable("arguments that are not known")


def _cloud(name: str, words: list[str]) -> None:
    text = " ".join(words)
    if re.search(
        r"delete|terminate|destroy|remove|\brm\b|\brb\b|purge|deregister|stop|reset|\bmv\b|sync.*--delete", text
    ):
        raise Unsafe("shell.cloud_destroy", f"{name}: {' '.join(words[:3])[:80]} destroys something")
    raise Unsafe("shell.cloud_change", f"it cannot be judged: {name} {' '.join(words[:3])[:80]} changes something")
