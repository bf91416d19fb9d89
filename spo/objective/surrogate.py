"""Convex surrogates of the 0-1 loss of a margin: phi(m) for how far one row is ranked above another."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from spo.errors import ConfigError

SurrogateName = Literal["logistic", "hinge", "squared", "exponential"]
Surrogate = Callable[[Tensor], tuple[Tensor, Tensor]]


def scaled(surrogate: SurrogateName, scale: float) -> Surrogate:
    """m -> (phi(m/scale), its derivative in m), any shape; scale in units of the index, nats for KL.

    logistic: log(1 + e^-m), in nats. hinge: max(0, 1 - m), no gradient beyond the margin, `scale`. squared: (1 - m)^2,
    which draws every margin to `scale` and penalises more. exponential: e^-m, ruled by the worst pairs; it overflows
    float32 at margins below -88 scale. ConfigError for another name or a scale that is not positive.
    """
    if surrogate not in _SURROGATES:
        raise ConfigError(f"surrogate is {surrogate!r}: choose one of {', '.join(_SURROGATES)}")
    if scale <= 0:
        raise ConfigError(f"scale is {scale}: give a positive number, in units of the index, such as 1")
    both = _SURROGATES[surrogate]
    if scale == 1:
        return both

    def in_units(margin: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = both(margin / scale)
        return value, slope / scale

    return in_units


def _logistic(m: Tensor) -> tuple[Tensor, Tensor]:
    return -logsigmoid(m), -torch.sigmoid(-m)  # logsigmoid takes half the time of softplus


def _hinge(m: Tensor) -> tuple[Tensor, Tensor]:
    short = (1 - m).relu()
    return short, -(short > 0).to(m.dtype)


def _squared(m: Tensor) -> tuple[Tensor, Tensor]:
    return (1 - m).square(), 2 * (m - 1)


def _exponential(m: Tensor) -> tuple[Tensor, Tensor]:
    value = torch.exp(-m)
    return value, -value


_SURROGATES: dict[str, Surrogate] = {
    "logistic": _logistic,
    "hinge": _hinge,
    "squared": _squared,
    "exponential": _exponential,
}
