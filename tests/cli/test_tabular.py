"""`spo train experiment=tabular` and `spo evaluate` of it, by the front door."""

import itertools
from pathlib import Path

import pandas as pd
import pytest

from spo import study
from spo.cli import main
from spo.report.results import find_results
from spo.run_folder import RunFolder
from spo.simulate.tabular import seeds_of
from tests.test_conf import compose

SMALL = [
    "data.source.seeds=[0,1,2]",
    "data.source.rows=300",
    "data.source.fresh_contexts=200",
    "epochs=6",
    "logger=none",
]
SMALL += ["global_batch=64", "micro_batch=64", "validate_every=5", "log_every=5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tabular") / "train"
    assert main(["train", "experiment=tabular", "method=ospo", *SMALL, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_a_run_has_a_frontier_that_a_report_shows(trained: Path) -> None:
    run = RunFolder(trained)
    assert run.status["state"] == "ok"
    assert run.frontier[0]["beta"] is None
    assert run.frontier[-1]["reward_minus_reference"] > 0
    assert run.read_json("target.json")["n_replicates"] == 3
    assert "eval/target/reward" in {m.name for m in run.metrics()}
    samples = pd.read_parquet(run.samples_path)
    assert set(samples["seed"]) == {0, 1, 2}
    (result,) = find_results([trained])
    assert result.missing == []
    assert result.links[-1]["true_p"] is not None
    assert result.diagnosis is not None
    assert 25 <= result.diagnosis["rows"] <= 30  # 30 are held out; those that compare an action with itself have t = 0
    assert result.diagnosis["groups"] == 30
    assert len(result.diagnosis["working_p"]) == 101


def test_evaluating_it_again_gives_the_same_numbers(trained: Path) -> None:
    folder = trained.parent / "evaluate"
    words = [
        "evaluate=tabular_tilt",
        "evaluate.betas=[1.0,0.5]",
        "logger=none",
        "device=cpu",
        f"hydra.run.dir={folder}",
    ]
    assert main(["evaluate", str(trained), *words]) == 0
    then, now = (
        {point["beta"]: point for point in RunFolder(place).frontier if point["beta"] in (None, 1.0)}
        for place in (trained, folder)
    )
    assert now == then


def test_what_does_not_go_together_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["evaluate=tilt"], "give evaluate=tabular_tilt"),
        (["policy.seeds=[1,2]"], "2 replicates"),
        (["ensemble@evaluate.ensemble=mean_index"], "and there is one: give"),
    ):
        folder = tmp_path / words[0].partition("=")[0]
        assert main(["train", "experiment=tabular", *SMALL, *words, f"hydra.run.dir={folder}"]) == 2
        assert message in capfd.readouterr().err


STUDY = ["experiment=synthetic", "data.source.seeds=3-4", "truth.shifts=[0.0,1.5]", "data.source.rows=130"]
STUDY += ["data.source.fresh_contexts=50", "global_batch=32", "micro_batch=32", "logger=none"]


@pytest.mark.parametrize(
    "words",
    [
        ["method=rspo", "budget=selected", "epochs=3", "validate_every=2"],
        ["method=pspo", "budget=paper", "seed_scheme@data.source.seed_scheme=author"],
    ],
    ids=["selected", "paper"],
)
def test_a_study_is_one_row_a_run_and_beta(words: list[str], tmp_path: Path) -> None:
    """Whatever the folds; and evaluating it again, by the paper's rule, adds rows of another rule."""
    folder, again = tmp_path / "train", tmp_path / "again"
    assert main(["train", *STUDY, *words, f"hydra.run.dir={folder}"]) == 0
    betas = "evaluate.kappa_rule.betas=[30.0,1.0,0.2]"
    rule = ["evaluate=tabular_tilt", "kappa_rule@evaluate.kappa_rule=paper", betas, "logger=none", "device=cpu"]
    assert main(["evaluate", str(folder), *rule, f"hydra.run.dir={again}"]) == 0
    table = study.read([RunFolder(folder).results_path, RunFolder(again).results_path])
    at = table[table["kl_target"] == 0.2]
    method, budget = (word.partition("=")[2] for word in words[:2])
    assert set(at["method"]) == {method}
    assert set(at["budget"]) == {budget}
    assert sorted(zip(at["seed"], at["s"], at["kappa_rule"], strict=True)) == [
        (seed, s, rule) for seed in (3, 4) for s in (0.0, 1.5) for rule in ("exact", "paper")
    ]
    assert all(
        (betas in asked.split()) == (rule == "paper")
        for asked, rule in zip(at["settings"], at["kappa_rule"], strict=True)
    )
    one = table[table["beta"] == 1.0]
    assert len(one) == 8
    for _, both in one.groupby(["seed", "s"]):  # the same policy, restored from its checkpoint
        assert both["reward"].nunique() == both["kl"].nunique() == 1


def test_a_budget_is_a_methods_own_length() -> None:
    """100 epochs; PSPO 3 + 4 refits of 2; selected: the same for all."""
    found = {}
    for budget, method in itertools.product(("paper", "selected"), ("dpo", "pspo", "ospo")):
        (job,), problems = compose("train", "experiment=synthetic", f"budget={budget}", f"method={method}")
        assert not problems
        found[budget, method] = job.config["epochs"], job.config["refit"]["every"]
        assert job.config["selection"]["_target_"].endswith("LastStep" if budget == "paper" else "Selection")
    assert found["paper", "dpo"] == found["paper", "ospo"] == (100, 8)
    assert found["paper", "pspo"] == (11, 16)
    assert len({found["selected", method] for method in ("dpo", "pspo", "ospo")}) == 1


@pytest.mark.parametrize(("rows", "pass_"), [(100, 1), (250, 2), (1000, 8), (16000, 125)])
def test_the_intervals_of_a_budget_follow_n(rows: int, pass_: int) -> None:
    """Optimizer steps at 128 rows a batch: the author's 800 at n = 1,000, and PSPO's 24 + 64."""
    found = {}
    for name, *words in (("dpo", "budget=paper"), ("pspo", "budget=paper", "method=pspo"), ("sel", "budget=selected")):
        (job,), problems = compose("train", "experiment=synthetic", f"data.source.rows={rows}", *words)
        assert not problems
        config = job.config
        found[name] = [config["epochs"], config["refit"]["warm_start_steps"], config["refit"]["every"]]
        found[name] += [config["validate_every"], config["log_every"]]
    assert found["dpo"] == [100, 2 * pass_, pass_, None, pass_]
    assert found["pspo"] == [11, 3 * pass_, 2 * pass_, None, pass_]
    assert found["sel"] == [40, None, 3 * pass_, 2 * pass_, pass_]


@pytest.mark.parametrize("experiment", ["synthetic", "tabular"])
def test_a_known_link_has_scale_1_in_the_study_by_itself(experiment: str) -> None:
    """Rewards are in raw units; 0.1 is for language models. Across methods and links, and what is typed counts."""
    words = {"method=dpo": 1.0, "link=probit": 1.0, "link=cauchit": 1.0, "link.scale=0.5": 0.5, "method=pspo": None}
    for word, scale in words.items():
        (job,), problems = compose("train", f"experiment={experiment}", word)
        assert not problems
        assert job.config["link"].get("scale") == scale, word
    (job,), _ = compose("train", "method=dpo")
    assert job.config["link"]["scale"] == 0.1


def test_a_sweep_takes_overrides_on_top() -> None:
    words = ["sweeps=misspecification", "data.source.seeds=0-7", "method=dpo,pspo", "budget=paper"]
    jobs, problems = compose("train", *words)
    assert not problems
    found = [(job.config["data"]["source"]["seeds"], job.config["epochs"], job.choices["link"]) for job in jobs]
    assert found == [("0-7", 100, "logistic"), ("0-7", 11, "isotonic")]
    jobs, _ = compose("train", "sweeps=misspecification", "method=dpo")
    seeds = [seed for job in jobs for seed in seeds_of(job.config["data"]["source"]["seeds"])]
    assert seeds == list(range(1000))


def test_a_wrong_size_is_named_and_not_what_follows_from_it() -> None:
    _, problems = compose("train", "experiment=synthetic", "budget=paper", "data.source.rows=many")
    assert problems == ["data.source.rows is 'many': give a whole number"]


def test_what_would_have_no_effect_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for k, (words, message) in enumerate(
        (
            (["budget=paper", "validate_every=5"], "no row is held out"),
            (["budget=paper", "selection=auc"], "there are no validation rows"),
            (["truth.shifts=[0.0,-1.0]"], "shift is -1"),
            (["truth.shifts=[]"], "give at least one"),
            (["truth.temperature=nan"], "truth.temperature is nan: give a value > 0"),
            (["data.source.seeds=5-3"], "first-last"),
        )
    ):
        assert main(["train", *STUDY, *words, f"hydra.run.dir={tmp_path / str(k)}"]) == 2
        assert message in capfd.readouterr().err
