"""What replicate 0 of one run a curve shows: the fitted links over the true one, and how the index is distributed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spo.report.drawing import GREY, LOGISTIC, REACH, STYLE, rebin, rug
from spo.report.results import Result
from spo.report.study import Study, curve_of
from spo.report.study_figures import KNOWN, Line, even_columns, label_rows, lines, spread
from spo.run_folder import Record

MOST = 12  # panels in one figure
_COLUMNS = 4
_BINS = np.linspace(-3.5, 3.5, 36)  # of the index over its root mean square


class Shown(NamedTuple):
    """One run of a curve and what its replicate 0 is."""

    result: Result
    estimator: str
    condition: str
    seed: int
    s: float
    n: int

    @property
    def title(self) -> str:
        return "\n".join(filter(None, [self.estimator, self.condition]))


def shown_runs(study: Study, results: Sequence[Result]) -> list[Shown]:
    """One run a curve: that with the most rows, of several the first."""
    found: dict[tuple[str, str], Shown] = {}
    for result in results:
        place = next((folder for folder in result.studied), None)
        head = None if place is None else curve_of(study, place)
        if head is None:
            continue
        condition, estimator, row = head
        shown = Shown(result, estimator, condition, int(row["seed"]), float(row["s"]), int(row["n"]))
        old = found.get((condition, estimator))
        if old is None or shown.n > old.n:
            found[condition, estimator] = shown
    order = {label: i for i, label in enumerate(study.labels("estimator"))}
    return sorted(found.values(), key=lambda shown: (shown.condition, order[shown.estimator]))


def with_links(shown: Sequence[Shown]) -> list[Shown]:
    return spread([run for run in shown if run.result.links], MOST)


def with_indices(shown: Sequence[Shown]) -> list[Shown]:
    return spread([run for run in shown if run.result.indices], MOST)


def draw_study_links(study: Study, shown: Sequence[Shown]) -> Figure:
    """The last fit of each run, over u = t/c where the true link's scale c is known, else over the index t."""
    style = lines(study)
    with rc_context(STYLE):
        figure, grid = _grid(len(shown))
        for axes, run in zip(grid, shown, strict=True):
            _link(axes, run.result.links[-1], style[run.estimator])
            axes.set_title(run.title, fontsize=9)
        label_rows(grid, "P(response 1 preferred)")
        named = {k: h for axes in grid for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4)
    return figure


def _link(axes: Axes, record: Record, line: Line) -> None:
    c = record.get("true_scale") or 1.0
    u = np.array(record["t"]) / c
    edges = np.array(record["edges"]) / c
    if c < 0:
        edges, record = edges[::-1], record | {"counts": record["counts"][::-1]}
    rug(axes, record | {"edges": edges})
    axes.axhline(0.5, color=GREY, lw=0.6)
    axes.axvline(0.0, color=GREY, lw=0.6)
    axes.plot(u, record["logistic_p"], color=LOGISTIC, ls=":", lw=1.5, label="best logistic")
    if record["true_p"]:
        axes.plot(u, record["true_p"], color=KNOWN, ls="--", lw=1.8, label="true link")
    axes.plot(u, record["p"], color=line.colour, lw=2.2)
    reach = float(np.abs(u).max())
    axes.set(ylim=(0, 1), xlim=(-min(reach, REACH), min(reach, REACH)) if record["true_p"] else (-reach, reach))
    axes.set_xlabel("u = t / c (reward difference)" if record["true_p"] else "index t (nats)")


def draw_study_index(study: Study, shown: Sequence[Shown]) -> Figure:
    """The index of the held-out rows at the last validation of each run, as a density over t / sd(t)."""
    style = lines(study)
    with rc_context(STYLE):
        figure, grid = _grid(len(shown))
        for axes, run in zip(grid, shown, strict=True):
            record = run.result.indices[-1]
            edges, counts = np.array(record["edges"]), np.array(record["counts"], dtype=float)
            centres = (edges[1:] + edges[:-1]) / 2
            total = max(counts.sum(), 1e-300)
            size = float(np.sqrt((counts * centres**2).sum() / total)) or 1.0
            density = rebin(record, _BINS * size) / total / np.diff(_BINS)
            axes.stairs(density, _BINS, fill=True, color=style[run.estimator].colour, alpha=0.85)
            axes.axvline(0.0, color=GREY, lw=0.6)
            axes.set(xlim=(_BINS[0], _BINS[-1]), xlabel="t / root mean square of t")
            axes.set_title(f"{run.title}\nrms {size:.2g} nats", fontsize=9)
        label_rows(grid, "density")
    return figure


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    columns = even_columns(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(2.75 * columns, 4.6), 2.9 * rows))
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]
