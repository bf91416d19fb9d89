"""-m: one separate W&B run per job, each with its own configuration and numbers."""

import os
import re
from pathlib import Path

import pytest

from spo.cli import main
from spo.cli.execute import check
from spo.run_folder import RunFolder
from tests.wandb_reader import OfflineRun, find

from .conftest import spo

SHORT = ["steps=2", "micro_batch=4", "logger=wandb", "hydra.sweep.dir=all"]


def jobs() -> list[tuple[RunFolder, OfflineRun]]:
    """Each job's folder with its W&B run."""
    folders = {run.status["wandb_run_id"]: run for run in map(RunFolder, Path("all").iterdir()) if run.status}
    found = find(Path(os.environ["WANDB_DIR"])) + find(Path("all"))
    runs = {run.id: run for run in found if run.id in folders}
    assert len(folders) == len(runs) == len(list(Path("all").glob("*/config.resolved.yaml")))
    return sorted(((folders[i], runs[i]) for i in runs), key=lambda pair: pair[0].name)


def assert_own(folder: RunFolder, run: OfflineRun) -> None:
    assert run.config["link"] == folder.config["link"]
    assert (run.config["seed"], run.config["optim"]) == (folder.config["seed"], folder.config["optim"])
    for name in ("train/loss", "train/grad_norm", "val/auc"):
        assert {step: float(value) for step, value in run.values(name)} == pytest.approx(dict(folder.series(name)))


def test_a_job_that_fails_stops_none_and_is_named(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spo.cli.launch.check_in_child", check)
    assert main(["train", "-m", *tiny, *SHORT, "link=isotonic", "optim.learning_rate=1e30,1e-3"]) == 1
    out, err = capfd.readouterr()
    assert "2 jobs, all checked" in out
    assert "1 of 2 jobs ok" in out
    assert re.search(r"exit code 2: .*optim.learning_rate=1e\+?30 .*link=isotonic", err)
    (bad, lost), (good, kept) = jobs()
    assert [bad.status["exit_code"], good.status["exit_code"]] == [2, 0]
    assert "lower optim.learning_rate" in bad.status["message"]
    assert lost.id != kept.id
    assert (lost.exit_code, kept.exit_code) == (2, 0)
    for pair in ((bad, lost), (good, kept)):
        assert_own(*pair)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [["-m"], ["sweeps=link_ablation", "evaluate=none"]])
def test_links_by_seeds(tiny: list[str], sweep: list[str]) -> None:
    """The issue's multirun and a part of sweeps/link_ablation.yaml: six jobs, six runs."""
    out = spo("train", *tiny, *SHORT, *sweep, "link=logistic,isotonic,kernel", "seed=0,1")
    assert "6 of 6 jobs ok" in out
    found = jobs()
    assert len({(f.config["link"]["_target_"], f.config["seed"]) for f, _ in found}) == len(found) == 6
    for folder, run in found:
        assert_own(folder, run)
    # two steps: both seeds of the logistic link, and the fitted links, which have seen the flat start alone
    assert len({tuple(folder.series("train/loss")) for folder, _ in found}) >= 3
