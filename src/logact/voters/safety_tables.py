"""What the safety pack knows of programs: tables, and nothing else.

A program that stands in none of them is not approved. ``reads`` programs take paths to read, ``plain`` ones none.
"""

# ruff: noqa: SIM905, E501 - tables of words are read as words
from __future__ import annotations

from typing import NamedTuple


class Reads(NamedTuple):
    """A program that only reads: operands to ``skip`` (a pattern), options that take a value that is no path,
    and options with which it does more than read (letters, and long names)."""

    skip: int = 0
    denied: str = ""
    long_denied: tuple[str, ...] = ()
    selects: bool = False


PLAIN = frozenset(
    "echo printf true false : test [ expr seq sleep pwd whoami id groups uname nproc uptime basename dirname type which"
    " whereis tty arch cal factor wait jobs return break continue shift exit let local declare typeset readonly unset getopts"
    " times tput clear ps free df lscpu lsblk locale getconf numfmt date tr yes logname users who mktemp_name"
    " read mapfile readarray shopt set umask ulimit hash help command_not_found sync hostname".split()
)
READS: dict[str, Reads] = {
    name: Reads()
    for name in (
        "cat tac nl wc cut paste join comm cmp stat ls md5sum sha1sum sha224sum sha256sum sha384sum sha512sum b2sum cksum sum"
        " strings hexdump od rev fold fmt column expand unexpand tsort look pr nm objdump readelf size base64 base32 zcat bzcat"
        " xzcat zgrep du realpath readlink bat diff sdiff wdiff colordiff less more zless hd lsattr getfattr namei"
    ).split()
}
READS |= {
    "head": Reads(selects=True),
    "tail": Reads(selects=True),
    "grep": Reads(1),
    "egrep": Reads(1),
    "fgrep": Reads(1),
    "rg": Reads(1, "", ("--pre", "--hostname-bin", "--search-zip")),
    "ag": Reads(1, "", ("--pager",)),
    "sort": Reads(0, "oT", ("--output", "--compress-program", "--temporary-directory", "--files0-from")),
    "shuf": Reads(0, "o", ("--output", "--random-source")),
    "tree": Reads(0, "oR", ("--output",)),
    "file": Reads(0, "Cmf", ("--compile", "--magic-file", "--files-from")),
    "iconv": Reads(0, "o", ("--output",)),
    "less": Reads(0, "oOkTt", ("--log-file", "--lesskey-file", "--tag-file")),
    "more": Reads(),
    "date": Reads(),
}
SELECTORS = frozenset("head tail sort uniq grep egrep fgrep shuf tac cat wc".split())
"""Programs whose output lines are lines of their input (or numbers): names stay names."""

SUBCOMMANDS: dict[str, tuple[str, ...]] = {
    "docker": (
        "ps",
        "images",
        "version",
        "info",
        "inspect",
        "logs",
        "stats",
        "top",
        "port",
        "history",
        "search",
        "diff",
    ),
    "podman": ("ps", "images", "version", "info", "inspect", "logs", "stats", "top", "port", "history"),
    "kubectl": (
        "version",
        "explain",
        "api-resources",
        "api-versions",
        "cluster-info",
        "top",
        "get",
        "describe",
        "logs",
    ),
    "helm": ("list", "status", "history", "version", "search", "show", "lint"),
    "terraform": ("fmt", "validate", "version", "show", "graph", "providers"),
    "tofu": ("fmt", "validate", "version", "show", "graph", "providers"),
    "systemctl": (
        "status",
        "is-active",
        "is-enabled",
        "is-failed",
        "list-units",
        "list-unit-files",
        "list-timers",
        "cat",
    ),
    "apt": ("list", "search", "show", "policy", "depends"),
    "apt-cache": ("search", "show", "policy", "depends", "rdepends", "pkgnames", "madison"),
    "dpkg": ("-l", "-L", "-s", "--list", "--listfiles", "--status"),
    "rpm": ("-q", "-qa", "-qi", "-ql"),
    "brew": ("list", "info", "search", "outdated", "deps", "--version"),
    "pip": ("list", "show", "freeze", "check", "--version", "-V", "index", "help"),
    "npm": ("ls", "list", "view", "info", "outdated", "--version", "-v", "why", "explain", "search"),
    "yarn": ("list", "info", "outdated", "--version", "why"),
    "pnpm": ("list", "ls", "outdated", "--version", "why"),
    "cargo": ("tree", "metadata", "search", "--version", "-V", "fmt", "locate-project"),
    "go": ("version", "list", "doc", "fmt", "vet"),
    "gem": ("list", "search", "info", "outdated", "--version"),
    "conda": ("list", "info", "search", "--version"),
    "uv": ("--version", "tree", "version"),
    "poetry": ("show", "check", "--version"),
    "rustup": ("show", "--version"),
    "crontab": ("-l",),
    "launchctl": ("list",),
    "sqlite3": ("--version", "-version"),
    "mysql": ("--version",),
    "psql": ("--version", "-V"),
    "java": ("-version", "--version"),
    "javac": ("-version", "--version"),
    "node": ("--version", "-v"),
    "ruby": ("--version", "-v"),
    "perl": ("--version", "-v"),
    "php": ("--version", "-v"),
    "rustc": ("--version", "-V"),
    "gcc": ("--version",),
    "make": ("--version", "-n", "--dry-run"),
    "gh": ("--version", "version"),
    "ip": ("addr", "address", "a", "link", "route", "r", "-4", "-6", "-br"),
}
"""First words with which these programs only look. Anything else of them is not approved."""
SUBCOMMANDS["pip3"] = SUBCOMMANDS["pip"]
del SUBCOMMANDS["make"]

NAMED_DANGERS: dict[tuple[str, ...], tuple[str, str]] = {
    ("pip", "npm", "yarn", "pnpm", "cargo", "poetry", "twine", "gem", "uv", "flit", "hatch", "mvn", "gradle"): (
        "publish upload yank unpublish deprecate login adduser token owner push deploy release dist-tag",
        "shell.publish",
    ),
    (
        "terraform",
        "tofu",
        "pulumi",
        "kubectl",
        "helm",
        "docker",
        "podman",
        "aws",
        "gcloud",
        "az",
        "gsutil",
        "doctl",
    ): (
        "destroy apply delete rm rmi rb remove prune system uninstall drain terminate-instances purge kill stop cordon"
        " delete-object delete-bucket delete-stack delete-db-instance deallocate up replace patch scale rollout",
        "shell.cloud_destroy",
    ),
    ("apt", "apt-get", "dpkg", "rpm", "yum", "dnf", "brew", "pacman", "snap", "apk", "zypper", "conda"): (
        "",
        "shell.system_packages",
    ),
    ("systemctl", "service", "launchctl", "crontab", "at", "batch", "update-rc.d", "loginctl"): (
        "",
        "shell.services",
    ),
}

DENIED: dict[str, tuple[str, str]] = {}
for _names, _code, _why in (
    ("dd mkfs mke2fs mkswap shred wipe srm fdisk sfdisk gdisk parted wipefs blkdiscard hdparm badblocks cryptsetup lvremove"
     " vgremove pvremove zpool zfs mdadm losetup scrub debugfs tune2fs fstrim", "shell.destroys_data",
     "it writes over files or devices"),
    ("sudo su doas pkexec runuser chroot unshare nsenter setpriv capsh newgrp sg machinectl", "shell.privilege",
     "it runs with other rights"),
    ("chown chgrp setfacl chattr setcap setfattr", "shell.permissions", "it changes who may do what"),
    ("nc ncat netcat socat telnet ftp tftp sftp scp ssh sshpass autossh mosh rsh rlogin rcp lftp croc magic-wormhole wormhole"
     " mail mailx sendmail mutt nmap masscan tcpdump ngrok cloudflared aria2c axel http https httpie xh smbclient rclone"
     " dig nslookup host ping traceroute whois drill", "shell.network", "it speaks to the network"),
    ("kill killall pkill xkill fuser", "shell.kills", "it ends processes"),
    ("shutdown reboot halt poweroff init telinit kexec", "shell.system", "it stops the machine"),
    ("mount umount swapoff swapon insmod rmmod modprobe sysctl iptables ip6tables nft ufw firewall-cmd route ifconfig useradd"
     " userdel usermod groupadd groupdel passwd chpasswd visudo update-alternatives ldconfig depmod", "shell.system",
     "it changes the system"),
    ("alias unalias enable bind complete compgen trap_ fc history builtin_ logout suspend disown pushd popd", "shell.undecidable",
     "it changes what other commands mean"),
    ("gdb strace ltrace perf bpftrace script screen tmux expect ed ex vi vim nvim emacs nano watch entr parallel at batch",
     "shell.undecidable", "it runs what cannot be seen here"),
    ("gpg gpg2 openssl ssh-keygen ssh-add ssh-agent keytool security secret-tool pass vault op bw", "shell.secrets",
     "it handles keys"),
    ("unlink_ pg_dump pg_restore mysqldump mongodump dropdb createdb redis-cli mongo mongosh mysql psql sqlite3",
     "shell.database", "it works on a database, where its SQL is not seen"),
    ("twine", "shell.publish", "it publishes"),
    ("ldd eval_ xdg-open open start", "shell.undecidable", "it may run anything"),
):  # fmt: skip
    DENIED.update(dict.fromkeys(_names.split(), (_code, _why)))

PROJECT = frozenset(
    "make gmake cmake ninja pytest tox nox mvn gradle ant bazel ctest npx tsc eslint jest vitest webpack vite rake bundle"
    " node deno bun ruby perl php lua Rscript julia java javac gcc g++ cc c++ clang rustc ghc swift dotnet cargo go npm yarn"
    " pnpm pip pip3 uv poetry pipx docker podman gem conda pre-commit mypy pylint sphinx-build mkdocs just task cython".split()
)
"""Programs that run a project's own code, which isn't seen here: only with ``project_code=True``."""

CHECKERS = frozenset(
    "ruff black isort flake8 shellcheck yamllint jsonlint markdownlint prettier hadolint pyflakes".split()
)
"""Programs that read a project's files, and write at most those."""
