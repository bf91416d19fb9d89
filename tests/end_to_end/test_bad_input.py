"""The issue's table of bad input through the command line: one message that names file, row or key and the mend,
exit code 2, no traceback, and before any weights load."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from spo.cli import main
from spo.cli.execute import execute
from spo.policy.causal_lm import CausalLM
from spo.run_folder import RunFolder

from .conftest import ROOT, Here

ROW = {"prompt": "Say.", "response_0": "a", "response_1": "b", "z": 1}
RUN = ["steps=2", "logger=none", "truth=none", "hydra.run.dir=run"]


def rows(*changed: dict[str, object]) -> str:
    """Twenty good rows and then these."""
    good = [ROW | {"prompt": f"Say {i}.", "z": i % 2} for i in range(20)]
    return "".join(json.dumps(row) + "\n" for row in [*good, *(ROW | row for row in changed)])


Refused = Callable[..., str]


@pytest.fixture
def refused(tiny: list[str], here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """`refused("seed=x")`: what `spo train` on rows.jsonl says, having returned 2 and loaded no weights. Without
    words, the folder of the time before is executed again."""

    def build(self: CausalLM) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(CausalLM, "build", build)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    Path("rows.jsonl").write_text(rows())

    def run(*words: str) -> str:
        capfd.readouterr()
        if words:
            shutil.rmtree("run", ignore_errors=True)
            code = here("train", *tiny, "data.train_path=rows.jsonl", *RUN, *words)
        else:
            code = execute("run")
        said = capfd.readouterr()
        message = said.err[said.err.find("spo train:") :]
        assert code == 2, said
        assert "Traceback" not in said.err + said.out
        assert message.count("spo train:") == 1, message
        return message

    return run


def test_files_that_cannot_be_used(refused: Refused) -> None:
    message = refused("data.train_path=rws.jsonl", "data.on_bad_row=raise")
    assert "rws.jsonl" in message
    assert "rows.jsonl" in message
    shutil.rmtree("run")
    refused("data.on_bad_row=raise", "epochs=1")  # two options that contradict each other, for its folder
    for content, expected in [
        ("", ["rows.jsonl holds no rows", "one preference pair a row"]),
        (rows()[:-20] + "\n", ["rows.jsonl:20", "JSON"]),
        (rows().replace("response_1", "answer"), ["response_1", "answer", "data.columns"]),
        (rows({"z": 1.5}), ["rows.jsonl:21", "z", "1.5", "[0, 1]"]),
        (rows().replace('"z": 0', '"z": 1'), ["rows.jsonl", "z is 1 in all 20", "data.columns="]),
        (rows({"prompt": 3}), ["rows.jsonl:21", "prompt"]),
    ]:
        Path("rows.jsonl").write_text(content)
        message = refused()
        for part in expected:
            assert part in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data.max_length=8"], ["rows.jsonl", "data.max_length"]),
        (["truth=logistic"], ["rows.jsonl:1", "reward_", "data.columns="]),
        (["global_batch=7", "micro_batch=4"], ["global_batch", "7", "multiple", "4"]),
        (["global_batch=64"], ["global_batch", "64"]),
        (["steps=5", "epochs=1"], ["steps is 5", "epochs", "give one of them"]),
        (["steps=null", "epochs=1", "validate_every=100"], ["validate_every is 100", "give 1 to"]),
        (["method=pspo", "refit.warm_start_steps=0"], ["refit.warm_start_steps is 0"]),
        (["steps=0"], ["steps is 0", "at least 1"]),
        (["hardware=gpu"], ["hardware asks for GPUs", "hardware=cpu"]),
        (["reference=frozen", "reference.path=nowhere"], ["model nowhere", "reference.path"]),
        (["reference=table", "reference.path=nowhere"], ["nowhere", "spo precompute"]),
        (["policy.path=nowhere"], ["model nowhere", "neither a local folder", "policy.path"]),
        (
            ["optim.learning_rate=-1", "schedule.final=2", "hardware.devices=2", "evaluate=tilt", "evaluate.betas=[0]"],
            ["optim.learning_rate is -1", "schedule.final is 2", "hardware=ddp", "evaluate.betas"],
        ),
    ],
    ids=lambda value: value[0],
)
def test_options_told_before_weights_load(refused: Refused, words: list[str], expected: list[str]) -> None:
    message = refused(*words)
    for part in expected:
        assert part in message


def test_rows_longer_than_the_models_context(refused: Refused, tiny: list[str], here: Here) -> None:
    """The tiny model has 512 positions. With the length that the message names the row is dropped."""
    Path("rows.jsonl").write_text(rows({"prompt": "z" * 600}))
    message = refused("data.max_length=1024")
    assert "tokens, and the model's context 512: give data.max_length=512" in message
    table = ["truth=none", "data.train_path=rows.jsonl", "data.max_length=1024", "hydra.run.dir=table"]
    assert here("precompute", *(w for w in tiny if w.startswith(("policy", "data"))), *table) == 2
    mended = ["data.train_path=rows.jsonl", *RUN, "data.max_length=512", "hydra.run.dir=mended"]
    assert here("train", *tiny, *mended) == 1  # it goes on to load weights, which this test has none of
    assert "weights were loaded" in RunFolder("mended").status["message"]


@pytest.fixture
def models(tiny_llama_dir: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies of the tiny Llama: without weights, without chat template, with other weights."""
    made = {name: tmp_path / name for name in ("bare", "plain", "other")}
    for folder in made.values():
        shutil.copytree(tiny_llama_dir, folder)
    (made["bare"] / "model.safetensors").unlink()
    (made["plain"] / "chat_template.jinja").unlink()
    weights = load_file(made["other"] / "model.safetensors")
    save_file({k: v + 0.1 for k, v in weights.items()}, made["other"] / "model.safetensors", {"format": "pt"})
    return made


def test_models_that_do_not_fit(refused: Refused, models: dict[str, Path]) -> None:
    message = refused(f"policy.path={models['bare']}")
    assert str(models["bare"]) in message
    assert "weights" in message
    message = refused(f"policy.path={models['plain']}")
    assert "chat template" in message
    assert "data.chat_template=none" in message


def test_a_table_of_another_model(
    tiny: list[str], models: dict[str, Path], here: Here, capfd: pytest.CaptureFixture[str]
) -> None:
    assert here("precompute", *(w for w in tiny if w.startswith(("policy", "data", "truth"))), "hydra.run.dir=t") == 0
    table = ["reference=table", "reference.path=t/reference", *RUN, "truth=shifted_mixture"]
    capfd.readouterr()
    assert here("train", *tiny, *table, f"policy.path={models['other']}") == 2
    err = capfd.readouterr().err
    assert "t/reference" in err
    assert "model" in err
    assert "spo precompute" in err
    assert "Traceback" not in err


def test_no_space_left(
    tiny: list[str], here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """/dev/full answers every write as a full disk does: at the first file of a run, and at the kept weights, where
    torch's own error does not say what it is and the disk is asked."""
    for name, folder, free in (("data_report.json", "a", 1 << 30), ("checkpoints/best.ckpt", "b", 0)):
        part = Path(folder) / f"{name}.{os.getpid()}.part"
        part.parent.mkdir(parents=True)
        part.symlink_to("/dev/full")
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _, free=free: SimpleNamespace(free=free))
            assert here("train", *tiny, *RUN[:2], f"hydra.run.dir={folder}") == 2
        err = capfd.readouterr().err
        assert f"no space left on the disk of {Path(folder).resolve()}: free some, then `spo execute" in err
        assert "Traceback" not in err
        assert RunFolder(folder).status["state"] == "failed"
        part.unlink()
        assert execute(folder) == 0


def test_what_the_schema_knows_is_told_before_torch(tiny: list[str], tmp_path: Path) -> None:
    """All of it at once, the nearest name given; no run folder is made."""
    code = (
        "import sys; from spo.cli import main\ncode = main(sys.argv[1:])\n"
        "assert not {'torch', 'lightning', 'transformers'} & set(sys.modules)\nsys.exit(code)"
    )
    words = ["link=isotonik", "method=psop", "+bogus=1", "optim.learning_rte=1", "+data.max_lenght=3", "steps=5"]
    words += ["validate_every=100", "seed=x", "data.truncation=dorp", "reference=table", "globl_batch=8"]
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *tiny, *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    for expected in [
        "did you mean link=isotonic?",
        "did you mean method=pspo?",
        "unknown key bogus",
        "unknown key optim.learning_rte: did you mean optim.learning_rate?",
        "unknown key data.max_lenght: did you mean data.max_length?",
        "validate_every is 100 optimizer steps, longer than the run (steps=5)",
        "seed is 'x': give a whole number",
        "(nearest: drop)",
        "reference.path is not set",
        "unknown key globl_batch: did you mean global_batch?",
    ]:
        assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_preset_for_another_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody typed schedule.warmup: the message says who did, and how to leave it out."""
    assert main(["train", "experiment=tabular", "schedule=refined", "schedule.path=x", "schedule.pwer=2"]) == 2
    err = capsys.readouterr().err
    assert "unknown key schedule.warmup" in err
    assert "(experiment=tabular sets it, for another option). To leave it out: ~schedule.warmup" in err
    assert "unknown key schedule.pwer: did you mean schedule.power?\n" in err


def test_parts_that_do_not_go_together(refused: Refused) -> None:
    """All refusals at once: the objective's of the link, the policy's and the tilt's of the divergence."""
    message = refused("divergence=chi_square", "objective=orthogonal", "link=isotonic", "evaluate=tilt")
    for part in [
        "Orthogonal refuses the link Isotonic",
        "link=kernel",
        "ChiSquare is for tabular policies",
        "divergence=chi_square_kl",
        "evaluate=tilt is not available",
        "evaluate=none",
    ]:
        assert part in message


def test_references_and_policies_that_do_not_go_together(
    refused: Refused, tiny_gpt2_dir: Path, tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """Full fine-tuning has no adapters to switch off; a frozen reference reads the policy's tokens, and the tilt that
    is evaluated is against the policy's start."""
    message = refused("policy.lora=null")
    assert "reference=adapter_off needs a policy with adapters" in message
    assert "reference=frozen" in message
    assert "policy.dtype is bfloat16" in refused("policy.lora=null", "policy.dtype=bfloat16", "reference=frozen")
    assert "another vocabulary" in refused("reference=frozen", f"reference.path={tiny_gpt2_dir}")
    other = shutil.copytree(tiny_llama_dir, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, other / "model.safetensors")
    message = refused("reference=frozen", f"reference.path={other}", "evaluate=tilt")
    assert "evaluate=none" in message
