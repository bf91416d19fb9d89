"""What steers a run: when to validate, which weights to keep, when to stop, what to save.

Every count is in optimizer steps. Order of the callbacks at the end of a step: position, validation, selection,
checkpoint; so a checkpoint at step k holds everything that happened up to and including step k.
"""

import contextlib
import os
import shutil
import signal
from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from torch import Tensor

from spo.distributed import whole, world_size
from spo.errors import ConfigError
from spo.module import SPOModule
from spo.out_of_memory import VALIDATION, OutOfMemory, at_work, release

_TINY = 1e-12  # so that an infinite number of standard errors of 0 is infinite


class Validation(L.Callback):
    """Validate before the first step, after every `every` steps, and after the last one.

    What is validated, and so what selection keeps, are the policy's averaged weights; training goes on with its own.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step == 0:
            self._validate(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self._validate(trainer, pl_module)

    def _validate(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, SPOModule)
        loop = trainer.fit_loop.epoch_loop.val_loop
        first = trainer._logger_connector._first_loop_iter
        trainer.validating = True
        with at_work(VALIDATION), module.averaging.applied(module.policy):
            loop.run()
        trainer.training = True
        trainer._logger_connector._first_loop_iter = first


class Keeping(L.Callback, ABC):
    """Which weights of a run are kept: one option of the group `selection`.

    They lie in `path`, and in memory where there are replicates.
    """

    needs_held_out: bool  # True where it looks at held-out rows

    def __init__(self) -> None:
        self.path: Path | None = None  # where the kept weights lie; set by the command
        self._best: dict[str, Tensor] = {}  # at least kept_step and kept_auc, (*R,)
        self._kept: dict[str, Tensor] | None = None

    @property
    def kept_auc(self) -> Tensor:
        """Held-out AUC of the kept weights, (*R,); nan where nothing is held out."""
        return self._best["kept_auc"]

    @property
    def kept_step(self) -> Tensor:
        """Optimizer step of the kept weights, (*R,)."""
        return self._best["kept_step"]

    def _keep(self, module: SPOModule, where: Tensor) -> None:
        state = {}
        for name, value in module.state_dict().items():
            state[name] = whole(value.detach()).cpu().clone()
        if not bool(where.all()):
            kept = self._kept or self._load()
            state = {
                name: torch.where(where.reshape(where.shape + (1,) * (value.dim() - where.dim())), value, kept[name])
                for name, value in state.items()
            }
        self._save(module, state)

    def _save(self, module: SPOModule, state: dict[str, Tensor]) -> None:
        # which replicates count is said of the run, not of the step that was kept
        kept = state | {"alive": module.alive.cpu().clone()}
        if self.path is not None and module.trainer.is_global_zero:
            replace_file(self.path, {"state_dict": kept, "refit_count": module.refit_count, **self._best})
        self._kept = kept if self.path is None or module.policy.replicates else None

    def _load(self) -> dict[str, Tensor]:
        assert self.path is not None
        state: dict[str, Tensor] = torch.load(self.path, map_location="cpu")["state_dict"]
        return state

    def restore(self, module: SPOModule) -> None:
        """Put the kept weights, link and orientation back into the module."""
        kept = self._kept or self._load()
        if not torch.equal(kept["alive"], module.alive.cpu()):  # a replicate died after its last new best
            self._save(module, kept)
            kept = self._kept or kept
        module.load_state_dict(kept)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = dict(state_dict)


class LastStep(Keeping):
    """Keep the (averaged) weights after the last optimizer step: a length of run that was given is not chosen again.

    A replicate that met a non-finite number keeps the weights that it had before.
    """

    needs_held_out = False

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SPOModule)
        if trainer.global_step != trainer.max_steps:
            return
        shape = pl_module.policy.replicates
        self._best = {"kept_step": torch.full(shape, trainer.global_step), "kept_auc": torch.full(shape, torch.nan)}
        with pl_module.averaging.applied(pl_module.policy):
            self._keep(pl_module, torch.ones(shape, dtype=torch.bool))


class Selection(Keeping):
    """Keep the weights of the validation with the best AUC, for each replicate by itself, and stop without progress.

    Of validations whose AUC is within `within_se` paired standard errors of the best, the latest is kept: with few
    held-out rows the maximum itself is mostly noise (MATH C11). The run stops when every replicate has gone `patience`
    validations without a new best. Where the data are cross-validated (`data.copies` runs on each data set, the last of
    them on all rows), the AUC of all of them is the mean over the folds, so that the folds choose for the last.
    """

    needs_held_out = True

    def __init__(self, *, patience: int | None, within_se: float) -> None:
        """patience: validations, null = train to the end; within_se: paired standard errors, 0 = the maximum itself,
        inf = the latest."""
        super().__init__()
        if patience is not None and patience < 1:
            raise ConfigError(f"selection.patience is {patience}: give at least 1 validation, or null")
        if within_se < 0:
            raise ConfigError(f"selection.within_se is {within_se}: give 0 or a positive number")
        self.patience = patience
        self.within_se = within_se
        # _best also holds auc, pseudo, waited: of the best validation, (*R, ...)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SPOModule)
        assert pl_module.validation_auc is not None
        value, _, pseudo = (x.cpu() for x in pl_module.validation_auc)
        alive = pl_module.alive.cpu()
        value = torch.where(torch.isnan(value), 0.5, value)
        if (copies := trainer.datamodule.copies) > 1:  # type: ignore[attr-defined]
            value, pseudo = over_folds(value, pseudo, alive, copies)
        step = torch.full(value.shape, trainer.global_step)
        if not self._best:
            better = keep = torch.ones(value.shape, dtype=torch.bool)
            self._best = {"auc": value, "pseudo": pseudo, "waited": torch.zeros_like(step)}
            self._best |= {"kept_step": step, "kept_auc": value}
        else:
            better = value > self._best["auc"]
            keep = better | (value >= self._best["auc"] - self.within_se * self._paired_se(pseudo).clamp_min(_TINY))
        better, keep = better & alive, keep & alive
        self._update("auc", better, value)
        self._update("pseudo", better, pseudo)
        self._update("kept_step", keep, step)
        self._update("kept_auc", keep, value)
        self._best["waited"] = torch.where(better, 0, self._best["waited"] + 1)
        if bool(keep.any()):
            self._keep(pl_module, keep)
        if self.patience is not None and trainer.global_step and bool((self._best["waited"] >= self.patience).all()):
            trainer.should_stop = True

    def _paired_se(self, pseudo: Tensor) -> Tensor:
        difference = pseudo - self._best["pseudo"]
        n = difference.shape[-1]
        return difference.std(-1) / n**0.5 if n > 1 else torch.zeros(difference.shape[:-1])

    def _update(self, name: str, where: Tensor, value: Tensor) -> None:
        where = where.reshape(where.shape + (1,) * (value.dim() - where.dim()))
        self._best[name] = torch.where(where, value, self._best[name])


def over_folds(value: Tensor, pseudo: Tensor, alive: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """AUC (R,) and pseudo-values (R, v) of each fold -> their mean and all of them, (R,) and (R, (copies-1) v).

    The same for all copies of a data set. The last copy has no fold; a fold whose run has died counts no more.
    """
    counts = alive.reshape(-1, copies)[:, :-1].to(value)
    mean = (value.reshape(-1, copies)[:, :-1] * counts).sum(-1) / counts.sum(-1).clamp_min(1)
    every = pseudo.reshape(-1, copies, pseudo.shape[-1])[:, :-1] * counts[..., None]
    return mean.repeat_interleave(copies), every.flatten(1).repeat_interleave(copies, 0)


class GracefulStop(L.Callback):
    """Ctrl-C and SIGTERM stop the run at the end of the optimizer step; a second one stops it at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Signals are kept while inside; around Trainer.fit."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._before = before
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in self._before:  # here, because Lightning has put its own handlers in place by now
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt(number)
        self.received = number

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # a signal may reach one rank only; all must stop at the same step
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            self.received = self.received or signal.SIGTERM
            trainer.should_stop = True


class Checkpoints(L.Callback):
    """`last.ckpt`, after every `every` steps, at the last one and where the run was asked to stop.

    Also where memory runs out in a step that has changed nothing yet: the state before it. Not before the first step,
    for which a run begins anew, and not with several processes: the others are in the middle of theirs.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.path = folder / "last.ckpt"
        self.every = every

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps or trainer.should_stop:
            self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, OutOfMemory):
            return
        assert isinstance(pl_module, SPOModule)
        if world_size() == 1 and trainer.global_step and pl_module.undo_step():
            release(exception)
            self._save(trainer)
            exception.kept = trainer.global_step

    def _save(self, trainer: L.Trainer) -> None:
        part = self.path.with_name("last.ckpt.part")
        trainer.save_checkpoint(part, weights_only=False)  # optimizer and position too
        if trainer.is_global_zero:
            replace_path(self.path, part)


def replace_path(path: Path, part: Path) -> None:
    """`part` becomes `path`, whole or not at all; a folder, of a sharded model, by way of `last.ckpt.old`."""
    old = path.with_name(f"{path.name}.old")
    if part.is_dir() and path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    part.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, value: Any) -> None:
    """torch.save, whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(value, part)
    part.replace(path)
