"""Whether a link's probabilities are shares: of rows to which it gives about p, the share that is preferred."""

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from spo.report.drawing import FITTED, GREY, STYLE, pixels
from spo.run_folder import Record

BINS = 10  # of about equal weight, as of link/ece


def reliability(p: np.ndarray, z: np.ndarray, weight: np.ndarray, *, symmetric: bool) -> Record:
    """{"p", "share", "se", "rows"}: of each bin that holds a row the mean of p and of z, its standard error, and the
    weight. p, z, weight: (N,), weight > 0. symmetric: every row counts as (1 - p, 1 - z) too.

    The standard error is that of a mean of labels which are 1 with probability p; nan where the link is certain.
    """
    if symmetric:
        p, z, weight = (np.concatenate(pair) for pair in ((p, 1 - p), (z, 1 - z), (weight, weight)))
    _, tied = np.unique(p, return_inverse=True)  # rows of one p lie in one bin: no order parts them
    at = np.bincount(tied, weight)
    middle = (np.cumsum(at) - at / 2)[tied]
    which = np.minimum((middle / weight.sum() * BINS).astype(int), BINS - 1)
    total, square = (np.bincount(which, w, BINS) for w in (weight, weight**2))
    held = total > 0
    mean_p, share = (np.bincount(which, weight * x, BINS)[held] / total[held] for x in (p, z))
    se = np.sqrt(mean_p * (1 - mean_p) * square[held]) / total[held]
    named = {"p": mean_p, "share": share, "se": se, "rows": total[held]}
    return {name: [float(f"{value:.6g}") for value in values] for name, values in named.items()}


def draw_reliability(record: Record) -> Figure:
    """The bins with ± 2 standard errors, beside the diagonal. record: that of `reliability`, and its step."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.2), dpi=110)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1.2, label="reliable")
        bars = 2 * np.array(record["se"])
        axes.errorbar(
            record["p"], record["share"], yerr=bars, color=FITTED, marker="o", ms=5, lw=1.6, elinewidth=1, capsize=2.5,
            label="held-out rows, ± 2 s.e.",
        )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="P(z = 1) by the link", ylabel="share of z = 1")
        axes.set_title(f"Reliability of the link, step {record['step']}")
        axes.legend(loc="upper left")
    return figure


def reliability_image(record: Record) -> np.ndarray:
    """The figure as pixels, uint8 (height, width, 4)."""
    return pixels(draw_reliability(record))
