"""spo sweep NAME | status | resume, on the toy."""

from pathlib import Path

import pytest

from spo.cli.commands import find_commands
from spo.cli.sweep import sweep as sweep_command
from spo.lock import FolderLock
from spo.sweep.store import SweepFolder

from .conftest import TOY, Spo

GRID = ["data_path=x", "mode=only_seed_1_fails", "seed=0,1,2", "hydra.sweep.dir=all"]


def sweep(*words: str) -> int:
    return sweep_command(list(words), find_commands(TOY / "conf"))


def test_resume_does_what_is_not_done(spo: Spo, capfd: pytest.CaptureFixture[str]):
    assert spo("fit", "-m", *GRID) == 1
    assert "`spo sweep resume all` does what is not done" in capfd.readouterr().err
    assert sweep("resume", "all") == 1
    rows = SweepFolder("all").jobs()
    assert [(row.status, row.attempts) for row in rows] == [("ok", 1), ("failed", 2), ("ok", 1)]
    assert len(SweepFolder("all").record["commands"]) == 1


def test_resume_from_another_folder_finds_what_the_command_named(
    spo: Spo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Relative paths of the command mean what they meant; the sweep may have moved."""
    assert spo("fit", "-m", *GRID) == 1
    (tmp_path / "elsewhere").mkdir()
    Path("all").rename("elsewhere/moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert sweep("resume", "moved") == 1
    assert [row.attempts for row in SweepFolder("moved").jobs()] == [1, 2, 1]


def test_a_folder_with_a_quote_in_its_name_is_resumed(spo: Spo):
    assert spo("fit", "-m", *GRID[:-1], r"hydra.sweep.dir='it\'s all'") == 1
    assert sweep("resume", "it's all") == 1
    assert [row.attempts for row in SweepFolder("it's all").jobs()] == [1, 2, 1]


def test_resume_drops_no_job_that_is_still_to_be_done(spo: Spo, monkeypatch: pytest.MonkeyPatch):
    """Whether it ends early, is refused, or finds another command at work; once all is done, what nobody asks for."""
    words = ["data_path=x", "mode=crash,ok", "seed=0,1", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", "--fail-fast", "--max-jobs", "1", *words) == 1
    assert sweep("resume", "all", "--fail-fast", "--max-jobs", "1") == 1
    assert len(SweepFolder("all").jobs()) == 4
    lock = FolderLock(Path("all"))
    assert lock.take()
    assert sweep("resume", "all") == 2
    lock.release()
    assert [row.status for row in SweepFolder("all").jobs()] == ["failed", *["queued"] * 3]
    monkeypatch.setattr("spo.cli.launch.launch", lambda command, words: 0)
    assert sweep("resume", "all") == 0
    assert [row.status for row in SweepFolder("all").jobs()] == ["failed"]


def test_an_interrupted_resume_begins_no_other_command(spo: Spo, monkeypatch: pytest.MonkeyPatch):
    for seed in (0, 1):
        assert spo("fit", "-m", "data_path=x", f"seed={seed}", "hydra.sweep.dir=all") == 0
    asked = []
    monkeypatch.setattr("spo.cli.launch.launch", lambda command, words: asked.append(words) or 130)
    assert sweep("resume", "all") == 130
    assert len(asked) == 1


def test_a_job_is_numbered_after_the_last_one(spo: Spo):
    """A row that was dropped leaves a gap; two rows of one number would be one job, and the other never done."""
    assert spo("fit", "-m", "data_path=x", "seed=0,1,2", "hydra.sweep.dir=all") == 0
    rows = SweepFolder("all").jobs()
    SweepFolder("all").save([rows[0], rows[2]])
    assert spo("fit", "-m", "data_path=x", "seed=2,7,8", "hydra.sweep.dir=all") == 0
    assert [(row.job, row.status) for row in SweepFolder("all").jobs()] == [(n, "ok") for n in (0, 2, 3, 4)]


def test_a_changed_config_is_another_job(spo: Spo, tmp_path: Path):
    """The user's own option is edited between the two: what is done stays, the new config is done beside it."""
    option = tmp_path / "own/link/mine.yaml"
    option.parent.mkdir(parents=True)
    text = "_target_: toy_targets.Isotonic\nknots: {}\nsymmetric: true\n"
    option.write_text(text.format(3))
    words = ["--config-dir", "own", "data_path=x", "link=mine,kernel", "mode=crash,ok", "hydra.sweep.dir=all"]
    assert spo("fit", "-m", *words) == 1
    option.write_text(text.format(4))
    assert sweep("resume", "all") == 1
    rows = SweepFolder("all").jobs()
    knots = [SweepFolder("all").run(row).config["link"].get("knots") for row in rows]
    assert sorted(zip(knots, [row.status for row in rows], strict=True), key=str) == [
        (3, "failed"), (3, "ok"), (4, "failed"), (4, "ok"), (None, "failed"), (None, "ok"),
    ]  # fmt: skip
    assert [row.attempts for row in rows] == [1, 1, 2, 1, 1, 1]


def test_status_says_how_each_job_went(spo: Spo, capfd: pytest.CaptureFixture[str]):
    assert spo("fit", "-m", *GRID) == 1
    capfd.readouterr()
    assert sweep("status", "all") == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == f"{SweepFolder('all').id}: failed"
    assert "  3 jobs: 2 ok, 1 failed" in out
    assert [line.split()[:2] for line in out[-3:]] == [["1", "failed"], ["0", "ok"], ["2", "ok"]]
    assert "seed=1  crashed: ZeroDivisionError: in the middle" in out[-3]
    assert "data_path" not in out[-1]  # all jobs have it


def test_status_of_all(spo: Spo, capfd: pytest.CaptureFixture[str]):
    assert sweep("status") == 0
    assert "no sweep below runs/" in capfd.readouterr().out
    assert spo("fit", "-m", "data_path=x", "seed=0,1") == 0
    capfd.readouterr()
    assert sweep("status") == 0
    line = capfd.readouterr().out
    assert line.startswith("fit_")
    assert "2 of 2 jobs done" in line


def test_a_damaged_sweep_hides_no_other(spo: Spo, capfd: pytest.CaptureFixture[str]):
    for name in "ab":
        assert spo("fit", "-m", "data_path=x", f"hydra.sweep.dir=runs/sweeps/{name}") == 0
    Path("runs/sweeps/a/jobs.parquet").write_bytes(b"no")
    capfd.readouterr()
    assert sweep("status") == 0
    out = capfd.readouterr().out
    assert "a/jobs.parquet cannot be read" in out
    assert "1 of 1 jobs done" in out


def test_a_folder_whose_table_is_lost_finds_its_jobs_again(spo: Spo):
    assert spo("fit", "-m", *GRID) == 1
    (Path("all") / "jobs.parquet").unlink()
    ran = Path("all/0_data_path-x_mode-only_seed_1_fails_seed-0/ran.json").stat().st_mtime_ns
    assert sweep("resume", "all") == 1
    assert [(row.status, row.attempts) for row in SweepFolder("all").jobs()] == [("ok", 0), ("failed", 1), ("ok", 0)]
    assert Path("all/0_data_path-x_mode-only_seed_1_fails_seed-0/ran.json").stat().st_mtime_ns == ran


def damaged(spo: Spo, name: str, content: bytes) -> Path:
    assert spo("fit", "-m", *GRID) == 1
    path = Path("all/1_data_path-x_mode-only_seed_1_fails_seed-1") / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["config.resolved.yaml", "status.json"])
def test_a_damaged_run_folder_is_named(spo: Spo, capfd: pytest.CaptureFixture[str], name: str):
    path = damaged(spo, name, b"{ half")
    (Path("all") / "jobs.parquet").unlink()
    assert sweep("resume", "all") == 2
    err = capfd.readouterr().err
    assert str(path) in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume", "nothing"], "there is no sweep 'nothing'"),
        (["status", "a", "b"], "takes one id"),
        (["status", "."], "is a folder without sweep.json"),
    ],
)
def test_what_is_no_sweep(spo: Spo, capfd: pytest.CaptureFixture[str], words: list[str], said: str):
    assert sweep(*words) == 2
    assert said in capfd.readouterr().err
