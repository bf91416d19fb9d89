"""Means over seeds with their intervals, paired differences, log-log slopes: functions of tables and arrays alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

LEVEL = 0.90  # of every interval


def summary(table: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """mean, se = sd / sqrt(seeds), seeds and the interval low, high = mean ∓ t·se of LEVEL, for each group of `by`.

    table: a row a seed; rows without a finite value do not count. One row alone has no se and no interval (nan).
    Returns a row a group, in the order of its keys, which are columns again.
    """
    known = table[np.isfinite(table[column])]
    out: pd.DataFrame = (
        known.groupby(list(by), dropna=False, observed=True)[column].agg(["mean", "std", "count"]).reset_index()
    )
    out = out.rename(columns={"count": "seeds"})
    out["se"] = out.pop("std") / np.sqrt(out["seeds"])
    reach = half_width(out["se"].to_numpy(), out["seeds"].to_numpy())
    return out.assign(low=out["mean"] - reach, high=out["mean"] + reach)


def half_width(se: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Half the interval of a mean of n normal values: se times the (1 + LEVEL)/2 quantile of t with n - 1 degrees."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(n > 1, stdtrit(np.maximum(n - 1, 1), (1 + LEVEL) / 2) * se, np.nan))


def paired(table: pd.DataFrame, base: pd.DataFrame, on: Sequence[str], column: str) -> pd.DataFrame:
    """`table` less `base`, in `column`, for the rows whose keys `on` both have, with a finite value in both.

    base has each key once. nan is a key like another. All other columns are those of `table`.
    """
    other = base[[*on, column]].rename(columns={column: "_base"})
    both = table.merge(other, on=list(on), how="inner", validate="many_to_one")
    both[column] = both[column] - both.pop("_base")
    known: pd.DataFrame = both[np.isfinite(both[column])]
    return known


@dataclass(frozen=True)
class Slope:
    """error ≈ exp(intercept) · n^slope. se: of the slope, nan for two points; points: how many were fitted."""

    slope: float
    intercept: float
    se: float
    points: int

    def __str__(self) -> str:
        return f"{self.slope:.3f}" + (f" ± {self.se:.3f}" if np.isfinite(self.se) else "")

    def at(self, n: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(self.intercept) * n**self.slope)


def log_slope(n: np.ndarray, error: np.ndarray) -> Slope | None:
    """Least squares of log error on log n, over the points where both are positive; None for fewer than two n.

    se² = sum of squared residuals / (points - 2) / sum of squares of log n about its mean.
    """
    kept = (n > 0) & (error > 0) & np.isfinite(error)
    x, y = np.log(n[kept].astype(float)), np.log(error[kept].astype(float))
    if len(np.unique(x)) < 2:
        return None
    centred = x - x.mean()
    square = float(centred @ centred)
    slope = float(centred @ y) / square
    intercept = float(y.mean() - slope * x.mean())
    rest = y - intercept - slope * x
    se = float(np.sqrt(rest @ rest / (len(x) - 2) / square)) if len(x) > 2 else float("nan")
    return Slope(slope, intercept, se, len(x))
