"""Ranking of held-out pairs from hand-made scores whose accuracies are known (MATH C28)."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from spo.evaluate.bench import Bench
from spo.evaluate.generation import Sampling
from spo.evaluate.held_out import ranking
from spo.evaluate.pairs import Pairs
from spo.evaluate.ranked import Ranking

N = 4000
RNG = np.random.default_rng(0)
U = RNG.normal(size=N)
REFERENCE = RNG.normal(size=N) * 2
P = 1 / (1 + np.exp(-4 * U))
PAIRS = Pairs(
    t=3 * U,
    policy=REFERENCE + U / 0.5,
    reference=REFERENCE,
    z=(RNG.uniform(size=N) < P).astype(float),
    weight=np.ones(N),
    row_id=np.arange(N),
    group=np.arange(N),
    u=U,
    p=P,
    length=np.tile([1.0, -2.0], N // 2),
    reward_sd=1.0,
)


def ranked(pairs: Pairs = PAIRS, **changes: object) -> dict:
    return ranking(pairs, [2.0, 0.5], **{"symmetric": True, "beta_at_kl": None, **changes})


def test_an_index_that_is_the_reward_reaches_the_ideal() -> None:
    """t = 3u: 1 against the true order, E max(Psi, 1-Psi) against labels; log pi = log pi_ref + u/b is the ideal
    policy of b = 0.5, whose accuracy is P(sign(2a + u/b) = sign(u)) = 1/2 + atan(1/(2b))/pi for normal a and u."""
    found = ranked(beta_at_kl=0.5)
    assert found["order"] == "true"
    assert found["accuracy_index_ordered"]["value"] == 1
    truth = float(np.maximum(P, 1 - P).mean())
    assert found["ideal_index_labels"] == pytest.approx(truth)
    assert abs(found["accuracy_index"]["value"] - truth) < 4 * found["accuracy_index"]["se"]
    ideal = {point["beta"]: point["value"] for point in found["ideal_policy"]}
    assert found["accuracy_policy"]["value"] == ideal[0.5] == found["ideal_policy_at_kl"]["value"]
    for beta, value in ideal.items():
        assert value == pytest.approx(0.5 + math.atan(1 / (2 * beta)) / math.pi, abs=4 * 0.5 / math.sqrt(N))
    assert found["accuracy_reference"] == pytest.approx(0.5, abs=0.04)
    assert found["index_reward_correlation"] == pytest.approx(1)
    labels = float(np.where(REFERENCE + U / 0.5 >= 0, P, 1 - P).mean())
    assert found["ideal_policy_at_kl"]["value_labels"] == pytest.approx(labels)


def test_by_how_wrong_the_reference_is() -> None:
    """Where log pi_ref puts the worse response far ahead the ideal policy still ranks it wrongly, the index never does;
    where it is right, both are right. Bins of equal count, rising."""
    bins = ranked()["by_reference_error"]
    assert [b["n"] for b in bins] == [N // 5] * 5
    assert all(a["high"] <= b["low"] for a, b in itertools.pairwise(bins))
    assert [b["policy"] for b in bins] == sorted(b["policy"] for b in bins)
    assert bins[0]["policy"] < 0.3
    assert bins[-1]["policy"] == 1
    assert all(b["index"] == 1 for b in bins)


def test_the_order_of_responses_does_not_matter() -> None:
    """Every second row turned round: all that is said is the same."""
    sign = np.where(np.arange(N) % 2, -1.0, 1.0)
    turned = replace(
        PAIRS,
        **{name: sign * getattr(PAIRS, name) for name in ("t", "policy", "reference", "u", "length")},
        **{name: np.where(sign < 0, 1 - getattr(PAIRS, name), getattr(PAIRS, name)) for name in ("z", "p")},
    )
    a, b = ranked(), ranked(turned)
    assert a["by_reference_error"] == b["by_reference_error"]
    for name in ("auc", "accuracy_policy", "accuracy_index", "accuracy_policy_labels"):
        assert a[name] == pytest.approx(b[name])
    for name in ("index_reward_correlation", "index_length_correlation", "ideal_index_labels", "accuracy_reference"):
        assert a[name] == pytest.approx(b[name])


def test_human_labels_need_no_truth() -> None:
    """No rewards, a third ties: what needs a truth is nan or empty, the order is that of labels that are no ties."""
    z = PAIRS.z.copy()
    z[::3] = 0.5
    nothing = np.full(N, np.nan)
    found = ranked(replace(PAIRS, u=nothing, p=nothing, z=z, reward_sd=None), beta_at_kl=None)
    assert (found["order"], found["n_rows"], found["n_ordered"]) == ("labels", N, int((z != 0.5).sum()))
    assert found["ideal_policy"] == []
    assert found["ideal_policy_at_kl"] is None
    assert math.isnan(found["ideal_index_labels"])
    assert math.isnan(found["index_reward_correlation"])
    decided = z != 0.5
    right = ((PAIRS.t > 0) == (z > 0.5))[decided].mean()
    assert found["accuracy_index_ordered"]["value"] == pytest.approx(right)
    assert found["accuracy_index"]["value"] == pytest.approx((right * decided.sum() + 0.5 * (~decided).sum()) / N)
    assert len(found["by_reference_error"]) == 5


def test_standard_errors_are_over_prompts() -> None:
    """Every row twice, as rows of one prompt, tells nothing new: the same standard error; as prompts of their own it
    would be smaller by the root of 2. Rows of weight 2 are rows twice."""
    once = ranked()["accuracy_policy"]
    assert once["se"] == pytest.approx(np.sqrt(once["value"] * (1 - once["value"]) / (N - 1)))
    both = {f: np.concatenate([getattr(PAIRS, f)] * 2) for f in PAIRS.__dataclass_fields__ if f != "reward_sd"}
    assert ranked(Pairs(**both, reward_sd=1.0))["accuracy_policy"] == pytest.approx(once)
    apart = ranked(Pairs(**both | {"group": np.arange(2 * N)}, reward_sd=1.0))["accuracy_policy"]
    assert apart["se"] == pytest.approx(once["se"] / math.sqrt(2), rel=1e-3)
    assert ranked(replace(PAIRS, weight=np.full(N, 2.0)))["accuracy_policy"] == pytest.approx(once)
    alone, twice = ranked()["by_reference_error"], ranked(Pairs(**both, reward_sd=1.0))["by_reference_error"]
    for a, b in zip(alone, twice, strict=True):
        assert (b["n"], b["prompts"], a["prompts"]) == (2 * a["n"], a["n"], a["n"])
        assert (b["policy"], b["policy_se"]) == pytest.approx((a["policy"], a["policy_se"]))
        p = a["policy"]
        assert a["policy_se"] == pytest.approx(np.sqrt(p * (1 - p) / (a["n"] - 1)))


def test_few_rows_and_rows_without_an_order() -> None:
    """Seven rows are one bin; where all rewards are equal there is no order to be held against."""
    few = replace(PAIRS, **{f: getattr(PAIRS, f)[:7] for f in PAIRS.__dataclass_fields__ if f != "reward_sd"})
    assert [b["n"] for b in ranked(few)["by_reference_error"]] == [7]
    flat = ranked(replace(few, u=np.zeros(7)))
    assert flat["n_ordered"] == 0
    assert flat["by_reference_error"] == []
    assert math.isnan(flat["accuracy_policy"]["value"])


@pytest.mark.parametrize(("kl", "temperature", "given"), [(0.3, 1.0, True), (5.0, 1.0, False), (0.3, 0.7, False)])
def test_the_ideal_at_the_target_kl_is_given_or_its_absence_said(
    kl: float, temperature: float, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 samples show no KL of 5; and pairs are scored at temperature 1, so that samples at another say nothing."""
    monkeypatch.setattr("spo.evaluate.ranked.score_pairs", lambda *_: PAIRS)
    bench = SimpleNamespace(
        learned=SimpleNamespace(link=None), data=None, batch_size=1, kl_target=kl, reference_samples=16,
        sampling=Sampling(4, temperature, 1.0, None), reference_rewards=np.random.default_rng(0).normal(size=(50, 16)),
    )  # fmt: skip
    found = Ranking(ideal_betas=[1.0]).run(cast(Bench, bench))
    assert (found.record["ideal_policy_at_kl"] is not None) == given
    assert ("not given; 16 responses" in "\n".join(found.lines())) != given
