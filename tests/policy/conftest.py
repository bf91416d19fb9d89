"""Hand-made token pairs and policies of the tiny models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spo.policy.causal_lm import CausalLM
from spo.policy.lora import LoRA
from spo.types import PreferenceBatch, TokenPairs


def tiny_policy(
    folder: Path,
    *,
    seed: int = 0,
    dropout: float = 0.0,
    dtype: str = "float32",
    chunk: int = 7,
    full: bool = False,
    checkpointing: bool = False,
    attention: str = "sdpa",
    packing: str = "auto",
    compile: bool = False,
) -> CausalLM:
    policy = CausalLM(
        path=str(folder),
        dtype=dtype,
        attn_implementation=attention,
        lora=None if full else LoRA(r=4, alpha=8, dropout=dropout, target_modules="all-linear"),
        head_chunk=chunk,
        gradient_checkpointing=checkpointing,
        packing=packing,
        compile=compile,
        seed=seed,
    )
    policy.build()
    return policy


def move_adapters(policy: CausalLM, scale: float = 0.2, seed: int = 7) -> CausalLM:
    """Random changes of what trains, so that the policy is not the reference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(scale * torch.randn(p.shape, generator=generator))
    return policy


def pairs(
    prompts: list[list[int]], responses: list[tuple[list[int], list[int]]], *, pad: int = 0, extra: int = 0
) -> TokenPairs:
    """Right-padded, with `extra` columns of padding more than needed."""
    T = max(len(p) + len(r) for p, two in zip(prompts, responses, strict=True) for r in two) + extra
    ids = torch.full((len(prompts), 2, T), pad, dtype=torch.int64)
    attention, target = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for b, (p, two) in enumerate(zip(prompts, responses, strict=True)):
        for j, r in enumerate(two):
            n = len(p) + len(r)
            ids[b, j, :n] = torch.tensor(p + r)
            attention[b, j, :n] = 1
            target[b, j, len(p) : n] = True
    return TokenPairs(ids, attention, target)


PROMPTS = [[5, 9, 33, 101], [40, 41], [7, 8, 9, 10, 11, 12, 13]]
RESPONSES = [([20, 21, 22, 0], [30, 0]), ([50, 60, 70, 80, 90, 0], [55, 65, 0]), ([100, 0], [110, 111, 112])]


@pytest.fixture
def three_pairs() -> TokenPairs:
    return pairs(PROMPTS, RESPONSES)


@pytest.fixture
def three_rows(three_pairs: TokenPairs) -> PreferenceBatch:
    return PreferenceBatch(three_pairs, torch.tensor([1.0, 0.0, 0.5]), torch.ones(3), torch.tensor([-5, 17, 3]))


@pytest.fixture(params=["llama", "gpt2"])
def model_dir(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"tiny_{request.param}_dir")


@pytest.fixture
def make() -> Callable[..., CausalLM]:
    return tiny_policy
