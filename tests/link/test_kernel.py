"""The binned kernel link against the exact estimator (NUMERICS 20)."""

import pytest
import torch

from spo.errors import ConfigError
from spo.link.bandwidth import bandwidth
from spo.link.kernel import Kernel
from spo.types import IndexSample
from tests.samples import N, sample


def make(symmetric, cells=8):
    return Kernel(symmetric=symmetric, constant=1.5, pseudo_count=0.5, eps=1e-4, cells=cells, grid_size=512 * cells + 1)


def exact(query, fitted, symmetric, leave_out=None):
    """Double loop in float64; leave_out: the row whose own entry (and mirror) is left out of each query."""
    h = 1.5 * float(bandwidth(fitted.t, fitted.weight, symmetric))
    values = []
    for q, t in enumerate(query.double()):
        rows = preferred = 0.0
        for i in range(N):
            if leave_out is not None and i == leave_out[q]:
                continue
            t_i, z_i, w_i = (float(x[i]) for x in (fitted.t, fitted.z, fitted.weight))
            for u, label in ((t_i, z_i), (-t_i, 1 - z_i))[: 2 if symmetric else 1]:
                mass = w_i * float(torch.exp(-0.5 * ((t - u) / h) ** 2))
                rows, preferred = rows + mass, preferred + mass * label
        values.append((preferred + 0.25) / (rows + 0.5))
    return torch.tensor(values)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_binned_fit_nears_the_exact_one_as_the_grid_gets_finer(symmetric):
    fitted, query = sample(), torch.linspace(-3, 3, 37)
    expected = exact(query, fitted, symmetric)
    errors = []
    for cells in (2, 4, 8, 16):
        link = make(symmetric, cells).fit(fitted.t, fitted.z, fitted.weight)
        errors.append(float((link(query) - expected).abs().max()))
    assert errors[3] < errors[2] < errors[1] < errors[0]
    assert errors[2] < 2e-3


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("moved", [0.0, 0.2, 1.0])
def test_leave_one_out_removes_the_row_where_it_lay_at_the_fit(symmetric, moved):
    """The row is asked for at t + moved, its own entry lies at t (MATH C6)."""
    fitted = sample()
    link = make(symmetric, 16).fit(fitted.t, fitted.z, fitted.weight)
    query = fitted.t + moved
    expected = exact(query, fitted, symmetric, leave_out=range(N))
    torch.testing.assert_close(link(query, fitted), expected, atol=2e-3, rtol=0)


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
    p = link(torch.zeros(N), fitted)
    torch.testing.assert_close(p, torch.full((N,), 0.5), atol=1e-6, rtol=0)


def test_rows_not_in_the_sample_leave_nothing_out():
    fitted = sample()
    link = make(symmetric=True).fit(fitted.t, fitted.z, fitted.weight)
    stranger = IndexSample(fitted.t, fitted.z, torch.zeros(N), fitted.row_id)
    torch.testing.assert_close(link(fitted.t, stranger), link(fitted.t))


def test_bandwidth_on_known_points():
    """-3, -1, 1, 3 symmetric: sd sqrt(5), median |t| 1, IQR 2."""
    t = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    expected = 4**-0.2 * min(5**0.5, 2 / 1.349)
    assert float(bandwidth(t, torch.ones(4), symmetric=True)) == pytest.approx(expected)
    with_zeros = torch.cat((t, torch.zeros(9)))
    assert float(bandwidth(with_zeros, torch.ones(13), symmetric=True)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"constant": 0}, "constant"),
        ({"pseudo_count": 0}, "pseudo_count"),
        ({"eps": 0}, "eps"),
        ({"grid_size": 64}, "grid"),
    ],
)
def test_bad_options(change, message):
    options = {"symmetric": True, "constant": 1.0, "pseudo_count": 1.0, "eps": 0.01, "cells": 8, "grid_size": 2049}
    with pytest.raises(ConfigError, match=message):
        Kernel(**options | change)
