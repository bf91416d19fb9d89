"""benchmarks/lm.py on a tiny model of the shape that it is run with on a GPU: every part, in this process."""

import importlib
import json
from pathlib import Path
from queue import SimpleQueue

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_every_part_runs_on_a_small_model_of_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    lm = importlib.import_module("lm")
    words = ["--model", "qwen3-0.6b", "--tiny", "--layers", "1", "--rounds", "1", "--threads", "1"]
    options = lm.options_of(words)
    results: SimpleQueue[dict[str, float]] = SimpleQueue()
    with lm.written(options):
        config = json.loads((Path(options.model) / "config.json").read_text())
        for part in options.parts:
            lm.measure(part, options, results)
    assert (config["model_type"], config["num_hidden_layers"], config["tie_word_embeddings"]) == ("qwen3", 1, True)
    label, tilt, table = (results.get() for _ in range(3))
    assert label["tokens"] <= lm.PROMPTS * lm.NEW_TOKENS
    assert label["tokens_per_s"] > 0
    assert tilt["ratio"] > 0
    assert 0 <= tilt["equal"] <= 1
    assert table["saved"] < 1
    for wrong in (["--tiny"], ["--layers", "2"]):
        with pytest.raises(SystemExit):
            lm.options_of(wrong)


def test_the_shape_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """596 million weights, of which 440 million are not the embedding."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    monkeypatch.syspath_prepend(str(BENCHMARKS))
    shapes = importlib.import_module("shapes")
    with torch.device("meta"):
        model = Qwen3ForCausalLM(Qwen3Config(**shapes.SHAPES["qwen3-0.6b"]))
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6) == 596
    assert round((count - model.model.embed_tokens.weight.numel()) / 1e6) == 440
