"""Means, intervals, paired differences and slopes against scipy and brute force."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spo.report.statistics import LEVEL, log_slope, paired, summary


def test_summary_is_that_of_scipy() -> None:
    """mean, standard error and t interval of each group; nan keys are a group; nan values do not count."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"s": [0.0] * 9 + [math.nan] * 5, "x": rng.standard_normal(14), "other": 1})
    table.loc[3, "x"] = math.nan
    found = summary(table, ["s"], "x").set_index("s")
    for key, rows in ((0.0, table[table["s"] == 0]), (math.nan, table[table["s"].isna()])):
        values = rows["x"].dropna().to_numpy()
        low, high = stats.t.interval(LEVEL, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        row = found[found.index.isna()].iloc[0] if math.isnan(key) else found.loc[key]
        expected = [values.mean(), stats.sem(values), len(values), low, high]
        assert row[["mean", "se", "seeds", "low", "high"]].to_list() == pytest.approx(expected)


def test_one_seed_has_no_interval() -> None:
    (row,) = summary(pd.DataFrame({"s": [0.0], "x": [2.0]}), ["s"], "x").to_dict("records")
    assert (row["mean"], row["seeds"]) == (2.0, 1)
    assert all(math.isnan(row[name]) for name in ("se", "low", "high"))


def test_paired_by_brute_force() -> None:
    """Only seeds that both have with a value in both; the same seed at another s is another; nan is a key."""
    rng = np.random.default_rng(1)
    keys = [(seed, s) for seed in range(6) for s in (0.0, math.nan)]
    ours = pd.DataFrame([{"seed": k, "s": s, "x": rng.standard_normal(), "label": "a"} for k, s in keys[:9]])
    base = pd.DataFrame([{"seed": k, "s": s, "x": rng.standard_normal(), "label": "b"} for k, s in keys[3:]])
    base.loc[1, "x"] = math.nan
    expected = {
        (a.seed, str(a.s)): a.x - b.x
        for a in ours.itertuples()
        for b in base.itertuples()
        if a.seed == b.seed and (a.s == b.s or (math.isnan(a.s) and math.isnan(b.s))) and not math.isnan(b.x)
    }
    found = paired(ours, base, ["seed", "s"], "x")
    assert {(row.seed, str(row.s)): row.x for row in found.itertuples()} == pytest.approx(expected)
    assert set(found["label"]) == {"a"}
    assert len(expected) == 5


def test_log_slope_is_that_of_scipy() -> None:
    n = np.array([250, 500, 1000, 4000, 8000])
    error = 3 * n**-0.5 * np.exp(0.1 * np.random.default_rng(2).standard_normal(5))
    known = stats.linregress(np.log(n), np.log(error))
    found = log_slope(n, error)
    assert found is not None
    assert (found.slope, found.intercept, found.se) == pytest.approx((known.slope, known.intercept, known.stderr))
    assert found.at(n) == pytest.approx(np.exp(known.intercept) * n**known.slope)


def test_slopes_at_the_edge() -> None:
    """A mean error of 0 or below has no logarithm; two points leave no error; one n has no slope."""
    exact = log_slope(np.array([100, 200, 400]), np.array([1.0, 0.5, -1.0]))
    assert exact is not None
    assert (exact.slope, exact.points, str(exact)) == (pytest.approx(-1.0), 2, "-1.000")
    assert math.isnan(exact.se)
    assert log_slope(np.array([100, 100]), np.array([1.0, 2.0])) is None
    assert log_slope(np.array([]), np.array([])) is None
