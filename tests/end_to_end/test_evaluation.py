"""`spo evaluate RUN` with evaluate=full and evaluate=ranking, as a user types them: on a true link, and on people."""

import json
import math
from pathlib import Path

import pytest

from spo.run_folder import RunFolder

from .conftest import Here

SHORT = ["logger=none", "steps=2", "diagnosis.draws=99"]
FULL = ["evaluate=full", "reward@evaluate.reward=length", "evaluate.n_prompts=4", "evaluate.max_new_tokens=5"]


def test_all_parts_after_a_training(tiny: list[str], here: Here, capfd: pytest.CaptureFixture[str]) -> None:
    """One command: frontier, sequence tilt, best-of-n, and the ranking with what the true link and reward allow. A beta
    of 0 and too few samples are one message each."""
    assert here("train", *tiny, *SHORT, *FULL, "evaluate.betas=[2]", "hydra.run.dir=run") == 0
    run, said = RunFolder("run"), capfd.readouterr().out
    assert run.frontier[1]["ended"] is not None
    assert [p["n"] for p in run.read_json("best_of_n.json")] == [1, 2, 4, 8, 16]
    sequence, ranking = run.read_json("sequence_tilt.json"), run.read_json("ranking.json")
    assert [p["beta"] for p in sequence["points"]] + sequence["left_out"] == [16, 8, 4, 2, 1]
    assert ranking["order"] == "true"
    assert 0.5 < ranking["ideal_index_labels"] < 1
    assert len(ranking["ideal_policy"]) == 6
    for words in ("win rate", "distinct-3", "tilt of whole responses", "best of n", "against the true order"):
        assert words in said, words
    for number, (word, message) in enumerate(
        (
            ("evaluate.parts.sequence_tilt.betas=[0]", "evaluate.parts.sequence_tilt.betas is [0"),
            ("evaluate.parts.best_of_n.samples_per_prompt=1", "evaluate.parts.best_of_n.samples_per_prompt is 1"),
            ("evaluate.parts.sequence_tilt.samples_per_prompt=8", "give at least 16"),
            ("evaluate.betas=[0]", "evaluate.betas is [0"),
            ("evaluate.top_p=0.9", "evaluate: parts.best_of_n: it takes responses of the whole reference"),
        )
    ):
        assert here("evaluate", "run", *FULL, "logger=none", f"hydra.run.dir=bad{number}", word) == 2
        error = capfd.readouterr().err
        assert message in error
        assert "Traceback" not in error


def test_ranking_of_human_pairs(tiny: list[str], here: Here, capfd: pytest.CaptureFixture[str]) -> None:
    """Labels with ties and no rewards: AUC, accuracy and the diagnostic link of the held-out prompts, without a sample;
    the AUC is that of the validation of the kept weights. After a training, its diagnosis is that of the kept step."""
    rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
    people = [{k: v for k, v in row.items() if not k.startswith("reward")} for row in rows]
    lines = [json.dumps(row | {"z": (i % 3) / 2}) for i, row in enumerate(people)]
    Path("human.jsonl").write_text("\n".join(lines) + "\n")
    words = [word for word in tiny if not word.startswith(("truth", "data.train_path"))]
    human = [*words, *SHORT, "method=pspo", "data.train_path=human.jsonl"]
    assert here("train", *human, "hydra.run.dir=human") == 0
    assert here("evaluate", "human", "evaluate=ranking", "logger=none", "hydra.run.dir=ranked") == 0
    found, trained = RunFolder("ranked").read_json("ranking.json"), RunFolder("human")
    best = trained.read_json("best.json")
    assert (found["order"], found["ideal_index_labels"]) == ("labels", None)
    assert found["n_ordered"] < found["n_rows"]
    assert found["auc"]["value"] == pytest.approx(best["val/auc"], abs=0.02)
    assert math.isfinite(found["accuracy_index"]["value"])
    assert RunFolder("ranked").diagnosis_history()[0]["rows"] == found["n_rows"]
    assert not RunFolder("ranked").samples_path.exists()
    assert "held-out pairs" in capfd.readouterr().out
    assert here("train", *human, "evaluate=ranking", "validate_every=1", "hydra.run.dir=both") == 0
    assert [record["step"] for record in RunFolder("both").diagnosis_history()] == [0, 1, 2]
    assert here("train", *human, "evaluate=ranking", "data.val_fraction=0", "selection=last", "hydra.run.dir=no") == 2
    assert "ranking needs held-out rows" in capfd.readouterr().err
