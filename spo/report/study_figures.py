"""The figures of a study: reward and differences against the shift, or side by side; frontiers."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spo.report.drawing import COLOURS, GREY, MARKERS, STYLE
from spo.report.study import Study, shown_shifts

MOST_PANELS = 6  # in one figure
MOST_SHIFTS = 4  # in a figure of frontiers
TEACHER = "#5a5a5a"
KNOWN = "#000000"  # the estimator that knows the link; no other is black
_COLUMNS = 3  # panels in a row
_FINE = 60  # points of the teacher's frontier
_SEEDS_SHARE = 0.9  # of the seeds that must reach a KL for the teacher's mean to be drawn there
_SHOWN_KL = 5.0  # times the target: frontiers are drawn no further, where the teacher's choice is all but made
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
    """Colour and marker of each estimator. Six colours; from the seventh on with another marker."""
    colours = [colour for colour in COLOURS if colour != KNOWN]
    others = [label for label in study.labels("estimator") if label not in study.references]
    found = {
        label: Line(colours[i % len(colours)], MARKERS[(i + i // len(colours)) % len(MARKERS)], "-")
        for i, label in enumerate(others)
    }
    return found | {label: Line(KNOWN, "", "--") for label in study.references}


def panels(table: pd.DataFrame) -> list[Panel]:
    """Those with any row, in order."""
    found = table[["condition", "n"]].drop_duplicates().sort_values(["condition", "n"])
    return [Panel(str(condition), int(n)) for condition, n in found.itertuples(index=False)]


def panels_over_shifts(study: Study) -> list[Panel]:
    """Those with two shifts or more."""
    return [panel for panel in panels(study.means) if panel.of(study.means)["s"].nunique() > 1]


def panels_at_one_shift(study: Study) -> list[Panel]:
    return [panel for panel in panels(study.means) if panel.of(study.means)["s"].nunique() < 2]


def spread(values: Sequence[_T], most: int) -> list[_T]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, most).round().astype(int))]


def panel_title(study: Study, panel: Panel) -> str:
    """What tells this panel from the others."""
    several = study.means["n"].nunique() > 1
    parts = [panel.condition, f"n = {panel.n:,}" if several or not panel.condition else ""]
    return ", ".join(filter(None, parts))


def draw_rewards(study: Study, shown: Sequence[Panel]) -> Figure:
    """Reward at the target KL against s, a band an estimator; the teacher's above, the known link's dashed."""

    def panel_of(axes: Axes, panel: Panel) -> None:
        best = panel.of(study.teacher).sort_values("s")
        axes.plot(best["s"], best["mean"], color=TEACHER, ls="-.", lw=1.5, label="teacher (best possible)")
        _bands(axes, panel.of(study.means), lines(study))

    return _over_shifts(study, shown, panel_of, f"reward at KL {study.target:g}")


def draw_differences(study: Study, shown: Sequence[Panel]) -> Figure:
    """Reward less that of the baseline on the same seeds, against s."""

    def panel_of(axes: Axes, panel: Panel) -> None:
        axes.axhline(0.0, color=lines(study)[_baseline(study)].colour, lw=1.5, label=_baseline(study))
        _bands(axes, panel.of(study.differences), lines(study))

    return _over_shifts(study, shown, panel_of, f"reward at KL {study.target:g}, less DPO's")


def _baseline(study: Study) -> str:
    return next(iter(study.baselines.values()))


def _bands(axes: Axes, table: pd.DataFrame, style: dict[str, Line]) -> None:
    for label, rows in table.groupby("estimator", observed=True):
        rows, line = rows.sort_values("s"), style[str(label)]
        axes.plot(rows["s"], rows["mean"], label=str(label), zorder=3, **line.drawing)
        axes.fill_between(rows["s"], rows["low"], rows["high"], color=line.colour, alpha=0.14, lw=0)


def _over_shifts(study: Study, shown: Sequence[Panel], draw: Callable[[Axes, Panel], None], label: str) -> Figure:
    with rc_context(STYLE):
        figure, grid = _grid(len(shown), height=3.6, alone=6.4)
        for i, (axes, panel) in enumerate(zip(grid, shown, strict=True)):
            draw(axes, panel)
            axes.set(xlabel="shift s of the true link (sd of the reward difference)" if len(shown) == 1 else "shift s")
            axes.set_title(panel_title(study, panel))
            if i % _COLUMNS == 0:
                axes.set_ylabel(label)
        _legend(figure, len(shown))
    return figure


def draw_side_by_side(study: Study, shown: Sequence[Panel]) -> Figure:
    """Where there is one shift or none: an interval an estimator, and the teacher's line."""
    style = lines(study)
    order = [label for label in reversed(study.labels("estimator"))]
    with rc_context(STYLE):
        figure, grid = _grid(len(shown), height=1.1 + 0.26 * len(order), alone=6.4)
        for axes, panel in zip(grid, shown, strict=True):
            best = panel.of(study.teacher)["mean"]
            axes.axvline(best.mean(), color=TEACHER, ls="-.", lw=1.5)
            rows = panel.of(study.means)
            for label, mean, low, high in rows[["estimator", "mean", "low", "high"]].itertuples(index=False):
                line, y = style[label], order.index(label)
                axes.plot([low, high], [y, y], color=line.colour, lw=2.4, solid_capstyle="butt")
                axes.plot(mean, y, color=line.colour, marker=line.marker or "o", ms=5.5)
            axes.set_yticks(range(len(order)), order)
            axes.set(ylim=(-0.6, len(order) - 0.4), xlabel=f"reward at KL {study.target:g}")
            shifts = [f"s = {s:g}" for s in rows["s"].dropna().unique()]
            axes.set_title(", ".join([panel_title(study, panel), *shifts]))
    return figure


def draw_frontiers(study: Study) -> Figure:
    """Reward against KL over the grid of betas, means over seeds; the teacher's frontier above all of them."""
    found = panels(study.free)
    shifts = shown_shifts(study.free["s"], MOST_SHIFTS)
    several = len(shifts) > 1
    cells = list(product(spread(found, 2), shifts)) if several else [(p, math.nan) for p in spread(found, MOST_PANELS)]
    style = lines(study)
    with rc_context(STYLE):
        columns = len(shifts) if several else _COLUMNS
        figure, grid = _grid(len(cells), height=3.1, alone=6.4, columns=columns, width=3.1 if several else 3.6)
        for i, (axes, (panel, s)) in enumerate(zip(grid, cells, strict=True)):
            rows = panel.of(study.free)
            rows = rows[rows["s"] == s] if several and rows["s"].notna().any() else rows
            _frontiers(axes, rows, style, study.target)
            shift = f"s = {s:g}" if several else ""
            title = panel_title(study, panel) if len(found) > 1 or not several else ""
            axes.set_title(", ".join(filter(None, [title, shift])))
            axes.set_xlabel("KL to the reference (nats)")
            if i % columns == 0:
                axes.set_ylabel("reward")
        _legend(figure, columns)
    return figure


def _frontiers(axes: Axes, rows: pd.DataFrame, style: dict[str, Line], target: float | None) -> None:
    means = rows.groupby(["estimator", "beta"], observed=True)[["kl", "reward"]].mean().reset_index()
    reach = min(float(means["kl"].max()), _SHOWN_KL * target if target else math.inf) or 1.0
    axes.plot(*_teacher_frontier(rows, reach), color=TEACHER, ls="-.", lw=1.5, label="teacher (best possible)")
    for label, points in means.groupby("estimator", observed=True):
        points = points.sort_values("kl")
        axes.plot(points["kl"], points["reward"], label=str(label), **style[str(label)].drawing)
    if target:
        axes.axvline(target, color=GREY, lw=1.0, ls=":", zorder=0)
    axes.set_xlim(-0.02 * reach, 1.03 * reach)
    top = means.loc[means["kl"] <= reach, "reward"]
    low, high = float(top.min()), float(_teacher_frontier(rows, reach)[1].max(initial=top.max()))
    axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _teacher_frontier(rows: pd.DataFrame, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """KL and mean over seeds of the best reward there, each seed's linear in the root of KL between the rows' points."""
    grid = np.linspace(0, math.sqrt(reach), _FINE)
    rows = rows[["seed", "kl", "reward_of_teacher"]].dropna().sort_values("kl")
    best = [
        np.interp(grid, np.sqrt(seed["kl"].clip(lower=0)), seed["reward_of_teacher"], right=math.nan)
        for _, seed in rows.groupby("seed")
    ]
    values = np.array(best).reshape(-1, _FINE)
    known = np.isfinite(values).mean(0) >= _SEEDS_SHARE
    return grid[known] ** 2, np.nanmean(values[:, known], axis=0)


def _grid(
    count: int, *, height: float, alone: float, columns: int = _COLUMNS, width: float = 3.6
) -> tuple[Figure, list[Axes]]:
    """Panels in rows of `columns`, on common axes; what is left over at the end is empty."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(alone if count == 1 else width * columns, height * rows))
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def _legend(figure: Figure, columns: int) -> None:
    """One for all panels: to the right of a single one, else below."""
    named = {k: h for axes in figure.axes for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
    if len(figure.axes) == 1:
        figure.legend(named.values(), named.keys(), loc="outside right upper")
    else:
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(2 * columns, len(named), 5))
