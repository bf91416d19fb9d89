"""Orthogonal objectives: a leave-one-out link whose error is kept away from the policy."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.link.base import Link
from spo.link.binned import BinnedSmoother, without_own
from spo.objective.base import Objective, negative_log_likelihood
from spo.types import IndexSample

_Score = Callable[[IndexSample, Link, IndexSample], Tensor]


class Orthogonal(Objective):
    """plug_in: l_i = -z_i log Psi_(-i)(t_i) - (1 - z_i) log(1 - Psi_(-i)(t_i)): each row is left out of its own link.

    efficient: l_j = -stopgrad(c_j) t_j, c_j = a_j - sum_{i != j} K_ij w_i a_i / D_i, D_i = sum_{k != i} w_k K_ik,
    a = (z - Psi) Psi' / (Psi (1 - Psi)): the score a (grad t - E[grad t | t]), its projection moved onto a
    (MATH C2). The pool is the sample of the last refit, gathered over ranks, so that micro-batches and ranks
    change nothing. It is the gradient of no loss: its value says nothing, t = 0 is a root, and the scale of t is
    free, so start from a pilot and pin the scale (MATH C3).
    Cost: plug_in O(1) for a row, beside the link's; efficient two smoothings more at a refit, linear in its sample.
    Source: Kallus (2025), OSPO.
    Shapes: R leading replicate axes, N rows of the fitted sample, B rows of a batch, G grid points.
    """

    needs_link = True
    couples_rows = False
    rows: Tensor
    projection: Tensor

    def __init__(
        self, *, score: Literal["plug_in", "efficient"], symmetric: bool, constant: float, cells: int, grid_size: int
    ) -> None:
        """symmetric, constant, cells, grid_size: of the smoothing of `a` over t (score=efficient), as in the kernel."""
        super().__init__()
        scores: dict[str, tuple[_Score, bool]]  # and whether it needs the projection
        scores = {"plug_in": (self._plug_in, False), "efficient": (self._efficient, True)}
        if score not in scores:
            raise ConfigError(f"objective.score is {score!r}: choose one of {', '.join(scores)}")
        self._score, self._projects = scores[score]
        self.smoother = BinnedSmoother(symmetric=symmetric, constant=constant, cells=cells, grid_size=grid_size)
        self.allocate(())

    def allocate(self, replicates: tuple[int, ...]) -> None:
        self.smoother.allocate(replicates)
        self.register_buffer("rows", torch.zeros(*replicates, self.smoother.grid_size))
        self.register_buffer("projection", torch.zeros(*replicates, self.smoother.grid_size))

    def refusal(self, link: Link) -> str | None:
        if link.leaves_own_out:
            return None
        return (
            "each row must be left out of its own link, and this one keeps it in. Give link=kernel, or "
            "objective=profile, which leaves none out"
        )

    def forward(self, rows: IndexSample, link: Link, own: IndexSample) -> Tensor:
        return self._score(rows, link, own)

    def _plug_in(self, rows: IndexSample, link: Link, own: IndexSample) -> Tensor:
        return negative_log_likelihood(link.logit(rows.t, own), rows.z)

    def _efficient(self, rows: IndexSample, link: Link, own: IndexSample) -> Tensor:
        with torch.no_grad():
            at = self.smoother.position(rows.t)
            projected = self.smoother.interpolate(self.projection, at)
            put_in = self._projected_value(own, link)
            projected = without_own(projected, self.smoother.own_mass(at, own.t), put_in, -put_in)
            coefficient = residual_score(rows, link, own) - projected
        return -coefficient * rows.t

    def fit(self, sample: IndexSample, link: Link) -> None:
        if not self._projects:
            return
        t, weight = sample.t.detach().to(self.rows.dtype), sample.weight.to(self.rows.dtype)
        if t.shape[:-1] != self.rows.shape[:-1]:
            self.allocate(tuple(t.shape[:-1]))
            self.to(t)
        self.smoother.place(t, weight)
        self.rows.copy_(self.smoother.smooth(t, weight, weight))
        value = self._projected_value(sample, link)
        self.projection.copy_(self.smoother.smooth(t, value, -value))  # a is odd under (t, z) -> (-t, 1-z)

    def _projected_value(self, sample: IndexSample, link: Link) -> Tensor:
        """w_i a_i / D_i of rows of the fitted sample, (*R, N); 0 where a row has no neighbour."""
        at = self.smoother.position(sample.t)
        neighbours = self.smoother.interpolate(self.rows, at)
        own = self.smoother.own_mass(at, sample.t)
        neighbours = without_own(neighbours, own, sample.weight, sample.weight)
        value = sample.weight * residual_score(sample, link, sample) / neighbours.clamp_min(_FEWEST_NEIGHBOURS)
        return torch.where(neighbours > _FEWEST_NEIGHBOURS, value, 0.0)


_FEWEST_NEIGHBOURS = 1e-3  # kernel mass (rows at distance 0) below which a row has no neighbour to be compared with


def residual_score(rows: IndexSample, link: Link, own: IndexSample) -> Tensor:
    """a_i = (z_i - Psi) Psi' / (Psi (1 - Psi)) at t_i, the derivative of the log-likelihood in t: (*R, N), no graph."""
    t = rows.t.detach()
    with torch.no_grad():
        p: Tensor = link(t, own)
    return (rows.z - p) * link.derivative(t, own) / (p * (1 - p))
