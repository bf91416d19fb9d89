"""Every experiment under conf/experiment runs a few steps on a tiny model, to its end (HABITS 5)."""

from pathlib import Path

import pytest

from spo.paths import asset_dir
from spo.run_folder import RunFolder

from .conftest import Here

ELSEWHERE = {"ultrafeedback", "ultrafeedback_label"}  # test_ultrafeedback.py, from the labelling on
EXPERIMENTS = [path for path in sorted((asset_dir("conf") / "experiment").glob("*.yaml")) if path.stem not in ELSEWHERE]
FEW = ["epochs=null", "steps=3", "validate_every=2", "checkpoint_every=2", "log_every=1", "logger=none"]
REFIT = ["refit.warm_start_steps=2", "refit.every=1"]
TILT = ["evaluate.n_prompts=4", "evaluate.max_new_tokens=4", "reward@evaluate.reward=length"]
SMALLER = {  # what an experiment needs beside the tiny model and a few steps
    "quickstart": [*REFIT, *TILT],
    "quickstart_smoke": TILT,
    "sentiment": [*REFIT, *TILT],
    "human_preferences": ["truth=shifted_mixture"],  # the rows of the test carry rewards and no labels
    "tabular": ["data.source.seeds=[0,1]", "data.source.rows=200", "data.source.fresh_contexts=50"],
    "synthetic": [
        "data.source.seeds=0-1",
        "truth.shifts=[0,1.5]",
        "data.source.rows=200",
        "data.source.fresh_contexts=50",
        "refit.every=1",
    ],
}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_runs_to_its_end(
    experiment: Path, tiny: list[str], here: Here, capfd: pytest.CaptureFixture[str]
) -> None:
    tabular = "policy: tabular" in experiment.read_text()
    words = [*([] if tabular else tiny), *FEW, *SMALLER.get(experiment.stem, [])]
    done = here("train", f"experiment={experiment.stem}", *words, "hydra.run.dir=run")
    assert done == 0, capfd.readouterr().err
    run = RunFolder("run")
    assert run.status["state"] == "ok"
    assert [step for step, _ in run.series("train/loss")] == [1, 2, 3]
    evaluated = "override /evaluate" in experiment.read_text() or "- quickstart" in experiment.read_text()
    assert evaluated == bool(run.frontier or run.read_json("ranking.json"))
