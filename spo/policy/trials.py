"""What a model just loaded is tried for, on a few tokens: is its head plain, and may it run packed?"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from spo.errors import ConfigError
from spo.policy.packing import PACKED_ATTENTION, pack, register

if TYPE_CHECKING:
    from spo.policy.causal_lm import CausalLM

_TOKENS = 24  # of the sequences by which packing is tried
# The largest gap that is rounding: of logits over 1 + their largest, of hidden states over their largest
_HEAD_GAP = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
_PACKING_GAP = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@torch.no_grad()
def check_head(policy: "CausalLM") -> None:
    """ConfigError for models whose logits are more than head(hidden): soft-capping, scaled logits."""
    ids = torch.arange(4, device=policy.device)[None]
    mask = torch.ones_like(ids)
    weight, bias = policy.head()
    ours = nn.functional.linear(policy.hidden(ids, mask), weight, bias).float()
    layout = {"attention_mask": mask, "position_ids": ids, "use_cache": False}
    theirs = policy.transformer(input_ids=ids, **layout).logits.float()
    gap = float((ours - theirs).abs().max())
    if gap > _HEAD_GAP[policy.dtype] * (1 + float(theirs.abs().max())):
        raise ConfigError(
            f"{policy.source.given}: the model's logits differ from head(hidden) by {gap:.3g} (soft-capped or "
            "scaled logits). Log-probabilities would be wrong: choose a model with a plain linear head"
        )


@torch.no_grad()
def try_packing(policy: "CausalLM") -> bool:
    """Two pairs of random tokens, padded and packed. Where the hidden states are the same the model's attention is from
    now on `packed_attention`, which is sdpa for whatever is not packed; else it stays as it was, and the answer is no.
    """
    vocabulary = policy.head()[0].shape[0]
    ids = torch.randint(vocabulary, (2, 2, _TOKENS), generator=torch.Generator().manual_seed(0)).to(policy.device)
    mask = torch.ones_like(ids)
    ids[:, 1, : _TOKENS // 2] = ids[:, 0, : _TOKENS // 2]
    mask[0, 0, _TOKENS // 2 + 2 :] = 0
    packed = pack(ids, mask)
    assert packed is not None
    padded = policy.hidden(ids.flatten(0, 1), mask.flatten(0, 1))
    register()
    config = policy.transformer.config
    before, config._attn_implementation = config._attn_implementation, PACKED_ATTENTION
    same = False
    try:
        gap = (padded.flatten(0, 1)[packed.home] - policy.hidden_packed(packed)[0]).abs().max() / padded.abs().max()
        same = float(gap) < _PACKING_GAP[policy.dtype]
    except (TypeError, RuntimeError, ValueError):  # its layers do not hand on what packed attention asks for
        pass
    finally:
        if not same:
            config._attn_implementation = before
    return same
