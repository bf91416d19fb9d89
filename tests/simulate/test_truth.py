"""True links (NUMERICS 33)."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import cauchy, norm

from spo.errors import ConfigError
from spo.simulate.truth import (
    CauchitTruth,
    Heteroskedastic,
    LabelNoise,
    LogisticTruth,
    PositionBias,
    ProbitTruth,
    ShiftedMixture,
    StepTruth,
    Ties,
    TrueLink,
)

LOGISTIC = LogisticTruth(temperature=0.25)
LINKS = [
    LOGISTIC,
    ShiftedMixture(shift=0.75, temperature=0.25),
    ShiftedMixture(shift=2, temperature=1),
    ProbitTruth(temperature=0.4),
    CauchitTruth(temperature=0.32),
    StepTruth(accuracy=0.9, temperature=0.02),
    PositionBias(bias=0.25, temperature=0.25),
    PositionBias(bias=-1.0, temperature=0.5),
    LabelNoise(link=LOGISTIC, flipped=0.2),
    LabelNoise(link=PositionBias(bias=0.25, temperature=0.25), flipped=0.1),
    LabelNoise(link=Ties(threshold=0.5, temperature=0.25), flipped=0.3),
    Heteroskedastic(temperatures=[0.05, 0.25, 1.25]),
    Ties(threshold=0.25, temperature=0.25),
]
every_link = pytest.mark.parametrize("link", LINKS, ids=lambda link: type(link).__name__)
U = torch.cat([torch.linspace(-8, 8, 321, dtype=torch.float64), torch.tensor([-1e4, 1e4], dtype=torch.float64)])
ZERO = torch.zeros(1, dtype=torch.float64)


@every_link
def test_a_probability_that_never_falls(link: TrueLink) -> None:
    p = link(U.sort().values)
    assert bool(((p >= 0) & (p <= 1)).all())
    assert bool((p.diff() >= 0).all())
    assert float(p[-1] - p[0]) > 0.3


@every_link
def test_antisymmetric_where_it_says_so(link: TrueLink) -> None:
    """Psi(-u) = 1 - Psi(u), and so Psi(0) = 1/2; a link that is not symmetric has neither."""
    gap = (link(-U) - (1 - link(U))).abs().max()
    at_zero = float(link(ZERO)) - 0.5
    assert (float(gap) < 1e-12) == link.symmetric
    assert (abs(at_zero) < 1e-15) == link.symmetric


@every_link
def test_derivative_is_that_of_autograd(link: TrueLink) -> None:
    u = U.clone().requires_grad_()
    link(u).sum().backward()
    torch.testing.assert_close(link.derivative(U), u.grad, atol=1e-12, rtol=1e-9)


@every_link
def test_three_outcomes_have_probabilities(link: TrueLink) -> None:
    """P(1) = Psi - tie/2 and P(0) = 1 - Psi - tie/2 are in [0, 1]; no ties where none are announced."""
    tie, p = link.tie(U), link(U)
    assert bool((tie > 0).any()) == link.has_ties
    for outcome in (p - tie / 2, 1 - p - tie / 2, tie):
        assert float(outcome.min()) >= -1e-15
        assert float(outcome.max()) <= 1


def test_known_values() -> None:
    """s = 0 is the logistic link; at u = s one of the two parts is at its half: 1/2·1/2 + 1/2·sigmoid(2s/tau)."""
    torch.testing.assert_close(ShiftedMixture(shift=0, temperature=0.25)(U), LOGISTIC(U))
    want = 0.25 + 0.5 / (1 + np.exp(-2 * 0.75 / 0.25))
    assert float(ShiftedMixture(shift=0.75, temperature=0.25)(np.array([0.75]))[0]) == pytest.approx(want, abs=1e-12)
    torch.testing.assert_close(Heteroskedastic(temperatures=[0.25])(U), LOGISTIC(U))
    torch.testing.assert_close(LabelNoise(link=LOGISTIC, flipped=0)(U), LOGISTIC(U))
    assert float(PositionBias(bias=0.25, temperature=0.25)(ZERO)) == pytest.approx(1 / (1 + math.exp(-1)))
    assert float(PositionBias(bias=0.25, temperature=0.25)(ZERO - 0.25)) == pytest.approx(0.5)
    step = StepTruth(accuracy=0.9, temperature=0.02)(torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(step, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), atol=1e-9, rtol=0)
    noisy = LabelNoise(link=LOGISTIC, flipped=0.2)(torch.tensor([-8.0, 8.0], dtype=torch.float64))
    torch.testing.assert_close(noisy, torch.tensor([0.2, 0.8], dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("link", "law"), [(ProbitTruth, norm), (CauchitTruth, cauchy)], ids=["probit", "cauchit"])
def test_one_noise_is_the_distribution_function_of_scipy(link: type[ProbitTruth], law: object) -> None:
    np.testing.assert_allclose(link(temperature=0.4)(U).numpy(), law(scale=0.4).cdf(U.numpy()), atol=1e-15)  # type: ignore[operator]


def test_the_defaults_have_the_slope_of_the_logistic_at_0() -> None:
    """1/(4 · 0.25) = 1: normal 0.4 and Cauchy 0.32 within 1%."""
    for link in (LOGISTIC, ProbitTruth(temperature=0.4), CauchitTruth(temperature=0.32)):
        assert float(link.derivative(ZERO)) == pytest.approx(1, abs=0.01)


def test_ties_are_rao_and_kuppers() -> None:
    """With pi_j = exp(r_j / tau), theta = exp(threshold / tau): P(1) = pi_1/(pi_1 + theta pi_0), P(0) likewise, and
    P(tie) = (theta^2 - 1) pi_0 pi_1 / ((pi_1 + theta pi_0)(pi_0 + theta pi_1))."""
    tau, threshold, u = 0.5, 0.3, np.linspace(-2, 2, 9)
    link, theta, one, zero = Ties(threshold=threshold, temperature=tau), math.exp(threshold / tau), np.exp(u / tau), 1.0
    win, lose = one / (one + theta * zero), zero / (zero + theta * one)
    tie = (theta**2 - 1) * zero * one / ((one + theta * zero) * (zero + theta * one))
    np.testing.assert_allclose(win + lose + tie, 1)
    np.testing.assert_allclose(link.tie(torch.from_numpy(u)).numpy(), tie, rtol=1e-12)
    np.testing.assert_allclose(link(u), win + tie / 2, rtol=1e-12)
    np.testing.assert_allclose(link(u), ShiftedMixture(shift=threshold, temperature=tau)(u), rtol=1e-15)


def test_careless_annotators_make_the_tails_heavy() -> None:
    """E over kinds: the mean of 1 - Psi over u in (0, inf) is that of tau_k · log 2."""
    link = Heteroskedastic(temperatures=[0.05, 0.25, 1.25])
    area, _ = quad(lambda u: 1 - float(link(torch.tensor(u, dtype=torch.float64))), 0, 60, limit=400)
    assert area == pytest.approx(np.mean([0.05, 0.25, 1.25]) * math.log(2), rel=1e-6)


def test_what_a_flipped_link_says_of_itself_is_its_links() -> None:
    staircase = ShiftedMixture(shift=1.5, temperature=0.25)
    assert LabelNoise(link=staircase, flipped=0.1).shift == 1.5
    assert math.isnan(LabelNoise(link=ProbitTruth(temperature=1), flipped=0.1).shift)
    assert not LabelNoise(link=PositionBias(bias=1, temperature=1), flipped=0.1).symmetric
    assert LabelNoise(link=Ties(threshold=1, temperature=1), flipped=0.1).has_ties


def test_kind_and_shape_are_kept() -> None:
    for link in LINKS:
        assert isinstance(link(np.zeros((2, 3))), np.ndarray)
        assert link(torch.zeros(2, 3)).shape == link.tie(torch.zeros(2, 3)).shape == (2, 3)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_are_checked(bad: float) -> None:
    for make in (
        lambda: LogisticTruth(temperature=bad),
        lambda: ProbitTruth(temperature=bad),
        lambda: CauchitTruth(temperature=bad),
        lambda: StepTruth(accuracy=0.9, temperature=bad),
        lambda: ShiftedMixture(shift=1, temperature=bad),
        lambda: PositionBias(bias=1, temperature=bad),
        lambda: Ties(threshold=1, temperature=bad),
    ):
        with pytest.raises(ConfigError, match=f"temperature is {bad}: give a value > 0, in sd"):
            make()
    with pytest.raises(ConfigError, match=f"temperatures is {bad}"):
        Heteroskedastic(temperatures=[1.0, bad])


def test_ranges_are_checked() -> None:
    for make, message in (
        (lambda: ShiftedMixture(shift=-1, temperature=1), "shift is -1"),
        (lambda: ShiftedMixture(shift=math.inf, temperature=1), "shift is inf"),
        (lambda: Ties(threshold=math.nan, temperature=1), "threshold is nan"),
        (lambda: StepTruth(accuracy=0.5, temperature=1), "accuracy is 0.5"),
        (lambda: StepTruth(accuracy=1.1, temperature=1), "accuracy is 1.1"),
        (lambda: PositionBias(bias=math.inf, temperature=1), "bias is inf"),
        (lambda: LabelNoise(link=LOGISTIC, flipped=0.5), "flipped is 0.5"),
        (lambda: LabelNoise(link=LOGISTIC, flipped=-0.1), "flipped is -0.1"),
        (lambda: Heteroskedastic(temperatures=[]), r"temperatures is \[\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()
