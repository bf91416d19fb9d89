"""Ranking objectives: no link at all. phi: a convex surrogate (spo.objective.surrogate).

Shapes: R leading replicate axes, B rows of the pool.
"""

import torch
from torch import Tensor

from spo.link.base import Link
from spo.objective.base import Objective, refuse_unused
from spo.objective.surrogate import SurrogateName, scaled
from spo.types import IndexSample


class _Ranking(Objective):
    """Rows against one another, by a surrogate phi of the order."""

    needs_link = False
    couples_rows = True

    def __init__(self, *, surrogate: SurrogateName, scale: float) -> None:
        """scale: units of the index, nats for KL."""
        super().__init__()
        self._phi = scaled(surrogate, scale)

    def refusal(self, link: Link) -> str | None:
        return refuse_unused(link)


class PairsOfPairs(_Ranking):
    """L = mean over i, j of phi((s_i + s_j)/scale), s = t where z = 1 and -t where z = 0, the diagonal included.

    A row with label z enters as (t, w z) and (-t, w (1-z)), so that weight 2 is the row twice and a tie is half a row
    each way. The pool is the global batch. It is the AUC form on symmetrised data (MATH C13).
    Cost: O(B^2) a step.
    Source: Kallus (2025), RSPO, with phi logistic and scale 1; Clemencon, Lugosi, Vayatis (2008).
    """

    def forward(self, rows: IndexSample, link: Link, own: IndexSample) -> Tensor:
        t, z, w = rows.t, rows.z, rows.weight
        if bool(((z == 0) | (z == 1)).all()):  # a row enters once
            return self._against_all(torch.where(z == 1, t, -t), w)
        right, wrong = self._against_all(torch.cat((t, -t), -1), torch.cat((w * z, w * (1 - z)), -1)).chunk(2, -1)
        return z * right + (1 - z) * wrong

    def _against_all(self, s: Tensor, weight: Tensor) -> Tensor:
        """sum_j w_j phi(s_i + s_j) / sum_j w_j of each i, (*R, N). L is symmetric in i and j: twice the slope."""
        size = s.shape[-1]
        parts = (torch.split(x.detach().reshape(-1, size), max(1, _PAIRS // size**2)) for x in (s, weight))
        found = []
        for s_N, w_N in zip(*parts, strict=True):
            both = self._phi(s_N[:, :, None] + s_N[:, None, :])
            found.append(torch.stack([(x * w_N[:, None, :]).sum(-1) for x in both]))
        value, slope = torch.cat(found, 1).reshape(2, *s.shape) / weight.sum(-1, keepdim=True).clamp_min(_TINY)
        return _tangent(s, value, 2 * slope)


class AreaUnderCurve(_Ranking):
    """L = sum_{i != j} v_ij phi((t_i - t_j)/scale) / sum_{i != j} v_ij, v_ij = w_i z_i w_j (1 - z_j).

    The convex surrogate of 1 - AUC over the positives i and negatives j of the global batch, the pool; it depends on
    how responses are ordered. 0 where the pool has only one kind.
    Cost: O(B^2) a step. Source: Kallus (2025), RSPO; MATH C12.
    """

    def forward(self, rows: IndexSample, link: Link, own: IndexSample) -> Tensor:
        t, z, w = rows.t, rows.z, rows.weight
        v = (w * z)[..., :, None] * (w * (1 - z))[..., None, :]
        v = v - v.diagonal(dim1=-2, dim2=-1).diag_embed()
        value, slope = (v * x for x in self._phi(t.detach()[..., :, None] - t.detach()[..., None, :]))
        # the step takes sum_i w_i l_i / sum_i w_i, so a row's loss is its share of L times sum w / w_i
        scale = w.sum(-1, keepdim=True) / v.sum((-2, -1))[..., None].clamp_min(_TINY) / w.clamp_min(_TINY)
        return _tangent(t, scale * value.sum(-1), scale * (slope.sum(-1) - slope.sum(-2)))


def _tangent(t: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """value, with the gradient `slope` in t, all (*R, N). A pair's loss has a gradient in both of its rows: so that no
    graph over all pairs is kept, each row's own loss carries the whole of the gradient of L in its t."""
    return value + slope * (t - t.detach())


_TINY = 1e-12
_PAIRS = 2**18  # of them are compared at one time: they stay in a CPU's cache
