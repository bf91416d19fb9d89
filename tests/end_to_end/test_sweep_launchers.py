"""Jobs of a sweep that are not one process of this machine: several processes under torchrun, and submitit."""

from pathlib import Path

import pytest

from spo.sweep.store import SweepFolder

from .conftest import spo

TABULAR = ["experiment=tabular", "method=dpo", "epochs=null", "steps=2", "validate_every=1", "log_every=1"]
TWO = ["hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2", "hardware.strategy.process_group_backend=gloo"]


def test_a_job_of_two_processes_starts_under_torchrun(tiny: list[str]) -> None:
    """From its resolved config: no child reads the command line, whose -m would start the sweep again."""
    spo("train", "-m", *tiny, *TWO, "steps=2", "micro_batch=2", "logger=none", "hydra.sweep.dir=all")
    sweep = SweepFolder("all")
    (row,) = sweep.jobs()
    status = sweep.run(row).status
    assert (row.status, status["processes"]) == ("ok", 2)
    assert [step for step, _ in sweep.run(row).series("train/loss")] == [1, 2]


def test_jobs_by_submitit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its local executor; the same folders, logs and table."""
    monkeypatch.chdir(tmp_path)
    local = ["hydra/launcher=submitit", "hydra.launcher.executor=local"]
    out = spo("train", "-m", *TABULAR, *local, "seed=0,1", "logger=none", "hydra.sweep.dir=all")
    assert "2 of 2 jobs ok" in out
    sweep = SweepFolder("all")
    rows = sweep.jobs()
    assert [(row.status, row.exit_code, row.attempts) for row in rows] == [("ok", 0, 1), ("ok", 0, 1)]
    assert all(row.metrics["target/reward"] for row in rows)
    assert all("optimizer steps" in sweep.log(row).read_text() for row in rows)
    assert all(list((sweep.path / row.folder / "submitit").rglob("*.out")) for row in rows)
