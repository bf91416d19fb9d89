"""`spo execute RUN` in a process of its own: a job leaks nothing into the next one."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spo.signals import on_interrupt
from spo.submit import Launcher, child_environment


def run_child(launcher: Launcher, folder: Path) -> int:
    """Execute a run folder; SIGINT and SIGTERM are passed on. Returns the exit code (128 + n for signal n)."""
    started = launcher.start(folder)
    with on_interrupt(started.stop):
        return started.wait()


def check_in_child(configs: list[Mapping[str, Any]]) -> list[str]:
    """What the constructors refuse, asked in a child because they need torch."""
    command = [sys.executable, "-m", "spo", "execute", "--check"]
    done = subprocess.run(
        command, input=json.dumps(configs), text=True, stdout=subprocess.PIPE, env=child_environment()
    )
    if done.returncode not in (0, 2):
        return [f"the jobs could not be checked (exit code {done.returncode}): see above"]
    return done.stdout.splitlines() if done.returncode else []
