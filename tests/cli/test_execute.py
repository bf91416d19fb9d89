"""The execute half: exit codes, status, signals, and what it does to its surroundings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spo.cli import main
from spo.cli.execute import check, execute_on
from spo.run_folder import RunFolder
from spo.submit import PARENT_VARIABLE

from .conftest import ROOT, TOY


def make(path: Path, **changes) -> RunFolder:
    run = RunFolder(path)
    config = {
        "_target_": "toy_targets.fit",
        "link": {"_target_": "toy_targets.Isotonic", "knots": 3, "symmetric": True},
        "optim": {
            "_target_": "toy_targets.Optim",
            "learning_rate": 1.0,
            "betas": [0.1, 0.2],
            "columns": None,
            "every": 1,
        },
        "mode": "ok",
        "seed": 0,
        "steps": 1,
        "source_run": None,
        "data_path": "x",
    }
    run.create(config | changes, {"command": "fit", "choices": {}})
    return run


def execute(run: RunFolder, *extra: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(TOY)])}
    command = [sys.executable, "-m", "spo", "execute", str(run.path), *extra]
    return subprocess.run(command, env=os.environ | path | environment, text=True, capture_output=True)


@pytest.mark.parametrize(
    ("mode", "code", "state", "message"),
    [
        ("ok", 0, "ok", ""),
        ("code", 130, "interrupted", "interrupted"),
        ("mendable", 2, "failed", "rows.jsonl:3 has no column 'prompt'"),
        ("crash", 1, "failed", "crashed: ZeroDivisionError: in the middle"),
        ("full", 2, "failed", "no space left on the disk"),
        ("memory", 2, "failed", "out of memory: give smaller batches"),
    ],
)
def test_exit_code_and_status(tmp_path: Path, mode: str, code: int, state: str, message: str):
    run = make(tmp_path / "r", mode=mode)
    done = execute(run)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback (most" not in done.stderr
    status = run.status
    assert (status["state"], status["exit_code"], status["command"]) == (state, code, "fit")
    assert message in status["message"]
    assert status["started"]
    assert status["finished"]
    assert (tmp_path / "r/error.txt").exists() == (code == 1)


def test_lightnings_relaunch_works(tmp_path: Path):
    """Its children run `python -m spo.__main__ execute RUN hydra.run.dir=...` from argv."""
    run = make(tmp_path / "r")
    assert execute(run, "hydra.run.dir=x", "hydra.job.name=y").returncode == 0
    assert run.read_json("ran.json")["argv"][1:] == ["execute", str(run.path)]


def test_other_ranks_leave_the_status_alone(tmp_path: Path):
    run = make(tmp_path / "r", mode="crash")
    done = execute(run, LOCAL_RANK="1")
    assert done.returncode == 1
    assert "[rank 1]" in done.stderr
    assert run.status == {}
    assert (run.path / "error.rank1.txt").exists()


def test_empty_wandb_variables_are_unset(tmp_path: Path):
    """wandb 0.31 takes an empty variable for a malformed setting (FACTS 3)."""
    assert "silent None" in execute(make(tmp_path / "a"), WANDB_SILENT="").stdout
    assert "silent true" in execute(make(tmp_path / "b"), WANDB_SILENT="true").stdout


def test_not_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["execute", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert main(["execute"]) == 2


def test_again_keeps_what_was_there(tmp_path: Path):
    run = make(tmp_path / "r")
    run.update_status(state="interrupted", wandb_run_id="abc")
    assert execute(run).returncode == 0
    assert (run.status["wandb_run_id"], run.status["previous_state"]) == ("abc", "interrupted")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_reach_the_child_and_its_code_comes_back(start, tmp_path: Path, number: signal.Signals, code: int):
    process = start("fit", "data_path=x", "mode=wait", "hydra.run.dir=r")
    wait_for(lambda: (tmp_path / "r/ran.json").exists())
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    status = RunFolder(tmp_path / "r").status
    assert (status["state"], status["exit_code"]) == ("interrupted", code)


def test_a_killed_parent_leaves_no_orphan(start, tmp_path: Path):
    process = start("fit", "data_path=x", "mode=wait", "hydra.run.dir=r")
    wait_for(lambda: (tmp_path / "r/ran.json").exists())
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: RunFolder(tmp_path / "r").status["state"] == "interrupted")


def test_check_gathers_over_jobs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TOY))
    bad = {"link": {"_target_": "toy_targets.Isotonic", "knots": 0, "symmetric": True}}
    assert check([bad, {}, bad]) == ["link.knots is 0: give at least 1"]
    done = subprocess.run(
        [sys.executable, "-m", "spo", "execute", "--check"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(TOY)])},
        input=json.dumps([bad]),
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stdout.strip()) == (2, "link.knots is 0: give at least 1")


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_torchrun_is_the_parent_that_its_processes_end_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """torchrun gives each a session of its own, so that a SIGKILL of its group reaches none of them."""
    seen: list[str | None] = []
    monkeypatch.setattr("sys.argv", ["spo"])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "execv", lambda *arguments: seen.append(os.environ.get(PARENT_VARIABLE)))
    execute_on(tmp_path, 2)
    assert seen == [str(os.getpid())]
