"""What the data modules of text share: ranks, loaders, the place in the data."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spo.data.collate import Batches, TokenisedRows, collate, every_row_once, share
from spo.data.loader import StepsAhead, loader
from spo.data.lookup import RowLookup
from spo.data.options import TextOptions
from spo.data.position import StepSampler
from spo.data.report import DataReport
from spo.data.tokens import Renderer
from spo.errors import ConfigError
from spo.types import PreferenceBatch


class TextDataModule(TextOptions, L.LightningDataModule, ABC):
    """Rows of text as the steps of a run: one batch of the train loader = one optimizer step = this rank's share of a
    global batch, as a list of micro-batches.

    After load(): val, report, renderer. The caller sets total_steps (optimizer steps of the run) before fit, and adds
    the DataPosition callback to the trainer, with use_distributed_sampler=False.
    """

    val: TokenisedRows
    report: DataReport
    renderer: Renderer

    copies = 1  # runs on these rows

    def __post_init__(self) -> None:
        L.LightningDataModule.__init__(self)
        self.position = 0  # global batches consumed
        self.total_steps: int | None = None
        self._ranks: tuple[int, int] | None = None

    def setup(self, stage: str | None = None) -> None:
        self.load()

    @abstractmethod
    def load(self) -> None:
        """Reads, checks, labels, orients and tokenises what must be known before the first step. Idempotent."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps of one pass over the training rows; None where no one knows."""

    @property
    @abstractmethod
    def longest_row(self) -> int:
        """Tokens of the longer side of the longest row that may come; 0 before load()."""

    @abstractmethod
    def epoch(self, step: int) -> float:
        """Passes over the training rows after `step` optimizer steps."""

    @abstractmethod
    def batch(self, k: int) -> tuple[TokenisedRows, np.ndarray]:
        """Global batch k: rows, and the positions (global_batch,) of its own among them, by length."""

    @abstractmethod
    def fingerprint(self) -> dict[str, str]:
        """What log-probabilities of rows depend on, for a reference table; not seed, split or labels."""

    @abstractmethod
    def all_rows(self) -> Iterable[PreferenceBatch]:
        """Every row of training and validation once, in micro-batches of like length, for a reference table."""

    @property
    @abstractmethod
    def row_count(self) -> int | None:
        """Rows of training and validation; None where no one knows."""

    @abstractmethod
    def prompts_among(self, groups: Collection[int]) -> set[int]:
        """Those of these prompts (hashes, as PreferencePair.group) that rows of training or validation have."""

    @abstractmethod
    def sweep_dataloader(self) -> Batches:
        """Every training row once over the ranks, as in validation: for a refit under the current policy."""

    @property
    @abstractmethod
    def _lookup(self) -> RowLookup:
        """What is known of rows by their ids; of a stream: of validation and of the buffers in use."""

    def group(self, row_id: Tensor) -> Tensor:
        """A hash of the row's prompt, int64, shape of row_id."""
        return torch.from_numpy(np.asarray(self._lookup.group[self._lookup.find(row_id)]))

    def swapped(self, row_id: Tensor) -> Tensor:
        """bool, shape of row_id: response 1 is the file's response 0."""
        return torch.from_numpy(np.asarray(self._lookup.swapped[self._lookup.find(row_id)]))

    @abstractmethod
    def reward_difference(self, row_id: Tensor) -> Tensor:
        """u = (reward 1 - reward 0) / sd, after orientation; float32, shape of row_id, nan where unknown."""

    # -- ranks and loaders ---------------------------------------------------------------------------------

    def set_world(self, rank: int, world: int) -> None:
        """Which rows are this process's, where the trainer's own ranks are not the data-parallel ones."""
        self._ranks = rank, world

    @property
    def _rank_and_world(self) -> tuple[int, int]:
        if self._ranks is not None:
            return self._ranks
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def step(self, k: int) -> list[PreferenceBatch]:
        """This rank's micro-batches of global batch k: rows r, r + W, ... of it."""
        rank, world = self._rank_and_world
        self.micro.check(self.global_batch, world)
        rows, positions = self.batch(k)
        parts = share(rows, positions, self.micro, rank, world)
        return [collate(rows, part, pad_token_id=self.renderer.pad_token_id) for part in parts]

    def begin(self, k: int) -> None:
        """From now on the run works on global batch k; later ones may have been made already."""

    def train_dataloader(self) -> StepsAhead:
        if self.total_steps is None:
            raise ConfigError("datamodule.total_steps is not set: give the optimizer steps of the run before fit")
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return StepsAhead(self, StepSampler(self, self.total_steps), ahead=self.prefetch, device=device)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """The micro-batches of a step, or one of a validation. From pinned memory to a GPU nobody waits for it."""
        free = device.type == "cuda"
        if isinstance(batch, PreferenceBatch):
            return batch.to(device, non_blocking=free)
        return [micro.to(device, non_blocking=free) for micro in batch]

    def val_dataloader(self) -> DataLoader[PreferenceBatch] | list[Any]:
        self.load()
        if not len(self.val):
            return []
        return loader(self._once(self.val))

    def _once(self, rows: TokenisedRows) -> Batches:
        """Every row once over the ranks."""
        plan = every_row_once(rows, self.micro, *self._rank_and_world)
        return Batches(rows, plan, self.renderer.pad_token_id)
