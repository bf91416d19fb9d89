"""`spo execute RUN` in a process of its own: a job leaks nothing into the next one."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from spo.submit import Launcher, Started, child_environment


def run_child(launcher: Launcher, folder: Path) -> int:
    """Execute a run folder; SIGINT and SIGTERM are passed on. Returns the exit code (128 + n for signal n)."""
    started = launcher.start(folder)
    with _forwarded(started):
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


@contextlib.contextmanager
def _forwarded(started: Started) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        started.stop(number)

    old = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
