"""What the observers share: what they read from the module, and how they hand numbers to the loggers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor

from spo.link.base import Link
from spo.media import MediaLogger
from spo.types import IndexSample


class Observed(Protocol):
    """The part of the module that observers read."""

    validation_sample: IndexSample | None  # (*R, N), CPU, the whole validation set; t not oriented
    active_link: Link  # the logistic pilot until the first refit
    orientation: int | Tensor  # +1 or -1, (*R,)
    uses_link: bool  # False where the objective asks for none: the link is then only shown
    tokens_computed: int  # see spo.policy.base


class LinkObserver(ABC):
    """A callback that wants to know of every refit of the link."""

    @abstractmethod
    def on_link_refit(self, trainer: L.Trainer, module: L.LightningModule, sample: IndexSample) -> None:
        """Called after each refit, on every rank, with the rows (*R, N) that the link was fitted to."""


class Rows(NamedTuple):
    """The rows of one replicate that count: finite t and weight > 0. Arrays of one length (N,)."""

    t: np.ndarray  # float64, the index, nats for KL
    z: np.ndarray  # float64, in [0, 1]
    weight: np.ndarray  # float64, > 0
    row_id: np.ndarray  # int64


def observed(module: L.LightningModule) -> Observed:
    return cast(Observed, module)


def first_replicate(sample: IndexSample) -> Rows:
    """Replicate 0 of a sample (*R, N) (DESIGN 1: the curves shown are those of replicate 0)."""
    t, z, weight, row_id = (
        x.detach().cpu().reshape(-1, x.shape[-1])[0].numpy() for x in (sample.t, sample.z, sample.weight, sample.row_id)
    )
    kept = (weight > 0) & np.isfinite(t)
    return Rows(t[kept].astype(float), z[kept].astype(float), weight[kept].astype(float), row_id[kept])


def orientation_of(module: L.LightningModule) -> int:
    """The sign of replicate 0's link."""
    return int(torch.as_tensor(observed(module).orientation).flatten()[0])


def log_scalars(trainer: L.Trainer, scalars: Mapping[str, float]) -> None:
    """To every logger, at the number of optimizer steps done. Lightning's self.log is closed in these hooks."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(scalars), step=trainer.global_step)
        logger.save()


def media_loggers(trainer: L.Trainer) -> list[MediaLogger]:
    """Those of the run's loggers that take histograms, tables and pictures."""
    return [logger for logger in trainer.loggers if isinstance(logger, MediaLogger)]
