"""Records of a run as charts of W&B's built-in presets: fitted link, its reliability, the index, the frontier."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spo.media import Chart, Rows
from spo.run_folder import Record

LINES, LINE, HISTOGRAM = "wandb/lineseries/v0", "wandb/line/v0", "wandb/histogram/v0"
POINTS = 256  # of the index: quantiles at equal distances, so that a row of weight 2 counts twice


def link_chart(record: Record) -> Chart:
    """The fitted link beside the best logistic one and, where it is known, the true one."""
    curves = {"fitted": record["p"], "best logistic": record["logistic_p"], "true": record["true_p"]}
    rows: Rows = [
        [record["step"], t, name, p]
        for name, curve in curves.items()
        if curve is not None
        for t, p in zip(record["t"], curve, strict=True)
    ]
    return _lines(["step", "t", "curve", "p"], rows, "Fitted link", "index t (nats)")


def reliability_chart(record: Record) -> Chart:
    """What share of the rows of a bin is preferred, against what the link says of them."""
    bins = list(zip(record["p"], record["share"], record["se"], strict=True))
    rows: Rows = [[record["step"], p, "held-out rows", share, se] for p, share, se in bins]
    rows += [[record["step"], p, "reliable", p, None] for p in (0.0, 1.0)]
    return _lines(["step", "p", "curve", "share", "se"], rows, "Reliability of the link", "P(z = 1) by the link")


def index_chart(t: np.ndarray, weight: np.ndarray, step: int) -> Chart:
    """How the index (N,), nats, of rows of these weights is spread."""
    at = (np.arange(POINTS) + 0.5) / POINTS
    values = np.quantile(t, at, weights=weight, method="inverted_cdf")
    rows: Rows = [[step, float(value)] for value in values]
    return Chart(HISTOGRAM, ["step", "t"], rows, {"value": "t"}, {"title": "Index of the held-out rows (nats)"})


def frontier_chart(points: Sequence[Mapping[str, Any]]) -> Chart:
    """Reward against KL, the reference first; a line a run."""
    columns = ["kl", "reward", "beta", "kl_se", "reward_se"]
    by_kl = sorted(points, key=lambda point: (point["beta"] is not None, point["kl"]))
    rows: Rows = [[_number(point.get(column)) for column in columns] for point in by_kl]
    return Chart(LINE, columns, rows, {"x": "kl", "y": "reward", "stroke": None}, {"title": "Reward against KL (nats)"})


def _lines(columns: list[str], rows: Rows, title: str, x: str) -> Chart:
    """columns: step, x, the line's name, y, and what else there is."""
    fields = {"step": columns[1], "lineKey": columns[2], "lineVal": columns[3]}
    return Chart(LINES, columns, rows, fields, {"title": title, "xname": x})


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
