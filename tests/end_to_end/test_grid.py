"""A grid that was killed in the middle: the same command does what is not done, and every run counts once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from spo import study
from spo.cli import main
from spo.run_folder import RunFolder

WORDS = ["-m", "experiment=synthetic", "budget=paper", "data.source.seeds=0-1,2-3,4-5", "truth.shifts=[0.0,1.5]"]
WORDS += ["data.source.rows=60", "data.source.fresh_contexts=20", "global_batch=32", "micro_batch=32", "epochs=60"]
WORDS += ["checkpoint_every=10", "logger=none", "hydra.sweep.dir=all", "hydra.sweep.subdir=${data.source.seeds}"]
JOBS = [RunFolder(Path("all") / seeds) for seeds in ("0-1", "2-3", "4-5")]
TIME_LIMIT = 120  # seconds


def kill_in_the_middle_of(job: RunFolder) -> None:
    """SIGKILL to the command and to the process of the job, once that has a checkpoint."""
    command = subprocess.Popen([sys.executable, "-m", "spo", "train", *WORDS], stdout=subprocess.DEVNULL)
    end = time.monotonic() + TIME_LIMIT
    while job.last_checkpoint is None:
        assert command.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    child = job.status["pid"]
    for pid in (command.pid, child):
        os.kill(pid, signal.SIGKILL)
    command.wait()
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.02)


def test_a_killed_grid_goes_on_and_counts_every_run_once(tmp_path: Path, monkeypatch, capfd) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    kill_in_the_middle_of(JOBS[1])
    assert [job.status.get("state") for job in JOBS] == ["ok", "running", None]
    first = JOBS[0].results_path.stat().st_mtime_ns
    capfd.readouterr()
    assert main(["train", *WORDS]) == 0
    out = capfd.readouterr().out
    assert "job 1 of 3 (0 done, 0 skipped)" in out
    assert "all/0-1 is finished: skipped" in out
    assert "job 3 of 3 (1 done, 1 skipped)" in out
    assert out.count("going on from") == 1
    assert "3 of 3 jobs ok, 1 of them before" in out
    assert JOBS[0].results_path.stat().st_mtime_ns == first
    table = study.read([job.results_path for job in JOBS])
    at = table[table["kl_target"].notna()]
    assert sorted(zip(at["seed"], at["s"], strict=True)) == [(seed, s) for seed in range(6) for s in (0.0, 1.5)]
    steps = [step for step, _ in JOBS[1].series("train/loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 120
