"""The figures, each a function of what a run folder holds. No pyplot: nothing global is touched, nothing stays open."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from spo.report.results import Result
from spo.run_folder import Record

# Okabe and Ito's colours, told apart with every common colour blindness; a marker each for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FITTED, TRUE, LOGISTIC, GREY = "#0072B2", "#D55E00", "#5a5a5a", "#9aa0a6"
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.constrained_layout.use": True,
}
STEPS_SHOWN = 12  # curves or ridges in one figure
RIDGE_BINS = 80
SMOOTHED_FROM = 60  # points; a longer noisy curve is shown with its running mean
TIME = ListedColormap(colormaps["viridis_r"](np.linspace(0.12, 1, 256)))  # without the yellow that paper swallows
REACH = 3.0  # of the true reward difference, in sd


def save(figure: Figure, path: Path) -> Path:
    """path: a PNG, for the page; beside it the same as PDF, for a paper. Returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        figure.savefig(path, dpi=140)
        figure.set_layout_engine("none")  # everything has its place now
        figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})  # the same figure is the same file
    return path


def plain_log_ticks(axis: Axis) -> None:
    """Of a log axis: 1, 2 and 5 times the powers of ten, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def link_image(record: Record) -> np.ndarray:
    """One fitted link as pixels, uint8 (height, width, 4)."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.8), dpi=110)
        _fitted_link(figure.add_subplot(), record)
    return pixels(figure)


def pixels(figure: Figure) -> np.ndarray:
    """uint8 (height, width, 4)."""
    with rc_context(STYLE):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(canvas.buffer_rgba()).copy()  # type: ignore[no-untyped-call]


def draw_links(records: Sequence[Record]) -> Figure:
    """Left: the last link. Right: those before it, coloured by step."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.0))
        left, right = figure.subplots(1, 2)
        _fitted_link(left, records[-1])
        _links_over_time(right, thin(records))
    return figure


def _fitted_link(axes: Axes, record: Record) -> None:
    t = np.array(record["t"])
    rug(axes, record)
    axes.axhline(0.5, color=GREY, lw=0.6)
    axes.axvline(0.0, color=GREY, lw=0.6)
    axes.plot(t, record["logistic_p"], color=LOGISTIC, ls=":", lw=1.6, label="best logistic")
    if record["true_p"]:
        axes.plot(t, record["true_p"], color=TRUE, ls="--", lw=1.8, label="true link")
    axes.plot(t, record["p"], color=FITTED, lw=2.2, label=f"{record['link'].lower()} link")
    axes.set(xlim=(t[0], t[-1]), ylim=(0, 1), xlabel="index t (nats)", ylabel="P(response 1 preferred)")
    turned = ", orientation -1" if record["orientation"] < 0 else ""
    rows = "held-out" if record["kind"] == "validation" else "training"
    axes.set_title(f"Link at step {record['step']}, over the {rows} rows{turned}")
    axes.legend(loc="upper left")


def rug(axes: Axes, record: Record) -> None:
    """Where the rows lie, along the bottom, a quarter of the height at most."""
    counts = np.array(record.get("counts") or [0.0], dtype=float)
    if counts.max() > 0:
        axes.stairs(0.25 * counts / counts.max(), record["edges"], fill=True, color="#d5dde5", label="rows (histogram)")


def _links_over_time(axes: Axes, records: Sequence[Record]) -> None:
    """Against u = t/c where the true link is known, so that it is one curve; else against t."""
    scaled = all(record["true_p"] for record in records[-1:])
    shown = [record for record in records if record.get("true_scale")] if scaled else list(records)
    colours = _step_colours(axes, [record["step"] for record in shown])
    for record in shown:
        x = np.array(record["t"]) / (record["true_scale"] if scaled else 1.0)
        axes.plot(x, record["p"], color=colours.to_rgba(record["step"]), lw=1.5)
    if scaled:
        last = shown[-1]
        axes.plot(
            np.array(last["t"]) / last["true_scale"], last["true_p"], color=TRUE, ls="--", lw=2, label="true link"
        )
        axes.legend(loc="upper left")
        axes.set_xlim(-REACH, REACH)
    axes.axhline(0.5, color=GREY, lw=0.6)
    axes.set(ylim=(0, 1), ylabel="P(response 1 preferred)")
    axes.set_xlabel("t / c: reward difference that t stands for (sd)" if scaled else "index t (nats)")
    axes.set_title("Fitted link over time")


def index_image(records: Sequence[Record]) -> np.ndarray:
    """The index over time as pixels, uint8 (height, width, 4)."""
    return pixels(draw_index(records))


def draw_index(records: Sequence[Record]) -> Figure:
    """One ridge per validation, the latest in front; each has the same height."""
    shown = thin(records)
    with rc_context(STYLE):
        figure = Figure(figsize=(6.6, 1.6 + 0.34 * len(shown)))
        axes = figure.add_subplot()
        edges = np.linspace(*_span(shown), RIDGE_BINS + 1)
        colours = TIME(np.linspace(0, 1, len(shown)))
        for row, (record, colour) in enumerate(zip(shown, colours, strict=True)):
            counts = rebin(record, edges)
            base = len(shown) - 1 - row
            height = 1.7 * counts / max(counts.max(), 1e-300)
            axes.stairs(base + height, edges, baseline=base, fill=True, color=colour, alpha=0.85, zorder=row)
            axes.stairs(base + height, edges, baseline=base, color="white", lw=0.8, zorder=row)
        axes.axvline(0.0, color=GREY, lw=0.6)
        axes.set_yticks(range(len(shown)), [str(record["step"]) for record in reversed(shown)])
        axes.set(xlabel="index t (nats)", ylabel="optimizer step", xlim=(edges[0], edges[-1]))
        axes.set_title("Index of the validation rows")
    return figure


def rebin(record: Record, edges: np.ndarray) -> np.ndarray:
    """The record's counts on other edges (bins + 1,): each of its bins is spread evenly over its width."""
    total = np.concatenate([[0.0], np.cumsum(record["counts"])])
    return np.diff(np.interp(edges, record["edges"], total))


def _span(records: Sequence[Record]) -> tuple[float, float]:
    """From the smallest to the largest edge of all ridges but the flat first ones (all t = 0)."""
    ends = [(record["edges"][0], record["edges"][-1]) for record in records if np.count_nonzero(record["counts"]) > 1]
    low, high = (min(e[0] for e in ends), max(e[1] for e in ends)) if ends else (-1.0, 1.0)
    return low, high


PANELS = (  # metric, title, y axis
    ("train/loss", "Training loss", "loss"),
    ("val/auc", "Held-out AUC, ± 1 standard error", "AUC"),
    ("train/grad_norm", "Gradient norm, before clipping", "norm"),
    ("index/std", "Spread of the index", "sd of t (nats)"),
)


def draw_training(results: Sequence[Result]) -> Figure:
    """Loss, AUC, gradient norm and index spread against optimizer steps, one line per run."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10.4, 5.8))
        for axes, (name, title, label) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
            for result, colour in zip(results, _cycle(COLOURS, len(results)), strict=True):
                _curve(axes, result, name, colour)
            axes.set(title=title, xlabel="optimizer step", ylabel=label)
            if not any(result.series.get(name) for result in results):
                axes.text(0.5, 0.5, f"{name} was not logged", transform=axes.transAxes, ha="center", color=GREY)
            elif name == "val/auc":
                axes.axhline(0.5, color=GREY, lw=0.8, ls="--")
        if len(results) > 1:
            named = {k: h for axes in figure.axes for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
            figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(4, len(results)))
    return figure


def _curve(axes: Axes, result: Result, name: str, colour: str) -> None:
    points = [(step, value) for step, value in result.series.get(name, []) if math.isfinite(value)]
    if not points:
        return
    steps, values = np.array(points).T
    noisy = len(points) >= SMOOTHED_FROM
    if noisy:
        axes.plot(steps, values, color=colour, lw=0.8, alpha=0.3)
    shown = running_mean(values) if noisy else values
    axes.plot(steps, shown, color=colour, lw=1.6, marker="o" if len(points) <= 25 else None, ms=3, label=result.label)
    errors = dict(result.series.get(f"{name}_se", []))
    if errors:
        se = np.array([errors.get(int(step), math.nan) for step in steps])
        axes.fill_between(steps, values - se, values + se, color=colour, alpha=0.15, lw=0)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Over a twentieth of the points, centred; near the ends over those that there are."""
    width = max(3, len(values) // 20)
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def frontier_image(result: Result) -> np.ndarray:
    """The frontier of one run as pixels, uint8 (height, width, 4)."""
    return pixels(draw_frontier([result]))


def draw_frontier(results: Sequence[Result]) -> Figure:
    """Reward against KL, one line per evaluated run; bars are ± 1 standard error over prompts."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.6))
        axes = figure.add_subplot()
        evaluated = [result for result in results if result.frontier]
        styles = zip(_cycle(COLOURS, len(evaluated)), _cycle(MARKERS, len(evaluated)), strict=True)
        for result, (colour, marker) in zip(evaluated, styles, strict=True):
            _frontier_line(axes, result, colour, marker, betas_named=len(evaluated) == 1)
        starts = {point["reward"] for result in evaluated for point in result.frontier if point["beta"] is None}
        for reward in sorted(starts):
            axes.axhline(reward, color=GREY, lw=1.0, ls=":", zorder=0)
            axes.annotate("reference", (0.99, reward), xycoords=("axes fraction", "data"), xytext=(0, -10), ha="right",
                          textcoords="offset points", color="#5a5a5a", fontsize=8.5)  # fmt: skip
        targets = {result.target["kl"] for result in evaluated if result.target}
        for kl in sorted(targets):
            axes.axvline(kl, color=GREY, lw=1.0, ls=":", zorder=0)
            axes.annotate(f"target KL {kl:g}", (kl, 0.01), xycoords=("data", "axes fraction"), xytext=(3, 0),
                          textcoords="offset points", color="#5a5a5a", fontsize=8.5)  # fmt: skip
        axes.set(xlabel="KL to the reference, per response (nats)", ylabel="mean reward on fresh prompts")
        axes.set_title("What each method buys with its KL, ± 1 standard error")
        axes.legend(loc="best")
    return figure


def _frontier_line(axes: Axes, result: Result, colour: str, marker: str, betas_named: bool) -> None:
    def column(name: str) -> np.ndarray:
        return np.array([math.nan if (v := point.get(name)) is None else v for point in result.frontier], dtype=float)

    kl, reward = column("kl"), column("reward")
    bars = {"xerr": np.nan_to_num(column("kl_se")), "yerr": np.nan_to_num(column("reward_se"))}
    axes.errorbar(
        kl, reward, **bars, color=colour, marker=marker, ms=6, lw=1.6, elinewidth=1, capsize=2.5, label=result.label
    )
    for point in result.frontier:
        if betas_named and point["beta"] is not None:
            spot = (point["kl"], point["reward"])
            axes.annotate(f"β {point['beta']:g}", spot, xytext=(6, -12), textcoords="offset points", fontsize=8)


def thin(records: Sequence[Record]) -> list[Record]:
    """At most STEPS_SHOWN of them, evenly spread, the first and the last among them."""
    positions = np.unique(np.linspace(0, len(records) - 1, STEPS_SHOWN).round().astype(int))
    return [records[i] for i in positions]


def _step_colours(axes: Axes, steps: Sequence[int]) -> ScalarMappable:
    """Light to dark by step, with its bar."""
    colours = ScalarMappable(Normalize(min(steps), max(max(steps), min(steps) + 1)), cmap=TIME)
    ticks = MaxNLocator(integer=True)
    axes.figure.colorbar(colours, ax=axes, label="optimizer step", aspect=30, pad=0.02, ticks=ticks)
    return colours


def _cycle(values: Sequence[str], n: int) -> list[str]:
    return [values[i % len(values)] for i in range(n)]
