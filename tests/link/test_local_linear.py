"""The binned local-linear link against weighted least squares row by row (NUMERICS 20)."""

import numpy as np
import pytest
import torch

from spo.errors import ConfigError
from spo.link.bandwidth import bandwidth
from spo.link.kernel import Kernel
from spo.link.local_linear import LocalLinear
from spo.types import IndexSample
from tests.samples import N, sample

RIDGE, PSEUDO_COUNT = 0.3, 0.5
OPTIONS = {"constant": 1.5, "ridge": RIDGE, "pseudo_count": PSEUDO_COUNT, "eps": 1e-4}


def make(symmetric, cells=8, **change):
    return LocalLinear(**OPTIONS | {"symmetric": symmetric, "cells": cells, "grid_size": 512 * cells + 1} | change)


def exact(query, fitted, symmetric, leave_out=None):
    """At each query a least-squares problem in float64, pseudo-row and ridge as rows of it; leave_out: a row each."""
    h = 1.5 * float(bandwidth(fitted.t, fitted.weight, symmetric))
    t, z, w = (x.double().numpy() for x in (fitted.t, fitted.z, fitted.weight))
    row = np.arange(N)
    if symmetric:
        t, z, w, row = np.r_[t, -t], np.r_[z, 1 - z], np.r_[w, w], np.r_[row, row]
    values = []
    for q, at in enumerate(query.double().numpy()):
        u = (t - at) / h
        k = w * np.exp(-0.5 * u**2) * (row != (-1 if leave_out is None else leave_out[q]))
        design = np.r_[np.c_[np.ones_like(u), u], [[1.0, 0.0], [0.0, 1.0]]]
        root = np.sqrt(np.r_[k, PSEUDO_COUNT, RIDGE])
        target = np.r_[z - 0.5, 0.0, 0.0]
        values.append(0.5 + np.linalg.lstsq(design * root[:, None], target * root, rcond=None)[0][0])
    return torch.tensor(np.clip(values, 1e-4, 1 - 1e-4), dtype=torch.float32)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_binned_fit_nears_the_exact_one_as_the_grid_gets_finer(symmetric):
    fitted, query = sample(), torch.linspace(-3, 3, 37)
    expected = exact(query, fitted, symmetric)
    errors = []
    for cells in (2, 4, 8, 16):
        link = make(symmetric, cells).fit(fitted.t, fitted.z, fitted.weight)
        errors.append(float((link(query) - expected).abs().max()))
    assert errors[3] < errors[2] < errors[1] < errors[0]
    assert errors[3] < min(2e-3, errors[1] / 8)  # second order: a sixteenth


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("moved", [0.0, 0.2, 1.0])
def test_leave_one_out_removes_the_row_where_it_lay_at_the_fit(symmetric, moved):
    """All five sums, at the row's t of the fit, while it is asked for at t + moved (MATH C6)."""
    fitted = sample()
    link = make(symmetric, 16).fit(fitted.t, fitted.z, fitted.weight)
    query = fitted.t + moved
    expected = exact(query, fitted, symmetric, leave_out=range(N))
    torch.testing.assert_close(link(query, fitted), expected, atol=3e-3, rtol=0)
    assert float((link(query) - expected).abs().max()) > 0.02


def test_a_lonely_row_does_not_see_its_own_label():
    t = torch.cat((torch.linspace(-0.2, 0.2, 20), torch.tensor([20.0])))
    z = torch.cat((torch.zeros(20), torch.ones(1)))
    fitted = IndexSample(t, z, torch.ones(21), torch.arange(21))
    link = make(symmetric=False).fit(t, z, torch.ones(21))
    assert abs(float(link(t, fitted)[-1]) - 0.5) < 1e-3
    assert float(link(t)[-1]) > 0.8


def test_the_symmetric_leave_one_out_fit_at_zero_is_one_half():
    fitted = sample()
    link = make(symmetric=True).fit(fitted.t, fitted.z, fitted.weight)
    torch.testing.assert_close(link(torch.zeros(N), fitted), torch.full((N,), 0.5), atol=1e-5, rtol=0)


def test_the_slope_without_the_own_row_against_finite_differences():
    link = make(symmetric=True).double()
    fitted = sample()
    fitted = IndexSample(fitted.t.double(), fitted.z.double(), fitted.weight.double(), fitted.row_id)
    link.fit(fitted.t, fitted.z, fitted.weight)
    t, h = fitted.t + 0.0317, 1e-6
    slope = (link(t + h, fitted) - link(t - h, fitted)) / (2 * h)
    torch.testing.assert_close(link.derivative(t, fitted), slope, atol=1e-4, rtol=1e-4)


def test_a_large_ridge_is_the_kernel_link():
    fitted, query = sample(), torch.linspace(-3, 3, 37)
    rest = {"symmetric": True, "constant": 1.5, "pseudo_count": PSEUDO_COUNT, "eps": 1e-4, "cells": 8}
    flat = make(True, ridge=1e7).fit(fitted.t, fitted.z, fitted.weight)
    kernel = Kernel(**rest, grid_size=4097).fit(fitted.t, fitted.z, fitted.weight)
    torch.testing.assert_close(flat(query), kernel(query), atol=1e-5, rtol=0)


def test_a_line_has_no_bias_where_the_rows_end():
    """z = 0.2 + 0.6 t on rows from 0 to 1: the line is found at the ends, where a local mean is pulled inwards."""
    t = torch.linspace(0, 1, 2001)
    link = make(False, 16, ridge=1e-6, pseudo_count=1e-6).fit(t, 0.2 + 0.6 * t, torch.ones_like(t))
    torch.testing.assert_close(link(t[::100]), 0.2 + 0.6 * t[::100], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 0}, "ridge"),
        ({"constant": 0}, "constant"),
        ({"pseudo_count": 0}, "pseudo_count"),
        ({"eps": 0}, "eps"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(ConfigError, match=message):
        make(True, **change)
