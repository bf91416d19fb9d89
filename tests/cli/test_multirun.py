"""-m: every job is checked before the first, each is a process with a folder of its own, and none is done twice."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest

from spo.run_folder import RunFolder
from spo.sweep.store import SweepFolder, find_sweep

from .conftest import Spo

TIME_LIMIT = 60  # seconds
Start = Callable[..., "subprocess.Popen[str]"]


def folders() -> list[RunFolder]:
    return [SweepFolder("all").run(job) for job in SweepFolder("all").jobs()]


def test_jobs_are_separate_and_one_that_fails_stops_none(spo: Spo, capfd: pytest.CaptureFixture[str]):
    words = ["data_path=x", "mode=only_seed_1_fails", "seed=0,1,2", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", *words) == 1
    out, err = capfd.readouterr()
    assert "3 jobs, all checked" in out
    assert "2 of 3 jobs ok" in out
    assert "exit code 1: data_path=x mode=only_seed_1_fails seed=1" in err
    assert "crashed: ZeroDivisionError: in the middle" in err  # the tail of its log
    runs = folders()
    assert [run.status["state"] for run in runs] == ["ok", "failed", "ok"]
    assert [run.read_json("ran.json")["leaked"] for run in runs] == [[0], [1], [2]]
    assert len({run.read_json("ran.json")["pid"] for run in runs}) == 3
    assert all(f"seed-{seed}" in run.name for seed, run in enumerate(runs))
    assert "ZeroDivisionError" in (runs[1].path / "error.txt").read_text()
    assert "link Isotonic" in (runs[0].path / "log.txt").read_text()
    rows = SweepFolder("all").jobs()
    assert [(row.job, row.status, row.exit_code, row.attempts) for row in rows] == [
        (0, "ok", 0, 1), (1, "failed", 1, 1), (2, "ok", 0, 1),
    ]  # fmt: skip
    assert rows[1].message == "crashed: ZeroDivisionError: in the middle"
    assert rows[1].overrides == ["data_path=x", "mode=only_seed_1_fails", "seed=1"]
    record = SweepFolder("all").record
    assert (record["state"], record["command"]) == ("failed", "fit")
    assert runs[0].invocation["sweep"] == {"id": record["id"], "folder": "all"}


def test_all_jobs_are_checked_before_the_first(spo: Spo, capfd: pytest.CaptureFixture[str]):
    assert spo("fit", "-m", "data_path=x", "seed=0,a", "link=kernel,isotonic", "link.knots=3") == 2
    err = capfd.readouterr().err
    assert "seed is 'a': give a whole number (in 2 of 4 jobs)" in err
    assert "unknown key link.knots" in err
    assert not Path("runs").exists()


def test_constructors_of_all_jobs_are_asked_before_the_first(spo: Spo, capfd: pytest.CaptureFixture[str]):
    assert spo("fit", "-m", "data_path=x", "link.knots=3,-1") == 2
    assert "link.knots is -1: give at least 1" in capfd.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=range(0,0)", "the grid is empty: seed=range(0,0) has no value"),
        ("hydra/launcher=basic", "Give hydra/launcher=local"),
        ("hydra.launcher.max_jobs=0", "max_jobs is 0: give a count"),
        ("hydra.launcher.retries=-1", "retries is -1: give 0 or a count"),
        ("hydra.launcher.executor=slurm", "executor"),
    ],
)
def test_what_cannot_be_a_sweep(spo: Spo, capfd: pytest.CaptureFixture[str], word: str, said: str):
    assert spo("fit", "-m", "data_path=x", word) == 2
    err = capfd.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not list(Path().rglob("config.resolved.yaml"))


def test_a_sweep_file_switches_multirun_on(spo: Spo, tmp_path: Path):
    (tmp_path / "own/sweeps").mkdir(parents=True)
    (tmp_path / "own/sweeps/two.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      link: kernel,isotonic\n"
    )
    assert spo("fit", "--config-dir", "own", "sweeps=two", "data_path=x") == 0
    (folder,) = Path("runs/sweeps").iterdir()
    sweep = find_sweep(folder.name)
    assert (sweep.id, sweep.record["name"]) == (folder.name, "two")
    assert folder.name.startswith("two_")
    targets = [sweep.run(job).config["link"]["_target_"] for job in sweep.jobs()]
    assert targets == ["toy_targets.Kernel", "toy_targets.Isotonic"]


@pytest.mark.parametrize(("mode", "code"), [("killed", 137), ("code", 130)])
def test_a_killed_job_harms_no_other(spo: Spo, capfd: pytest.CaptureFixture[str], mode: str, code: int):
    """As the system does where memory is short (137), or a user who stops one job (130): no end of the sweep."""
    assert spo("fit", "-m", "data_path=x", f"mode={mode},ok", "hydra.sweep.dir=all") == 1
    assert "1 of 2 jobs ok" in (said := capfd.readouterr()).out
    assert f"exit code {code}" in said.err
    assert [row.exit_code for row in SweepFolder("all").jobs()] == [code, 0]


def test_a_job_that_crashes_is_tried_again_and_what_must_be_mended_is_not(spo: Spo):
    words = ["data_path=x", "mode=crash,mendable,ok", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", "--retries", "2", *words) == 1
    assert [(row.status, row.attempts) for row in SweepFolder("all").jobs()] == [
        ("failed", 3),
        ("failed", 1),
        ("ok", 1),
    ]


def test_fail_fast_ends_the_sweep_with_the_first_failure(spo: Spo):
    words = ["data_path=x", "mode=crash,ok", "seed=0,1,2", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", "--fail-fast", "--max-jobs", "1", *words) == 1
    assert [row.status for row in SweepFolder("all").jobs()] == ["failed", *["queued"] * 5]


@pytest.mark.parametrize("subdir", [".", "", "a/.."])
def test_a_job_has_a_folder_of_its_own(spo: Spo, capfd: pytest.CaptureFixture[str], subdir: str):
    """In the sweep's own it would wait for ever for the sweep to end."""
    assert spo("fit", "-m", "data_path=x", "hydra.sweep.dir=all", f"hydra.sweep.subdir={subdir}") == 2
    assert f"hydra.sweep.subdir is {subdir!r}, which is no folder in the sweep's" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [([], "this machine has no sbatch"), (["hydra.launcher.executor=loc"], "executor is 'loc': give slurm or local")],
)
def test_a_cluster_that_is_not_there_is_refused_before_the_first_job(
    spo: Spo, capfd: pytest.CaptureFixture[str], options: list[str], said: str
):
    assert spo("fit", "-m", "data_path=x", "hydra/launcher=submitit", "hydra.sweep.dir=all", *options) == 2
    assert said in capfd.readouterr().err
    assert not Path("all/sweep.json").exists()


def test_an_interrupt_while_jobs_are_checked_has_no_traceback(
    spo: Spo, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def interrupted(configs: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("spo.cli.launch.check_in_child", interrupted)
    assert spo("fit", "-m", "data_path=x", "seed=0,1") == 130
    assert capfd.readouterr().err == "spo: interrupted\n"


def test_what_ends_between_two_jobs_is_noted(spo: Spo, monkeypatch: pytest.MonkeyPatch):
    """Not "its command was killed"."""

    def full(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("spo.cli.multirun.Multirun._plan", full)
    assert spo("fit", "-m", "data_path=x", "seed=0,1", "hydra.sweep.dir=all") == 2
    assert SweepFolder("all").record["state"] == "failed"


def test_a_long_list_of_values_is_no_path(spo: Spo, capfd: pytest.CaptureFixture[str]):
    """Longer than the name of a file may be, which the system says with an error."""
    words = ["data_path=x", f"seed={','.join(map(str, range(200)))}", "mode=nosuch", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", *words) == 2
    assert "Traceback" not in (err := capfd.readouterr().err)
    assert "mode is 'nosuch'" in err


def test_what_a_constructor_prints_is_no_problem(spo: Spo):
    Path("talking_link.py").write_text(
        "from toy_targets import Link\nclass Mine(Link):\n    def __init__(self):\n        print('hello')\n"
    )
    Path("own/link").mkdir(parents=True)
    Path("own/link/mine.yaml").write_text("_target_: talking_link.Mine\n")
    assert spo("fit", "-m", "--config-dir", "own", "data_path=x", "link=mine") == 0


GRID = ["data_path=x", "seed=0,1,2", "hydra.sweep.dir=all", "hydra.sweep.subdir=job${seed}"]


def test_a_grid_that_is_run_again_does_only_what_is_not_done(spo: Spo, capfd: pytest.CaptureFixture[str]):
    """A finished job is left alone, one that failed is done; one with another config is another job, beside it."""
    assert spo("fit", "-m", *GRID, "mode=only_seed_1_fails") == 1
    before = {path: path.read_bytes() for path in Path("all").glob("job[02]/ran.json")}
    assert spo("fit", "-m", *GRID, "mode=only_seed_1_fails") == 1
    out = capfd.readouterr().out
    assert "3 jobs, 2 finished before, 1 at a time" in out
    assert "2 of 3 jobs ok, 2 of them before" in out
    assert [row.attempts for row in SweepFolder("all").jobs()] == [1, 2, 1]
    identity = SweepFolder("all").id
    assert spo("fit", "-m", *GRID) == 0
    assert before == {path: path.read_bytes() for path in before}
    rows = SweepFolder("all").jobs()
    assert [row.status for row in rows] == ["ok", "failed", "ok", "ok", "ok", "ok"]
    assert len({row.folder for row in rows}) == 6
    assert rows[3].folder == f"job0_{rows[3].config_hash[:8]}"
    assert SweepFolder("all").id == identity
    assert len(SweepFolder("all").record["commands"]) == 2


def test_a_combination_that_is_asked_for_twice_is_done_once(spo: Spo):
    assert spo("fit", "-m", "data_path=x", "seed=3,3", "hydra.sweep.dir=all") == 0
    assert [(row.job, row.attempts) for row in SweepFolder("all").jobs()] == [(0, 1)]


def test_jobs_that_choose_the_same_options_share_a_composition(spo: Spo, monkeypatch: pytest.MonkeyPatch):
    """And are composed as they are by themselves."""
    composed = []
    original = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *a, **k: composed.append(a) or original(*a, **k))
    assert spo("fit", "-m", "data_path=x", "seed=0,1,2,3", "link=kernel,isotonic", "hydra.sweep.dir=all") == 0
    assert len(composed) <= 3  # two, and one to see whether it is a multirun
    found = {(run.config["seed"], run.config["link"]["_target_"]) for run in folders()}
    assert len(found) == 8


def begin_waiting(start: Start, place: Path) -> "subprocess.Popen[str]":
    """A sweep of two jobs that wait, both under way."""
    command = start("fit", "-m", "data_path=x", "mode=wait", "seed=0,1", f"hydra.sweep.dir={place}")
    end = time.monotonic() + TIME_LIMIT
    while sum("waiting" in path.read_text() for path in place.glob("*/log.txt")) < 2:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    return command


def test_an_interrupt_stops_every_job_and_says_how_to_go_on(start: Start, tmp_path: Path):
    place = tmp_path / "all"
    command = begin_waiting(start, place)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=TIME_LIMIT)
    assert command.returncode == 130
    assert f"`spo sweep resume {place}`" in err
    sweep = SweepFolder(place)
    assert [row.status for row in sweep.jobs()] == ["interrupted"] * 2
    assert sweep.record["state"] == "interrupted"


def test_two_commands_do_not_share_a_folder(start: Start, tmp_path: Path):
    place = tmp_path / "all"
    first = begin_waiting(start, place)
    second = start("fit", "-m", "data_path=x", f"hydra.sweep.dir={place}")
    _, err = second.communicate(timeout=TIME_LIMIT)
    assert second.returncode == 2
    assert f"is being worked on by process {first.pid}" in err
    first.terminate()
    assert first.wait(TIME_LIMIT) == 143
    assert len(SweepFolder(place).jobs()) == 2


def test_a_sweep_that_is_killed_takes_its_jobs_along(start: Start, tmp_path: Path):
    place = tmp_path / "all"
    command = begin_waiting(start, place)
    pids = [SweepFolder(place).run(row).status["pid"] for row in SweepFolder(place).jobs()]
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    end = time.monotonic() + TIME_LIMIT
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert [row.status for row in SweepFolder(place).jobs()] == ["running"] * 2  # nobody was left to write it down
