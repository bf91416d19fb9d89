"""The one command that uploads a sweep's offline runs."""

import os
import subprocess
import sys
from pathlib import Path

from spo.sweep.sync import sync_command


def offline_run(job: Path, name: str) -> Path:
    folder = job / "wandb" / f"offline-run-20260101_000000-{name}"
    folder.mkdir(parents=True)
    (folder / f"run-{name}.wandb").touch()
    return folder


def shown(command: str, folder: Path) -> str:
    """What `wandb sync` would upload, through a shell that expands the patterns."""
    words = command.replace("wandb sync", f"{sys.executable} -m wandb sync --dry-run --verbose")
    done = subprocess.run(words, shell=True, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_one_command_finds_every_run(tmp_path: Path):
    """Two jobs, one of them resumed, in a folder whose name a shell would split; not what was uploaded before."""
    sweep = tmp_path / "my sweep"
    assert sync_command(sweep) is None
    (sweep / "0" / "wandb").mkdir(parents=True)
    assert sync_command(sweep) is None
    offline_run(sweep / "0,seed=0", "aaa")
    offline_run(sweep / "1,seed=1", "bbb")
    offline_run(sweep / "1,seed=1", "ccc")
    command = sync_command(Path("my sweep"))
    assert command is None  # nothing lies below the current folder
    command = sync_command(sweep)
    assert command == f"wandb sync '{sweep}'/*/wandb/offline-run-*"
    out = shown(command, tmp_path)
    assert "Would sync 3 run(s)" in out
    assert all(f"run-{name}.wandb" in out for name in ("aaa", "bbb", "ccc"))


def test_what_was_uploaded_needs_no_command(tmp_path: Path):
    run = offline_run(tmp_path / "0", "aaa")
    (run / "run-aaa.wandb.synced").touch()
    assert sync_command(tmp_path) is None


def test_jobs_deeper_down(tmp_path: Path):
    offline_run(tmp_path / "0", "aaa")
    offline_run(tmp_path / "link=kernel" / "seed=0", "bbb")
    runs = f"{tmp_path}/*/wandb/offline-run-* {tmp_path}/*/*/wandb/offline-run-*"
    assert sync_command(tmp_path) == f"wandb sync {runs}"
