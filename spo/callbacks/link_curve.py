"""The fitted link over time: its curve beside the true link and beside the best logistic one."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from spo.callbacks.observer import (
    LinkObserver,
    Rows,
    first_replicate,
    log_scalars,
    media_loggers,
    observed,
    orientation_of,
)
from spo.charts import link_chart
from spo.run_folder import RunFolder
from spo.types import IndexSample

POINTS = 101  # of the grid; odd, so that t = 0 is one of them
BINS = 40  # of the rug
DETERMINED = 2.0  # standard errors that a scale must be from 0
COLUMNS = ["step", "t", "p", "true_p", "logistic_p"]
TrueLink = Callable[[Tensor], Tensor]


class LinkCurve(LinkObserver, L.Callback):
    """At each refit and each validation: link_history.jsonl, link.json, `link/{curve,chart,picture,slope0}`.

    The grid is symmetric and reaches the 1% and 99% quantiles of t. The true link is a function of
    u = (reward_1 - reward_0) / sd; t has another scale, so it is drawn at t = c·u with c by least squares (MATH C32).
    """

    def __init__(
        self,
        run: RunFolder,
        true_link: TrueLink | None = None,
        reward_difference: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._run = run
        self._true_link = true_link
        self._reward_difference = reward_difference

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        sample = observed(pl_module).validation_sample
        if sample is not None:
            self._observe(trainer, pl_module, sample, "validation")

    def on_link_refit(self, trainer: L.Trainer, module: L.LightningModule, sample: IndexSample) -> None:
        self._observe(trainer, module, sample, "refit")

    def _observe(self, trainer: L.Trainer, module: L.LightningModule, sample: IndexSample, kind: str) -> None:
        rows = first_replicate(sample)
        if not trainer.is_global_zero or rows.t.size == 0:
            return
        grid = symmetric_grid(rows)
        scale = self._true_scale(rows)
        counts, edges = np.histogram(rows.t, bins=BINS, range=(grid[0], grid[-1]), weights=rows.weight)
        slope = logistic_slope(rows)
        p = link_values(module, grid, sample.t.shape[:-1])
        record: dict[str, Any] = {
            "step": trainer.global_step,
            "kind": kind,
            "link": type(observed(module).active_link).__name__,
            "orientation": orientation_of(module),
            "t": short(grid),
            "p": short(p),
            "true_p": None if scale is None else short(self._true_values(grid / scale)),
            "logistic_p": short(expit(slope * grid)),
            "logistic_slope": slope,
            "true_scale": scale,
            "edges": short(edges),
            "counts": short(counts),
        }
        self._run.append_link(record)
        log_scalars(trainer, {"link/slope0": slope_at_zero(grid, p), "link/logistic_slope": slope})
        for logger in media_loggers(trainer):
            from spo.report.drawing import link_image  # matplotlib, only where somebody looks

            logger.log_table("link/curve", COLUMNS, table_rows(record), trainer.global_step)
            logger.log_chart("link/chart", link_chart(record), trainer.global_step)
            logger.log_picture("link/picture", link_image(record), trainer.global_step)

    def _true_scale(self, rows: Rows) -> float | None:
        """c of t = c·u by weighted least squares over the rows whose rewards are known; None where there are none, or
        where c is within two standard errors of 0: too few rows to say where on t the true link lies, or its sign."""
        if self._true_link is None or self._reward_difference is None:
            return None
        u = np.asarray(self._reward_difference(torch.from_numpy(rows.row_id)), dtype=float)
        known = np.isfinite(u)
        w, t, u = rows.weight[known], rows.t[known], u[known]
        square = float(np.sum(w * u * u))
        if square == 0:
            return None
        c = float(np.sum(w * t * u)) / square
        se = float(np.sqrt(np.sum((w * u * (t - c * u)) ** 2))) / square
        return c if abs(c) > DETERMINED * se else None

    def _true_values(self, u: np.ndarray) -> np.ndarray:
        assert self._true_link is not None
        return np.asarray(self._true_link(torch.from_numpy(u)), dtype=float)


def symmetric_grid(rows: Rows) -> np.ndarray:
    """POINTS values of t from -m to m, m the larger of |q01| and |q99|; 1 where all t are 0."""
    m = float(np.abs(np.quantile(rows.t, [0.01, 0.99])).max()) or 1.0
    return np.linspace(-m, m, POINTS)


def link_values(module: L.LightningModule, grid: np.ndarray, replicates: tuple[int, ...]) -> np.ndarray:
    """Psi on the grid, replicate 0; the link of a batch of replicates wants all of them."""
    link = observed(module).active_link
    t = torch.as_tensor(grid, dtype=torch.float32, device=module.device).expand(*replicates, -1)
    with torch.no_grad():
        return np.asarray(link(t).reshape(-1, len(grid))[0].double().cpu())


def logistic_slope(rows: Rows) -> float:
    """a that maximises sum w·[z·log sigmoid(a·t) + (1-z)·log sigmoid(-a·t)]: a root of sum w·t·(z - sigmoid(a·t)).

    Per nat of t. 0 where all t are 0; separable rows have no maximum: |a|·sd(t) stops at 50.
    """
    spread = float(np.sqrt(np.average(rows.t**2, weights=rows.weight)))
    if spread == 0:
        return 0.0
    bound = 50.0 / spread

    def score(a: float) -> float:
        return float(np.sum(rows.weight * rows.t * (rows.z - expit(a * rows.t))))

    if score(bound) >= 0:
        return bound
    return -bound if score(-bound) <= 0 else float(brentq(score, -bound, bound))


def slope_at_zero(grid: np.ndarray, p: np.ndarray) -> float:
    """(Psi(h) - Psi(-h)) / 2h, per nat, with h a tenth of the grid's reach: a step function has no derivative."""
    middle, off = len(grid) // 2, len(grid) // 20
    return float((p[middle + off] - p[middle - off]) / (grid[middle + off] - grid[middle - off]))


def table_rows(record: dict[str, Any]) -> list[list[float | None]]:
    """The record as rows of COLUMNS."""
    true = record["true_p"] or [None] * POINTS
    curves = zip(record["t"], record["p"], true, record["logistic_p"], strict=True)
    return [[record["step"], *values] for values in curves]


def short(values: np.ndarray) -> list[float]:
    """Six digits are more than a curve needs."""
    return [float(f"{v:.6g}") for v in values]
