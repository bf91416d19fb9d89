"""The figures of a comparison as files: frontiers with bands, intervals against DPO, panels of plain numbers."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spo.report import drawing
from spo.report.compared.comparison import Cell, Comparison
from spo.report.compared.evaluated import Evaluated
from spo.report.compared.groups import Group
from spo.report.compared.panels import Line, Panel, ranking_panels, sampling_panels
from spo.report.compared.words import EVEN
from spo.report.drawing import COLOURS, GREY, MARKERS, STYLE
from spo.report.statistics import LEVEL, Estimate
from spo.report.study_figures import KNOWN, even_columns, grid_of, label_columns, label_rows, legend, spread
from spo.report.study_frontiers import root_axis

MOST_PANELS, MOST_ROWS, CROWD = 12, 60, 6  # of a figure; of the figure of intervals; lines, of more no bands
LEGEND = 2.9  # inches of a column of the legend below the panels of runs
_SYMBOLS = {"circle": "o", "circle-open": "o", "square": "s", "triangle-up": "^", "diamond": "D", "": ""}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "": "none"}


def save(found: Comparison, figures: Path) -> list[Path]:
    """Those that have something to show: figures/*.png and the same as PDF."""
    own: list[tuple[str, Callable[[Comparison], Figure | None]]] = [
        ("frontier_bands", frontiers),
        ("against_dpo", against),
    ]
    own += [
        ("ranking", lambda c: run_panels(c.ranked, ranking_panels)),
        ("ways_to_sample", lambda c: run_panels(c.groups, sampling_panels)),
    ]
    drawn = [(name, figure) for name, draw in own if (figure := draw(found)) is not None]
    return [drawing.save(figure, figures / f"{name}.png") for name, figure in drawn]


def look(e: int) -> dict[str, Any]:
    """As on the page: six colours, seven markers."""
    colours = [colour for colour in COLOURS if colour != KNOWN]
    dash = ("-", "--", ":")[e // len(colours) % 3]
    return {"color": colours[e % len(colours)], "marker": MARKERS[e % len(MARKERS)], "ls": dash, "ms": 4.5, "lw": 1.7}


def frontiers(found: Comparison) -> Figure | None:
    """Reward against KL, a panel a condition, a band a method; small marks are each seed's betas."""
    if not found.several:
        return None
    conditions = spread(list(dict.fromkeys(group.condition for group in found.groups)), MOST_PANELS)
    reach = max(max(m.evaluated.kl.values()) for group in found.groups for m in group.members.values())
    drawn: list[float] = []
    with rc_context(STYLE):
        figure, grid = grid_of(len(conditions), height=3.4, alone=6.8)
        for axes, condition in zip(grid, conditions, strict=True):
            own = [group for group in found.groups if group.condition == condition]
            for group in own:
                drawn += _band(axes, found, group, banded=len(own) <= CROWD)
            if found.kl is not None:
                axes.axvline(found.kl, color=GREY, lw=1.0, ls=":", zorder=0)
            axes.set_title(condition)
        if reach > 0:
            root_axis(grid[0], reach)
        _focus(grid[0], drawn)
        label_columns(grid, "KL to the reference (nats per response)")
        label_rows(grid, "mean true reward")
        legend(figure)
    return figure


def _focus(axes: Axes, rewards: Sequence[float]) -> None:
    """On the lines and marks: the band of two seeds that disagree would flatten them."""
    low, high = min(rewards, default=0.0), max(rewards, default=0.0)
    room, (bottom, top) = (high - low) / 2, axes.get_ylim()
    if room > 0:
        axes.set_ylim(max(bottom, low - room), min(top, high + room))


def _band(axes: Axes, found: Comparison, group: Group, *, banded: bool) -> list[float]:
    """The rewards of its line and marks."""
    band, drawn = found.band(group), look(group.e)
    banded = banded and len(band.kl) > 0
    low, mean, high = (np.array([getattr(one, name) for one in band.reward]) for name in ("low", "mean", "high"))
    axes.plot(band.kl, mean, color=drawn["color"], ls=drawn["ls"], lw=1.8)
    if banded:
        axes.fill_between(band.kl, low, high, color=drawn["color"], alpha=0.13, lw=0)
    rewards = [one.mean for one in band.reward]
    for member in group.members.values():
        one = member.evaluated
        points = [(kl, float(one.by_prompt[beta].mean())) for beta, kl in one.kl.items() if math.isfinite(beta)]
        rewards += [reward for _, reward in points]
        axes.plot(*zip(*points, strict=True), color=drawn["color"], marker=drawn["marker"], ls="none", ms=4, alpha=0.55)
    axes.plot([], [], label=group.label, **drawn)
    return rewards


def against(found: Comparison) -> Figure | None:
    """A row a method and condition: the paired difference of reward to DPO's, and the win rate against DPO."""
    cells = [cell for cell in found.cells if cell.difference is not None][:MOST_ROWS]
    if not cells:
        return None
    conditions = list(dict.fromkeys(cell.group.condition for cell in cells))
    named = len(conditions) > 1 or conditions != [""]
    places, titles, y = [], [], 0.0
    for condition in conditions:
        titles.append((y, condition))
        y += 1.0 if named else 0.0
        for cell in (cell for cell in cells if cell.group.condition == condition):
            places.append((y, cell))
            y += 1.0
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 1.3 + 0.27 * y))
        left, right = figure.subplots(1, 2, sharey=True)
        _intervals(left, places, lambda cell: cell.difference, 0.0, f"reward at KL {found.kl:g}, less DPO's")
        _intervals(right, places, lambda cell: cell.win, EVEN, "win rate against DPO")
        left.set_yticks([at for at, _ in places], [cell.group.label for _, cell in places])
        left.set_ylim(y - 0.4, -0.6)
        for at, condition in titles if named else []:
            left.annotate(condition, (0, at), xycoords=("axes fraction", "data"), va="center", ha="right",
                          xytext=(-6, 0), textcoords="offset points", fontweight="bold", fontsize=9)  # fmt: skip
        figure.suptitle(f"{LEVEL:.0%} intervals; filled where the line lies outside", fontsize=9.5, x=0.01, ha="left")
    return figure


def _intervals(
    axes: Axes, places: list[tuple[float, Cell]], of: Callable[[Cell], Estimate | None], even: float, words: str
) -> None:
    for y, cell in places:
        one, drawn = of(cell), look(cell.group.e)
        if one is None:
            continue
        axes.plot([one.low, one.high], [y, y], color=drawn["color"], lw=2.0, solid_capstyle="butt")
        face = drawn["color"] if one.apart(even) else "white"
        axes.plot(one.mean, y, color=drawn["color"], marker=drawn["marker"], ms=6, mfc=face, mew=1.4)
    axes.axvline(even, color=KNOWN, lw=1.0, zorder=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(words)


def run_panels(groups: Sequence[Group], panels_of: Callable[[Evaluated], list[Panel]]) -> Figure | None:
    """The panels of each group's first run that has any; those of a run side by side."""
    runs = spread([(g, panels) for g in groups if (panels := first_panels(g, panels_of))], MOST_PANELS)
    if not runs:
        return None
    width = max(len(panels) for _, panels in runs)
    columns = width * even_columns(len(runs), 4 if width == 1 else 2)
    rows = -(-len(runs) * width // columns)
    with rc_context(STYLE):
        inches = max(3.1 * columns, 6.4)
        figure = Figure(figsize=(inches, 2.8 * rows + 0.5))
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        shown: list[tuple[int, Panel]] = []
        for i, (group, panels) in enumerate(runs):
            for at, panel in enumerate(panels, i * width):
                _panel(grid[at], panel, last=at + columns >= len(runs) * width)
                grid[at].set_title("\n".join(filter(None, [group.name, panel.part])), fontsize=9)
                shown.append((at, panel))
        kept = {at for at, _ in shown}
        for at in set(range(len(grid))) - kept:
            grid[at].remove()
        for part in {panel.part for _, panel in shown}:
            _same_height([grid[at] for at, panel in shown if panel.part == part])
        label_rows([grid[at] for at in sorted(kept)], shown[0][1].ytitle)
        named = {k: h for axes in figure.axes for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=int(inches / LEGEND))
    return figure


def _same_height(axes: Sequence[Axes]) -> None:
    """So that runs can be compared."""
    ends = [one.get_ylim() for one in axes]
    for one in axes:
        one.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))


def first_panels(group: Group, panels_of: Callable[[Evaluated], list[Panel]]) -> list[Panel]:
    return next((found for member in group.members.values() if (found := panels_of(member.evaluated))), [])


def _panel(axes: Axes, panel: Panel, *, last: bool) -> None:
    for line in panel.lines:
        _line(axes, line)
    if panel.log:
        axes.set_xscale("log")
        drawing.plain_log_ticks(axes.xaxis)
    if not panel.xtitle:
        axes.tick_params(bottom=False, labelbottom=False)
    axes.set_xlabel(panel.xtitle if last else "")


def _line(axes: Axes, line: Line) -> None:
    look_: dict[str, Any] = {
        "color": line.colour,
        "marker": _SYMBOLS[line.marker],
        "ls": _DASHES[line.dash],
        "ms": 4.5,
        "lw": 1.6,
    }
    look_ |= {"mfc": "white"} if line.marker.endswith("open") else {}
    if line.low is None or line.high is None or line.band:
        axes.plot(line.x, line.y, label=line.label or "_", **look_)
    else:
        below, above = np.subtract(line.y, line.low), np.subtract(line.high, line.y)
        bars = [np.maximum(below, 0), np.maximum(above, 0)]
        axes.errorbar(line.x, line.y, yerr=bars, capsize=2, elinewidth=1, label=line.label or "_", **look_)
    if line.band and line.low is not None and line.high is not None:
        axes.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.14, lw=0)
