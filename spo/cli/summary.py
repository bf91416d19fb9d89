"""What stands for a run as a whole: the numbers of the weights that it kept, and its frontier."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from spo.charts import frontier_chart
from spo.evaluate.base import Frontier
from spo.loop import Keeping
from spo.media import MediaLogger
from spo.run_folder import RunFolder

HELD_OUT = ("val/", "link/nll", "link/ece")  # how the metrics begin that are of one validation
TARGET = ("kl", "reward", "reward_se", "reward_minus_reference", "se", "kl_reached")  # of target.json
BEST = "best/"  # how they are called in a logger's summary


def kept_values(run: RunFolder, selection: Keeping, alive: Tensor) -> dict[str, float]:
    """step, val/auc, ...: the validation of the weights that selection kept; over living replicates (*R,) the means of
    step and AUC, each at its own step. Without held-out rows the step alone."""
    step, auc = (x.cpu().double()[alive.cpu()] for x in (selection.kept_step, selection.kept_auc))
    if not step.numel():
        return {}
    values = {"step": float(step.mean())}
    if not selection.kept_step.dim():
        rows = (m for m in run.metrics() if m.step == int(step) and m.name.startswith(HELD_OUT))
        values |= {m.name: m.value for m in rows}
    if not bool(auc.isnan().all()):
        values["val/auc"] = float(torch.nanmean(auc))
    return {name: value for name, value in values.items() if math.isfinite(value)}


def target_values(target: Mapping[str, Any] | None) -> dict[str, float]:
    """target/kl, target/reward, ...: reward at the target KL, where the frontier reaches it."""
    found = {f"target/{key}": (target or {}).get(key) for key in TARGET}
    values = {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}
    return values if "target/reward" in values else {}


def summarize(run: RunFolder, loggers: Sequence[MediaLogger], values: Mapping[str, float]) -> None:
    """best.json, and `best/...` in each summary."""
    run.write_json("best.json", dict(values))
    for logger in loggers:
        logger.set_summary({f"{BEST}{name}": value for name, value in values.items()})


def show_frontier(run: RunFolder, loggers: Sequence[MediaLogger], found: Frontier, step: int) -> None:
    """`eval/frontier` and its picture, from what was saved in `run`."""
    for logger in loggers:
        from spo.report.drawing import frontier_image  # matplotlib, only where somebody looks
        from spo.report.results import Result

        logger.log_chart("eval/frontier", frontier_chart(found.points), step)
        logger.log_picture("eval/frontier_picture", frontier_image(Result(run, run, run.name)), step)
