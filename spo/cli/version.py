"""Which code runs: the package's version, and the commit of its checkout."""

import contextlib
import subprocess

from spo import __version__
from spo.paths import PACKAGE
from spo.run_folder import Record


def code_version() -> Record:
    """Of the code of this process, which need not be what composed the run."""
    return {"spo": __version__, "git_commit": git_commit()}


def git_commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None for an installed wheel."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    with contextlib.suppress(OSError):
        return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
    return None
