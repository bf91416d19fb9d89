"""The compose half: every problem at once, one clear message each, exit code 2, and nothing run."""

import json
from pathlib import Path

import pytest
import yaml

from spo.cli.hydra_app import decay_over, short_name, steps_of
from spo.run_folder import RunFolder

from .conftest import Spo


def test_bad_input_is_told_all_at_once_before_torch(start, tmp_path: Path):
    words = ["lnik=isotonic", "link=kernl", "+link.bogus=1", "optim.learning_rte=1", "optim.betas=[1,x]", "steps=2.5"]
    process = start("fit", *words, "seed=true", "mode=wiat", "columns=1")
    _, err = process.communicate()
    assert process.returncode == 2, err
    for expected in [
        "unknown key lnik: did you mean link?",
        "link=kernl is no option of link: did you mean link=kernel?",
        "unknown key link.bogus",
        "unknown key optim.learning_rte: did you mean optim.learning_rate?",
        "optim.betas is [1, 'x']: give a list (a number each)",
        "steps is 2.5: give a whole number",
        "seed is true: give a whole number",
        "mode is 'wiat': give one of ok,",
        "(nearest: wait)",
        "unknown key columns: did you mean optim.columns?",
        "data_path is not set: give data_path=PATH",
    ]:
        assert expected in err
    assert "Traceback" not in err
    assert "heavy imports" not in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data_path=[1,"], "cannot read the override data_path=[1,"),
        (["data_path=${nope}"], "data_path cannot be resolved: Interpolation key 'nope' not found"),
        (["data_path=x", "hydra.run.dri=3"], "hydra.run.dri: Key 'dri' not in 'RunDir'"),
        (["data_path=x", "seed=1,2"], "seed=1,2 has several values: add -m"),
        (["data_path=x", "optim.every=101"], "optim.every is 101 optimizer steps, longer than the run (steps=100)"),
        (["data_path=x", "optim=3"], "optim=3 is no option of optim"),
        (["data_path=x", "experiment=null"], "experiment=null is no option of experiment"),
        (["data_path=x", "+seed=1"], "An item is already at 'seed'"),
        (["data_path=x", "experiment=null", "--cfg", "job"], "Config group override must be a string"),
        (["data_path=x", "-m", "--cfg", "job"], "Only one of --run, --multirun, --cfg"),
        (["data_path=x", "link._target_=toy_targets.Isotone"], "link._target_ is toy_targets.Isotone"),
        (["data_path=x", "link._target_=not_there.Link"], "there is no module 'not_there'"),
        (["data_path=x", "steps.x=1"], "steps is {'x': 1}: give a whole number"),
        (["data_path=x", "optim.columns={a: 1}"], "optim.columns is {'a': 1}"),
        (["data_path=x", "~link"], "link is not set"),
        (["data_path=x", "run=1"], "unknown key run"),
    ],
)
def test_each_mistake_has_its_message(spo: Spo, capsys: pytest.CaptureFixture[str], words: list[str], expected: str):
    assert spo("fit", *words) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert "Traceback" not in err
    assert not Path("runs").exists()


def test_unknown_flag(spo: Spo):
    with pytest.raises(SystemExit) as stopped:
        spo("fit", "--bogus")
    assert stopped.value.code == 2


def test_a_run_is_written_resolved_and_executed(spo: Spo):
    path = "it's a file, {really}.jsonl"
    assert spo("fit", "runs/other", "experiment=small", f'data_path="{path}"', "link.bandwidth=1e-5", "seed=4") == 0
    (folder,) = Path("runs/fit").iterdir()
    run = RunFolder(folder)
    assert folder.name.endswith("seed-4")
    assert run.config["data_path"] == path
    assert run.config["steps"] == 10
    assert run.config["link"] == {"_target_": "toy_targets.Kernel", "bandwidth": 1e-5, "rule": "silverman"}
    assert run.config["source_run"] == "runs/other"
    assert yaml.safe_load(run.config_path.read_text()) == run.config
    assert run.choices["link"] == "kernel"
    assert run.choices["experiment"] == "small"
    assert run.invocation["command_line"].startswith("spo fit runs/other experiment=small")
    assert run.status["state"] == "ok"
    assert run.status["exit_code"] == 0
    assert run.read_json("ran.json")["seed"] == 4


def test_a_folder_is_not_used_twice(spo: Spo, capsys: pytest.CaptureFixture[str]):
    assert spo("fit", "data_path=x", "hydra.run.dir=mine") == 0
    assert spo("fit", "data_path=x", "hydra.run.dir=mine") == 2
    assert "already holds a run" in capsys.readouterr().err


def test_config_dir_adds_options(spo: Spo, tmp_path: Path):
    (tmp_path / "own/link").mkdir(parents=True)
    (tmp_path / "own/link/mine.yaml").write_text("_target_: toy_targets.Isotonic\nknots: 5\nsymmetric: true\n")
    assert spo("fit", "--config-dir", "own", "data_path=x", "link=mine", "hydra.run.dir=r") == 0
    assert RunFolder("r").config["link"]["knots"] == 5


def test_constructor_refusals_are_gathered(spo: Spo, capfd: pytest.CaptureFixture[str]):
    assert (
        spo("fit", "data_path=x", "link.knots=0", "optim.learning_rate=-1", "optim.betas=[1]", "hydra.run.dir=r") == 2
    )
    err = capfd.readouterr().err
    assert "link.knots is 0: give at least 1" in err
    assert "optim.learning_rate is -1: give a value > 0" in err
    assert "optim.betas has not two values" in err
    assert RunFolder("r").status["state"] == "failed"
    assert not Path("r/ran.json").exists()


def test_short_name():
    words = ["data.train_path='/a/b c.jsonl'", "+link.x=1", "link=kernel"]
    assert short_name(words) == "_train_path-b_c.jsonl_x-1_link-kernel"
    assert short_name([]) == ""
    assert len(short_name(["key=" + "v" * 300])) <= 80


def test_passes_as_optimizer_steps():
    assert steps_of(1, 1000, 128) == 8  # seven whole batches and a part of one
    assert steps_of(3, 1024, 128) == 24
    assert steps_of(2, 1000, 1) == 2000
    assert decay_over(8, 1000, 128) == 1 - 1 / 64
    assert decay_over(1, 100, 128) == 0.5  # a step a pass: the mean of the last two, not the last alone
    assert steps_of(8, "many", 128) == 1  # type: ignore[arg-type]


def test_the_config_is_plain_yaml(spo: Spo):
    assert spo("fit", "data_path=x", "hydra.run.dir=r") == 0
    assert "${" not in Path("r/config.resolved.yaml").read_text()
    assert json.loads(Path("r/invocation.json").read_text())["version"]
