"""What one job left, thinned to what a page can hold. Every function takes a run's result and returns plain lists."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from spo.report.drawing import rebin
from spo.report.results import Result
from spo.report.study_figures import spread
from spo.run_folder import Record

LINK_POINTS, INDEX_BINS, SHARES = 51, 40, 10  # of a drawn link, of a histogram of the index, of the reliability
FEWEST_ROWS = 10  # of a bin of the reliability that is drawn
SHOWN_U = 3.2  # reward difference in sd, to which a link on its scale is drawn
_FORMAT = "%.4g"  # of a number on the page
_HIDDEN = ("eval/", "perf/", "data/")  # metrics that have no curve worth a look
_OF_ANOTHER = ("_se", "_q05", "_q95")  # how a metric ends that belongs to another one
_FIRST = (
    "train/loss", "val/auc", "train/grad_norm", "index/std", "link/nll", "val/accuracy", "rewards/margins",
    "diagnosis/p_logistic", "link/ece", "link/slope0", "rewards/accuracies", "val/index_rms", "lr",
)  # fmt: skip


def short(values: np.ndarray | Sequence[float]) -> list[float | None]:
    """Four significant digits; None for nan and infinity, which JSON has not."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return [float(_FORMAT % v) if math.isfinite(v) else None for v in plain]


def curve_names(results: Sequence[Result], most: int) -> list[str]:
    """The metrics that have a curve in any run, the most looked at first; at most so many."""
    found = {name for result in results for name, points in result.series.items() if len(points) > 1}
    kept = {name for name in found if not name.startswith(_HIDDEN) and not _belongs(name, found)}
    rank = {name: i for i, name in enumerate(_FIRST)}
    return sorted(kept, key=lambda name: (rank.get(name, len(rank)), name))[:most]


def _belongs(name: str, found: set[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) in found for end in _OF_ANOTHER)


def curve(result: Result, name: str, most: int) -> tuple[list[int], list[list[float | None]]] | None:
    """Steps, and values, with the 5% and 95% quantiles over the replicates where these were logged.

    At most so many points: of a longer series each point is the mean since the point before it."""
    points = result.series.get(name)
    if not points:
        return None
    low, high = (dict(result.series.get(f"{name}{end}", [])) for end in ("_q05", "_q95"))
    columns = [[value for _, value in points]]
    if low and high:
        columns += [[of.get(step, math.nan) for step, _ in points] for of in (low, high)]
    if len(points) <= most:
        return [step for step, _ in points], [short(column) for column in columns]
    ends = np.linspace(0, len(points), most + 1).round().astype(int)
    means = np.add.reduceat(np.array(columns), ends[:-1], axis=1) / np.diff(ends)
    return [points[end - 1][0] for end in ends[1:]], [short(column) for column in means]


def links(result: Result, most: int) -> list[Record]:
    """The fits over time: reach of t, P on an even grid from -reach to reach, the best logistic slope; where known the
    true link there and its scale (t = scale · u), and t no further than is drawn of u."""
    return [_link(record) for record in spread(result.links, most)]


def _link(record: Record) -> Record:
    t = np.array(record["t"])
    known = bool(record["true_p"])
    scale = record.get("true_scale")
    reach = min(t[-1], SHOWN_U * abs(scale)) if scale else t[-1]
    grid = np.linspace(-reach, reach, LINK_POINTS)
    return {
        "step": record["step"],
        "reach": short([reach])[0],
        "p": short(np.interp(grid, t, record["p"])),
        "slope": short([record["logistic_slope"] if "logistic_slope" in record else _slope(record)])[0],
        "true": short(np.interp(grid, t, record["true_p"])) if known else None,
        "scale": short([scale])[0] if scale else None,
    }


def _slope(record: Record) -> float:
    """Of the logistic curve, from its last point: old records have no slope."""
    p = min(max(record["logistic_p"][-1], 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p)) / (record["t"][-1] or 1.0)


def indices(result: Result, most: int) -> list[Record]:
    """Histograms of the index of the held-out rows over time: even bins from low to high."""
    return [_histogram(record) for record in spread(result.indices, most)]


def _histogram(record: Record) -> Record:
    edges = np.linspace(record["edges"][0], record["edges"][-1], INDEX_BINS + 1)
    low, high = short([edges[0], edges[-1]])
    return {"step": record["step"], "low": low, "high": high, "counts": short(rebin(record, edges))}


def reliability(result: Result) -> list[list[float | None]] | None:
    """Rows of the last validation by the preference that the last link of a validation predicts, in SHARES even bins:
    the sums of weight, weight · predicted and weight · label of each. None where there is no link."""
    path = result.run.validation_path
    fits = [record for record in result.link_records if record["kind"] == "validation"] or result.links
    if not path.is_file() or not fits:
        return None
    rows = pq.read_table(path, columns=["t", "z", "weight"]).to_pydict()
    t, z, weight = (np.array(rows[name], dtype=float) for name in ("t", "z", "weight"))
    p = np.interp(t, fits[-1]["t"], fits[-1]["p"])
    at = np.minimum((p * SHARES).astype(int), SHARES - 1)
    sums = [np.bincount(at, weights=weight * of, minlength=SHARES) for of in (np.ones_like(p), p, z)]
    return [short(row) for row in np.array(sums).T]


def frontier(result: Result) -> Record | None:
    """KL and reward at each beta, with their standard errors; the reference first."""
    points = [point for point in result.frontier if point.get("kl") is not None and point.get("reward") is not None]
    if not points:
        return None
    columns = {name: [_or_nan(point.get(name)) for point in points] for name in ("kl", "reward", "kl_se", "reward_se")}
    betas = [None if point["beta"] is None else point["beta"] for point in points]
    return {"s": None, "n": None, "seeds": 1, "beta": betas} | {name: short(of) for name, of in columns.items()}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
