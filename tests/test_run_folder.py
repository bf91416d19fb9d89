"""The run folder: rows survive a kill, a resumed run has each step once."""

import json
import math
from pathlib import Path

import pytest

from spo.errors import ConfigError
from spo.run_folder import Metric, RunFolder


def test_metrics_are_tidy_and_exact(tmp_path: Path):
    run = RunFolder(tmp_path / "r")
    run.append_metrics(1, {"train/loss": 0.1 + 0.2, "a,b": 1})
    run.append_metrics(2, {"train/loss": math.nan})
    assert run.metrics_path.read_text().splitlines()[0] == "step,name,value"
    first, second, third = run.metrics()
    assert (first, second) == (Metric(1, "train/loss", 0.1 + 0.2), Metric(1, "a,b", 1.0))
    assert math.isnan(third.value)
    assert run.series("train/loss")[0] == (1, 0.1 + 0.2)
    assert run.last("a,b") == 1.0
    assert math.isnan(run.last("none"))


def test_cut_drops_later_steps_and_a_torn_row(tmp_path: Path):
    """NUMERICS 26: a killed and resumed run has the same curve as one that was not."""
    run = RunFolder(tmp_path)
    for step in range(1, 6):
        run.append_metrics(step, {"x": step})
        run.append_link({"step": step, "t": [0.0], "p": [0.5]})
        run.append_index({"step": step, "edges": [0, 1], "counts": [step]})
        run.append_diagnosis({"step": step, "p_logistic": 0.5})
    with run.metrics_path.open("a") as file:
        file.write("6,x")
    with (tmp_path / "link_history.jsonl").open("a") as file:
        file.write('{"step": 6, "t"')
    run.cut(3)
    assert [m.step for m in run.metrics()] == [1, 2, 3]
    assert [r["step"] for r in run.link_history()] == [1, 2, 3]
    assert [r["step"] for r in run.index_history()] == [1, 2, 3]
    assert [r["step"] for r in run.diagnosis_history()] == [1, 2, 3]
    assert run.link["step"] == 3
    run.append_metrics(4, {"x": 4})
    assert run.series("x") == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_a_diagnosis_of_an_older_step_replaces_what_was_said_of_it(tmp_path: Path):
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.append_diagnosis({"step": step, "p_logistic": 0.5})
    run.put_diagnosis({"step": 2, "p_logistic": math.nan})
    run.put_diagnosis({"step": 0, "p_logistic": 0.1})
    assert [(r["step"], r["p_logistic"]) for r in run.diagnosis_history()] == [(0, 0.1), (1, 0.5), (2, None), (3, 0.5)]


def test_cut_of_nothing(tmp_path: Path):
    RunFolder(tmp_path).cut(0)
    assert list(tmp_path.iterdir()) == []


def test_json_has_no_nan(tmp_path: Path):
    run = RunFolder(tmp_path)
    run.write_json("x.json", {"a": [math.nan, math.inf, 1.5], "b": (1, 2)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, None, 1.5], "b": [1, 2]}


def test_status_keeps_other_keys(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert run.status == {}
    run.update_status(state="running", wandb_run_id="abc")
    run.update_status(state="ok")
    assert run.status == {"state": "ok", "wandb_run_id": "abc"}


def test_create_once(tmp_path: Path):
    run = RunFolder(tmp_path / "a/b")
    run.create({"_target_": "f", "x": 1e-5, "s": "1e-5", "n": None}, {"choices": {"link": "kernel"}})
    again = RunFolder(run.path)
    assert again.config == {"_target_": "f", "x": 1e-5, "s": "1e-5", "n": None}
    assert again.choices == {"link": "kernel"}
    with pytest.raises(ConfigError, match="already holds a run"):
        again.create({}, {})


def test_not_a_run_folder(tmp_path: Path):
    with pytest.raises(ConfigError, match="not a run folder"):
        _ = RunFolder(tmp_path / "none").config


def test_reading_makes_nothing(tmp_path: Path):
    run = RunFolder(tmp_path / "r")
    assert (run.link, run.frontier, run.data_report, run.last_checkpoint) == ({}, [], {}, None)
    assert not run.path.exists()
    assert run.figures.is_dir()
    assert run.checkpoints.is_dir()
