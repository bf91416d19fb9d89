"""Is the link logistic? A likelihood-ratio test on held-out rows, calibrated by parametric bootstrap.

Shapes: N rows, M distinct values of the index, B sets of labels on the same rows, d coefficients.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit, xlog1py, xlogy

FEWEST_DRAWS = 99  # of which none above the statistic gives p = 0.01
_NEWTON_STEPS = 500  # each moves no row's logit by more than 1: separable rows, which have no maximum, stop at 500
_RIDGE = 1e-12  # of the curvature's trace, where t is constant
_EDGE = 1e-12  # a probability is at least this far from 0 and 1
_CONVERGED = 1e-9  # change of the largest logit
_SAME = 1e-5  # nats: log-likelihoods no further apart are the same; on separable rows the best slope is only approached
_CHUNK = 1 << 20  # rows · draws held at one time


class Rows(NamedTuple):
    """Rows by rising index. symmetric: (t, z) and (-t, 1-z) are one row, shown with t > 0; t = 0 says nothing."""

    t: np.ndarray  # float64 (N,)
    z: np.ndarray  # float64 (N,), in [0, 1]
    weight: np.ndarray  # float64 (N,), > 0
    first: np.ndarray  # int64 (M,), where each value of t begins
    symmetric: bool

    def fit_logistic(self, z: np.ndarray, near: "LogisticFit | None" = None) -> "LogisticFit":
        """Of labels z (B, N) on these rows."""
        weight = np.broadcast_to(self.weight, z.shape)
        return fit_logistic(self.t, z, weight, symmetric=self.symmetric, near=near)


class LogisticFit(NamedTuple):
    """P = sigmoid(slope · t + intercept), slope >= 0, and its log-likelihood; all (B,)."""

    slope: np.ndarray  # 1 / nats
    intercept: np.ndarray
    log_likelihood: np.ndarray  # nats

    def logit(self, t: np.ndarray) -> np.ndarray:
        """(B, Q) at t (Q,)."""
        return np.asarray(self.slope[:, None] * t + self.intercept[:, None])


class LogisticTest(NamedTuple):
    """What `logistic_test` found."""

    p_value: float
    gain: float  # nats a row: log-likelihood of the isotonic fit minus that of the best logistic one
    expected_gain: float  # its mean over the draws: what a monotone fit gains where the link is logistic
    draws: int
    rows: int  # that say something


def rows_by_index(t: np.ndarray, z: np.ndarray, weight: np.ndarray, *, symmetric: bool) -> Rows:
    """Sorted, so that nothing below depends on the order of rows nor, where symmetric, on that of the responses."""
    if symmetric:
        there = t != 0
        t, z, weight = np.abs(t)[there], np.where(t < 0, 1 - z, z)[there], weight[there]
    order = np.lexsort((weight, z, t))
    t, z, weight = (np.asarray(a, dtype=np.float64)[order] for a in (t, z, weight))
    first = np.flatnonzero(np.diff(t, prepend=-np.inf) > 0)
    return Rows(t, z, weight, first, symmetric)


def logistic_test(rows: Rows, *, draws: int, generator: np.random.Generator) -> LogisticTest:
    """H0: P(z = 1 | t) = sigmoid(a·t + b) for some a >= 0, b = 0 where symmetric. Statistic T: the log-likelihood of
    the isotonic fit minus that of the best logistic fit; p = (1 + #{draws with T* >= T}) / (1 + draws).

    A draw takes labels Bernoulli(sigmoid(a^·t + b^)) on the same rows and weights and refits both; it costs one
    isotonic and one logistic fit. A slope other than 1 is no departure (a policy trained too far), a non-monotone link
    is one only as far as a monotone fit sees it. An index that orders nothing refutes nothing: T and T* are then alike,
    and with a at its bound 0 the test even rejects less often than its level.

    Soft labels and ties: each is settled first by one coin of bias z. The settled label is 1 with probability E[z | t],
    so H0 says the same of it, and it is Bernoulli as the drawn ones are: the level holds whatever makes labels soft,
    at the price of their precision. (Redrawing hard labels and comparing them with soft ones, which vary less, would
    never refute.) Weights are kept as they are, one label a row: a row of weight 2 that stands for two judgements
    makes the test conservative. Rows are taken as independent given t. Source: MATH C23.
    """
    if not rows.t.size:
        return LogisticTest(1.0, 0.0, 0.0, 0, 0)
    n, total = len(rows.t), rows.weight.sum()
    settled = (generator.random((1, n)) < rows.z).astype(np.float64)  # a hard label stays what it is
    fit = rows.fit_logistic(settled)
    (statistic,) = isotonic_log_likelihood(rows, settled) - fit.log_likelihood
    p = expit(fit.logit(rows.t))
    drawn = []
    for size in chunks(draws, n):
        z = (generator.random((size, n)) < p).astype(np.float64)
        drawn.append(isotonic_log_likelihood(rows, z) - rows.fit_logistic(z, near=fit).log_likelihood)
    simulated = np.concatenate(drawn)
    p_value = (1 + int((simulated >= statistic - _SAME).sum())) / (1 + draws)
    return LogisticTest(p_value, float(statistic / total), float(simulated.mean() / total), draws, n)


def isotonic_log_likelihood(rows: Rows, z: np.ndarray) -> np.ndarray:
    """max over non-decreasing P of sum w [z log P + (1-z) log(1-P)], nats; z (B, N) -> (B,).

    symmetric: over P >= 1/2 at t > 0, which clips the unbounded fit. Rows of equal t are pooled (MATH C18).
    """
    mass = np.add.reduceat(rows.weight, rows.first)
    pooled = np.add.reduceat(rows.weight * z, rows.first, axis=-1) / mass
    fits = np.stack([isotonic_regression(z_M, weights=mass).x for z_M in pooled])
    fits = fits.clip(0.5 if rows.symmetric else 0.0, 1.0)
    return np.asarray((mass * (xlogy(pooled, fits) + xlog1py(1 - pooled, -fits))).sum(-1))


def fit_logistic(
    t: np.ndarray, z: np.ndarray, weight: np.ndarray, *, symmetric: bool, near: LogisticFit | None = None
) -> LogisticFit:
    """Maximum likelihood of sigmoid(a·t + b), a >= 0, b = 0 where symmetric; t (N,), z and weight (B, N), soft labels
    as they are. By Newton from 0, or from one fit `near`.

    Steps are cut where they would move a logit by more than 1, under which the likelihood rises at every step. It is
    concave: where the free slope is negative the best one is 0.
    """
    design = t[:, None] if symmetric else np.stack([t, np.ones_like(t)], -1)
    squares = (design[:, :, None] * design[:, None, :]).reshape(len(t), -1)
    identity = np.eye(design.shape[1])
    beta = np.zeros((len(z), design.shape[1]))
    if near is not None:
        beta += np.array([near.slope[0], near.intercept[0]])[: design.shape[1]]
    active = np.arange(len(z))
    for _ in range(_NEWTON_STEPS if len(t) else 0):
        p, w = expit(beta[active] @ design.T), weight[active]
        slope = (w * (z[active] - p)) @ design
        curvature = ((w * p * (1 - p)) @ squares).reshape(-1, *identity.shape)
        ridge = _RIDGE * np.trace(curvature, axis1=1, axis2=2) + np.finfo(float).tiny
        step = np.linalg.solve(curvature + ridge[:, None, None] * identity, slope[..., None])[..., 0]
        reach = np.abs(step @ design.T).max(-1)
        beta[active] += step / np.maximum(reach, 1.0)[:, None]
        active = active[reach > _CONVERGED]
        if not active.size:
            break
    falls = beta[:, 0] < 0
    beta[falls] = 0.0
    if not symmetric:
        mean = (weight * z).sum(-1) / weight.sum(-1)
        beta[falls, 1] = logit(mean[falls].clip(_EDGE, 1 - _EDGE))
    eta = beta @ design.T
    value = (weight * (z * eta - np.logaddexp(0.0, eta))).sum(-1)
    return LogisticFit(beta[:, 0], np.zeros(len(z)) if symmetric else beta[:, 1], value)


def affordable(draws: int, rows: int, max_labels: int) -> int:
    """`draws`, or fewer, but at least FEWEST_DRAWS, where draws · rows would pass max_labels."""
    return max(FEWEST_DRAWS, min(draws, max_labels // max(rows, 1)))


def chunks(draws: int, rows: int) -> list[int]:
    """Sizes that sum to `draws`, each of at most _CHUNK labels."""
    size = max(1, _CHUNK // rows)
    return [min(size, draws - start) for start in range(0, draws, size)]
