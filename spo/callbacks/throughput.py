"""How fast the run goes and how much memory it takes."""

import resource
import sys
import time
from typing import Any

import lightning as L
import torch
from torch import Tensor

from spo.callbacks.observer import LinkObserver, log_scalars, observed
from spo.types import IndexSample, PreferenceBatch, TokenPairs


class Throughput(LinkObserver, L.Callback):
    """Every `log_every_n_steps` optimizer steps, over the steps since the last time:

    perf/step_s           seconds a step, waiting for data included
    perf/pairs_per_s      rows of weight > 0 a second, all ranks (this rank's times the world size)
    perf/tokens_per_s     real tokens (prompt + response, both sides; no padding) a second, all ranks; token models only
    perf/computed_share   tokens that the policy computed over real ones: above 1 by padding, below 1 where the two
                          sides of a pair share their prompt (policy.packing); token models only
    perf/data_wait_share  share of the time between two steps' work, in [0, 1]
    perf/peak_memory_gb   10^9 bytes: the GPU's peak since the start, on a CPU the process's resident peak

    Gaps that held a validation, a checkpoint or a refit are left out: they are no waiting for data.
    """

    def __init__(self) -> None:
        self._forget()
        self._every = 1
        self._ended: float | None = None  # when the last step ended; None where the gap does not count

    def _forget(self) -> None:
        self._steps = 0
        self._busy = 0.0
        self._wait = 0.0
        self._pairs: Tensor | int = 0  # tensors are read only when logged: no wait for the GPU at every step
        self._tokens: Tensor | int = 0
        self._computed = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._every = max(1, getattr(trainer, "log_every_n_steps", 1))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._ended is not None:
            self._wait += now - self._ended
        self._began = now
        self._computed -= observed(pl_module).tokens_computed

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._ended = time.perf_counter()
        self._busy += self._ended - self._began
        self._steps += 1
        self._computed += observed(pl_module).tokens_computed
        for micro in batch:
            self._pairs = self._pairs + _pairs(micro)
            self._tokens = self._tokens + _tokens(micro)
        if trainer.global_step % self._every == 0:
            self._log(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._ended = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._ended = None

    def on_link_refit(self, trainer: L.Trainer, module: L.LightningModule, sample: IndexSample) -> None:
        self._ended = None

    def _log(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        seconds = self._busy + self._wait
        if self._steps == 0 or seconds == 0:
            return
        values = {
            "perf/step_s": seconds / self._steps,
            "perf/pairs_per_s": trainer.world_size * int(self._pairs) / seconds,
            "perf/data_wait_share": self._wait / seconds,
            "perf/peak_memory_gb": peak_memory_gb(module.device),
        }
        if tokens := int(self._tokens):
            values["perf/tokens_per_s"] = trainer.world_size * tokens / seconds
            values["perf/computed_share"] = self._computed / tokens
        log_scalars(trainer, values)
        self._forget()


def _pairs(batch: PreferenceBatch) -> Tensor:
    return (batch.weight > 0).sum()


def _tokens(batch: PreferenceBatch) -> Tensor | int:
    """Real tokens of the rows that count; 0 where the actions are no tokens."""
    if not isinstance(batch.pair, TokenPairs):
        return 0
    return (batch.pair.attention_mask * (batch.weight > 0)[:, None, None]).sum()


def peak_memory_gb(device: torch.device) -> float:
    """10^9 bytes, since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
