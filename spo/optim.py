"""The optimizer, and gradients replicate by replicate."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spo.distributed import own_part, sum_over_ranks
from spo.errors import ConfigError


class AdamW:
    """AdamW (Loshchilov and Hutter, 2019) with gradients clipped by their norm, for each replicate by itself."""

    def __init__(
        self,
        *,
        learning_rate: float,
        weight_decay: float,
        betas: list[float],
        eps: float,
        clip_norm: float | None,
    ) -> None:
        if learning_rate <= 0:
            raise ConfigError(f"optim.learning_rate is {learning_rate}: give a positive number, such as 1e-5")
        if weight_decay < 0:
            raise ConfigError(f"optim.weight_decay is {weight_decay}: give 0 or a positive number")
        if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
            raise ConfigError(f"optim.betas is {betas}: give two numbers in [0, 1), such as [0.9, 0.999]")
        if eps <= 0:
            raise ConfigError(f"optim.eps is {eps}: give a small positive number, such as 1e-8")
        if clip_norm is not None and clip_norm <= 0:
            raise ConfigError(f"optim.clip_norm is {clip_norm}: give a positive norm, or null for no clipping")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas = (betas[0], betas[1])
        self.eps = eps
        self.clip_norm = clip_norm

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=True,
        )


def gradient_norm(parameters: Iterable[nn.Parameter], replicate_axes: int) -> Tensor:
    """Norm of the gradient of each replicate, (*R,), over all shards; a parameter has the shape (*R, ...)."""
    shared: list[Tensor] = []  # sums of squares of tensors that every rank has whole,
    own: list[Tensor] = []  # and of this rank's shards
    for grad in (p.grad for p in parameters if p.grad is not None):
        part = own_part(grad)
        square = part.float().square().reshape(*part.shape[:replicate_axes], -1).sum(-1)
        (shared if part is grad else own).append(square)
    if own:
        shared.append(sum_over_ranks(torch.stack(own).sum(0)))
    return torch.stack(shared).sum(0).sqrt()


def scale_gradients(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiply each replicate's gradient by its factor, (*R,)."""
    for p in parameters:
        if p.grad is not None:
            grad = own_part(p.grad)
            grad.mul_(factor.reshape(factor.shape + (1,) * (grad.dim() - factor.dim())).to(grad.dtype))
