"""The figures of a study: reward and differences against the shift, or side by side. Panels, lines and legends."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from spo.report.drawing import COLOURS, MARKERS, STYLE
from spo.report.study import Study, shown_shifts

MOST_PANELS = 12  # in one figure
MOST_SIZES = 3  # n of one condition in a figure over shifts
TEACHER = "#5a5a5a"
KNOWN = "#000000"  # the estimator that knows the link; no other is black
_DASHES = ("-", "--", ":")  # of the first six estimators, of the next
UPPER = "teacher (best possible)"
COLUMNS = 3  # panels in a row
_MOST_TICKS = 7  # shifts that are named on an axis
_CROWD = 6  # estimators; of more the bands would hide one another, and bars are drawn beside one another
_DODGE = 0.007  # of the axis, between two of these bars
_LETTER, _SAMPLE = 0.085, 0.75  # inches of a legend's letter, and of what stands before its text
_BESIDE = 12  # names of a legend that fit beside a panel
_ROW = 0.21  # of a legend, inches
_T = TypeVar("_T")


class Line(NamedTuple):
    """How an estimator is drawn, in every figure."""

    colour: str
    marker: str
    style: str
    size: float = 4.5

    @property
    def drawing(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "ls": self.style, "ms": self.size, "lw": 1.7}


class Panel(NamedTuple):
    """One condition at one n."""

    condition: str
    n: int

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["condition"] == self.condition) & (table["n"] == self.n)]


def lines(study: Study) -> dict[str, Line]:
    """Colour, marker and dashes of each estimator: six colours by seven markers; the reference is black."""
    colours = [colour for colour in COLOURS if colour != KNOWN]
    others = [label for label in study.labels("estimator") if label not in study.references]
    found = {
        label: Line(colours[i % len(colours)], MARKERS[i % len(MARKERS)], _DASHES[i // len(colours) % len(_DASHES)])
        for i, label in enumerate(others)
    }
    return found | {label: Line(KNOWN, "", "--") for label in study.references}


def panels(table: pd.DataFrame) -> list[Panel]:
    """Those with any row, in order."""
    found = table[["condition", "n"]].drop_duplicates().sort_values(["condition", "n"])
    return [Panel(str(condition), int(n)) for condition, n in found.itertuples(index=False)]


def panels_over_shifts(study: Study) -> list[Panel]:
    """Those with two shifts or more; of each condition a few n, the smallest and the largest among them."""
    found = [panel for panel in panels(study.means) if panel.of(study.means)["s"].nunique() > 1]
    conditions = dict.fromkeys(panel.condition for panel in found)
    return [p for c in conditions for p in spread([panel for panel in found if panel.condition == c], MOST_SIZES)]


def panels_at_one_shift(study: Study) -> list[Panel]:
    return [panel for panel in panels(study.means) if panel.of(study.means)["s"].nunique() < 2]


def spread(values: Sequence[_T], most: int) -> list[_T]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def panel_title(study: Study, panel: Panel) -> str:
    """What tells this panel from the others; n and the seeds where nothing does."""
    several = study.means["n"].nunique() > 1
    parts = [panel.condition, f"n = {panel.n:,}" if several or not panel.condition else ""]
    alone = not several and not panel.condition
    return ", ".join(filter(None, [*parts, f"{panel.of(study.runs)['seed'].nunique():,} seeds" if alone else ""]))


def draw_rewards(study: Study, shown: Sequence[Panel]) -> Figure:
    """Reward at the target KL against s, a band an estimator; the teacher's above, the known link's dashed."""

    def panel_of(axes: Axes, panel: Panel) -> None:
        best = panel.of(study.teacher).sort_values("s")
        axes.plot(best["s"], best["mean"], color=TEACHER, ls="-.", lw=1.5, label=UPPER)
        _bands(axes, study, panel.of(study.means))

    return _over_shifts(study, shown, panel_of, f"reward at KL {study.target:g}")


def draw_differences(study: Study, shown: Sequence[Panel]) -> Figure:
    """Reward less that of the baseline on the same seeds, against s."""

    def panel_of(axes: Axes, panel: Panel) -> None:
        axes.axhline(0.0, color=COLOURS[0], lw=1.5, label="DPO")
        _bands(axes, study, panel.of(study.differences))

    return _over_shifts(study, shown, panel_of, f"reward at KL {study.target:g}, less DPO's")


def _bands(axes: Axes, study: Study, table: pd.DataFrame) -> None:
    """Line and interval of each estimator; the reference's line alone."""
    style = lines(study)
    order = [label for label in study.labels("estimator") if label in set(table["estimator"])]
    reach = float(table["s"].max() - table["s"].min())
    for label, rows in table.groupby("estimator", observed=True):
        rows, line = rows.sort_values("s"), style[str(label)]
        aside = _DODGE * reach * (order.index(str(label)) - (len(order) - 1) / 2) if len(order) > _CROWD else 0.0
        axes.plot(rows["s"] + aside, rows["mean"], label=str(label), zorder=3, **line.drawing)
        if str(label) in study.references:
            continue
        if len(order) > _CROWD:
            axes.vlines(rows["s"] + aside, rows["low"], rows["high"], color=line.colour, lw=1.0, alpha=0.4)
        else:
            axes.fill_between(rows["s"], rows["low"], rows["high"], color=line.colour, alpha=0.14, lw=0)


def _over_shifts(study: Study, shown: Sequence[Panel], draw: Callable[[Axes, Panel], None], label: str) -> Figure:
    with rc_context(STYLE):
        figure, grid = grid_of(len(shown), height=3.6, alone=6.4)
        for axes, panel in zip(grid, shown, strict=True):
            draw(axes, panel)
            axes.set_title(panel_title(study, panel))
        label_columns(grid, "shift s of the true link")
        grid[0].xaxis.set_major_locator(FixedLocator(shown_shifts(study.means["s"], _MOST_TICKS)))
        label_rows(grid, label)
        legend(figure)
    return figure


def draw_side_by_side(study: Study, shown: Sequence[Panel]) -> Figure:
    """Where there is one shift or none: an interval an estimator, and the teacher's line."""
    style = lines(study)
    order = list(reversed(study.labels("estimator")))
    with rc_context(STYLE):
        figure, grid = grid_of(len(shown), height=0.9 + 0.24 * len(order), alone=6.4)
        for axes, panel in zip(grid, shown, strict=True):
            best = panel.of(study.teacher)["mean"]
            axes.axvline(best.mean(), color=TEACHER, ls="-.", lw=1.5)
            rows = panel.of(study.means)
            for label, mean, low, high in rows[["estimator", "mean", "low", "high"]].itertuples(index=False):
                line, y = style[label], order.index(label)
                axes.plot([low, high], [y, y], color=line.colour, lw=2.4, solid_capstyle="butt")
                axes.plot(mean, y, color=line.colour, marker=line.marker or "o", ms=5.5)
            axes.set_yticks(range(len(order)), order)
            axes.set_ylim(-0.6, len(order) - 0.4)
            axes.xaxis.set_major_locator(MaxNLocator(4))  # of panels side by side the outer ones would touch
            shifts = [f"s = {s:g}" for s in rows["s"].dropna().unique()]
            axes.set_title(", ".join([panel_title(study, panel), *shifts]))
        label_columns(grid, f"reward at KL {study.target:g}")
    return figure


def grid_of(
    count: int, *, height: float, alone: float, columns: int = COLUMNS, width: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Panels on common axes, in rows of at most `columns`, as even as can be; what is left over is empty."""
    columns = even_columns(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(alone if count == 1 else width * columns, height * rows))
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for lowest in axes[max(count - columns, 0) : count]:
        lowest.tick_params(labelbottom=True)  # also above a place that is left empty
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def even_columns(count: int, most: int) -> int:
    """Columns of the fewest rows that hold `count` panels: 5 of at most 4 are 3 and 2."""
    rows = -(-count // min(most, count))
    return -(-count // rows)


def label_rows(grid: Sequence[Axes], label: str) -> None:
    """The y axis of the first panel of each row."""
    for axes in grid:
        place = axes.get_subplotspec()
        if place is not None and place.is_first_col():
            axes.set_ylabel(label)


def label_columns(grid: Sequence[Axes], label: str) -> None:
    """The x axis of the last panel of each column."""
    columns = sum(place is not None and place.is_first_row() for place in (axes.get_subplotspec() for axes in grid))
    for axes in grid[-columns:]:
        axes.set_xlabel(label)


def legend(figure: Figure) -> None:
    """One for all panels: to the right of a single one if it is short, else below, in as few even rows as fit."""
    named = {k: h for axes in figure.axes for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(figure.axes) == 1 and len(named) <= _BESIDE:
        figure.legend(named.values(), named.keys(), loc="outside right upper")
        return
    width = _SAMPLE + _LETTER * max((len(label) for label in named), default=0)
    columns = even_columns(len(named), max(int(figure.get_figwidth() / width), 1))
    figure.set_figheight(figure.get_figheight() + _ROW * (math.ceil(len(named) / columns) - 1))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)
