"""How the index t is spread over the validation rows, at each validation."""

from typing import Any

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spo.callbacks.observer import Rows, first_replicate, log_scalars, media_loggers, observed
from spo.charts import index_chart
from spo.errors import ConfigError
from spo.run_folder import RunFolder

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


class IndexHistogram(L.Callback):
    """`index/{hist,chart,picture}`, `index/{mean,std,q05,q25,q50,q75,q95}` (nats), index_history.jsonl and
    validation.parquet.

    bins: of the histogram, equal widths between the smallest and the largest t. Rows count with their weight.
    """

    def __init__(self, run: RunFolder, bins: int = 64) -> None:
        if bins < 2:
            raise ConfigError(f"bins is {bins}: give at least 2")
        self._run = run
        self._bins = bins

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        sample = observed(pl_module).validation_sample
        if sample is None or not trainer.is_global_zero:
            return
        rows = first_replicate(sample)
        write_rows(self._run, rows)
        if rows.t.size == 0:
            return
        log_scalars(trainer, summary(rows))
        counts, edges = np.histogram(rows.t, bins=self._bins, weights=rows.weight)
        record: dict[str, Any] = {"step": trainer.global_step, "edges": edges.tolist(), "counts": counts.tolist()}
        self._run.append_index(record)
        for logger in media_loggers(trainer):
            from spo.report.drawing import index_image  # matplotlib, only where somebody looks

            logger.log_histogram("index/hist", counts, edges, trainer.global_step)
            logger.log_chart("index/chart", index_chart(rows.t, rows.weight, trainer.global_step), trainer.global_step)
            logger.log_picture("index/picture", index_image(self._run.index_history()), trainer.global_step)


def summary(rows: Rows) -> dict[str, float]:
    """Mean, standard deviation and quantiles of t, weighted: a row of weight 2 is the row twice."""
    mean = float(np.average(rows.t, weights=rows.weight))
    variance = float(np.average((rows.t - mean) ** 2, weights=rows.weight))
    values = np.quantile(rows.t, LEVELS, weights=rows.weight, method="inverted_cdf")
    quantiles = {f"index/q{round(100 * q):02d}": float(v) for q, v in zip(LEVELS, values, strict=True)}
    return {"index/mean": mean, "index/std": variance**0.5, **quantiles}


def write_rows(run: RunFolder, rows: Rows) -> None:
    """validation.parquet: row_id, t, z, weight of the last validation; replaced at once."""
    part = run.validation_path.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows._asdict()).select(["row_id", "t", "z", "weight"]), part)
    part.replace(run.validation_path)
