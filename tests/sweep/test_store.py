"""A sweep's folder: what is written is read, a reader never sees half a table, what is of another kind is refused."""

import fcntl
import math
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from spo.cli.sweep import describe
from spo.errors import ConfigError
from spo.lock import FolderLock
from spo.sweep.store import Job, SweepFolder, find_sweep

REQUEST = {"command": "train", "command_line": "spo train -m seed=0,1", "words": ["seed=0,1"], "git_commit": None}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.chdir(tmp_path)
    made = SweepFolder("runs/sweeps/abl_1")
    made.create("abl_1", "abl")
    made.begin(REQUEST)
    return made


JOBS = [
    Job(0, "a", ["seed=0"], "h0", "ok", 0, 1, "2026-01-01T00:00:00+0000", "x", 2.5, "w1", "", {"val/auc": 0.75}),
    Job(1, "b", ["seed=1", "link=kernel"], "h1", "failed", 1, 3, message="crashed", metrics={"train/loss": 0.5}),
    Job(2, "c", [], "h2"),
]


def test_a_table_is_read_as_it_was_written(sweep: SweepFolder):
    sweep.save(JOBS)
    read = sweep.jobs()
    assert read[0] == JOBS[0]
    assert (read[1].exit_code, read[1].run_id, read[1].metrics) == (1, None, {"train/loss": 0.5})
    assert read[2].status == "queued"
    assert math.isnan(read[2].seconds)
    table = pd.read_parquet(sweep.path / "jobs.parquet")  # what a user opens
    assert list(table.columns) == [
        "job", "folder", "overrides", "config_hash", "status", "exit_code", "attempts", "started", "finished",
        "seconds", "run_id", "message", "metrics/train/loss", "metrics/val/auc",
    ]  # fmt: skip


def _write_for_ever(path: str) -> None:
    while True:
        SweepFolder(path).save(JOBS * 50)


def test_a_reader_never_sees_half_a_table_and_a_killed_writer_leaves_a_whole_one(sweep: SweepFolder):
    sweep.save(JOBS * 50)
    writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(str(sweep.path.resolve()),))
    writer.start()
    try:
        assert {len(sweep.jobs()) for _ in range(200)} == {150}
    finally:
        writer.kill()
        writer.join()
    assert len(sweep.jobs()) == 150


def test_it_is_found_by_its_id_and_by_its_folder(sweep: SweepFolder):
    assert find_sweep("abl_1").path == find_sweep("runs/sweeps/abl_1").path == sweep.path
    with pytest.raises(ConfigError, match="there is no sweep 'abl_2': There are abl_1"):
        find_sweep("abl_2")
    moved = sweep.path.rename("runs/sweeps/mine")
    assert find_sweep("mine").path == moved
    shutil.copytree(moved, "runs/sweeps/copy")
    with pytest.raises(ConfigError, match="give the folder, runs/sweeps/copy or runs/sweeps/mine"):
        find_sweep("abl_1")
    with pytest.raises(ConfigError, match=r"runs is a folder without sweep\.json"):
        find_sweep("runs")


def test_a_command_that_is_given_again_is_noted_once(sweep: SweepFolder):
    sweep.begin(REQUEST | {"git_commit": "abc"})
    sweep.begin(REQUEST | {"words": ["seed=2"], "command_line": "another"})
    record = sweep.record
    assert [command["words"] for command in record["commands"]] == [["seed=0,1"], ["seed=2"]]
    assert record["command_line"] == "spo train -m seed=0,1"  # the one that began it
    assert record["state"] == "running"


def test_the_newest_of_two_commands_that_ask_for_the_same_jobs_counts(sweep: SweepFolder):
    """Its launcher's options are those of the cluster: `resume` gives them again."""
    search = ["seed=0,1", "hydra/sweeper=optuna", "hydra.sweeper.params.a=b"]
    for how in (["hydra.sweeper.metric=wrong"], ["hydra.sweeper.metric=right", "hydra.launcher.partition=p"]):
        sweep.begin(REQUEST | {"words": [*search, *how]})
    sweep.begin(REQUEST | {"words": [*search[:-1], "hydra.sweeper.params.a=c"]})
    words = [command["words"] for command in sweep.record["commands"][1:]]
    assert [given[-1] for given in words] == ["hydra.launcher.partition=p", "hydra.sweeper.params.a=c"]


def test_a_sweep_that_was_killed_as_it_was_made_can_be_shown(tmp_path: Path):
    made = SweepFolder(tmp_path)
    made.create("abl_1", None)
    assert describe(made, 80).startswith("abl_1: stopped")


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"version": 99, "spo_version": "9.0"}', "version 99, and this spo"), ("{", "is damaged"), ("[]", "is damaged")],
)
def test_what_is_not_ours(sweep: SweepFolder, text: str, said: str):
    (sweep.path / "sweep.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        sweep.record  # noqa: B018


def test_a_damaged_table(sweep: SweepFolder):
    (sweep.path / "jobs.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigError, match=r"jobs\.parquet cannot be read"):
        sweep.jobs()
    pd.DataFrame({"job": [1]}).to_parquet(sweep.path / "jobs.parquet")
    with pytest.raises(ConfigError, match=r"jobs\.parquet cannot be read"):
        sweep.jobs()


def test_the_tail_of_a_log_is_what_stood_there_last(sweep: SweepFolder):
    place = sweep.log(JOBS[0])
    place.parent.mkdir()
    place.write_text("one\n 10%\r 20%\r100%\n\nlast\n")
    assert sweep.tail(JOBS[0], 2) == ["100%", "last"]
    assert sweep.tail(JOBS[1], 2) == []


def _hold(folder: str, pipe: "multiprocessing.connection.Connection") -> None:
    pipe.send(FolderLock(Path(folder)).take())
    pipe.recv()


def test_a_lock_ends_with_its_holder(tmp_path: Path):
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(str(tmp_path), theirs))
    holder.start()
    assert ours.recv() is True
    lock = FolderLock(tmp_path)
    assert lock.held
    assert not lock.take()
    assert lock.holder == str(holder.pid)
    holder.kill()
    holder.join()
    assert not lock.held
    assert lock.take()
    assert lock.holder == str(os.getpid())
    lock.release()
    assert not lock.held


def test_one_who_looks_keeps_no_other_from_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`spo sweep status` holds it for a moment; it asks for a shared one, which NFS gives for a file opened to read."""
    kinds = []
    original = fcntl.flock

    def flock(file: int, kind: int) -> None:
        kinds.append(kind)
        original(file, kind)

    lock = FolderLock(tmp_path)
    assert lock.take()
    lock.release()
    with lock.path.open() as looking, monkeypatch.context() as patched:
        original(looking, fcntl.LOCK_SH)
        patched.setattr(time, "sleep", lambda seconds: original(looking, fcntl.LOCK_UN))
        assert lock.take()
    lock.release()
    monkeypatch.setattr(fcntl, "flock", flock)
    assert not lock.held
    assert kinds == [fcntl.LOCK_SH | fcntl.LOCK_NB]
