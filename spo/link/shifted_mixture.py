"""The fixed shifted mixture: the true link of the tabular study, for the fit that knows it."""

import math

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.link.fixed import Fixed
from spo.types import IndexSample


class ShiftedMixture(Fixed):
    """Psi(t) = 1/2 sigmoid((scale · t - shift)/temperature) + 1/2 sigmoid((scale · t + shift)/temperature).

    Where labels come from this link at u = scale · t it is the true one, and a profile fit knows all that a link can
    know. That is a reference line and no upper bound: knowing the link does not keep a fit from over-training (MATH
    C24); Mixture fits the same family. shift 0 is the logistic link of scale / temperature. On the plateau, |scale · t|
    below shift, the gradient is next to nothing. Cost: no fit, O(1) for a row. Source: Kallus (2025), experiments.
    """

    def __init__(self, *, scale: float, shift: float, temperature: float) -> None:
        """scale: 1 / nats; shift, temperature: in units of scale · t. Raises ConfigError."""
        super().__init__(scale)
        if not 0 <= shift < math.inf:
            raise ConfigError(f"link.shift is {shift}: give a number >= 0, such as 1.5")
        if not 0 < temperature < math.inf:
            raise ConfigError(f"link.temperature is {temperature}: give a positive number, such as 0.25")
        self.temperature = temperature
        self.log_cosh_shift = log_cosh(shift / temperature)

    def forward(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        return torch.sigmoid(self.logit(t))

    def logit(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        """Exact where the probability rounds to 0 or 1."""
        x = self.scale / self.temperature * t
        return shifted_logit(x, torch.full_like(x, self.log_cosh_shift))


def shifted_logit(x: Tensor, log_cosh_shift: Tensor) -> Tensor:
    """logit of 1/2 sigmoid(x - s) + 1/2 sigmoid(x + s): log(e^x + c) - log(e^-x + c), c = cosh s."""
    return torch.logaddexp(x, log_cosh_shift) - torch.logaddexp(-x, log_cosh_shift)


def log_cosh(s: float) -> float:
    """log cosh s, s >= 0, for any s."""
    return s + math.log1p(math.exp(-2 * s)) - math.log(2)
