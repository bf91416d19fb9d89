"""The mixture link: two kinds of annotator, the logistic curve shifted to either side, fitted by maximum likelihood.

Shapes: R leading replicate axes, N rows, A points tried, G cells of pooled rows.
"""

import math
from typing import Self

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.link.base import Link
from spo.link.newton import projected_newton
from spo.link.pooled import pool
from spo.link.shifted_mixture import log_cosh, shifted_logit
from spo.types import IndexSample

_START_SLOPES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # a, per spread of t
_START_SHIFTS = (0.0, 1.5, 3.0, 6.0)  # s


class Mixture(Link):
    """Psi(t) = 1/2 sigmoid(a t - s) + 1/2 sigmoid(a t + s), (a, s) by maximum likelihood, a > 0, s >= 0.

    The shifted logistic family; the temperature of its components is absorbed by a, since the scale of t is free.
    In closed form logit Psi = log(e^{at} + c) - log(e^{-at} + c), c = cosh s: strictly increasing, antisymmetric by
    construction (so there is no key `symmetric`), exact in the tails, logistic for s = 0, a plateau at 1/2 of width
    2s/a for large s. Fitted are log a and log cosh s, in which the family is smooth also at s = 0, from the best of a
    small grid by a fixed number of Fisher-scoring steps in float64; a and s stay in a box, where separable rows would
    drive them to infinity. Before the first fit, and where all t are 0, Psi = 1/2. Not leave-one-out: two parameters.
    Cost: n log n for a fit (the median of |t|; the likelihood is that of pooled rows), O(1) for a row.
    Source: Kallus (2025), experiments; a learned link family that contains its truth.
    """

    is_fitted_from_data = True
    symmetric = True
    slope: Tensor
    log_cosh_shift: Tensor

    def __init__(self, *, min_slope: float, max_slope: float, max_shift: float, steps: int, cells: int) -> None:
        """min_slope, max_slope: of a, in logits per spread of t; max_shift: of s, in logits; steps: of Fisher scoring;
        cells: that rows are pooled into. Raises ConfigError."""
        super().__init__()
        if not 0 < min_slope < max_slope:
            raise ConfigError(
                f"link.min_slope is {min_slope} and max_slope {max_slope}: give 0 < min < max, 0.01 and 100"
            )
        for name, value in (("max_shift", max_shift), ("steps", steps), ("cells", cells)):
            if value <= 0:
                raise ConfigError(f"link.{name} is {value}: give a positive number")
        self.min_slope = min_slope
        self.max_slope = max_slope
        self.max_shift = max_shift
        self.steps = steps
        self.cells = cells
        self.allocate(())

    def allocate(self, replicates: tuple[int, ...]) -> Self:
        self.register_buffer("slope", torch.zeros(replicates))  # a, 1 / nats
        self.register_buffer("log_cosh_shift", torch.zeros(replicates))
        return self

    @property
    def shift(self) -> Tensor:
        """s = arcosh(e^log_cosh_shift), in logits, (*R,)."""
        return torch.acosh(self.log_cosh_shift.exp())

    def forward(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        return torch.sigmoid(self.logit(t))

    def logit(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        """Exact where the probability rounds to 0 or 1."""
        return shifted_logit(self.slope[..., None] * t, self.log_cosh_shift[..., None])

    def fit(self, t: Tensor, z: Tensor, weight: Tensor) -> Self:
        if t.shape[:-1] != self.slope.shape:
            self.allocate(t.shape[:-1]).to(t.device, self.slope.dtype)
        pooled = pool(t, z, weight, fold=True, cells=self.cells)
        likelihood = _Likelihood(pooled.x, pooled.mass, pooled.label)
        bounds = torch.tensor(
            [[math.log(self.min_slope), 0.0], [math.log(self.max_slope), log_cosh(self.max_shift)]],
            dtype=pooled.x.dtype,
            device=pooled.x.device,
        )
        starts = [[math.log(slope), log_cosh(shift)] for slope in _START_SLOPES for shift in _START_SHIFTS]
        grid = torch.tensor(starts).to(bounds).expand(*t.shape[:-1], -1, -1)
        best = likelihood.value(grid).argmin(-1)[..., None, None]
        start = grid.gather(-2, best.expand(*best.shape[:-1], 2)).squeeze(-2)
        theta = projected_newton(likelihood.value, likelihood.derivatives, start, bounds[0], bounds[1], self.steps)
        self.slope.copy_(torch.where(pooled.spreads, theta[..., 0].exp() / pooled.scale, 0.0))
        self.log_cosh_shift.copy_(torch.where(pooled.spreads, theta[..., 1], 0.0))
        return self


class _Likelihood:
    """-log likelihood of pooled rows (*R, G) as a function of theta = (log a, log cosh s)."""

    def __init__(self, x: Tensor, mass: Tensor, label: Tensor) -> None:
        self.x, self.mass, self.label = x, mass, label

    def value(self, theta: Tensor) -> Tensor:
        """theta (*R, A, 2) -> (*R, A)."""
        x, mass, label = (v[..., None, :] for v in (self.x, self.mass, self.label))
        logit = shifted_logit(theta[..., :1].exp() * x, theta[..., 1:])
        return (mass * torch.nn.functional.softplus(logit) - label * logit).sum(-1)

    def derivatives(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """theta (*R, 2) -> gradient (*R, 2) and Fisher information (*R, 2, 2)."""
        x, k = theta[..., :1].exp() * self.x, theta[..., 1:]
        up, down = torch.sigmoid(x - k), torch.sigmoid(-x - k)
        by = torch.stack((x * (up + down), down - up), -2)  # of the logit, in log a and in log cosh s
        p = torch.sigmoid(shifted_logit(x, k))
        gradient = (by * (self.mass * p - self.label)[..., None, :]).sum(-1)
        return gradient, (by * (self.mass * p * (1 - p))[..., None, :]) @ by.mT
