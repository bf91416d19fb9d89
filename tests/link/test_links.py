"""What every link must satisfy (NUMERICS 18, 19, 24, 25)."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import cauchy, norm

from spo.errors import ConfigError
from spo.link.averaged import Averaged
from spo.link.cauchit import Cauchit
from spo.link.isotonic import Isotonic
from spo.link.kernel import Kernel
from spo.link.local_linear import LocalLinear
from spo.link.logistic import Logistic
from spo.link.mixture import Mixture
from spo.link.probit import Probit
from spo.link.shifted_mixture import ShiftedMixture
from spo.link.spline import Spline


def isotonic(interpolation="linear", symmetric=True):
    width = 1.0 if interpolation == "kernel" else None
    return Isotonic(symmetric=symmetric, interpolation=interpolation, width=width, eps=0.01, max_knots=256)


def kernel(symmetric=True):
    return Kernel(symmetric=symmetric, constant=1.5, pseudo_count=0.5, eps=0.001, cells=8, grid_size=2049)


def local_linear(symmetric=True):
    return LocalLinear(
        symmetric=symmetric, constant=1.5, ridge=0.5, pseudo_count=0.5, eps=0.001, cells=8, grid_size=2049
    )


def spline(symmetric=True):
    return Spline(
        symmetric=symmetric, intervals=8, penalties=[0.1, 1.0, 10.0, 100.0], pseudo_count=0.1, min_slope=0.01, steps=8,
        cells=128,
    )  # fmt: skip


def mixture():
    return Mixture(min_slope=0.01, max_slope=100.0, max_shift=20.0, steps=20, cells=128)


def averaged(symmetric=True):
    return Averaged(inner=isotonic("pchip", symmetric), window=3, rescale="rms")


class Case(NamedTuple):
    """A fitted link and what it says of itself."""

    make: Callable[..., Any]
    eps: float = 0.0  # fits stay in [eps, 1 - eps]
    monotone: bool = False
    counts_rows: bool = False  # the bandwidth counts rows: weight 2 = the row twice only about
    shrinks: float = 1e-6  # how far the pseudo-count may pull a fit to four rows


FITTED = {
    "isotonic-linear": Case(isotonic, eps=0.01, monotone=True),
    "isotonic-pchip": Case(lambda **k: isotonic("pchip", **k), eps=0.01, monotone=True),
    "isotonic-kernel": Case(lambda **k: isotonic("kernel", **k), eps=0.01, monotone=True, counts_rows=True),
    "kernel": Case(kernel, eps=0.001, counts_rows=True, shrinks=0.03),
    "local_linear": Case(local_linear, eps=0.001, counts_rows=True, shrinks=0.03),
    "spline": Case(spline, monotone=True, shrinks=0.03),
    "mixture": Case(mixture, monotone=True),
    "averaged": Case(averaged, eps=0.01, monotone=True),
}
SYMMETRIC_ONLY = {"mixture"}
WITH_KEY = [name for name in FITTED if name not in SYMMETRIC_ONLY]  # can be fitted without symmetry
fitted = pytest.mark.parametrize("case", FITTED.values(), ids=FITTED.keys())
fitted_without_symmetry = pytest.mark.parametrize("case", [FITTED[name] for name in WITH_KEY], ids=WITH_KEY)


def truth(t):
    """A shifted mixture: monotone, flat around 0, far from logistic."""
    return 0.5 * torch.sigmoid(3 * (t - 1.5)) + 0.5 * torch.sigmoid(3 * (t + 1.5))


def sample(n=400, seed=0, replicates=(), true_link=truth):
    generator = torch.Generator().manual_seed(seed)
    t = 2 * torch.randn(*replicates, n, generator=generator)
    z = (torch.rand(*replicates, n, generator=generator) < true_link(t)).float()
    weight = torch.randint(1, 4, (*replicates, n), generator=generator).float()
    return t, z, weight


QUERY = torch.linspace(-8, 8, 161)


@fitted
def test_values_are_probabilities_and_symmetric(case):
    link = case.make().fit(*sample())
    p = link(QUERY)
    assert link.symmetric
    assert link.is_fitted_from_data
    assert float(p.min()) >= case.eps * (1 - 1e-5)
    assert float(p.max()) <= 1 - case.eps * (1 - 1e-5) + 1e-7
    assert float((p + link(-QUERY) - 1).abs().max()) < 2e-6


@fitted_without_symmetry
def test_values_are_probabilities_where_not_symmetric(case):
    link = case.make(symmetric=False).fit(*sample())
    p = link(QUERY)
    assert not link.symmetric
    assert float(p.min()) >= case.eps * (1 - 1e-5)
    assert float(p.max()) <= 1 - case.eps * (1 - 1e-5) + 1e-7
    assert float((p + link(-QUERY) - 1).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "case", [c for c in FITTED.values() if c.monotone], ids=[n for n in FITTED if FITTED[n].monotone]
)
@pytest.mark.parametrize("upside_down", [False, True])
def test_monotone_fits_never_fall(case, upside_down):
    """Also where the rows say that they should."""
    t, z, weight = sample()
    link = case.make().fit(t, 1 - z if upside_down else z, weight)
    assert float(link(QUERY).diff().min()) >= -1e-6


@fitted
def test_positive_scale_equivariance(case):
    t, z, weight = sample()
    p = case.make().fit(t, z, weight)(QUERY)
    for scale in (8, 1e-3, 777.0):
        torch.testing.assert_close(case.make().fit(scale * t, z, weight)(scale * QUERY), p, atol=2e-5, rtol=0)


@fitted_without_symmetry
def test_translation_equivariance_where_not_symmetric(case):
    t, z, weight = sample()
    p = case.make(symmetric=False).fit(t, z, weight)(QUERY)
    moved = case.make(symmetric=False).fit(t + 5, z, weight)(QUERY + 5)
    torch.testing.assert_close(moved, p, atol=2e-4, rtol=0)


@fitted
def test_order_of_rows_does_not_matter(case):
    t, z, weight = sample()
    t = t.round(decimals=1)  # ties, with other labels
    order = torch.randperm(len(t), generator=torch.Generator().manual_seed(1))
    p = case.make().fit(t, z, weight)(QUERY)
    torch.testing.assert_close(case.make().fit(t[order], z[order], weight[order])(QUERY), p, atol=1e-6, rtol=0)


@fitted
def test_response_order_does_not_matter_where_symmetric(case):
    t, z, weight = sample()
    swap = torch.arange(len(t)) % 3 == 0
    p = case.make().fit(t, z, weight)(QUERY)
    other = case.make().fit(torch.where(swap, -t, t), torch.where(swap, 1 - z, z), weight)(QUERY)
    torch.testing.assert_close(other, p, atol=1e-6, rtol=0)


@fitted
def test_a_batch_of_replicates_is_a_loop(case):
    """NUMERICS 35: a replicate that is hard to fit changes nothing for the others."""
    t, z, weight = sample(replicates=(2, 3))
    z[0, 1] = (t[0, 1] > 0).float()  # separable
    weight[1, 0] = 0.0  # not there
    t[1, 2] = 0.0
    together = case.make().fit(t, z, weight)(QUERY.expand(2, 3, -1))
    for i in range(2):
        for j in range(3):
            alone = case.make().fit(t[i, j], z[i, j], weight[i, j])(QUERY)
            torch.testing.assert_close(together[i, j], alone, atol=1e-6, rtol=0)


@fitted
def test_a_saved_link_is_the_link(case):
    """deepcopy, and state_dict into a link allocated for the same replicates: the same bits (DESIGN 15)."""
    link = case.make().fit(*sample(replicates=(2,)))
    query = QUERY.expand(2, -1)
    loaded = case.make().allocate((2,))
    assert not torch.equal(loaded(query), link(query))
    loaded.load_state_dict(link.state_dict())
    assert torch.equal(loaded(query), link(query))
    copied = copy.deepcopy(link)
    p = link(query)
    link.fit(*sample(seed=1, replicates=(2,)))
    assert torch.equal(copied(query), p)
    assert all(value.shape[:1] == (2,) for value in link.state_dict().values())  # selection is by replicate
    assert {k: v.shape for k, v in link.state_dict().items()} == {k: v.shape for k, v in loaded.state_dict().items()}


@fitted
def test_weight_two_is_the_row_twice(case):
    """For in-sample fits; the kernel's bandwidth counts rows, so it is held equal by equal weights."""
    t, z, _ = sample()
    twice = case.make().fit(t, z, torch.full_like(t, 2.0))(QUERY)
    doubled = case.make().fit(torch.cat((t, t)), torch.cat((z, z)), torch.ones(2 * len(t)))(QUERY)
    assert float((twice - doubled).abs().max()) < (0.03 if case.counts_rows else 1e-6)


@fitted
def test_a_tie_is_half_a_row_each_way(case):
    t, z, weight = sample()
    t, z, weight = torch.cat((t, t[:50])), torch.cat((z, 1 - z[:50])), torch.cat((weight, weight[:50]))
    halves = case.make().fit(t, z, weight)
    soft = case.make().fit(
        t[:400], torch.cat((torch.full((50,), 0.5), z[50:400])), torch.cat((2 * weight[:50], weight[50:400]))
    )  # the bandwidth's n_eff differs a little
    assert float((soft(QUERY) - halves(QUERY)).abs().max()) < (0.03 if case.counts_rows else 1e-6)


@fitted
def test_rows_of_weight_zero_are_not_there(case):
    t, z, weight = sample()
    p = case.make().fit(t, z, weight)(QUERY)
    more = case.make().fit(
        torch.cat((t, 100 + t)), torch.cat((z, 1 - z)), torch.cat((weight, torch.zeros_like(weight)))
    )
    torch.testing.assert_close(more(QUERY), p, atol=1e-6, rtol=0)


@fitted
def test_all_equal_empty_and_far(case):
    z = torch.tensor([1.0, 0.0, 1.0, 1.0])
    symmetric = case.make().fit(torch.zeros(4), z, torch.ones(4))
    torch.testing.assert_close(symmetric(QUERY[80:81]), torch.tensor([0.5]))
    equal = case.make().fit(torch.full((4,), 2.0), z, torch.ones(4))
    if not case.counts_rows:  # a bandwidth reaches from 2 to the mirrored rows at -2
        assert abs(float(equal(torch.full((1,), 2.0))) - 0.75) < case.shrinks + 1e-4
    assert (case.make()(QUERY) == 0.5).all()  # before any fit
    nothing = case.make().fit(torch.zeros(4), z, torch.zeros(4))
    torch.testing.assert_close(nothing(QUERY), torch.full_like(QUERY, 0.5))
    for link in (symmetric, equal, nothing, case.make().fit(*sample())):
        assert torch.isfinite(link(QUERY * 1e6)).all()
        assert torch.isfinite(link.logit(QUERY * 1e6)).all()
        assert torch.isfinite(link.derivative(QUERY * 1e6)).all()


@fitted_without_symmetry
@pytest.mark.parametrize("at", [0.0, 5.1])
def test_all_equal_rows_give_their_mean_where_not_symmetric(case, at):
    """About it where a pseudo-count pulls to 1/2."""
    flat = case.make(symmetric=False).fit(torch.full((4,), at), torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.ones(4))
    assert abs(float(flat(torch.full((1,), at))) - 0.75) < case.shrinks
    assert torch.isfinite(flat(QUERY * 1e6)).all()


@fitted
def test_derivative_against_finite_differences(case):
    link = case.make().double()
    link.fit(*sample(2000))
    t = torch.linspace(-2.9, 3.1, 41, dtype=torch.float64)
    h = 1e-6
    slope = (link(t + h) - link(t - h)) / (2 * h)
    torch.testing.assert_close(link.derivative(t), slope, atol=2e-3, rtol=1e-3)


@fitted
def test_the_logit_is_the_logit_of_the_probability(case):
    link = case.make().fit(*sample())
    torch.testing.assert_close(torch.sigmoid(link.logit(QUERY)), link(QUERY), atol=1e-5, rtol=0)


@fitted
@pytest.mark.parametrize("true_link", [truth, torch.sigmoid], ids=["shifted_mixture", "logistic"])
def test_the_link_is_recovered_as_rows_grow(case, true_link):
    """Integrated squared error falls with n (NUMERICS 24)."""
    query = torch.linspace(-3, 3, 61)
    errors = []
    for n in (200, 2000, 20000):
        fits = [case.make().fit(*sample(n, seed, true_link=true_link)[:2], torch.ones(n))(query) for seed in range(4)]
        errors.append(sum(float((p - true_link(query)).square().mean()) for p in fits) / len(fits))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-3


def test_logistic_is_fixed_and_exact():
    link = Logistic(0.5)
    t = torch.tensor([-2000.0, -1.0, 0.0, 3.0])
    torch.testing.assert_close(link(t), torch.sigmoid(0.5 * t))
    torch.testing.assert_close(link.logit(t), 0.5 * t)
    assert link.fit(t, t, t) is link
    assert not link.is_fitted_from_data


@pytest.mark.parametrize(("make", "distribution"), [(Probit, norm), (Cauchit, cauchy)], ids=["probit", "cauchit"])
def test_fixed_links_are_the_distribution_functions_of_scipy(make, distribution):
    """Value, derivative (the density) and logit also where the probability rounds to 0 or 1, in float32."""
    link = make(0.5)
    t = torch.cat((torch.linspace(-6, 6, 41), torch.tensor([-1e6, -3000.0, -40.0, 40.0, 3000.0, 1e6])))
    x = 0.5 * t.double().numpy()
    np.testing.assert_allclose(link(t).numpy(), distribution.cdf(x), rtol=2e-5, atol=1e-38)
    np.testing.assert_allclose(link.derivative(t).numpy(), 0.5 * distribution.pdf(x), rtol=2e-5, atol=1e-12)
    np.testing.assert_allclose(
        link.logit(t).numpy(), distribution.logcdf(x) - distribution.logsf(x), rtol=1e-5, atol=1e-6
    )
    assert torch.isfinite(torch.autograd.functional.jvp(link.logit, t, torch.ones_like(t))[1]).all()
    assert link.symmetric
    assert not link.is_fitted_from_data
    assert link.fit(t, t, t) is link
    assert link.reward_scale == 0.5


@pytest.mark.parametrize("make", [Probit, Cauchit], ids=["probit", "cauchit"])
def test_the_slope_of_a_fixed_logit_against_finite_differences(make):
    """The gradient that a policy gets, float64, in the tails too."""
    link = make(0.5)
    t = torch.tensor([-300.0, -30.0, -2.0, 0.0, 1.0, 30.0, 300.0], dtype=torch.float64)
    h = 1e-5
    slope = (link.logit(t + h) - link.logit(t - h)) / (2 * h)
    torch.testing.assert_close(
        torch.autograd.functional.jvp(link.logit, t, torch.ones_like(t))[1], slope, rtol=1e-6, atol=1e-9
    )


def test_the_fixed_shifted_mixture_is_the_mean_of_two_logistic_curves():
    """Value against float64, symmetric, logistic for shift 0; the logit stays exact, with slope scale / temperature,
    where the probability rounds to 0 or 1."""
    link = ShiftedMixture(scale=0.5, shift=1.5, temperature=0.25)
    t = torch.cat((QUERY, torch.tensor([-3000.0, 3000.0])))
    u = 0.5 * t.double()
    want = (torch.sigmoid((u - 1.5) / 0.25) + torch.sigmoid((u + 1.5) / 0.25)) / 2
    torch.testing.assert_close(link(t).double(), want, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(link(t) + link(-t), torch.ones_like(t), rtol=0, atol=1e-6)
    torch.testing.assert_close(ShiftedMixture(scale=0.5, shift=0.0, temperature=0.25)(t), Logistic(2.0)(t))
    far = torch.tensor([1000.0, 3000.0], requires_grad=True)
    torch.testing.assert_close(link.logit(far).detach(), 2 * far.detach() - 6 - np.log(0.5 + 0.5 * np.exp(-12)))
    torch.testing.assert_close(torch.autograd.grad(link.logit(far).sum(), far)[0], torch.full((2,), 2.0))
    assert link.symmetric
    assert not link.is_fitted_from_data
    assert link.fit(t, t, t) is link
    assert link.reward_scale == 0.5


def test_the_slope_of_the_fixed_shifted_mixture_against_finite_differences():
    link = ShiftedMixture(scale=0.5, shift=1.5, temperature=0.25)
    t = torch.linspace(-8, 8, 33, dtype=torch.float64)
    h = 1e-6
    slope = (link(t + h) - link(t - h)) / (2 * h)
    torch.testing.assert_close(link.derivative(t), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("key", ["scale", "shift", "temperature"])
@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_the_fixed_shifted_mixture_names_the_key_that_is_wrong(key, bad):
    with pytest.raises(ConfigError, match=f"link.{key} is {bad}"):
        ShiftedMixture(**{"scale": 1.0, "shift": 1.0, "temperature": 1.0, key: bad})


@pytest.mark.parametrize("make", [Logistic, Probit, Cauchit])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_fixed_link_wants_a_positive_scale(make, scale):
    with pytest.raises(ConfigError, match="scale"):
        make(scale)
