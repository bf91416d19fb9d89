"""How well a policy ranks held-out pairs: by log pi, as "Preference Learning Algorithms Do Not Learn Preference
Rankings" (Chen et al. 2024) asks, and by the index, which is what preference learning fits.

log pi need not rank pairs as the reward does, even of the best policy: pi ~ pi_ref exp(r/b) ranks by
log pi_ref + r/b. The index should: its ideal is 1 against the true order, and E max(Psi, 1 - Psi) against labels
(MATH C28). Every standard error is over prompts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from spo.evaluate.pairs import Pairs
from spo.evaluate.ranking import auc
from spo.types import IndexSample

_BINS = 5  # of equal count, of the reference's error
_FEWEST_ROWS = 8  # of a bin


def ranking(pairs: Pairs, betas: Sequence[float], *, symmetric: bool, beta_at_kl: float | None) -> dict[str, Any]:
    """ranking.json. nan is what the rows do not tell.

    `order` says what log pi, the reference and the bins are held against: "true", the true reward's order, of the rows
    where the two rewards differ (n_ordered of them); "labels", where no rewards are known, of those that are no ties.
    accuracy_index and the AUC are against the labels, a tie counting half, accuracy_index_ordered against the order.
    betas, beta_at_kl: b of the ideal policy, in sd of the reward difference; the latter is that of the target KL.
    symmetric: whether the order of the responses is arbitrary, for the AUC.
    """
    known = bool(np.isfinite(pairs.u).any())
    side = np.nan_to_num(np.sign(pairs.u) if known else np.sign(pairs.z - 0.5))
    ordered = pairs.weight * (side != 0)

    def share(score: np.ndarray, of: np.ndarray = ordered) -> dict[str, float]:
        return _share(_correct(score, side), of, pairs.group)

    def ideal(beta: float) -> dict[str, float]:
        score = pairs.reference + pairs.u / beta
        right = _mean((score * side >= 0).astype(float), ordered)
        of_labels = _mean(np.where(score >= 0, pairs.p, 1 - pairs.p), pairs.weight)
        return {"beta": beta, "value": right, "value_labels": of_labels}

    area = auc(IndexSample(*(torch.from_numpy(x) for x in _sample(pairs))), symmetric=symmetric)
    return {
        "n_rows": len(pairs),
        "n_ordered": int((ordered > 0).sum()),
        "n_prompts": len(np.unique(pairs.group)),
        "order": "true" if known else "labels",
        "auc": {"value": float(area.value), "se": _over_groups((area.pseudo - area.value).numpy(), pairs)},
        "accuracy_policy": share(pairs.policy),
        "accuracy_policy_labels": _share(0.5 + np.sign(pairs.policy) * (pairs.z - 0.5), pairs.weight, pairs.group),
        "accuracy_index": _share(0.5 + np.sign(pairs.t) * (pairs.z - 0.5), pairs.weight, pairs.group),
        "accuracy_index_ordered": share(pairs.t),
        "accuracy_reference": share(pairs.reference)["value"],
        "ideal_index_labels": _mean(np.maximum(pairs.p, 1 - pairs.p), pairs.weight),
        "ideal_policy": [ideal(beta) for beta in sorted(betas, reverse=True)] if known else [],
        "ideal_policy_at_kl": ideal(beta_at_kl) if known and beta_at_kl is not None else None,
        "by_reference_error": _by_error(pairs, side, ordered),
        "index_reward_correlation": _correlation(pairs.t, pairs.u, pairs.weight),
        "index_length_correlation": _correlation(pairs.t, pairs.length, pairs.weight),
    }


def _sample(pairs: Pairs) -> tuple[np.ndarray, ...]:
    return pairs.t, pairs.z, pairs.weight, pairs.row_id


def _correct(score: np.ndarray, side: np.ndarray) -> np.ndarray:
    """1 where the score ranks the pair as `side` (+1, -1), 1/2 where it is 0."""
    return np.asarray(0.5 + 0.5 * np.sign(score) * side)


def _by_error(pairs: Pairs, side: np.ndarray, ordered: np.ndarray) -> list[dict[str, Any]]:
    """Bins of log pi_ref(better|x) - log pi_ref(worse|x), nats: below 0 the reference ranks the pair wrongly. n: pairs,
    of `prompts` prompts."""
    gap = pairs.reference * side
    rows = np.flatnonzero(ordered > 0)
    rows = rows[np.argsort(gap[rows], kind="stable")]
    count = min(_BINS, max(1, len(rows) // _FEWEST_ROWS))
    found = []
    for part in np.array_split(rows, count):
        if len(part):
            low, high = float(gap[part[0]]), float(gap[part[-1]])
            group = pairs.group[part]
            values: dict[str, float] = {}
            for name, score in (("policy", pairs.policy), ("index", pairs.t)):
                share = _share(_correct(score, side)[part], ordered[part], group)
                values |= {name: share["value"], f"{name}_se": share["se"]}
            found.append({"low": low, "high": high, "n": len(part), "prompts": len(np.unique(group)), **values})
    return found


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    """nan where a value of weight is nan, or there is no weight."""
    kept = weight > 0
    return float(np.average(values[kept], weights=weight[kept])) if kept.any() else np.nan


def _share(correct: np.ndarray, weight: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Weighted mean, and its standard error where only the prompts are independent."""
    value = _mean(correct, weight)
    kept = weight > 0
    which = np.unique(group[kept], return_inverse=True)[1]
    sums = np.bincount(which, weights=(weight * (correct - value))[kept])
    n = len(sums)
    se = np.sqrt(n / (n - 1) * np.square(sums).sum()) / weight.sum() if n > 1 else np.nan
    return {"value": value, "se": float(se)}


def _over_groups(deviation: np.ndarray, pairs: Pairs) -> float:
    """Standard error of a mean over the rows that count; prompts alone are independent. deviation: of each row."""
    kept = pairs.weight > 0
    sums = np.bincount(np.unique(pairs.group[kept], return_inverse=True)[1], weights=deviation[kept])
    n = len(sums)
    return float(np.sqrt(n / (n - 1) * np.square(sums).sum()) / kept.sum()) if n > 1 else np.nan


def _correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """Of differences, uncentred: which response is called 0 is arbitrary (MATH C29). nan where one is always 0."""
    kept = (weight > 0) & np.isfinite(a) & np.isfinite(b)
    a, b, weight = a[kept], b[kept], weight[kept]
    size = np.sqrt((weight * a * a).sum() * (weight * b * b).sum())
    return float((weight * a * b).sum() / size) if size > 0 else np.nan
