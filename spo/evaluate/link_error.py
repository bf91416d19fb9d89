"""How far a fitted link lies from the truth, over fresh pairs of actions (MATH C32).

Shapes: R replicates, m contexts, K actions, N = m K^2 pairs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spo.link.base import Link

_CONTEXTS = 100  # m: of the fresh ones, with all their pairs
_BINS = 50  # of equal count, over t


def link_errors(
    link: Link | None, truths: Sequence[Callable[[Tensor], Tensor]], term: Tensor, reward: Tensor
) -> dict[str, Tensor]:
    """link_error: mean of (Psi^(c u) - Psi(u))^2, c the least-squares slope of t = c u; calibration_error: mean of
    (Psi^(t) - E[z | t])^2, which a wrong direction alone does not raise. Both (R,), nan where there is no link.

    link: of R replicates; truths: Psi of each, u -> P(z = 1). term, reward: index term and reward of every action,
    (R, m', K), the reward in the true link's unit; t and u are their differences over a pair, of which equal actions
    are some. E[z | t] is the mean of Psi(u) in bins of t, and its sampling variance is taken off.
    """
    if link is None:
        none = torch.full(term.shape[:1], torch.nan, dtype=torch.float64)
        return {"link_error": none, "calibration_error": none}
    t, u = (_pairs(x[:, :_CONTEXTS]) for x in (term, reward))
    truth = torch.stack([psi(u_N) for psi, u_N in zip(truths, u, strict=True)])
    slope = (t * u).sum(-1, keepdim=True) / u.square().sum(-1, keepdim=True)
    along, at_t = (link(x.float()).double() for x in (slope * u, t))
    return {
        "link_error": (along - truth).square().mean(-1),
        "calibration_error": calibration_error(t, at_t, truth),
    }


def calibration_error(t: Tensor, fitted: Tensor, truth: Tensor) -> Tensor:
    """Mean over bins of t of (mean fitted - mean truth)^2 less its sampling variance: (R, N) -> (R,)."""
    size = t.shape[-1] // _BINS
    order = t.argsort(-1)[..., : size * _BINS]
    difference = (fitted - truth).gather(-1, order).reshape(*t.shape[:-1], _BINS, size)
    square: Tensor = difference.mean(-1).square() - difference.var(-1) / size
    return square.mean(-1)


def _pairs(values: Tensor) -> Tensor:
    """v_1 - v_0 over all ordered pairs of actions of each context: (R, m, K) -> (R, m K^2)."""
    return (values[..., :, None] - values[..., None, :]).flatten(1)
