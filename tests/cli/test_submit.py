"""hardware=slurm: what is submitted, and a job that submitit's local executor runs."""

import shutil
from pathlib import Path

import pytest

from spo.errors import ConfigError
from spo.run_folder import RunFolder
from spo.submit import Submitit
from tests.end_to_end.conftest import spo

SLURM = {
    "executor": "slurm", "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4, "cpus_per_task": 8, "memory_gb": 64,
    "minutes": 90, "partition": "long", "account": None, "setup": ["module load cuda"], "wait": False,
}  # fmt: skip
LOCAL = ["hardware=slurm", "hardware.launcher.executor=local", "hardware.launcher.wait=true"]


def test_a_job_of_the_local_executor_runs_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose here, `spo execute RUN` in the job; its exit code is ours."""
    monkeypatch.chdir(tmp_path)
    tabular = ["experiment=tabular", "method=dpo", "logger=none", "epochs=null", "steps=2", "evaluate=none"]
    out = spo(
        "train", *tabular, "validate_every=1", "log_every=1", "hydra.run.dir=run", *LOCAL, "hardware.accelerator=cpu"
    )
    run = RunFolder("run")
    assert "submitted job" in out
    assert run.status["state"] == "ok"
    assert [step for step, _ in run.series("train/loss")] == [1, 2]
    assert list((run.path / "submitit").rglob("*.out"))


def test_the_script_asks_slurm_for_what_the_config_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `sbatch` that only keeps what it is given."""
    tool = tmp_path / "bin" / "sbatch"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/script.sh\necho "Submitted batch job 7"\n')
    tool.chmod(0o755)
    shutil.copy(tool, tool.with_name("srun"))
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    assert Submitit(**SLURM).start(tmp_path / "run").wait() == 0
    script = (tmp_path / "script.sh").read_text()
    wanted = ["--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=8", "--mem=64GB", "--time=90"]
    for line in [*wanted, "--partition=long", "module load cuda"]:
        assert line in script, script


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"nodes is 0.*minutes is 0"):
        Submitit(**SLURM | {"nodes": 0, "minutes": 0})
    with pytest.raises(ConfigError, match="tasks_per_node is 4 with executor=local"):
        Submitit(**SLURM | {"executor": "local"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no sbatch"):
        Submitit(**SLURM).start(tmp_path)
