"""Errors of a fitted link over fresh pairs (MATH C32)."""

import math

import numpy as np
import torch

from spo.evaluate.link_error import calibration_error, link_errors
from spo.link.logistic import Logistic
from spo.simulate.truth import LogisticTruth, ShiftedMixture


def table(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(2, 100, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_true_link_at_the_true_direction_has_no_error() -> None:
    """t = 3 u and Psi^(t) = sigmoid(t / (3 tau)): both errors are 0, whatever the scale of t."""
    reward = table(0)
    truth = LogisticTruth(temperature=0.5)
    found = link_errors(Logistic(1 / (3 * 0.5)), [truth, truth], 3 * reward, reward)
    for name in ("link_error", "calibration_error"):
        assert float(found[name].abs().max()) < 1e-12, name


def test_a_wrong_link_by_brute_force() -> None:
    """link_error over all ordered pairs by loops; each replicate has its own truth."""
    reward = table(0)
    truths = [ShiftedMixture(shift=0.0, temperature=0.25), ShiftedMixture(shift=1.5, temperature=0.25)]
    term = 2 * reward + table(1, 0.3)
    found = link_errors(Logistic(1.0), truths, term, reward)["link_error"]
    for r, psi in enumerate(truths):
        t, u = ((x[r, :, :, None] - x[r, :, None, :]).numpy().ravel() for x in (term, reward))
        slope = (t * u).sum() / (u * u).sum()
        want = np.mean((1 / (1 + np.exp(-slope * u)) - psi(u)) ** 2)
        np.testing.assert_allclose(float(found[r]), want, rtol=1e-5)


def test_a_wrong_direction_alone_leaves_a_calibrated_link_without_error() -> None:
    """t and u jointly normal: E[z | t] is known by quadrature. The link that is E[z | t] has calibration error 0 up to
    noise, although Psi^ is not Psi; a link twice as steep has one that is seen."""
    generator = torch.Generator().manual_seed(3)
    t = torch.randn(1, 40_000, generator=generator, dtype=torch.float64)
    u = 0.8 * t + 0.6 * torch.randn(1, 40_000, generator=generator, dtype=torch.float64)
    psi = LogisticTruth(temperature=0.25)
    node, weight = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(80))

    def calibrated(t: torch.Tensor) -> torch.Tensor:
        return (psi(0.8 * t[..., None] + 0.6 * node) * weight).sum(-1) / math.sqrt(2 * math.pi)

    right = float(calibration_error(t, calibrated(t), psi(u)))
    steep = float(calibration_error(t, calibrated(2 * t), psi(u)))
    assert abs(right) < 1e-4
    np.testing.assert_allclose(steep, float((calibrated(2 * t) - calibrated(t)).square().mean()), rtol=0.05)


def test_no_link_has_no_error() -> None:
    found = link_errors(None, [], table(0), table(0))
    assert bool(torch.isnan(found["link_error"]).all())
