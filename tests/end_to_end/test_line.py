"""label -> precompute -> train -> evaluate -> report, as a user types them (NUMERICS 32)."""

from pathlib import Path

import pytest

from spo.data.sources import read_rows
from spo.report.results import Result
from spo.run_folder import RunFolder
from tests.wandb_reader import find

from .conftest import TINY, Here, spo

EVALUATION = ["evaluate.n_prompts=6", "evaluate.max_new_tokens=6", "evaluate.betas=[4,1]", "evaluate.kl_target=0.01"]


def test_the_whole_line(
    tiny_llama_dir: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From prompts to a page; and the stored reference gives the online one's losses, under another seed too."""
    monkeypatch.chdir(tmp_path)
    model = ["policy=causal_lm", "policy.lora.r=4", f"policy.path={tiny_llama_dir}"]
    data = [*TINY, *model, "data.train_path=rows", "truth.link.temperature=1"]
    assert here("label", *model, "n_prompts=40", "max_new_tokens=8", "reward=length", "hydra.run.dir=rows") == 0
    assert len(list(read_rows("rows"))) == 40
    kept = [word for word in data if word.startswith(("policy", "data.", "truth"))]
    assert here("precompute", *kept, "hydra.run.dir=table") == 0
    stored = ["reference=table", "reference.path=table/reference"]
    length = ["steps=3", "logger=none", "micro_batch=4"]
    tilt = ["evaluate=tilt", "reward@evaluate.reward=length", *EVALUATION]
    out = spo("train", *data, *stored, *length, *tilt, "method=pspo", "hydra.run.dir=runs/pspo")
    assert "kept the weights of step" in out
    shown = [line.partition("  auc ")[2].split()[0] for line in out.splitlines() if line.startswith("step 3/3")]
    assert shown == [f"{RunFolder('runs/pspo').last('val/auc'):.4f}"], "a line shows the AUC of its own step"
    said, kept = "orientation of the link is undetermined" in out, RunFolder("runs/pspo")
    assert said == (Result(kept, kept).undetermined is not None)
    wandb = [*length[:1], "logger=wandb", *length[2:]]
    assert here("train", *data, *wandb, "diagnosis.draws=99", "hydra.run.dir=runs/dpo") == 0
    (logged,) = find(Path("runs"))
    assert [step for step, _ in logged.values("diagnosis/p_logistic")] == [0, 1, 2, 3]
    table = logged.table(logged.values("diagnosis/curve")[-1][1])
    assert table["columns"][-1] == "working_p"
    assert table["data"][50][-1] == pytest.approx(0.5)  # at t = 0
    assert here("evaluate", "runs/dpo", "logger=none", *tilt[1:], "hydra.run.dir=evaluated/dpo") == 0
    assert here("report", "runs") == 0
    printed = capfd.readouterr().out

    pspo, dpo = RunFolder("runs/pspo"), RunFolder("runs/dpo")
    for run in (pspo, dpo):
        assert run.status["state"] == "ok"
        for name in ("metrics.csv", "link.json", "index_history.jsonl", "validation.parquet", "data_report.json"):
            assert (run.path / name).is_file(), name
        assert [record["step"] for record in run.diagnosis_history()] == [0, 1, 2, 3]
        assert {path.name for path in run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
        assert {"val/auc", "val/auc_se", "link/nll", "link/ece", "rewards/margins"} <= {m.name for m in run.metrics()}
    assert pspo.link["link"] == "Isotonic"
    assert (pspo.link["true_p"] is None) == (pspo.link["true_scale"] is None)  # known, where the rows can place it
    for run in (pspo, RunFolder("evaluated/dpo")):
        assert [point["beta"] for point in run.frontier] == [None, 4.0, 1.0]
        assert run.frontier[0]["kl"] == 0
        assert run.samples_path.is_file()
    assert Path("runs/report.html").stat().st_size > 10_000
    print(printed[-2500:])
    assert "PSPO" in printed
    assert "logistic link " in out
    assert "Is the link logistic?" in Path("runs/report.html").read_text()
    assert str(Path("runs/report.html").resolve()) in printed
    _stored_equals_online(here, data, stored)


def _stored_equals_online(here: Here, data: list[str], stored: list[str]) -> None:
    for seed in (0, 1):
        for name, reference in (("stored", stored), ("online", [])):
            folder = f"{name}{seed}"
            words = [*data, *reference, "steps=2", "logger=none", f"seed={seed}", f"hydra.run.dir={folder}"]
            assert here("train", *words) == 0
        a, b = (RunFolder(f"{name}{seed}").series("train/loss") for name in ("stored", "online"))
        assert [v for _, v in a] == pytest.approx([v for _, v in b], abs=1e-4)
        assert RunFolder(f"stored{seed}").last("index/max_at_start") < 1e-4
    assert RunFolder("stored0").series("logps/chosen") != RunFolder("stored1").series("logps/chosen")
