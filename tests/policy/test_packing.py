"""A packed batch against two forward passes of unpadded rows: value and gradient, in float64."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from spo.policy import packing
from spo.policy.causal_lm import CausalLM
from spo.policy.packing import pack
from spo.types import TokenPairs

from .conftest import PROMPTS, RESPONSES, move_adapters, pairs, tiny_policy

WEIGHTS = torch.arange(1.0, 7.0, dtype=torch.float64).view(3, 2)


def alone(policy: CausalLM) -> Tensor:
    """log pi of every response by a plain forward pass of its own row: (3, 2)."""
    rows = []
    for prompt, two in zip(PROMPTS, RESPONSES, strict=True):
        for response in two:
            ids = torch.tensor([prompt + response])
            logp = policy.transformer(input_ids=ids).logits[0].log_softmax(-1)
            rows.append(sum(logp[k - 1, ids[0, k]] for k in range(len(prompt), ids.shape[1])))
    return torch.stack(rows).view(3, 2)


def gradients(policy: CausalLM, value: Tensor) -> dict[str, Tensor]:
    policy.zero_grad()
    (value.double() * WEIGHTS).sum().backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_equals_separate_forward_passes(
    model_dir: Path, three_pairs: TokenPairs, full: bool, checkpointing: bool
) -> None:
    policy = move_adapters(tiny_policy(model_dir, full=full, checkpointing=checkpointing), 0.05).double()
    assert policy.packs
    packed = policy.log_prob(three_pairs)
    ours = gradients(policy, packed)
    plain = alone(policy)
    theirs = gradients(policy, plain)
    torch.testing.assert_close(packed.double(), plain, atol=2e-5, rtol=0)  # the sums are float32
    for name, grad in theirs.items():
        torch.testing.assert_close(ours[name], grad, atol=1e-5 * float(grad.abs().max() + 1e-3), rtol=1e-4)


@torch.no_grad()
def test_places_of_tokens_by_hand() -> None:
    """Prompt [5, 6], responses [7, 8] and [7, 9, 1]: the sides share 5 6 7, so six tokens stand for nine."""
    pair = pairs([[5, 6]], [([7, 8], [7, 9, 1])])
    found = pack(pair.input_ids, pair.attention_mask)
    assert found is not None
    assert found.input_ids.tolist() == [[5, 6, 7, 8, 9, 1]]
    assert found.positions.tolist() == [[0, 1, 2, 3, 3, 4]]
    assert found.places.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 4, 5]]
    assert found.home.tolist() == [0, 1, 2, 3, 8, 9]
    assert found.shared.tolist() == [0, 1, 2]
    assert found.second.tolist() == [5, 6, 7]
    x = torch.randn(1, 3, 6, 4)
    assert torch.equal(found.collect(found.spread(x).transpose(1, 2)).transpose(1, 2), x)


@torch.no_grad()
def test_is_left_alone_where_it_does_not_pay() -> None:
    """Nothing shared and no padding: as many tokens as before. Padding first: a decoder's batch, not a pair's."""
    distinct = torch.arange(24).view(2, 2, 6)
    assert pack(distinct, torch.ones_like(distinct)) is None
    one_shared = distinct.clone()
    one_shared[:, 1, 0] = one_shared[:, 0, 0]
    assert pack(one_shared, torch.ones_like(distinct)) is None  # 22 of 24 tokens: a twelfth
    one_shared[:, 1, 1] = one_shared[:, 0, 1]
    packed = pack(one_shared, torch.ones_like(distinct))
    assert packed is not None
    assert packed.input_ids.shape == (1, 20)
    left = torch.ones_like(distinct)
    left[0, 0, 0] = 0
    assert pack(one_shared, left) is None


def test_counts_the_tokens_that_it_computes(tiny_llama_dir: Path, three_pairs: TokenPairs) -> None:
    """Prompts 4 + 2 + 7, responses 6 + 9 + 5: 33 packed, against 6 rows of 10; passes without a gradient count 0."""
    for way, tokens in (("auto", 33), ("never", 60)):
        policy = tiny_policy(tiny_llama_dir, packing=way)
        policy.reference_log_prob(three_pairs)
        assert policy.tokens_computed == 0
        policy.log_prob(three_pairs)
        assert policy.tokens_computed == tokens


@torch.no_grad()
def test_sliding_windows_are_kept(tmp_path: Path, tiny_llama_dir: Path) -> None:
    """Mistral with a window of 4 tokens, rows of up to 10: packed and padded see the same tokens, and not all."""
    from transformers import AutoTokenizer, MistralConfig, MistralForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=300, num_key_value_heads=2, sliding_window=4, initializer_range=0.3, **sizes)
    MistralForCausalLM(config).save_pretrained(tmp_path / "window")
    config.sliding_window = None
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(tmp_path / "all")
    for name in ("window", "all"):
        AutoTokenizer.from_pretrained(tiny_llama_dir).save_pretrained(tmp_path / name)
    three = pairs(PROMPTS, RESPONSES)
    packed, padded, whole = (
        tiny_policy(tmp_path / name, packing=way)
        for name, way in (("window", "auto"), ("window", "never"), ("all", "auto"))
    )
    assert packed.packs
    torch.testing.assert_close(packed(three), padded(three), atol=1e-4, rtol=0)
    assert not torch.allclose(packed(three), whole(three), atol=1e-2)


def test_a_model_whose_attention_ignores_the_packing_runs_padded(
    tiny_llama_dir: Path,
    three_pairs: TokenPairs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def plain(*args: object, packing: object = None, **options: object) -> object:
        return right(*args, **options)

    right, honest = packing.packed_attention, tiny_policy(tiny_llama_dir)(three_pairs)
    monkeypatch.setattr(packing, "packed_attention", plain)
    try:
        policy = tiny_policy(tiny_llama_dir)
    finally:
        monkeypatch.undo()
        packing.register()
    assert not policy.packs
    assert "rows are padded" in capsys.readouterr().err
    torch.testing.assert_close(policy(three_pairs), honest, atol=1e-4, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_never_leaves_attention_as_it_was_asked_for(tiny_llama_dir: Path, attention: str) -> None:
    policy = tiny_policy(tiny_llama_dir, attention=attention, packing="never")
    assert not policy.packs
    assert policy.transformer.config._attn_implementation == attention


@pytest.mark.slow  # two minutes of compilation
def test_compiled_blocks_give_the_same_numbers(tiny_llama_dir: Path, three_pairs: TokenPairs) -> None:
    """Values and gradients, for the policy and with its adapters off."""
    found = []
    for compiled in (False, True):
        policy = move_adapters(tiny_policy(tiny_llama_dir, compile=compiled), 0.05)
        value = policy(three_pairs)
        reference = policy.reference_log_prob(three_pairs)
        found.append((value.detach(), reference, gradients(policy, value)))
    for plain, fast in zip(found[0][:2], found[1][:2], strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-4, rtol=1e-5)
    for name, grad in found[0][2].items():
        torch.testing.assert_close(found[1][2][name], grad, atol=1e-4 * float(grad.abs().max() + 1e-3), rtol=1e-3)
