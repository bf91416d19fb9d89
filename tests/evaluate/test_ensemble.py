"""Which of the runs on a data set stands for it (MATH I2)."""

import math

import pytest
import torch

from spo.divergence.base import Divergence
from spo.divergence.forward_kl import ForwardKL
from spo.divergence.kl import KL
from spo.errors import ConfigError
from spo.evaluate.ensemble import MeanIndex, OnAllRows
from spo.link.logistic import Logistic

D, C, M, K = 2, 3, 7, 4
LOG_REF = torch.full((D, M, K), -math.log(K), dtype=torch.float64)


def policies(scale: float = 1.0) -> torch.Tensor:
    """log pi (D, C, M, K)."""
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(D, C, M, K, generator=generator, dtype=torch.float64)).log_softmax(-1)


def test_the_run_on_all_rows_is_the_last_one() -> None:
    log_pi, sign, link = policies(), torch.tensor([[1.0, 1.0, -1.0], [1.0, 1.0, 1.0]]), Logistic(1.0)
    found = OnAllRows()(KL(), log_pi[:, -1:], LOG_REF, sign[:, -1:], link)
    assert torch.equal(found.log_pi, log_pi[:, 2])
    assert found.orientation.tolist() == [-1.0, 1.0]
    assert found.link is link
    assert OnAllRows().members(torch.arange(6).reshape(2, 3)).tolist() == [[2], [5]]


@pytest.mark.parametrize("divergence", [KL(), ForwardKL(rho_max=30.0)], ids=lambda d: type(d).__name__)
def test_the_mean_index_of_every_pair_is_the_mean_of_the_runs_indices(divergence: Divergence) -> None:
    """t of each pair of actions is the average of zeta_c t_c / sd_c, times the last run's sd, by brute force."""
    log_pi = policies(0.5)
    sign = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    found = MeanIndex()(divergence, log_pi, LOG_REF, sign, Logistic(1.0))
    assert found.link is None
    assert found.orientation.tolist() == [1.0, 1.0]
    torch.testing.assert_close(found.log_pi.exp().sum(-1), torch.ones(D, M, dtype=torch.float64))

    def pairs(log_p: torch.Tensor, log_ref: torch.Tensor) -> torch.Tensor:
        term = divergence.index_term(log_p - log_ref)
        return term[..., :, None] - term[..., None, :]

    for d in range(D):
        t = [sign[d, c] * pairs(log_pi[d, c], LOG_REF[d]) for c in range(C)]
        sd = [float((x.square().sum() / (2 * M * K * K)).sqrt()) for x in t]  # of a term: half a pair's variance
        want = sum(x / s for x, s in zip(t, sd, strict=True)) / C * sd[-1]
        torch.testing.assert_close(pairs(found.log_pi[d], LOG_REF[d]), want, atol=1e-8, rtol=1e-7)


def test_the_scale_of_a_run_does_not_weigh() -> None:
    """A run whose index is five times as large (the same policy, sharpened) changes nothing."""
    log_pi = policies()
    sharper = log_pi.clone()
    sharper[:, 0] = (LOG_REF + 5 * (log_pi[:, 0] - LOG_REF)).log_softmax(-1)
    plus = torch.ones(D, C, dtype=torch.float64)
    a, b = (MeanIndex()(KL(), x, LOG_REF, plus, None).log_pi for x in (log_pi, sharper))
    torch.testing.assert_close(a, b)


def test_one_run_alone_has_no_average() -> None:
    with pytest.raises(ConfigError, match=r"held_out@data\.held_out=folds"):
        MeanIndex().check(1)
    OnAllRows().check(1)
    assert MeanIndex().members(torch.arange(6).reshape(2, 3)).shape == (2, 3)
