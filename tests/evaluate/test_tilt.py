"""The exact tabular tilt (NUMERICS 34; MATH C1, C10): KL in closed form, then the divergences that are solved for."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

from spo.divergence.base import Divergence
from spo.divergence.chi_square import ChiSquare
from spo.divergence.kl import KL
from spo.errors import ConfigError
from spo.evaluate.tilt import (
    beta_for_kl,
    budget,
    kl,
    mean_value,
    optimal_policy,
    require_power_tilt,
    tabular_tilt,
    tilt_by,
)
from tests.divergence.test_divergences import DIVERGENCES


def table(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(-1)


LOG_PI, LOG_REF = 2 * table(3, 7, 5, seed=0), table(3, 7, 5, seed=1)
LOG_PI = LOG_PI.log_softmax(-1)
OTHERS = [d for d in DIVERGENCES if not d.tilts_by_power]
others = pytest.mark.parametrize("divergence", OTHERS, ids=lambda d: type(d).__name__)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("zeta", [1, -1])
def test_against_brute_force(beta: float, zeta: int) -> None:
    """ref^(1-c) pi^c normalised, entry by entry, and its KL."""
    pi, ref, c = LOG_PI.exp().numpy(), LOG_REF.exp().numpy(), zeta / beta
    want = ref ** (1 - c) * pi**c
    want /= want.sum(-1, keepdims=True)
    got = tabular_tilt(KL(), LOG_PI, LOG_REF, beta, zeta)
    np.testing.assert_allclose(got.exp().numpy(), want, rtol=1e-10)
    np.testing.assert_allclose(kl(got, LOG_REF).numpy(), (want * np.log(want / ref)).sum(-1).mean(-1), rtol=1e-9)


def test_it_maximises_reward_minus_kl() -> None:
    """pi_b is the maximiser of E_p[log pi/ref] - b KL(p || ref): no numerical optimum beats it (one context)."""
    log_pi, log_ref, beta = LOG_PI[0, 0].numpy(), LOG_REF[0, 0].numpy(), 1.7

    def loss(logits: np.ndarray) -> float:
        log_p = logits - np.logaddexp.reduce(logits)
        return float(-(np.exp(log_p) * (log_pi - log_ref - beta * (log_p - log_ref))).sum())

    found = scipy.optimize.minimize(loss, np.zeros(5), tol=1e-12)
    p = np.exp(found.x - np.logaddexp.reduce(found.x))
    np.testing.assert_allclose(tabular_tilt(KL(), LOG_PI, LOG_REF, beta)[0, 0].exp().numpy(), p, atol=1e-5)


def test_the_ends_of_the_path() -> None:
    """KL is 0 at beta = inf; beta = 1 is the policy; KL rises with 1/beta; float32 stays finite."""
    torch.testing.assert_close(tabular_tilt(KL(), LOG_PI, LOG_REF, torch.inf), LOG_REF)
    torch.testing.assert_close(tabular_tilt(KL(), LOG_PI, LOG_REF, 1.0), LOG_PI)
    assert float(kl(tabular_tilt(KL(), LOG_PI, LOG_REF, torch.inf), LOG_REF).abs().max()) < 1e-15
    path = torch.stack([kl(tabular_tilt(KL(), LOG_PI, LOG_REF, b), LOG_REF) for b in (8.0, 4.0, 2.0, 1.0, 0.5)])
    assert bool((path.diff(dim=0) > 0).all())
    assert bool(tabular_tilt(KL(), LOG_PI.float(), LOG_REF.float(), 1e-4).exp().isfinite().all())


@pytest.mark.parametrize("kappa", [0.02, 0.2, 0.6])
def test_beta_for_kl_hits_kappa_per_replicate(kappa: float) -> None:
    """Exact to 1e-9 and a replicate alone gives the same number; rescaled logits of pi give the same policy."""
    zeta = torch.tensor([1, -1, 1])
    beta = beta_for_kl(KL(), LOG_PI, LOG_REF, kappa, zeta)
    tilted = tabular_tilt(KL(), LOG_PI, LOG_REF, beta, zeta)
    np.testing.assert_allclose(kl(tilted, LOG_REF).numpy(), kappa, rtol=1e-9)
    torch.testing.assert_close(beta_for_kl(KL(), LOG_PI[1], LOG_REF[1], kappa, -1), beta[1])
    sharper = tabular_tilt(KL(), LOG_PI, LOG_REF, 1 / 13)
    again = tabular_tilt(KL(), sharper, LOG_REF, beta_for_kl(KL(), sharper, LOG_REF, kappa, zeta), zeta)
    torch.testing.assert_close(again, tilted, atol=1e-9, rtol=0)


def test_beta_for_kl_is_nan_where_kappa_is_out_of_reach() -> None:
    assert torch.isnan(beta_for_kl(KL(), LOG_REF, LOG_REF, 0.1)).all()
    assert torch.isnan(beta_for_kl(KL(), LOG_PI, LOG_REF, 50.0)).all()


def test_at_equal_kl_the_teacher_is_best() -> None:
    """On the same contexts, at exact KL .2, the policy whose log-ratio is the reward beats every other."""
    reward = torch.randn(7, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    teacher = (LOG_REF + reward).log_softmax(-1)

    def at_kappa(log_pi: torch.Tensor) -> torch.Tensor:
        return mean_value(tabular_tilt(KL(), log_pi, LOG_REF, beta_for_kl(KL(), log_pi, LOG_REF, 0.2)), reward)

    for seed in range(5):
        other = (LOG_REF + reward + 0.5 * table(3, 7, 5, seed=10 + seed)).log_softmax(-1)
        assert bool((at_kappa(teacher) > at_kappa(other)).all())


def at_kappa(divergence: Divergence, log_pi: torch.Tensor, kappa: float) -> torch.Tensor:
    return tabular_tilt(divergence, log_pi, LOG_REF, beta_for_kl(divergence, log_pi, LOG_REF, kappa, steps=45))


@others
@pytest.mark.parametrize(("beta", "zeta"), [(0.4, 1), (2.5, 1), (1.3, -1)])
def test_it_maximises_the_index_less_the_divergence(divergence: Divergence, beta: float, zeta: int) -> None:
    """max over the simplex of zeta E_p[f'(pi/ref)] - beta D_f(p || ref), by scipy (NUMERICS 34)."""
    log_pi, log_ref = LOG_PI[0, 0], LOG_REF[0, 0]
    ref, reward = log_ref.exp(), zeta * divergence.index_term(log_pi - log_ref)

    def loss(p: torch.Tensor) -> torch.Tensor:
        return -(p * reward).sum() + beta * (ref * divergence.f(p / ref)).sum()

    def with_gradient(x: np.ndarray, to_simplex: Callable[[torch.Tensor], torch.Tensor]) -> tuple[float, np.ndarray]:
        at = torch.tensor(x, requires_grad=True)
        value = loss(to_simplex(at))
        return float(value.detach()), torch.autograd.grad(value, at)[0].numpy()

    if divergence.reaches_zero:
        one = {"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like}
        options: dict[str, Any] = {"method": "SLSQP", "bounds": [(0, 1)] * 5, "constraints": one, "tol": 1e-14}
        to_simplex = torch.clone
    else:
        options, to_simplex = {"method": "BFGS", "options": {"gtol": 1e-10}}, lambda x: x.softmax(-1)
    found = scipy.optimize.minimize(with_gradient, np.full(5, 0.2), args=(to_simplex,), jac=True, **options)
    want = to_simplex(torch.tensor(found.x)).numpy()
    tilted = tabular_tilt(divergence, log_pi[None], log_ref[None], beta, zeta)[0].exp().numpy()
    np.testing.assert_allclose(tilted, want, atol=1e-7)


@others
@pytest.mark.parametrize("power", [-3.0, 1e-6, 0.3, 1.0, 20.0, 1e6])
def test_the_solved_tilt_meets_its_equation(divergence: Divergence, power: float) -> None:
    """f'(p/ref) - c f'(pi/ref) is one number over the actions that p has, and p sums to 1."""
    log_p = tilt_by(divergence, LOG_PI, LOG_REF, torch.tensor(power, dtype=torch.float64))
    term = power * divergence.index_term(LOG_PI - LOG_REF)
    there = (log_p > -700) & ~divergence.clamped(log_p - LOG_REF)
    multiplier = divergence.index_term(log_p - LOG_REF) - term
    gap = torch.where(there, multiplier - multiplier.gather(-1, term.argmax(-1, keepdim=True)), 0.0)
    assert float((gap / (1 + term.abs())).abs().max()) < 1e-9
    assert bool(there.all()) or divergence.reaches_zero or power > 10
    assert bool((there.sum(-1) > 1).any()) or power > 1e5
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(3, 7, dtype=torch.float64), atol=1e-14, rtol=0)


@others
@pytest.mark.parametrize("actions", [5, 300])
def test_a_sharp_policy_among_many_actions_is_its_own_tilt(divergence: Divergence, actions: int) -> None:
    """beta = 1, from a uniform and from another reference: the largest f' are 1e5 times the others."""
    log_pi, other = ((3 * table(20, actions, seed=k)).log_softmax(-1) for k in (1, 2))
    for log_ref in (torch.full_like(other, -math.log(actions)), other):
        tilted = tabular_tilt(divergence, log_pi, log_ref, 1.0)
        torch.testing.assert_close(tilted.exp(), log_pi.exp(), atol=1e-6, rtol=0)


@others
def test_the_ends_of_the_solved_path(divergence: Divergence) -> None:
    """KL is 0 at beta = inf; beta = 1 is the policy; KL and D_f rise with 1/beta; a replicate alone is the same."""
    assert float(kl(tabular_tilt(divergence, LOG_PI, LOG_REF, torch.inf), LOG_REF).abs().max()) < 1e-14
    torch.testing.assert_close(tabular_tilt(divergence, LOG_PI, LOG_REF, 1.0).exp(), LOG_PI.exp(), atol=1e-12, rtol=0)
    path = [tabular_tilt(divergence, LOG_PI, LOG_REF, b) for b in torch.logspace(3, -3, 25, dtype=torch.float64)]
    for spent in (
        torch.stack([kl(p, LOG_REF) for p in path]),
        torch.stack([budget(divergence, p, LOG_REF) for p in path]),
    ):
        assert bool(spent.isfinite().all())
        assert bool((spent.diff(dim=0) >= -1e-12).all())
        assert bool((spent[-1] > 10 * spent[0]).all())
    alone = tabular_tilt(divergence, LOG_PI[1], LOG_REF[1], 0.3)
    torch.testing.assert_close(tabular_tilt(divergence, LOG_PI, LOG_REF, 0.3)[1], alone, atol=1e-12, rtol=0)


@others
def test_beta_for_kl_hits_kappa_for_every_divergence(divergence: Divergence) -> None:
    """In nats of KL, whatever the divergence of the path; and nan beyond its end."""
    for kappa in (0.02, 0.6):
        np.testing.assert_allclose(kl(at_kappa(divergence, LOG_PI, kappa), LOG_REF).numpy(), kappa, rtol=1e-7)
    assert bool(torch.isnan(beta_for_kl(divergence, LOG_PI, LOG_REF, 50.0, steps=2)).all())


@others
def test_the_teacher_is_best_on_each_axis(divergence: Divergence) -> None:
    """At equal KL nothing beats the KL tilt of the reward; at equal D_f the KL tilt does not beat the D_f tilt."""
    reward = torch.randn(7, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    teacher = (LOG_REF + reward).log_softmax(-1)
    best = at_kappa(KL(), teacher, 0.2)
    for log_pi in (LOG_PI, teacher):
        assert bool((mean_value(at_kappa(divergence, log_pi, 0.2), reward) < mean_value(best, reward)).all())
    # the policy whose index is the reward: beta = 1 of a reward scaled down until f' can be inverted at it
    own = optimal_policy(divergence, 0.9 * reward.expand(3, 7, 5), LOG_REF)
    spent = budget(divergence, own, LOG_REF)
    low, high = torch.full_like(spent, 1e-3), torch.full_like(spent, 1e3)
    for _ in range(40):
        middle = (low * high).sqrt()
        above = budget(divergence, tilt_by(KL(), teacher, LOG_REF, middle), LOG_REF) > spent
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    assert bool((mean_value(tilt_by(KL(), teacher, LOG_REF, low), reward) < mean_value(own, reward)).all())


def test_chi_square_gives_actions_probability_zero_and_numbers_stay_finite() -> None:
    chi_square = ChiSquare(rho_max=30.0)
    log_p = tabular_tilt(chi_square, LOG_PI, LOG_REF, 0.05)
    assert 0.2 < float((log_p.exp() == 0).double().mean()) < 0.81
    want = torch.special.xlogy(log_p.exp(), (log_p - LOG_REF).exp()).sum(-1).mean(-1)
    torch.testing.assert_close(kl(log_p, LOG_REF), want)
    assert bool(budget(chi_square, log_p, LOG_REF).isfinite().all())


@others
def test_a_language_model_has_no_tilt_but_the_power(divergence: Divergence) -> None:
    require_power_tilt(KL())
    message = rf"{type(divergence).__name__}: its tilted policy is no power .* evaluate=none, or divergence=kl"
    with pytest.raises(ConfigError, match=message):
        require_power_tilt(divergence)


def test_a_kl_near_the_largest_is_found_without_cancellation() -> None:
    """beta for 0.9999 of the KL of the sharpest tilt, by brute force over the table; 1/beta is far above 1 there."""
    best = torch.zeros_like(LOG_PI).scatter(-1, LOG_PI.sub(LOG_REF).argmax(-1, keepdim=True), 1.0)
    most = -(best * LOG_REF).sum(-1).mean(-1)  # all mass on the action with the largest ratio
    kappa = 0.9999 * most
    beta = beta_for_kl(KL(), LOG_PI, LOG_REF, kappa)
    assert bool((beta > 0).all())
    torch.testing.assert_close(kl(tabular_tilt(KL(), LOG_PI, LOG_REF, beta), LOG_REF), kappa, rtol=1e-9, atol=0)
