"""AUC, accuracy, calibration and orientation against double loops and scikit-learn (NUMERICS 15, 28)."""

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from spo.evaluate.ranking import accuracy, auc, calibration_error, orientation, without_ties
from spo.types import IndexSample

N = 40


def rows(seed=0, hard=False, n=N):
    generator = torch.Generator().manual_seed(seed)
    t = torch.randn(n, generator=generator).round(decimals=1)
    z = (torch.rand(n, generator=generator) < torch.sigmoid(t)).float()
    if not hard:
        z[::4], z[1::9] = 0.5, 0.2
    return IndexSample(t, z, torch.randint(0, 3, (n,), generator=generator).float(), torch.arange(n))


def double_loop(sample, symmetric, skip=None):
    entries = []
    for i in range(len(sample.t)):
        if i != skip:
            t, z, w = (float(x[i]) for x in (sample.t, sample.z, sample.weight))
            entries.append((i, t, w * z, w * (1 - z)))
            if symmetric:
                entries.append((i, -t, w * (1 - z), w * z))
    above = below = 0.0
    for i, t, positive, _ in entries:
        for j, u, _, negative in entries:
            if i != j:
                above += positive * negative * ((t > u) + 0.5 * (t == u))
                below += positive * negative
    return above / below


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_auc_and_its_jackknife_are_the_double_loop(symmetric, seed):
    sample = rows(seed)
    result = auc(sample, symmetric=symmetric)
    assert float(result.value) == pytest.approx(double_loop(sample, symmetric))
    there = [i for i in range(N) if sample.weight[i] > 0]
    n = len(there)
    pseudo = [n * double_loop(sample, symmetric) - (n - 1) * double_loop(sample, symmetric, skip=i) for i in there]
    mean = sum(pseudo) / n
    se = math.sqrt(sum((p - mean) ** 2 for p in pseudo) / (n - 1) / n)
    assert float(result.se) == pytest.approx(se)


def test_auc_against_scikit_learn():
    sample = rows(hard=True)
    expected = roc_auc_score(sample.z, sample.t, sample_weight=sample.weight)
    assert float(auc(sample, symmetric=False).value) == pytest.approx(expected)


def test_the_symmetric_auc_does_not_see_the_order_of_responses():
    sample = rows()
    swap = torch.arange(N) % 2 == 0
    other = IndexSample(
        torch.where(swap, -sample.t, sample.t), torch.where(swap, 1 - sample.z, sample.z), sample.weight, sample.row_id
    )
    torch.testing.assert_close(auc(other, symmetric=True).value, auc(sample, symmetric=True).value)


def test_a_batch_of_replicates_is_a_loop():
    samples = [rows(seed) for seed in range(3)]
    stacked = IndexSample(*(torch.stack([getattr(s, n) for s in samples]) for n in ("t", "z", "weight", "row_id")))
    together = auc(stacked, symmetric=True)
    for r, sample in enumerate(samples):
        torch.testing.assert_close(together.value[r], auc(sample, symmetric=True).value)
        torch.testing.assert_close(together.se[r], auc(sample, symmetric=True).se)


def test_all_tied_is_one_half():
    sample = rows()
    flat = IndexSample(torch.zeros(N), sample.z, sample.weight, sample.row_id)
    assert float(auc(flat, symmetric=True).value) == pytest.approx(0.5)
    assert float(accuracy(flat)) == pytest.approx(0.5)


def test_accuracy_counts_ties_one_half():
    t, z = torch.tensor([1.0, -1.0, 0.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.0])
    sample = IndexSample(t, z, torch.tensor([1.0, 1.0, 1.0, 1.0, 2.0]), torch.arange(5))
    assert float(accuracy(sample)) == pytest.approx((1 + 0 + 0.5 + 0.5 + 0) / 6)
    assert float(accuracy(without_ties(sample))) == pytest.approx(1.5 / 5)


def test_calibration_error_by_hand():
    """Two bins: p 0.2, 0.2 with labels 0, 1 and p 0.8, 0.8 with labels 1, 1: (|0.4 - 1| + |1.6 - 2|) / 4."""
    p, z = torch.tensor([0.8, 0.2, 0.2, 0.8]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert float(calibration_error(p, z, torch.ones(4), bins=2)) == pytest.approx(0.25)


def test_orientation_does_not_see_the_order_of_responses():
    sample = rows(n=400)
    sign, score = orientation(sample)
    swapped = IndexSample(-sample.t, 1 - sample.z, sample.weight, sample.row_id)
    assert float(sign) == 1
    torch.testing.assert_close(orientation(swapped)[1], score)
    against = IndexSample(-sample.t, sample.z, sample.weight, sample.row_id)
    assert float(orientation(against)[0]) == -1


@pytest.mark.parametrize(("against", "score", "sign"), [(4, -2.0, -1), (3, -1.7320508, 1), (0, 0.0, 1), (-1, 1.0, 1)])
def test_noise_does_not_turn_the_index_round(against: int, score: float, sign: int):
    """n rows of |t| = 1, all against the index, have the z-score -n / sqrt(n): -2 of 4 rows, above it of 3."""
    n = max(abs(against), 1)
    t = torch.zeros(n) if against == 0 else torch.full((n,), float(against > 0) * 2 - 1)
    found = orientation(IndexSample(t, torch.zeros(n), torch.ones(n), torch.arange(n)))
    assert float(found[1]) == pytest.approx(score)
    assert float(found[0]) == sign
