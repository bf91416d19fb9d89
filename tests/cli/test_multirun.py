"""-m: every job is checked before the first, each is a process with a folder of its own."""

from pathlib import Path

import hydra
import pytest

from spo.cli.launch import _Interrupted
from spo.run_folder import RunFolder

from .conftest import Spo


def test_jobs_are_separate_and_one_that_fails_stops_none(spo: Spo, capfd: pytest.CaptureFixture[str]):
    words = ["data_path=x", "mode=only_seed_1_fails", "seed=0,1,2", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", *words) == 1
    out, err = capfd.readouterr()
    assert "3 jobs, all checked" in out
    assert "2 of 3 jobs ok" in out
    assert "exit code 1: data_path=x mode=only_seed_1_fails seed=1" in err
    runs = [RunFolder(path) for path in sorted(Path("all").iterdir()) if path.is_dir()]
    assert [run.status["state"] for run in runs] == ["ok", "failed", "ok"]
    assert [run.read_json("ran.json")["leaked"] for run in runs] == [[0], [1], [2]]
    assert len({run.read_json("ran.json")["pid"] for run in runs}) == 3
    assert all("seed-" in run.name for run in runs)
    assert "ZeroDivisionError" in (runs[1].path / "error.txt").read_text()


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


def test_a_sweep_file_switches_multirun_on(spo: Spo, tmp_path: Path):
    (tmp_path / "own/sweeps").mkdir(parents=True)
    (tmp_path / "own/sweeps/two.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      link: kernel,isotonic\n"
    )
    assert spo("fit", "--config-dir", "own", "sweeps=two", "data_path=x", "hydra.sweep.dir=all") == 0
    targets = [RunFolder(path).config["link"]["_target_"] for path in sorted(Path("all").glob("[01]*"))]
    assert targets == ["toy_targets.Kernel", "toy_targets.Isotonic"]


def test_an_interrupt_ends_the_sweep_with_its_code(spo: Spo):
    assert spo("fit", "-m", "data_path=x", "mode=code", "seed=0,1", "hydra.sweep.dir=all") == 130
    assert len(list(Path("all").glob("[01]*"))) == 1
    assert _Interrupted(143, Path("all")).code == 143


def test_a_killed_job_harms_no_other(spo: Spo, capfd: pytest.CaptureFixture[str]):
    """As the system does where memory is short: exit code 137 is no interrupt of the sweep."""
    assert spo("fit", "-m", "data_path=x", "mode=killed,ok", "hydra.sweep.dir=all") == 1
    assert "1 of 2 jobs ok" in (said := capfd.readouterr()).out
    assert "exit code 137" in said.err


GRID = ["data_path=x", "seed=0,1,2", "hydra.sweep.dir=all", "hydra.sweep.subdir=job${seed}"]


def test_a_grid_that_is_run_again_does_only_what_is_not_done(spo: Spo, capfd: pytest.CaptureFixture[str]):
    """A finished job is left alone, one that failed is done; one with another config is refused and left alone too."""
    assert spo("fit", "-m", *GRID, "mode=only_seed_1_fails") == 1
    before = {path: path.read_bytes() for path in Path("all").glob("job[02]/ran.json")}
    capfd.readouterr()
    assert spo("fit", "-m", *GRID, "mode=only_seed_1_fails") == 1
    out = capfd.readouterr().out
    assert out.count("is finished: skipped") == 2
    assert "job 3 of 3 (0 done, 1 skipped, 1 failed)" in out
    assert "2 of 3 jobs ok, 2 of them before" in out
    assert spo("fit", "-m", *GRID) == 1
    err = capfd.readouterr().err
    assert err.count("holds a run of another config (mode: only_seed_1_fails there, ok asked for)") == 3
    assert before == {path: path.read_bytes() for path in before}


def test_jobs_that_choose_the_same_options_share_a_composition(spo: Spo, monkeypatch: pytest.MonkeyPatch):
    """And are composed as they are by themselves."""
    composed = []
    original = hydra.compose
    monkeypatch.setattr(hydra, "compose", lambda *a, **k: composed.append(a) or original(*a, **k))
    assert spo("fit", "-m", "data_path=x", "seed=0,1,2,3", "link=kernel,isotonic", "hydra.sweep.dir=all") == 0
    assert len(composed) <= 3  # two, and one to see whether it is a multirun
    found = {(run.config["seed"], run.config["link"]["_target_"]) for run in map(RunFolder, Path("all").glob("[0-7]*"))}
    assert len(found) == 8
