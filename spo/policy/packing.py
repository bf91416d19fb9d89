"""A batch of pairs as one sequence without padding, and what the two sides of a pair begin with only once.

    rows of a batch                    packed
    side 0: p p p a a                  p p p a a | b      positions 0 1 2 3 4 | 3
    side 1: p p p b .

A token's hidden state depends on the tokens before it alone, so what both sides begin with (the prompt) has one. Every
linear layer then runs on P tokens instead of 2BT; attention alone sees the sides apart, each with its whole prefix:
queries, keys and values are spread to (2B, T) before it and its output is collected after it. The result is exact.

Shapes: B pairs, N = 2B sequences, T tokens of the longest, P tokens packed, H heads, d their size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

PACKED_ATTENTION = "spo_packed"  # the name by which transformers finds `packed_attention`
_WORTH = 0.9  # packed with at most this share of the tokens: spreading and collecting cost some of what is saved


class Packing(NamedTuple):
    """Where tokens lie; a tuple of tensors, so that checkpointing, sharding and compilation see through it."""

    input_ids: Tensor  # int64 (1, P)
    positions: Tensor  # int64 (1, P), of a token in its own sequence
    places: Tensor  # int64 (N, T), packed place of token k of sequence n; 0 after its end
    home: Tensor  # int64 (P,), a flat place in (N, T) where a packed token lies,
    shared: Tensor  # int64 (S,), the packed tokens that lie at two places,
    second: Tensor  # int64 (S,), and the other one

    def spread(self, x: Tensor) -> Tensor:
        """(1, H, P, d) -> (N, H, T, d)"""
        rows: Tensor = _Spread.apply(x[0].transpose(0, 1), *self[2:])  # type: ignore[no-untyped-call]
        return rows.view(*self.places.shape, *rows.shape[1:]).transpose(1, 2)

    def collect(self, x: Tensor) -> Tensor:
        """(N, T, H, d) -> (1, P, H, d)"""
        return x.flatten(0, 1).index_select(0, self.home)[None]


def pack(input_ids: Tensor, attention_mask: Tensor) -> Packing | None:
    """Of right-padded (B, 2, T) ids and mask; None where it would not pay, or padding comes first."""
    real = attention_mask.bool()
    if not bool(real[..., 0].all()):
        return None
    both = (input_ids[:, 0] == input_ids[:, 1]) & real[:, 0] & real[:, 1]
    common = both.long().cumprod(-1).bool()  # (B, T), what the sides begin with
    own = real.clone()
    own[:, 1] &= ~common
    home = own.flatten().nonzero().squeeze(1)
    if len(home) > _WORTH * own.numel():
        return None
    places = own.flatten().cumsum(0).view(own.shape) - 1
    places[:, 1] = torch.where(common, places[:, 0], places[:, 1])
    places = torch.where(real, places, 0)
    size = own.shape[-1]
    row, at = common.nonzero(as_tuple=True)
    return Packing(
        input_ids=input_ids.flatten()[home][None],
        positions=(home % size)[None],
        places=places.flatten(0, 1),
        home=home,
        shared=places[row, 0, at],
        second=(2 * row + 1) * size + at,
    )


class _Spread(torch.autograd.Function):
    """x (P, ...) -> x[places] (N T, ...). Its gradient adds at most two places a token and skips padding, in place of
    a scatter of all of them, which is slow on a CPU and unordered on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, home: Tensor, shared: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(home, shared, second)
        return x.index_select(0, places.flatten())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        home, shared, second = ctx.saved_tensors
        out = grad.index_select(0, home)
        out[shared] += grad.index_select(0, second)
        return out, None, None, None, None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' `sdpa` for (n, H, T, d), and for a packed (1, H, P, d) with its `packing`."""
    sdpa = _sdpa()
    if packing is None:
        return sdpa(module, query, key, value, attention_mask, sliding_window=sliding_window, **options)
    size = packing.places.shape[1]
    mask = None if sliding_window is None or size <= sliding_window else _band(size, sliding_window, query.device)
    options["is_causal"] = mask is None  # padding comes last, so no token looks at it
    out, _ = sdpa(module, *(packing.spread(x) for x in (query, key, value)), mask, **options)
    return packing.collect(out), None


def _band(size: int, window: int, device: torch.device) -> Tensor:
    """bool (1, 1, T, T): token k looks at itself and at the window - 1 before it."""
    back = torch.arange(size, device=device)
    back = back[:, None] - back
    return ((back >= 0) & (back < window))[None, None]


def register() -> None:
    """Make `packed_attention` known to transformers; masks of what is not packed are made as for sdpa."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)


def _sdpa() -> Callable[..., tuple[Tensor, Tensor | None]]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward
