"""Convex surrogates of the 0-1 loss of a margin: phi(m) for how far one row is ranked above another."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from spo.errors import ConfigError

SurrogateName = Literal["logistic", "hinge", "squared", "exponential"]
Surrogate = Callable[[Tensor], Tensor]


def scaled(surrogate: SurrogateName, scale: float) -> Surrogate:
    """m -> phi(m/scale), any shape; scale in units of the index, nats for KL.

    logistic: log(1 + e^-m), in nats. hinge: max(0, 1 - m), no gradient beyond the margin, `scale`. squared: (1 - m)^2,
    which draws every margin to `scale` and penalises more. exponential: e^-m, ruled by the worst pairs; it overflows
    float32 at margins below -88 scale. ConfigError for another name or a scale that is not positive.
    """
    if surrogate not in _SURROGATES:
        raise ConfigError(f"surrogate is {surrogate!r}: choose one of {', '.join(_SURROGATES)}")
    if scale <= 0:
        raise ConfigError(f"scale is {scale}: give a positive number, in units of the index, such as 1")
    phi = _SURROGATES[surrogate]
    return lambda margin: phi(margin / scale)


_SURROGATES: dict[str, Surrogate] = {
    "logistic": lambda m: -logsigmoid(m),  # as softplus(-m), in half the time
    "hinge": lambda m: (1 - m).relu(),
    "squared": lambda m: (1 - m).square(),
    "exponential": lambda m: torch.exp(-m),
}
