"""Errors against the number of rows, on log axes, and their slopes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from spo.report.drawing import STYLE, plain_log_ticks
from spo.report.statistics import Slope, log_slope, summary
from spo.report.study import Study, shown_shifts
from spo.report.study_figures import Line, lines

MOST_SHIFTS = 2
QUANTITIES = {  # column -> what it is
    "gap": "reward gap to the teacher at KL {target:g}",
    "direction_error": "direction error of the index",
    "link_error": "link error",
}
SLOPES_HEAD = ["estimator", "condition", "s", "n", "reward gap", "direction error", "link error"]
SLOPE_SETTINGS = SLOPES_HEAD[1:4]  # left out where all rows are alike


class Fit(NamedTuple):
    """An estimator at one shift under one condition: means over seeds of one quantity by n, and their line."""

    estimator: str
    means: pd.DataFrame
    slope: Slope | None


def swept(study: Study) -> list[str]:
    """The conditions under which there are several n."""
    counts = study.means.groupby("condition", observed=True)["n"].nunique()
    return [str(condition) for condition in counts.index[counts > 1]]


def fits(study: Study, condition: str, s: float, column: str) -> list[Fit]:
    """One for each estimator with any finite value."""
    table = study.at_target[study.at_target["condition"] == condition]
    table = table[table["s"].isna()] if np.isnan(s) else table[table["s"] == s]
    found = summary(table, ["estimator", "n"], column)
    return [
        Fit(str(label), means.sort_values("n"), log_slope(means["n"].to_numpy(), means["mean"].to_numpy()))
        for label, means in found.groupby("estimator", observed=True)
    ]


def draw_convergence(study: Study, condition: str) -> Figure:
    """A row for each of at most two shifts, a column a quantity; dashed lines are the least squares."""
    shifts = _shifts(study, condition, MOST_SHIFTS)
    style = lines(study)
    sizes = sorted(study.means.loc[study.means["condition"] == condition, "n"].unique())
    with rc_context(STYLE):
        figure = Figure(figsize=(11.0, (3.6 + 0.2 * len(study.labels("estimator"))) * len(shifts)))
        grid = figure.subplots(len(shifts), len(QUANTITIES), sharex=True, sharey="col", squeeze=False)
        for row, s in zip(grid, shifts, strict=True):
            for axes, (column, name) in zip(row, QUANTITIES.items(), strict=True):
                _panel(axes, fits(study, condition, s, column), style)
                axes.set_title(name.format(target=study.target) + ("" if np.isnan(s) else f", s = {s:g}"))
                _log_axes(axes, sizes)
    return figure


def _panel(axes: Axes, found: Sequence[Fit], style: dict[str, Line]) -> None:
    for label, means, slope in found:
        line = style[label]
        n, mean = means["n"].to_numpy(dtype=float), means["mean"].to_numpy()
        told = f"{label}: slope {slope}" if slope else label
        mark: dict[str, Any] = {
            "color": line.colour,
            "marker": line.marker or "x",
            "ms": 5,
            "ls": "none" if slope else "-",
        }
        axes.plot(n, np.where(mean > 0, mean, np.nan), **mark, zorder=3)
        low = np.where(means["low"] > 0, means["low"], mean)  # where the interval holds 0 a log axis has no end for it
        axes.vlines(n, low, means["high"], color=line.colour, lw=1.2, alpha=0.8)
        axes.plot(n, slope.at(n) if slope else n * np.nan, color=line.colour, ls=line.style, lw=1.3, label=told)
    if found:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
    else:
        axes.text(0.5, 0.5, "no run has it", transform=axes.transAxes, ha="center")


def _log_axes(axes: Axes, sizes: Sequence[int]) -> None:
    """The n that there are as ticks; 1, 2 and 5 times the powers of ten on the other axis."""
    axes.set(xscale="log", yscale="log", xlabel="preference rows n")
    axes.xaxis.set_major_locator(FixedLocator([float(n) for n in sizes]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n / 1000:g}k" if n >= 1000 else f"{n:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    plain_log_ticks(axes.yaxis)
    axes.tick_params(labelbottom=True)


def slope_rows(study: Study) -> list[list[str]]:
    """The table of the slopes: every condition, shift and estimator."""
    return [row for condition in swept(study) for row in _slopes(study, condition)]


def _slopes(study: Study, condition: str) -> Iterator[list[str]]:
    for s in _shifts(study, condition, len(study.means)):
        cells: dict[str, dict[str, str]] = {}
        sizes: dict[str, str] = {}
        for column in QUANTITIES:
            for fit in fits(study, condition, s, column):
                cells.setdefault(fit.estimator, {})[column] = str(fit.slope) if fit.slope else "-"
                n = fit.means["n"]
                sizes.setdefault(fit.estimator, f"{n.min():,} to {n.max():,} ({len(n)})")
        for label, found in cells.items():
            shift = "-" if np.isnan(s) else f"{s:g}"
            yield [label, condition or "-", shift, sizes[label], *(found.get(column, "-") for column in QUANTITIES)]


def _shifts(study: Study, condition: str, most: int) -> list[float]:
    of = study.means[study.means["condition"] == condition]
    return shown_shifts(of["s"], most)
