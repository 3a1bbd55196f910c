"""Judges paths: what may be read, written and deleted. Links are resolved as far as they exist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from logact.voters.rules_values import is_under, place_of
from logact.voters.safety_finding import NO_RETRY, TO_QUARANTINE, Unsafe, undecidable

UNKNOWN = "\ue000"
INSIDE = "\ue001"
"""Stands for a text that isn't known, but is a relative path below the current directory, or a single name."""
GLOBS = {"\ue002": "*", "\ue003": "?", "\ue004": "["}
HOME = "/home/~"
_GLOB_CHARS = re.compile("[\ue002\ue003\ue004]")
_PRIVATE = re.compile("[\ue000-\uf8ff]")

SENSITIVE_PARTS = frozenset(
    (
        "login data",
        *[
            ".aws",
            ".azure",
            ".bash_history",
            ".boto",
            ".docker",
            ".envrc",
            ".git-credentials",
            ".gnupg",
            ".htpasswd",
            ".kube",
            ".logact",
            ".my.cnf",
            ".mysql_history",
            ".netrc",
            ".npmrc",
            ".password-store",
            ".pgpass",
            ".psql_history",
            ".pypirc",
            ".python_history",
            ".s3cfg",
            ".secrets",
            ".ssh",
            ".terraformrc",
            ".vault-token",
            ".zsh_history",
            "_netrc",
            "application_default_credentials.json",
            "authorized_keys",
            "client_secret.json",
            "cookies.sqlite",
            "credentials",
            "credentials.json",
            "environ",
            "gcloud",
            "gshadow",
            "id_dsa",
            "id_ecdsa",
            "id_ed25519",
            "id_rsa",
            "key4.db",
            "keychain",
            "kubeconfig",
            "login.keychain-db",
            "master.key",
            "secrets.json",
            "secrets.toml",
            "secrets.yaml",
            "secrets.yml",
            "shadow",
            "sudoers",
            "wallet.dat",
        ],
    )
)
_SENSITIVE = re.compile(
    r"\.env(\..+)?|.+\.(pem|key|p12|pfx|kdbx|jks|keystore|ppk|asc|gpg|ovpn)|id_(rsa|dsa|ecdsa|ed25519)([._-].*)?"
    r"|service[-_]?account.*\.json|.*credentials?(\.(json|ya?ml|toml|ini|csv|txt|cfg|xml))?|secrets?(\.\w+)?"
)
_HARMLESS = re.compile(r"\.env\.(example|sample|template|dist|defaults|test)|.*\.pub")
_SAMPLES = (*sorted(SENSITIVE_PARTS), ".env", ".env.local", ".env.production", "id_rsa.bak", "server.key", "cert.pem")
READABLE = ("/usr", "/bin", "/lib", "/lib64", "/opt", "/sbin")
READABLE_FILES = frozenset(
    [
        "/dev/null",
        "/dev/stdin",
        "/dev/zero",
        "/etc/hostname",
        "/etc/localtime",
        "/etc/os-release",
        "/etc/timezone",
        "/proc/cpuinfo",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/uptime",
        "/proc/version",
        "/usr/lib/os-release",
    ]
)
WRITABLE_FILES = frozenset(("/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"))
_GUARDED = re.compile(r"(^|/)\.git(/|$)")


def is_sensitive(name: str) -> bool:
    """Whether a path has a part that holds secrets by its name."""
    for part in name.lower().split("/"):
        if part in SENSITIVE_PARTS or (_SENSITIVE.fullmatch(part) and not _HARMLESS.fullmatch(part)):
            return True
    return False


def pattern_reaches_secrets(part: str) -> bool:
    """Whether a glob for one name is aimed at names of secrets; a plain ``*`` is not."""
    glob = "".join(GLOBS.get(one, one) for one in part).lower()
    literal = re.sub(r"\[[^\]]*\]|[*?\[]", "", glob)
    if not literal:
        return False
    if glob.startswith("*.") and "*" not in glob[2:] and "?" not in glob[2:] and "[" not in glob[2:]:
        return is_sensitive("x" + glob[1:]) or is_sensitive(glob[1:])
    if glob.startswith(".") or len(literal) >= 2 or "[" in glob or "?" in glob:
        return any(fnmatchcase(one, glob) for one in _SAMPLES)
    return False


class Places:
    """What may be touched where. Without a workspace, relative paths are taken as inside of it."""

    def __init__(
        self,
        workspace: str | os.PathLike[str] | None,
        *,
        readable: Iterable[str | os.PathLike[str]] = (),
        writable: Iterable[str | os.PathLike[str]] = (),
        deletable: Sequence[str] = (),
        allow_delete: bool = False,
        many: int = 20,
    ) -> None:
        self.real = workspace is not None
        self.root = os.path.realpath(workspace) if workspace is not None else "/workspace~"
        self.writable = tuple(os.path.realpath(one) for one in writable)
        self.readable = tuple(os.path.realpath(one) for one in readable) + self.writable
        self.deletable = tuple(deletable)
        self.allow_delete = allow_delete
        self.many = many

    def resolve(self, path: str, base: str, kind: str, *, last: bool = True) -> str:
        """The absolute place that a path means, its globs kept. Raises Unsafe where that is not certain."""
        if UNKNOWN in path:
            raise undecidable("a path that is not known", kind)
        text = path.replace(INSIDE, "x~")
        if text == "~" or text.startswith("~"):
            text = HOME + text[1:] if text[:2] in ("~", "~/") else "/home/" + text[1:]
        if _PRIVATE.search(_GLOB_CHARS.sub("", text)) or "\0" in text:
            raise undecidable("a path with private characters", kind)
        found = _GLOB_CHARS.search(text)
        if found:
            if ".." in text[found.start() :].split("/"):
                raise undecidable("a path that goes up after a glob", kind)
            if any(
                _GLOB_CHARS.search(part) and fnmatchcase("..", _plain(part))
                for part in text.split("/")
                if part.startswith(".")
            ):
                raise undecidable("a glob that matches the parent directory", kind)
        if found and text.startswith("/"):
            head = text[: found.start()].rsplit("/", 1)[0]
            if head in ("", "/"):
                raise Unsafe(f"{kind}.outside", "a glob at the root of the file system", NO_RETRY)
        if not self.real:
            return os.path.normpath(f"{base}/{text}" if not text.startswith("/") else text)
        if last:
            return place_of(text, base) or self.root + "/../unreadable"
        directory, _, name = text.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            return place_of(text, base) or self.root + "/../unreadable"
        above = place_of(directory or ("/" if text.startswith("/") else "."), base)
        return f"{above}/{name}".replace("//", "/") if above else self.root + "/../unreadable"

    def inside(self, place: str) -> bool:
        """Whether a resolved place is the workspace or in it."""
        return is_under(place, self.root)

    def read(self, path: str, bases: Sequence[str] = (), kind: str = "path") -> None:
        """Raise Unsafe if this must not be read."""
        for base in bases or (self.root,):
            place = self.resolve(path, base, kind)
            self._secret(path, place, kind)
            if self.inside(place) or place in READABLE_FILES:
                continue
            if any(is_under(place, one) for one in (*READABLE, *self.readable)) and not is_sensitive(place):
                continue
            raise Unsafe(
                f"{kind}.outside", f"{_shown(path)} is outside of the workspace", "Use paths in the workspace."
            )

    def _secret(self, path: str, place: str, kind: str) -> None:
        inner = place[len(self.root) :] if self.inside(place) else place
        globbed = any(_GLOB_CHARS.search(part) and pattern_reaches_secrets(part) for part in inner.split("/"))
        if globbed or is_sensitive(_plain(inner)):
            raise Unsafe(f"{kind}.secrets", f"{_shown(path)} holds credentials, by its name", NO_RETRY)

    def write(self, path: str, bases: Sequence[str] = (), kind: str = "path", *, link: bool = False) -> None:
        """Raise Unsafe if this must not be written or made."""
        for base in bases or (self.root,):
            place = self.resolve(path, base, kind, last=not link)
            if place in WRITABLE_FILES or any(is_under(place, one) for one in self.writable):
                continue
            if not self.inside(place):
                raise Unsafe(
                    f"{kind}.outside", f"{_shown(path)} is outside of the workspace", "Write in the workspace only."
                )
            inner = place[len(self.root) + 1 :]
            if _GUARDED.search(inner):
                raise Unsafe(f"{kind}.guarded", f"{_shown(path)} belongs to git itself", "Use git's own commands.")
            self._secret(path, place, kind)

    def move(self, path: str, bases: Sequence[str] = (), kind: str = "path") -> None:
        """Raise Unsafe if this must not be taken from where it is."""
        for base in bases or (self.root,):
            if self.resolve(path, base, kind, last=False) == self.root:
                raise Unsafe(f"{kind}.workspace", "this is the workspace itself", NO_RETRY)
        self.write(path, bases, kind, link=True)

    def displace(self, source: str, target: str, bases: Sequence[str] = (), kind: str = "path") -> None:
        """Raise Unsafe if a move would put what is kept among what may be deleted: a deletion in two steps."""
        for base in bases or (self.root,):
            old, new = self.resolve(source, base, kind, last=False), self.resolve(target, base, kind)
            # the target may be the directory that it is moved into
            if (self.is_deletable(new) or self.is_deletable(new + "/x")) and not self.is_deletable(old):
                raise Unsafe(
                    f"{kind}.into_deletable",
                    f"what is moved to {_shown(target)} may be deleted there",
                    "Move it to a directory that is kept, such as quarantine/.",
                )

    def is_deletable(self, place: str) -> bool:
        """Whether a resolved place lies in one of the directories whose contents may go."""
        inner = place[len(self.root) + 1 :] if self.inside(place) else ""
        if not inner or inner in (".", ".."):
            return False
        plain = _GLOB_CHARS.sub("x", inner)
        return any(_matches(plain, pattern) for pattern in self.deletable)

    def delete(
        self, path: str, bases: Sequence[str] = (), kind: str = "path", *, recursive: bool = False, count: int = 1
    ) -> None:
        """Raise Unsafe if this must not be deleted."""
        self.move(path, bases, kind)
        for base in bases or (self.root,):
            place = self.resolve(path, base, kind, last=False)
            if self.is_deletable(place) and self.is_deletable(self.resolve(path, base, kind)):
                continue
            if recursive:
                raise Unsafe(
                    f"{kind}.recursive_delete", f"{_shown(path)} and all beneath it would be lost", TO_QUARANTINE
                )
            if count > self.many or _GLOB_CHARS.search(path) or INSIDE in path:
                raise Unsafe(f"{kind}.mass_delete", f"{_shown(path)}: many files would be lost", TO_QUARANTINE)
            if not self.allow_delete:
                where = f" Deleting is possible in {', '.join(self.deletable)}." if self.deletable else ""
                raise Unsafe(f"{kind}.delete", f"{_shown(path)} would be lost", TO_QUARANTINE + where)


def _matches(inner: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        head = pattern[:-3].split("/")
        parts = inner.split("/")
        return len(parts) > len(head) and all(fnmatchcase(part, one) for part, one in zip(parts, head, strict=False))
    parts, wanted = inner.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(fnmatchcase(a, b) for a, b in zip(parts, wanted, strict=True))


def _plain(text: str) -> str:
    return "".join(GLOBS.get(one, one) for one in text)


def _shown(path: str) -> str:
    return repr(_plain(path).replace(INSIDE, "...")[:200])
