"""`spo evaluate RUN`: what it takes from the training's folder, and what it says where that is not one."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spo.callbacks.diagnosis import NoDiagnosis
from spo.cli.evaluate import evaluate, load_best
from spo.divergence.kl import KL
from spo.errors import ConfigError
from spo.evaluate.lm import TiltEvaluation
from spo.evaluate.pairs import score_pairs
from spo.evaluate.ranked import Ranking, RankingEvaluation
from spo.loggers import NoLogger
from spo.policy.tabular import Tabular
from spo.run_folder import RunFolder
from tests.evaluate.test_lm import OPTIONS, learned
from tests.policy.conftest import move_adapters, tiny_policy
from tests.small import SIZES
from tests.tiny import diagnosis


@pytest.fixture
def trained(tiny_llama_dir: Path, tmp_path: Path) -> RunFolder:
    """A folder as a training leaves it: config, rows, the kept weights."""
    rows = [
        {"prompt": f"Question {i}?", "response_0": f"a{i}", "response_1": f"bb{i}", "z": float(i % 2)} for i in range(8)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lora = {"_target_": "spo.policy.lora.LoRA", "r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
    config: dict[str, Any] = {
        "_target_": "spo.cli.train.train",
        "policy": {
            "_target_": "spo.policy.causal_lm.CausalLM",
            "path": str(tiny_llama_dir),
            "dtype": "float32",
            "attn_implementation": "sdpa",
            "lora": lora,
            "head_chunk": 64,
            "gradient_checkpointing": False,
            "packing": "auto",
            "compile": False,
            "seed": 0,
        },
        "data": {
            "_target_": "spo.data.datamodule.PreferenceDataModule",
            "_partial_": True,
            "train_path": str(tmp_path / "rows.jsonl"),
            "max_length": 64,
            "val_fraction": 0.5,
        },
        "reference": {"_target_": "spo.policy.reference.AdapterOff"},
        "truth": {"_target_": "spo.simulate.labels.no_truth"},
        "divergence": {"_target_": "spo.divergence.kl.KL"},
        "objective": {"_target_": "spo.objective.profile.Profile"},
        "link": {"_target_": "spo.link.logistic.Logistic", "scale": 1.0},
        "seed": 0,
    }
    run = RunFolder(tmp_path / "train")
    run.create(config, {})
    policy = move_adapters(tiny_policy(tiny_llama_dir), 0.1)
    state = {f"policy.{k}": v for k, v in policy.trainable_state_dict().items()}
    state |= {"orientation": torch.tensor(-1.0), "orientation_z": torch.tensor(-1.5), "alive": torch.tensor(True)}
    torch.save({"state_dict": state, "kept_step": torch.tensor(3)}, run.checkpoints / "best.ckpt")
    return run


def test_it_evaluates_the_kept_weights(trained: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The adapters of the checkpoint and its orientation are used: KL at beta 1 is not 0 and is that of zeta = -1."""
    run = RunFolder(tmp_path / "evaluation")
    run.create({"_target_": "spo.cli.evaluate.evaluate"}, {})
    options = {**OPTIONS, "betas": [1.0]}
    evaluate(run=run, train_run=str(trained.path), evaluate=TiltEvaluation(**options), logger=NoLogger(), device="cpu")
    assert [p["beta"] for p in run.frontier] == [None, 1.0]
    assert run.frontier[1]["kl"] > 0
    assert run.samples_path.is_file()
    said = capsys.readouterr().out
    assert "orientation of the link is undetermined (z-score -1.5" in said
    assert "beta_1" in said
    assert load_best(trained).orientation == -1


def ranking(**changes: Any) -> RankingEvaluation:
    return RankingEvaluation(**{"ideal_betas": [1.0], "batch_size": 3, "diagnosis": diagnosis(), **changes})


def test_ranking_samples_nothing(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels from the file and no rewards: AUC, accuracies and the diagnostic link of the held-out rows, equal to those
    of single rows scored one by one; no frontier, no response."""
    monkeypatch.setattr("spo.evaluate.bench.sample", None)
    run = RunFolder(tmp_path / "evaluation")
    run.create({"_target_": "spo.cli.evaluate.evaluate"}, {})
    evaluate(run=run, train_run=str(trained.path), evaluate=ranking(), logger=NoLogger(), device="cpu")
    found = run.read_json("ranking.json")
    assert (found["order"], found["ideal_index_labels"], found["ideal_policy"]) == ("labels", None, [])
    assert not run.samples_path.exists()
    assert run.frontier == []
    (record,) = run.diagnosis_history()
    assert (record["step"], record["orientation"], record["rows"]) == (3, -1, found["n_rows"])
    assert record["working_p"][50] == pytest.approx(0.5)  # at t = 0
    assert run.read_json("best.json")["ranking/auc"] == found["auc"]["value"]
    said = capsys.readouterr().out
    assert "against labels: AUC" in said
    assert "logistic link" in said
    other = RunFolder(tmp_path / "batched")
    other.create({"_target_": "spo.cli.evaluate.evaluate"}, {})
    alone = ranking(batch_size=1, diagnosis=NoDiagnosis())
    evaluate(run=other, train_run=str(trained.path), evaluate=alone, logger=NoLogger(), device="cpu")
    assert other.read_json("ranking.json")["accuracy_policy"] == found["accuracy_policy"]
    assert other.read_json("ranking.json")["auc"] == pytest.approx(found["auc"])
    assert other.diagnosis_history() == []


def test_ranking_without_held_out_rows_is_refused(trained: RunFolder, tmp_path: Path, tiny_llama_dir: Path) -> None:
    """Alone and as a part: before weights load; and where a stream had none."""
    source, run = RunFolder(tmp_path / "none"), RunFolder(tmp_path / "evaluation")
    source.create({**trained.config, "data": {**trained.config["data"], "val_fraction": 0.0}}, {})
    (source.checkpoints / "best.ckpt").write_bytes((trained.checkpoints / "best.ckpt").read_bytes())
    run.create({"_target_": "spo.cli.evaluate.evaluate"}, {})
    part = TiltEvaluation(**{**OPTIONS, "parts": {"ranking": Ranking(ideal_betas=[1.0])}})
    for asked in (ranking(), part):
        with pytest.raises(ConfigError, match=r"val_fraction is 0\.0: raise"):
            evaluate(run=run, train_run=str(source.path), evaluate=asked, logger=NoLogger(), device="cpu")
    empty = SimpleNamespace(val=[])
    with pytest.raises(ConfigError, match="there are none: raise"):
        score_pairs(learned(tiny_policy(tiny_llama_dir)), empty, 4)  # type: ignore[arg-type]
    for wrong in ({"ideal_betas": [0.0]}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is"):
            ranking(**wrong)
    with pytest.raises(ConfigError, match="evaluate=tabular_tilt"):
        ranking().check(KL(), Tabular(seeds=[1], **SIZES))


def test_another_reference_than_the_start_is_refused(trained: RunFolder, tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    """The index was learned against a model that the tilt does not sample from."""
    other = {"_target_": "spo.policy.frozen.Frozen", "path": str(tiny_gpt2_dir)}
    other |= {"dtype": None, "attn_implementation": None}
    source, run = RunFolder(tmp_path / "other"), RunFolder(tmp_path / "evaluation")
    source.create({**trained.config, "reference": other}, {})
    run.create({"_target_": "spo.cli.evaluate.evaluate"}, {})
    with pytest.raises(ConfigError, match="reference is another one"):
        evaluate(
            run=run, train_run=str(source.path), evaluate=TiltEvaluation(**OPTIONS), logger=NoLogger(), device="cpu"
        )


def test_a_folder_that_is_no_training_is_refused(trained: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    other.create({"_target_": "spo.cli.label.label"}, {})
    for path, word in ((tmp_path / "nothing", "is not a run folder"), (other.path, "not a run of `spo train`")):
        with pytest.raises(ConfigError, match=word):
            evaluate(
                run=other, train_run=str(path), evaluate=TiltEvaluation(**OPTIONS), logger=NoLogger(), device="cpu"
            )
    (trained.checkpoints / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"no checkpoints/best\.ckpt"):
        load_best(trained)
