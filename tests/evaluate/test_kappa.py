"""Reward at one KL by two rules (MATH C10)."""

import math

import numpy as np
import pytest
import torch

from spo.divergence.kl import KL
from spo.errors import ConfigError
from spo.evaluate.kappa import Exact, Family, Paper
from spo.evaluate.tilt import beta_for_kl, kl, mean_value

BETAS = [1000.0, 30.0, 3.0, 1.0, 0.5, 0.2]


def family(scale: float = 1.0) -> Family:
    generator = torch.Generator().manual_seed(0)
    log_pi = (scale * torch.randn(4, 50, 5, generator=generator, dtype=torch.float64)).log_softmax(-1)
    reward = torch.randn(4, 50, 5, generator=generator, dtype=torch.float64) + log_pi
    sign = torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    return Family(KL(), log_pi, torch.full_like(log_pi, -np.log(5)), reward, sign)


def test_the_papers_rule_is_numpys_interpolation() -> None:
    """On every replicate, inside the grid and beyond both ends; what lies beyond is said."""
    many = family(0.5)
    path = [many.at(torch.full((4,), beta, dtype=torch.float64)) for beta in BETAS]
    nats = torch.stack([kl(p, many.log_ref) for p in path]).numpy()
    reward = torch.stack([mean_value(p, many.reward) for p in path]).numpy()
    middle = float(np.median(nats[-1]))
    for kappa in (1e-9, 0.01, 0.1, middle, 1.5):
        found = Paper(betas=BETAS[::-1])(many, kappa)
        want = [np.interp(kappa, nats[:, r], reward[:, r]) for r in range(4)]
        np.testing.assert_allclose(found.reward, want, rtol=1e-12)
        inside = (nats[0] <= kappa) & (kappa <= nats[-1])
        assert found.reached.tolist() == inside.tolist()
        np.testing.assert_allclose(found.kl, np.clip(kappa, nats[0], nats[-1]), rtol=1e-12)
    assert bool(torch.isnan(found.beta).all())
    assert Paper(betas=BETAS)(many, middle).reached.sum() == 2


def test_exact_spends_exactly_that_and_does_not_hang_on_the_scale_of_the_index() -> None:
    """The same policy tilted by 1/3: the same reward; the paper's rule moves with the scale."""
    many = family()
    flat = Family(KL(), many.at(torch.full((4,), 3.0)), many.log_ref, many.reward, torch.ones(4, dtype=torch.float64))
    exact, again = Exact()(many, 0.2), Exact()(flat, 0.2)
    torch.testing.assert_close(exact.kl, torch.full((4,), 0.2, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(exact.reward, again.reward)
    paper, moved = Paper(betas=BETAS)(many, 0.2), Paper(betas=BETAS)(flat, 0.2)
    assert float((paper.reward - moved.reward).abs().max()) > 1e-3
    right = many.orientation > 0  # where the reward rises with KL the frontier is concave: a chord lies below it
    assert bool((paper.reward < exact.reward)[right].all())


def test_no_reward_beyond_the_frontier() -> None:
    found = Exact()(family(), 1.7)  # log 5 = 1.609
    assert not bool(found.reached.any())
    assert bool(torch.isnan(found.reward).all())
    with pytest.raises(ConfigError, match="at least two"):
        Paper(betas=[1.0])


def test_a_kl_that_is_not_there_has_no_beta() -> None:
    """nan, not the reference's beta, so that a row without a KL has no teacher's reward; others are found beside it."""
    many, kappa = family(), torch.tensor([0.0, math.nan, 0.2, 1.7], dtype=torch.float64)
    beta = beta_for_kl(many.divergence, many.log_pi, many.log_ref, kappa, many.orientation)
    assert [math.isinf(float(beta[0])), math.isnan(float(beta[1])), math.isnan(float(beta[3]))] == [True] * 3
    np.testing.assert_allclose(float(kl(many.at(beta), many.log_ref)[2]), 0.2, rtol=1e-9)
