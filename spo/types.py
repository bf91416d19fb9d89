"""The values that rooms hand to one another.

Shapes: R any number of leading replicate axes (none for a language model), B rows, T tokens, N rows of a
sample, d features. The axis of length 2 is always (response 0, response 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

Message = dict[str, str]  # {"role": ..., "content": ...}
Text = str | list[Message]


def as_messages(text: Text) -> list[Message]:
    """A string is one message of the user."""
    return [{"role": "user", "content": text}] if isinstance(text, str) else text


@dataclass(frozen=True)
class PreferencePair:
    """One row as text. z = P(response 1 preferred): 1, 0, 0.5 for a tie, or a soft label; None where
    labels are drawn at load. `group` is a hash of the prompt: rows of one group are never split."""

    row_id: int
    group: int
    prompt: Text
    response_0: Text
    response_1: Text
    z: float | None
    weight: float
    reward_0: float | None
    reward_1: float | None
    origin: str  # "file:line", for messages
    ended: tuple[bool, bool] = (True, True)  # False: generation was cut off, so the response has no end of turn


class _Tensors:
    """What the frozen tensor dataclasses below share."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **moved)  # type: ignore[type-var]

    def pin_memory(self) -> Self:
        """In memory from which a GPU copies while it computes."""
        pinned = {f.name: getattr(self, f.name).pin_memory() for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **pinned)  # type: ignore[type-var]


@dataclass(frozen=True)
class TokenPairs(_Tensors):
    """What a language model eats: prompt + response, right-padded."""

    input_ids: Tensor  # int64 (B, 2, T)
    attention_mask: Tensor  # int64 (B, 2, T), 1 on prompt and response, 0 on padding
    response_mask: Tensor  # bool (B, 2, T), True where input_ids[..., k] is a response token (a target)


@dataclass(frozen=True)
class ActionPairs(_Tensors):
    """What a tabular policy eats: a context and two of K actions."""

    context: Tensor  # float32 (*R, B, d)
    action: Tensor  # int64 (*R, B, 2)


@dataclass(frozen=True)
class ActionRows(_Tensors):
    """The rows of R tabular replicates, and what their exact evaluation needs. n rows, m fresh contexts, K actions."""

    seed: Tensor  # int64 (*R,), of each replicate
    shift: Tensor  # float64 (*R,), s of its true link; nan where the link has no shift
    context: Tensor  # float32 (*R, n, d)
    action: Tensor  # int64 (*R, n, 2)
    z: Tensor  # float32 (*R, n), in [0, 1]
    row_id: Tensor  # int64 (*R, n)
    difference: Tensor  # float32 (*R, n), reward 1 - reward 0 as the true link takes it
    reward_unit: Tensor  # float64 (*R,), the reward difference that the true link takes for 1
    fresh_context: Tensor  # float32 (*R, m, d)
    fresh_reward: Tensor  # float32 (*R, m, K), the true reward of every action

    @classmethod
    def stack(cls, replicates: Sequence["ActionRows"]) -> "ActionRows":
        """Along a new leading replicate axis."""
        return cls(*(torch.stack([getattr(r, f.name) for r in replicates]) for f in fields(cls)))


@dataclass(frozen=True)
class PreferenceBatch(_Tensors):
    """One micro-batch of preferences."""

    pair: TokenPairs | ActionPairs
    z: Tensor  # float32 (*R, B), in [0, 1]
    weight: Tensor  # float32 (*R, B), >= 0; 0 marks a row that only fills a batch up
    row_id: Tensor  # int64 (*R, B)

    def __len__(self) -> int:
        return self.z.shape[-1]


@dataclass(frozen=True)
class IndexSample(_Tensors):
    """Rows as a link sees them. A row of weight 0 is not there."""

    t: Tensor  # float32 (*R, N), the index
    z: Tensor  # float32 (*R, N)
    weight: Tensor  # float32 (*R, N)
    row_id: Tensor  # int64 (*R, N)

    @classmethod
    def cat(cls, samples: Sequence["IndexSample"]) -> "IndexSample":
        """Along the row axis."""
        return cls(*(torch.cat([getattr(s, f.name) for s in samples], dim=-1) for f in fields(cls)))

    def present(self) -> "IndexSample":
        """The rows of weight > 0, of one run: fields (N,)."""
        keep = self.weight > 0
        return IndexSample(*(getattr(self, f.name)[keep] for f in fields(self)))
