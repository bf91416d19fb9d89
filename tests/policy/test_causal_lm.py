"""The language-model policy against full float64 logits, in every layout (NUMERICS 8-12, 14, 30)."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from spo.errors import ConfigError, SpoError
from spo.policy.causal_lm import positions
from spo.policy.loading import decoder_blocks
from spo.policy.lora import LoRA
from spo.types import TokenPairs

from .conftest import PROMPTS, RESPONSES, move_adapters, pairs, tiny_policy


def brute_force(model: torch.nn.Module, prompt: list[int], response: list[int]) -> float:
    """Sum of a float64 log-softmax over the full logits of one unpadded row."""
    ids = torch.tensor([prompt + response])
    logits = model(input_ids=ids).logits[0].double()
    logp = logits.log_softmax(-1)
    return sum(float(logp[k - 1, ids[0, k]]) for k in range(len(prompt), ids.shape[1]))


@torch.no_grad()
def test_equals_float64_log_softmax_of_single_rows(model_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 8: 1e-4, and minus the summed cross-entropy; adapters moved, so that they matter."""
    policy = move_adapters(tiny_policy(model_dir))
    got = policy.log_prob(three_pairs)
    want = [[brute_force(policy.transformer, p, r) for r in two] for p, two in zip(PROMPTS, RESPONSES, strict=True)]
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), torch.tensor(want).double(), atol=1e-4, rtol=0)
    ids = torch.tensor([PROMPTS[0] + RESPONSES[0][0]])
    logits = policy.transformer(input_ids=ids).logits[0]
    entropy = torch.nn.functional.cross_entropy(logits[3:-1], ids[0, 4:], reduction="sum")
    torch.testing.assert_close(got[0, 0], -entropy, atol=1e-4, rtol=0)


def left_padded(pair: TokenPairs) -> TokenPairs:
    """The same rows, with the padding before the prompt."""

    def roll(x: Tensor) -> Tensor:
        out = x.clone()
        for b in range(x.shape[0]):
            for j in range(2):
                out[b, j] = x[b, j].roll(int(x.shape[-1] - pair.attention_mask[b, j].sum()))
        return out

    return TokenPairs(roll(pair.input_ids), roll(pair.attention_mask), roll(pair.response_mask))


@torch.no_grad()
def test_layout_does_not_matter(model_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 9: padding side and amount, row order, batch size, both responses at once or one by one: 1e-5."""
    policy = move_adapters(tiny_policy(model_dir))
    got = policy.log_prob(three_pairs)
    order = [2, 0, 1]
    alone = [policy.log_prob(pairs([p], [r]))[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    twice = [policy.log_prob(pairs([p], [(r[1], r[1])]))[0, 0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    close = {"atol": 1e-5, "rtol": 1e-6}
    torch.testing.assert_close(policy.log_prob(pairs(PROMPTS, RESPONSES, extra=5)), got, **close)
    torch.testing.assert_close(policy.log_prob(pairs(PROMPTS, RESPONSES, pad=17)), got, **close)
    torch.testing.assert_close(policy.log_prob(left_padded(three_pairs)), got, **close)
    shuffled = pairs([PROMPTS[i] for i in order], [RESPONSES[i] for i in order])
    torch.testing.assert_close(policy.log_prob(shuffled), got[order], **close)
    torch.testing.assert_close(torch.stack(alone), got, **close)
    torch.testing.assert_close(torch.stack(twice), got[:, 1], **close)


def test_chunked_head_equals_full_logits(model_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 10: value and gradient in the adapters, chunks of 2 tokens against the full logits, 1e-6 (float64)."""
    gradients, values = [], []
    for full in (False, True):
        policy = move_adapters(tiny_policy(model_dir, chunk=2)).double()
        if full:
            ids, mask = three_pairs.input_ids.flatten(0, 1), three_pairs.attention_mask.flatten(0, 1)
            logp = policy.transformer(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)[:, :-1]
            token = logp.gather(-1, ids[:, 1:, None]).squeeze(-1)
            value = (token * three_pairs.response_mask.flatten(0, 1)[:, 1:]).sum(-1).view(3, 2)
        else:
            value = policy.log_prob(three_pairs)
        (value * torch.arange(6).view(3, 2)).sum().backward()
        values.append(value.detach().double())
        gradients.append([p.grad for p in policy.parameters() if p.requires_grad])
    torch.testing.assert_close(values[0], values[1], atol=1e-5, rtol=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6 * float(theirs.abs().max() + 1), rtol=1e-5)


@torch.no_grad()
def test_bfloat16_weights(tiny_llama_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 11: bf16 weights with float32 reduction: per-token mean within 0.02, the result is float32."""
    exact = tiny_policy(tiny_llama_dir).log_prob(three_pairs)
    rounded = tiny_policy(tiny_llama_dir, dtype="bfloat16").log_prob(three_pairs)
    assert rounded.dtype == torch.float32
    per_token = (rounded - exact).sum() / three_pairs.response_mask.sum()
    assert abs(float(per_token)) < 0.02


@pytest.mark.parametrize("mode", [True, False])
def test_log_ratio_is_exactly_zero_at_step_0(model_dir: Path, three_pairs: TokenPairs, mode: bool) -> None:
    """NUMERICS 12: B = 0 and dropout off, so policy and reference are the same numbers, in train and eval mode."""
    policy = tiny_policy(model_dir).train(mode)
    assert torch.equal(policy.log_prob(three_pairs).detach(), policy.reference_log_prob(three_pairs))


@torch.no_grad()
def test_adapters_off_is_the_base_model_and_merging_is_the_adapter(model_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 14: adapters off = base model bit for bit; merged = adapter within 1e-4."""
    policy = move_adapters(tiny_policy(model_dir))
    base = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    ids, mask = three_pairs.input_ids.flatten(0, 1), three_pairs.attention_mask.flatten(0, 1)
    position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
    with policy.as_reference():
        ours = policy.hidden(ids, mask)
    theirs = base.base_model(input_ids=ids, attention_mask=mask, position_ids=position_ids).last_hidden_state
    assert torch.equal(ours, theirs)
    with_adapter = policy.log_prob(three_pairs)
    assert not torch.allclose(with_adapter, policy.reference_log_prob(three_pairs), atol=1e-2)
    merged = policy.network.merge_and_unload()
    want = [[brute_force(merged, p, r) for r in two] for p, two in zip(PROMPTS, RESPONSES, strict=True)]
    torch.testing.assert_close(with_adapter, torch.tensor(want), atol=1e-4, rtol=1e-6)


def test_training_moves_adapters_and_leaves_the_reference(model_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 14, 30: finite gradients everywhere, B's not 0 at step 1 (A's is: B = 0), A's from step 2 on;
    only adapters train, and the reference's numbers are the same bits after the steps."""
    policy = tiny_policy(model_dir)
    before = policy.reference_log_prob(three_pairs)
    trainable = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    optimizer = torch.optim.SGD(trainable.values(), lr=0.01)
    for step in range(2):
        logp = policy.log_prob(three_pairs)
        optimizer.zero_grad()
        (logp[:, 1] - logp[:, 0]).sum().backward()
        for name, p in trainable.items():
            assert p.grad is not None, name
            assert bool(p.grad.isfinite().all()), name
            if "lora_B" in name or step == 1:
                assert float(p.grad.abs().max()) > 0, name
            else:
                assert float(p.grad.abs().max()) == 0, name
        optimizer.step()
    assert torch.equal(policy.reference_log_prob(three_pairs), before)
    assert policy.training
    assert not torch.allclose(policy.log_prob(three_pairs), before, atol=1e-3)


def test_adapter_switch_keeps_gradients_and_flags(tiny_llama_dir: Path, three_pairs: TokenPairs) -> None:
    """USERS 16, 17: a reference pass changes neither requires_grad nor the training mode, also when it raises."""
    policy = tiny_policy(tiny_llama_dir)
    flags = [(p.requires_grad) for p in policy.parameters()]
    with pytest.raises(RuntimeError, match="stop"), policy.as_reference():
        raise RuntimeError("stop")
    policy.reference_log_prob(three_pairs)
    assert [p.requires_grad for p in policy.parameters()] == flags
    move_adapters(policy)
    assert not torch.allclose(policy.log_prob(three_pairs).detach(), policy.reference_log_prob(three_pairs))


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_gradient_checkpointing_trains_the_same(model_dir: Path, three_pairs: TokenPairs, full: bool) -> None:
    """NUMERICS 30, USERS 16: activations are recomputed (a block runs twice), every trainable tensor gets a gradient,
    and the gradients are those without checkpointing."""
    gradients, runs = [], []
    for recompute in (False, True):
        policy = move_adapters(tiny_policy(model_dir, checkpointing=recompute, full=full), 0.05)
        count = []
        next(decoder_blocks(policy.transformer)[0].children()).register_forward_pre_hook(
            lambda *_, count=count: count.append(1)
        )
        policy(three_pairs).sum().backward()
        runs.append(len(count))
        gradients.append({n: p.grad for n, p in policy.named_parameters() if p.requires_grad})
    assert runs == [1, 2]
    for name, theirs in gradients[0].items():
        assert gradients[1][name] is not None, name
        assert float(theirs.abs().max()) > 0, name
        torch.testing.assert_close(gradients[1][name], theirs, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_attention_implementations_agree(model_dir: Path, three_pairs: TokenPairs) -> None:
    """sdpa = eager to rounding, and both are what they say."""
    policies = {name: tiny_policy(model_dir, attention=name, packing="never") for name in ("sdpa", "eager")}
    for name, policy in policies.items():
        assert policy.transformer.config._attn_implementation == name
    torch.testing.assert_close(policies["sdpa"](three_pairs), policies["eager"](three_pairs), atol=1e-4, rtol=1e-6)


def test_full_fine_tuning_trains_every_weight(model_dir: Path, three_pairs: TokenPairs) -> None:
    """NUMERICS 30: every weight of the model trains, the tied head once; the sequence log-probability's gradient in
    all of them is that of full float64 logits; the state holds all of them; the start can be asked afterwards."""
    policy = tiny_policy(model_dir, full=True)
    names = {n for n, _ in policy.transformer.named_parameters()}
    assert set(policy.trainable_state_dict()) == {f"model.{name}" for name in names}
    start = policy(three_pairs).detach()
    policy.double()
    policy(three_pairs).sum().backward()
    ours = {n: p.grad.clone() for n, p in policy.named_parameters()}
    policy.zero_grad()
    ids, mask = three_pairs.input_ids.flatten(0, 1), three_pairs.attention_mask.flatten(0, 1)
    logits = policy.transformer(input_ids=ids, attention_mask=mask, position_ids=positions(mask)).logits
    token = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    (token * three_pairs.response_mask.flatten(0, 1)[:, 1:]).sum().backward()
    for name, p in policy.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, atol=1e-4 * float(p.grad.abs().max() + 1e-3), rtol=1e-4)
        assert float(p.grad.abs().max()) > 0, name
    policy.float()
    moved = move_adapters(policy, 0.05)
    assert not torch.allclose(moved(three_pairs).detach(), start, atol=1e-2)
    torch.testing.assert_close(moved.reference_log_prob(three_pairs), start, atol=0, rtol=0)
    assert not torch.allclose(moved(three_pairs).detach(), start, atol=1e-2)


def test_full_fine_tuning_needs_float32_weights(tiny_llama_dir: Path) -> None:
    """Master weights are float32; adapters always are."""
    full = tiny_policy(tiny_llama_dir, full=True)
    full.check_training("32-true")
    full.check_training("bf16-mixed")
    with pytest.raises(ConfigError, match=r"precision is bf16-true.*hardware\.precision=bf16-mixed"):
        full.check_training("bf16-true")
    with pytest.raises(ConfigError, match=r"policy\.dtype is bfloat16.*dtype=float32"):
        tiny_policy(tiny_llama_dir, full=True, dtype="bfloat16").check_training("32-true")
    tiny_policy(tiny_llama_dir, dtype="bfloat16").check_training("bf16-true")


def test_dropout_of_the_base_model_is_off(tiny_gpt2_dir: Path, tmp_path: Path, three_pairs: TokenPairs) -> None:
    """GPT-2's config has dropout 0.1 by default: in training mode it would make the index noise at step 0."""
    model = AutoModelForCausalLM.from_pretrained(tiny_gpt2_dir)
    model.config.resid_pdrop = model.config.attn_pdrop = model.config.embd_pdrop = 0.1
    model.save_pretrained(tmp_path)
    policy = tiny_policy(tmp_path).train()
    assert torch.equal(policy.log_prob(three_pairs), policy.log_prob(three_pairs))


def test_adapter_seed_and_global_rng(tiny_llama_dir: Path) -> None:
    """The adapters' first weights are a function of the seed alone; building draws nothing from the global RNG."""
    state = torch.get_rng_state()
    a, b, c = (tiny_policy(tiny_llama_dir, seed=s).trainable_state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a if "lora_A" in k)


def test_trainable_state_round_trip(tiny_llama_dir: Path, three_pairs: TokenPairs) -> None:
    source, target = move_adapters(tiny_policy(tiny_llama_dir)), tiny_policy(tiny_llama_dir)
    state = {k: v.clone() for k, v in source.trainable_state_dict().items()}
    target.load_trainable_state_dict(state)
    assert torch.equal(source.log_prob(three_pairs), target.log_prob(three_pairs))
    name = next(iter(state))
    with pytest.raises(SpoError, match=r"unexpected.*extra"):
        target.load_trainable_state_dict({**state, "extra": torch.zeros(1)})
    with pytest.raises(SpoError, match="other shapes"):
        target.load_trainable_state_dict({**state, name: torch.zeros(1)})
    del state[name]
    with pytest.raises(SpoError, match="missing"):
        target.load_trainable_state_dict(state)


def test_refuses_a_model_with_scaled_logits(tmp_path: Path) -> None:
    """Cohere multiplies its logits: head(hidden) would be another distribution."""
    from transformers import CohereConfig, CohereForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = CohereConfig(vocab_size=64, logit_scale=0.5, bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes)
    CohereForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="plain linear head"):
        tiny_policy(tmp_path)


def test_options_are_checked_before_anything_loads(tiny_llama_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)r is 0.*alpha is -1.*dropout is 1.*target_modules"):
        LoRA(r=0, alpha=-1, dropout=1.0, target_modules=[])
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        tiny_policy(tiny_llama_dir, dtype="float16")
    with pytest.raises(ConfigError, match="head_chunk is 0"):
        tiny_policy(tiny_llama_dir, chunk=0)


def test_fingerprint_knows_the_weights_without_loading(tiny_llama_dir: Path, tiny_gpt2_dir: Path) -> None:
    one, two = tiny_policy(tiny_llama_dir), tiny_policy(tiny_llama_dir, seed=3)
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != tiny_policy(tiny_gpt2_dir).fingerprint()
    assert one.fingerprint() != tiny_policy(tiny_llama_dir, dtype="bfloat16").fingerprint()
