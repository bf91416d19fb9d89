"""The test of the logistic link by simulation and brute force, and the curves beside it (MATH C23)."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from spo.link.bandwidth import bandwidth
from spo.link.diagnosis import Curves, curves, departure
from spo.link.likelihood_ratio import (
    LogisticTest,
    affordable,
    fit_logistic,
    isotonic_log_likelihood,
    logistic_test,
    rows_by_index,
)

GRID = np.linspace(-2.5, 2.5, 51)


def mixture(u: np.ndarray) -> np.ndarray:
    """The shifted mixture, s = 1.5, tau = 0.25."""
    return np.asarray(0.5 * expit((u - 1.5) / 0.25) + 0.5 * expit((u + 1.5) / 0.25))


def draw(n: int, link: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = rng.standard_normal(n)
    return t, (rng.random(n) < link(t)).astype(float), np.ones(n)


def run_test(t: Any, z: Any, w: Any, *, symmetric: bool = True, draws: int = 99, seed: int = 0) -> LogisticTest:
    rows = rows_by_index(t, z, w, symmetric=symmetric)
    return logistic_test(rows, draws=draws, generator=np.random.default_rng(seed))


def rejections(sims: int, n: int, link: Any, **options: Any) -> float:
    found = [run_test(*draw(n, link, seed), **options, seed=seed).p_value <= 0.05 for seed in range(sims)]
    return float(np.mean(found))


def test_level_is_five_percent() -> None:
    """Issue 3: 5% +- 2% under H0; and a slope other than 1 is no departure: P = sigmoid(t / 3) too."""
    assert 0.03 <= rejections(400, 50, lambda t: expit(1.5 * t)) <= 0.07
    assert rejections(100, 50, lambda t: expit(t / 3)) <= 0.07


def test_level_with_an_intercept_ties_and_weights() -> None:
    """Not symmetric: b = 0.5 is no departure. Shares of three votes, settled by coins, and weights: it holds."""
    assert rejections(100, 50, lambda t: expit(1.5 * t + 0.5), symmetric=False) <= 0.1
    rng, refuted = np.random.default_rng(0), 0
    for seed in range(150):
        t = rng.standard_normal(50)
        z = rng.binomial(3, expit(1.5 * t)) / 3
        refuted += run_test(t, z, rng.uniform(0.5, 2, 50), seed=seed).p_value <= 0.05
    assert 0.01 <= refuted / 150 <= 0.09


def test_power_against_the_shifted_mixture() -> None:
    """s = 1.5, tau = 0.25, n = 300 is five nats of evidence (MATH C31)."""
    assert rejections(30, 300, mixture) >= 0.8


def test_statistic_is_brute_force() -> None:
    """One set of labels at a time, by scikit-learn on the mirrored sample and by a general optimiser."""
    rng = np.random.default_rng(3)
    t = np.round(rng.standard_normal(40), 1)  # with ties
    w = rng.uniform(0.5, 2, 40)
    z = (rng.random((3, 40)) < expit(t)).astype(float)
    for symmetric in (True, False):
        for k in range(3):
            rows = rows_by_index(t, z[k], w, symmetric=symmetric)
            ours = isotonic_log_likelihood(rows, rows.z[None])[0], rows.fit_logistic(rows.z[None])
            x, y, v = (np.r_[t, -t], np.r_[z[k], 1 - z[k]], np.r_[w, w] / 2) if symmetric else (t, z[k], w)
            p = IsotonicRegression(y_min=0, y_max=1).fit(x, y, sample_weight=v).predict(x)
            there = x != 0 if symmetric else np.ones(len(x), dtype=bool)
            assert ours[0] == pytest.approx(likelihood(p, y, v)[there].sum(), abs=1e-9)
            skl = LogisticRegression(C=np.inf, fit_intercept=not symmetric, tol=1e-10).fit(x[:, None], y, v)
            assert ours[1].slope[0] == pytest.approx(skl.coef_[0, 0], rel=1e-4)
            assert ours[1].log_likelihood[0] == pytest.approx(
                likelihood(skl.predict_proba(x[:, None])[:, 1], y, v)[there].sum(), abs=1e-6
            )


def likelihood(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(w * (np.where(y > 0, y * np.log(p), 0) + np.where(y < 1, (1 - y) * np.log(1 - p), 0)))


def test_draws_at_once_are_a_loop() -> None:
    """The batch over draws = one draw after another from the same random numbers."""
    t, z, w = draw(60, expit, 1)
    for symmetric in (True, False):
        rows = rows_by_index(t, z, w, symmetric=symmetric)
        found = run_test(t, z, w, symmetric=symmetric)
        generator = np.random.default_rng(0)
        generator.random(60)  # the coins
        fit = rows.fit_logistic(rows.z[None])
        statistic = (isotonic_log_likelihood(rows, rows.z[None]) - fit.log_likelihood)[0]
        above, total = 0, 0.0
        for _ in range(99):
            labels = (generator.random(60) < expit(fit.slope[0] * rows.t + fit.intercept[0])).astype(float)[None]
            each = (isotonic_log_likelihood(rows, labels) - rows.fit_logistic(labels).log_likelihood)[0]
            above, total = above + (each >= statistic - 1e-7), total + each
        assert found.p_value == (1 + above) / 100
        assert found.expected_gain == pytest.approx(total / 99 / 60, abs=1e-9)
        assert found.gain == pytest.approx(statistic / 60, abs=1e-12)


def test_order_of_rows_and_of_responses_changes_nothing() -> None:
    """(t, z) and (-t, 1 - z) are one row where symmetric; and one sample has one p."""
    t, z, w = draw(80, mixture, 2)
    z[:5], w[:9] = 0.5, 2.0
    turned, shuffled = np.arange(80) % 3 == 0, np.random.default_rng(0).permutation(80)
    expected = run_test(t, z, w)
    assert run_test(t, z, w) == expected
    other = np.where(turned, -t, t)[shuffled], np.where(turned, 1 - z, z)[shuffled], w[shuffled]
    assert run_test(*other) == expected


def test_fits_that_have_no_maximum() -> None:
    """Separable rows: likelihood 1. Reversed rows: slope 0, the best constant. t = 0 everywhere: nothing to say."""
    t, w = np.array([-2.0, -1.0, 1.0, 3.0]), np.ones((2, 4))
    fit = fit_logistic(t, np.array([[0, 0, 1, 1], [1, 1, 0, 0]], dtype=float), w, symmetric=True)
    assert fit.log_likelihood.tolist() == pytest.approx([0, -4 * np.log(2)], abs=1e-6)
    fit = fit_logistic(t, np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=float), w, symmetric=False)
    assert expit(fit.intercept[0]) == pytest.approx(0.75)
    assert fit.slope[0] == 0
    assert fit.log_likelihood[1] == pytest.approx(0, abs=1e-6)
    # the slope is only approached: what a monotone fit gains over it is rounding, and refutes nothing
    assert run_test(np.array([-2.0, -1.0, 0.06, 0.13]), np.array([0.0, 0, 1, 1]), np.ones(4)).p_value == 1
    assert run_test(np.zeros(5), np.ones(5), np.ones(5)) == LogisticTest(1.0, 0.0, 0.0, 0, 0)
    flat = run_test(np.zeros(5), np.array([1.0, 0, 0, 0, 0]), np.ones(5), symmetric=False)
    assert (flat.p_value, flat.rows) == (1.0, 5)
    assert flat.gain == pytest.approx(0, abs=1e-9)


def test_soft_labels_by_a_general_optimiser() -> None:
    rng = np.random.default_rng(4)
    t, z, w = rng.standard_normal(50) * 5, rng.random(50), rng.uniform(0.5, 2, 50)
    z = 0.4 * z + 0.6 * (t > 1)

    def loss(b: np.ndarray) -> float:
        eta = b[0] * t + b[1]
        return float((w * (np.logaddexp(0, eta) - z * eta)).sum())

    best = minimize(loss, [0.0, 0.0], tol=1e-10)
    fit = fit_logistic(t, z[None], w[None], symmetric=False)
    assert [fit.slope[0], fit.intercept[0]] == pytest.approx(best.x.tolist(), abs=1e-4)
    assert -fit.log_likelihood[0] == pytest.approx(best.fun, rel=1e-9)


def test_work_is_bounded() -> None:
    assert [affordable(499, n, 10_000) for n in (0, 10, 50, 10**6)] == [499, 499, 200, 99]


def show(t: Any, z: Any, w: Any, group: Any = None, *, symmetric: bool = True, draws: int = 99) -> Curves:
    group = np.arange(len(t)) if group is None else group
    generator = np.random.default_rng(0)
    return curves(t, z, w, group, GRID, symmetric=symmetric, constant=1.5, band=0.9, draws=draws, generator=generator)[
        0
    ]


@pytest.mark.parametrize("symmetric", [True, False])
def test_kernel_is_its_definition(symmetric: bool) -> None:
    """L + smoothed residuals, sum by sum; the binned kernel is within 0.01 of it. A row of weight 2 = the row twice."""
    t, z, w = draw(70, mixture, 5)
    w[:20] = 2.0
    fit = fit_logistic(t, z[None], w[None], symmetric=symmetric)
    h = 1.5 * float(bandwidth(torch.tensor(t), torch.tensor(w), symmetric))
    x, r, v = t, z - expit(fit.logit(t))[0], w / w.mean()
    if symmetric:
        x, r, v = np.r_[x, -x], np.r_[r, -r], np.r_[v, v]
    near = v * np.exp(-(((GRID[:, None] - x) / h) ** 2) / 2)
    expected = expit(fit.logit(GRID))[0] + near @ r / (near.sum(-1) + 1)
    found = show(t, z, w, symmetric=symmetric)
    assert found.kernel == pytest.approx(expected.clip(0, 1), abs=0.01)
    if symmetric:
        for name in ("isotonic", "kernel", "logistic"):
            curve = getattr(found, name)
            assert curve == pytest.approx(1 - curve[::-1], abs=1e-5)


def test_isotonic_is_the_step_function() -> None:
    """At the rows themselves, scikit-learn's fit."""
    t, z, w = draw(51, mixture, 6)
    generator = np.random.default_rng(0)
    grid = np.sort(t)
    found, _ = curves(t, z, w, t, grid, symmetric=False, constant=1.5, band=0.9, draws=99, generator=generator)
    assert found.isotonic == pytest.approx(IsotonicRegression().fit(t, z).predict(grid), abs=1e-9)


def test_band_covers_and_widens_with_groups() -> None:
    """A logistic link lies in the 90% band nine times in ten, less a little at 100 rows; rows that are copies of one
    another in groups of four are a quarter as many, so the band is twice as wide."""
    inside, width = [], []
    for seed in range(40):
        t, z, w = draw(100, lambda t: expit(1.5 * t), seed)
        found = show(t, z, w)
        some = np.isfinite(found.low) & (GRID != 0)
        truth = expit(1.5 * GRID)
        inside.append(((found.low <= truth) & (truth <= found.high))[some].mean())
        if seed < 5:
            four = np.repeat(t, 4), np.repeat(z, 4), np.repeat(w, 4)
            alone, together = show(*four), show(*four, group=np.repeat(np.arange(100), 4))
            width.append(np.nanmean(together.high - together.low) / np.nanmean(alone.high - alone.low))
    assert 0.82 <= np.mean(inside) <= 0.96
    assert 1.7 <= np.mean(width) <= 2.3


def test_no_band_where_there_are_no_rows() -> None:
    t, z, w = draw(200, expit, 7)
    found = show(t / 10, z, w)
    assert np.isnan(found.low[[0, -1]]).all()
    assert np.isfinite(found.low[25])
    assert found.kernel[0] == pytest.approx(found.logistic[0])  # it is the logistic curve there


def test_where_the_logistic_departs_most() -> None:
    """Two stretches outside the band: the one with rows in it, not the wider one; none where there is none."""
    logistic, kernel = np.full(51, 0.5), np.full(51, 0.5)
    kernel[28:31], kernel[35:50] = 0.8, 0.7
    found = Curves(logistic, kernel, kernel - 0.1, kernel + 0.1, logistic)
    t = np.repeat(GRID[[29, 40]], [30, 3])
    low, high = departure(t, np.ones(33), GRID, found, symmetric=True) or (0, 0)
    assert (low, high) == pytest.approx((GRID[28], GRID[30]))
    w = np.r_[np.full(30, 0.01), np.ones(3)]
    low, high = departure(-t, w, GRID, found, symmetric=True) or (0, 0)
    assert (low, high) == pytest.approx((GRID[35], GRID[49]))
    assert departure(t, w, GRID, found._replace(low=logistic - 0.1), symmetric=True) is None
    few = found._replace(low=np.full(51, np.nan), high=np.full(51, np.nan))
    assert departure(t, w, GRID, few, symmetric=False) is None
