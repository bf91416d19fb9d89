"""The bins of a reliability diagram, from rows whose shares are known."""

import numpy as np
import pytest
import torch

from spo.evaluate.ranking import calibration_error
from spo.report.reliability import draw_reliability, reliability


def test_shares_of_known_rows():
    """Ten groups of ten rows, p = 0.05 .. 0.95, of which the first 10 p + 1/2 have z = 1: share = p + 0.05."""
    p = np.repeat(np.arange(10) / 10 + 0.05, 10)
    z = np.tile(np.arange(10), 10) < np.repeat(np.arange(10), 10) + 1
    found = reliability(p, z.astype(float), np.ones(100), symmetric=False)
    assert found["p"] == pytest.approx((np.arange(10) / 10 + 0.05).tolist())
    assert found["share"] == pytest.approx((np.arange(10) / 10 + 0.1).tolist())
    assert found["se"][0] == pytest.approx((0.05 * 0.95 / 10) ** 0.5, rel=1e-5)
    assert found["rows"] == [10.0] * 10


def test_symmetric_shares_mirror_each_other():
    """(p, share) and (1 - p, 1 - share); the gaps, weighted, are link/ece."""
    draw = np.random.default_rng(0)
    p, z, weight = draw.uniform(size=200), draw.integers(0, 2, 200).astype(float), draw.uniform(0.5, 2, 200)
    found = {k: np.array(v) for k, v in reliability(p, z, weight, symmetric=True).items()}
    assert found["p"] == pytest.approx(1 - found["p"][::-1], abs=1e-5)
    assert found["share"] == pytest.approx(1 - found["share"][::-1], abs=1e-5)
    gap = (found["rows"] * np.abs(found["p"] - found["share"])).sum() / found["rows"].sum()
    both = [torch.tensor(np.concatenate(pair)) for pair in ((p, 1 - p), (z, 1 - z), (weight, weight))]
    assert gap == pytest.approx(float(calibration_error(*both)), abs=1e-5)


def test_a_flat_link_and_a_bin_without_rows():
    """One heavy row fills nine bins' weight; p = 1/2 everywhere is one bin, whatever the order of the rows."""
    found = reliability(np.array([0.1, 0.9]), np.array([0.0, 1.0]), np.array([9.0, 1.0]), symmetric=False)
    assert found["p"] == [0.1, 0.9]
    flat = reliability(np.full(20, 0.5), np.tile([0.0, 1.0], 10), np.ones(20), symmetric=True)
    assert (flat["p"], flat["share"], flat["rows"]) == ([0.5], [0.5], [40.0])
    assert draw_reliability({"step": 0, **flat}).axes[0].get_title(loc="left") == "Reliability of the link, step 0"
