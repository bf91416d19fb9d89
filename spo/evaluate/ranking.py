"""How well an index orders held-out labels. No link and no beta is needed for AUC and accuracy.

Shapes: R leading replicate axes, N rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from spo.evaluate import DETERMINED
from spo.types import IndexSample


class AUC(NamedTuple):
    """value (*R,), its standard error (*R,), and each row's jackknife pseudo-value (*R, N)."""

    value: Tensor
    se: Tensor
    pseudo: Tensor


def auc(sample: IndexSample, *, symmetric: bool) -> AUC:
    """sum_{i != j} w_i z_i w_j (1-z_j) [1(t_i > t_j) + 1/2 1(t_i = t_j)] / sum_{i != j} w_i z_i w_j (1-z_j).

    symmetric: over (t, z) and (-t, 1-z), no row against itself or its own mirror, so that the order of the
    responses does not matter (MATH C12). The standard error is the jackknife's over rows. nan where the rows hold
    one kind of label only. n log n.
    """
    t, z, w = (a.double() for a in (sample.t, sample.z, sample.weight))
    positive, negative = w * z, w * (1 - z)
    t_all, pos_all, neg_all = t, positive, negative
    if symmetric:
        t_all, pos_all, neg_all = (torch.cat(p, -1) for p in ((t, -t), (positive, negative), (negative, positive)))
    below = _mass_below(t_all, t_all, neg_all)  # negatives that each entry beats as a positive
    above = _total(pos_all) - _mass_below(t_all, t_all, pos_all)  # positives that beat it as a negative
    won, met = pos_all * below, pos_all * _total(neg_all)
    lost_to, met_by = neg_all * above, neg_all * _total(pos_all)
    part, whole = won + lost_to, met + met_by  # all pairs that an entry is in
    if symmetric:
        part, whole = (x[..., : t.shape[-1]] + x[..., t.shape[-1] :] for x in (part, whole))
    own_part, own_whole = _own_pairs(t, positive, negative, symmetric)
    total_part = won.sum(-1) - own_part.sum(-1)
    total_whole = met.sum(-1) - own_whole.sum(-1)
    # a pair of a row with itself or its mirror stands twice in the row's sums
    part, whole = part - 2 * own_part, whole - 2 * own_whole
    value = total_part / total_whole
    there = w > 0
    n = there.sum(-1)
    without = (total_part[..., None] - part) / (total_whole[..., None] - whole)
    pseudo = torch.where(there, n[..., None] * value[..., None] - (n[..., None] - 1) * without, 0.0)
    mean = pseudo.sum(-1) / n
    spread = torch.where(there, (pseudo - mean[..., None]).square(), 0.0).sum(-1) / (n - 1).clamp_min(1)
    return AUC(value, (spread / n).sqrt(), pseudo)


def _total(mass: Tensor) -> Tensor:
    """The mass of all entries, kept as an axis."""
    return mass.sum(-1, keepdim=True)


def _mass_below(query: Tensor, t: Tensor, mass: Tensor) -> Tensor:
    """Mass of entries with t below each query, entries at it counted half."""
    t, order = t.sort(-1)
    cumulated = torch.nn.functional.pad(mass.gather(-1, order).cumsum(-1), (1, 0))
    query = query.contiguous()
    left = cumulated.gather(-1, torch.searchsorted(t, query))
    right = cumulated.gather(-1, torch.searchsorted(t, query, right=True))
    return (left + right) / 2


def _own_pairs(t: Tensor, positive: Tensor, negative: Tensor, symmetric: bool) -> tuple[Tensor, Tensor]:
    """What pairs of a row with itself (a tie) and with its mirror add to numerator and denominator."""
    with_itself = positive * negative
    if not symmetric:
        return with_itself / 2, with_itself
    # (t, z) against its mirror's negative mass: positive at t, negative at -t, both of mass w z; and the reverse
    ahead = (torch.sign(t) + 1) / 2
    with_mirror = positive.square() * ahead + negative.square() * (1 - ahead)
    return with_itself + with_mirror, 2 * with_itself + positive.square() + negative.square()


def accuracy(sample: IndexSample) -> Tensor:
    """Weighted share of rows whose index points to the preferred response; t = 0 and z = 1/2 count one half, (*R,)."""
    correct = 0.5 + torch.sign(sample.t) * (sample.z - 0.5)
    return (correct * sample.weight).sum(-1) / sample.weight.sum(-1)


def without_ties(sample: IndexSample) -> IndexSample:
    """Rows with z = 1/2 at weight 0."""
    return IndexSample(sample.t, sample.z, sample.weight * (sample.z != 0.5), sample.row_id)


def calibration_error(p: Tensor, z: Tensor, weight: Tensor, bins: int = 10) -> Tensor:
    """sum over bins of |sum of w (p - z)| / sum of w, bins of about equal weight in p, (*R, N) -> (*R,)."""
    p, order = p.double().sort(-1)
    z, weight = z.double().gather(-1, order), weight.double().gather(-1, order)
    total = weight.sum(-1, keepdim=True)
    middle = weight.cumsum(-1) - weight / 2
    which = (middle / total * bins).long().clamp(0, bins - 1)
    gap = torch.zeros(*p.shape[:-1], bins, dtype=p.dtype, device=p.device).scatter_add_(-1, which, weight * (p - z))
    return gap.abs().sum(-1) / total.squeeze(-1)


def orientation(sample: IndexSample) -> tuple[Tensor, Tensor]:
    """-1 where the z-score S / sqrt(sum (w t (2z-1))^2) of S = sum w t (2z - 1) over training rows is -DETERMINED or
    below, else +1; and the z-score, both (*R,).

    Invariant to the order of the responses (MATH C15). Training begins with an increasing link, which pushes t up for
    what is preferred: only rows that say so turn the index round, not a sign that noise drew.
    """
    term = sample.weight * sample.t * (2 * sample.z - 1)
    total = term.sum(-1)
    score = total / term.square().sum(-1).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(score <= -DETERMINED, -1.0, 1.0), score
