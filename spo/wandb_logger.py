"""A W&B run as a Lightning logger, its x-axis the optimizer steps. Imports wandb: only where it was asked for."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from wandb.plot.custom_chart import CustomChart, CustomChartSpec

from spo.media import Chart, MediaLogger

STEP = "trainer/global_step"  # optimizer steps done: the x-axis of everything


class WandbLogger(Logger, MediaLogger):
    """Scalars, histograms, tables, pictures and charts of one run."""

    def __init__(self, experiment: wandb.Run) -> None:
        super().__init__()
        self._experiment = experiment
        experiment.define_metric(STEP)
        experiment.define_metric("*", step_metric=STEP, step_sync=True)

    @property
    def experiment(self) -> wandb.Run:
        """The W&B run itself, for what is not offered here."""
        return self._experiment

    @property
    def name(self) -> str | None:
        return self._experiment.project

    @property
    def version(self) -> str | None:
        return self._experiment.id

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._log(dict(metrics), step or 0)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        values = vars(params) if isinstance(params, Namespace) else params
        self._experiment.config.update(values, allow_val_change=True)  # type: ignore[no-untyped-call]

    @rank_zero_only
    def log_histogram(self, name: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        self._log({name: wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))}, step)

    @rank_zero_only
    def log_table(self, name: str, columns: list[str], rows: list[list[float | None]], step: int) -> None:
        self._log({name: wandb.Table(columns=[*columns], data=[[*row] for row in rows])}, step)

    @rank_zero_only
    def log_picture(self, name: str, image: np.ndarray, step: int) -> None:
        self._log({name: wandb.Image(image)}, step)

    @rank_zero_only
    def log_chart(self, name: str, chart: Chart, step: int) -> None:
        table = wandb.Table(columns=[*chart.columns], data=[[*row] for row in chart.rows])
        spec = _OverSteps(spec_name=chart.preset, fields=dict(chart.fields), string_fields=dict(chart.strings))
        self._log({name: CustomChart(table=table, spec=spec)}, step)

    @rank_zero_only
    def set_summary(self, values: Mapping[str, float]) -> None:
        self._experiment.summary.update(dict(values))

    def _log(self, values: dict[str, Any], step: int) -> None:
        self._experiment.log({**values, STEP: step, "global_step": step})


class _OverSteps(CustomChartSpec):
    """A chart that reads its table from the history, not from the summary: that is what a step slider needs."""

    @property
    def config_value(self) -> dict[str, Any]:
        value = super().config_value
        for runs in value["panel_config"]["userQuery"]["queryFields"]:
            for asked in runs["fields"]:
                if asked["name"] == "summaryTable":
                    asked["name"] = "historyTable"
        return value
