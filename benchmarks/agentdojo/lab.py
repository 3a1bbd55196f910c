"""Where the benchmark lives: an environment of its own, with AgentDojo and its recordings, made at run time.

AgentDojo brings about 80 packages, so it gets a virtual environment beside the project's (git ignores both), and
the recordings come with its source package, which pip downloads into a cache. Nothing of either is committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = "0.1.23"
VENV = ROOT / ".venv-agentdojo"
CACHE = ROOT / ".bench" / "agentdojo"
RUNS = CACHE / f"agentdojo-{VERSION}" / "runs"


def ready() -> bool:
    """Whether this interpreter can import AgentDojo."""
    try:
        import agentdojo  # noqa: F401
    except ImportError:
        return False
    return True


def prepare() -> Path:
    """Make the environment and fetch the recordings, where they are missing. The environment's interpreter."""
    python = VENV / "bin" / "python"
    stamp = VENV / f".agentdojo-{VERSION}"
    if not stamp.exists():
        _say(f"making {VENV.name} with agentdojo=={VERSION} (about a minute, once)")
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-e", str(ROOT), f"agentdojo=={VERSION}"], check=True, stdout=sys.stderr)
        stamp.touch()
    if not RUNS.is_dir():
        _say("fetching the recordings (21 MB, once)")
        sdist = CACHE / "sdist"
        sdist.mkdir(parents=True, exist_ok=True)
        wanted = f"agentdojo=={VERSION}"
        command = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "download", "--no-deps"]
        subprocess.run([*command, "--no-binary", ":all:", wanted, "-d", str(sdist)], check=True, stdout=sys.stderr)
        with tarfile.open(sdist / f"agentdojo-{VERSION}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return python


def enter() -> None:
    """Run this command again inside the environment, unless it runs there already."""
    python = prepare()
    if not ready():
        arguments = [str(python), "-W", "ignore", "-m", "benchmarks.agentdojo", *sys.argv[1:]]
        os.chdir(ROOT)
        os.execv(str(python), arguments)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
