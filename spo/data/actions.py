"""ActionDataModule: preferences between actions, many independent replicates at once, as the steps of a run.

Shapes: D data sets, C runs on each (its copies, as `held_out` says), R = D·C replicates, those of a data set side by
side; n rows of a data set, B rows of a batch.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Protocol

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spo.data.held_out import HeldOut, Split
from spo.data.loader import Steps, loader
from spo.data.micro import OfPairs
from spo.data.order import NO_ROW, RowOrder
from spo.data.position import StepSampler, position_in
from spo.errors import ConfigError, DataError
from spo.hashing import hash_int64
from spo.types import ActionPairs, ActionRows, PreferenceBatch


@dataclass(frozen=True)
class ActionReport:
    """What the data are. Shares and sds are means over replicates."""

    replicates: int
    copies: int  # of them on each data set
    rows_train: int  # of a data set, that training visits
    rows_val: int
    features: int
    actions: int
    fresh_contexts: int
    z_mean: float
    equal_actions: float  # share of rows whose two actions are the same
    difference_sd: float  # of reward 1 - reward 0, as the true link takes it

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for data_report.json."""
        return asdict(self)

    def histograms(self) -> dict[str, Any]:
        """None: actions have no lengths."""
        return {}

    def lines(self) -> list[str]:
        """The report as text, a line a fact."""
        runs = f", {self.copies} on each data set" if self.copies > 1 else ""
        return [
            f"replicates       {self.replicates}{runs}, each with {self.rows_train} rows to train on and "
            f"{self.rows_val} to validate on; {self.features} features, {self.actions} actions",
            f"labels           from the true link: mean z {self.z_mean:.3f}; {self.equal_actions:.1%} of the rows "
            "compare an action with itself",
            f"rewards          sd of the difference {self.difference_sd:.4g}, as the true link takes it",
            f"evaluation       {self.fresh_contexts} fresh contexts a replicate",
        ]


class Source(Protocol):
    """Where data sets come from, and the initial policies that belong to them."""

    def __call__(self, labels: Any) -> ActionRows: ...

    def student(self, seed: int, layers: list[int]) -> list[tuple[Tensor, Tensor]] | None: ...


class ActionDataModule(L.LightningDataModule):
    """Arrays as the steps of a run: one batch of the train loader = one optimizer step of every replicate.

    source: labels -> ActionRows, D data sets; held_out: what of each its C copies are trained on. Replicate r's rows
    come in the order of a RowOrder whose seed is made of `seed` and of its data set's own seed, whatever the
    other replicates; copies and shifts of one seed have the same order. An epoch visits every row once, as the paper's
    code does: its last batch is filled up with rows of weight 0.
    """

    def __init__(
        self,
        *,
        source: Source,
        held_out: HeldOut,
        tokenizer: None,
        labels: Any,
        seed: int,
        global_batch: int,
        micro_batch: int | None,
        micro_tokens: int | None,
    ) -> None:
        """labels: of a true link. global_batch: rows of a replicate in an optimizer step; micro_batch: of them in one
        forward pass. micro_tokens: refused, for an action has none."""
        super().__init__()
        problems = [
            (tokenizer is not None, "data=tabular holds actions, and the policy reads text: give policy=tabular"),
            (labels is None, "data=tabular draws its labels: give a true link, such as truth=shifted_mixture"),
            (
                micro_tokens is not None,
                f"micro_tokens is {micro_tokens}, and data=tabular has no tokens: give micro_batch, and null for it",
            ),
            (micro_batch is None or micro_batch < 1, f"micro_batch is {micro_batch}: give rows >= 1"),
            (
                global_batch < 1 or bool(micro_batch and micro_batch > 0 and global_batch % micro_batch > 0),
                f"global_batch is {global_batch}: give a multiple of micro_batch, which is {micro_batch}",
            ),
        ]
        if wrong := [message for bad, message in problems if bad]:
            raise ConfigError("\n".join(wrong))
        self.source, self.labels, self.held_out, self.seed = source, labels, held_out, seed
        self.copies = held_out.copies
        assert micro_batch is not None
        self.global_batch, self.micro_batch = global_batch, micro_batch
        self.micro = OfPairs(micro_batch)
        self.position = 0  # global batches consumed
        self.total_steps: int | None = None

    # -- loading -------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        self.load()

    def load(self) -> None:
        """Draws all rows. Idempotent."""
        _ = self.rows

    @cached_property
    def rows(self) -> ActionRows:
        """Of the D data sets."""
        rows = self.source(self.labels)
        if constant := torch.nonzero(rows.z.amax(-1) == rows.z.amin(-1)).flatten().tolist():
            raise DataError(
                f"every label of the replicates with seeds {rows.seed[constant].tolist()[:5]} is the same: no link can "
                "be fitted to a constant. Give more rows, or look at the true link"
            )
        return rows

    @cached_property
    def data_set(self) -> Tensor:
        """Of each replicate, int64 (R,)."""
        return torch.arange(len(self.rows.seed)).repeat_interleave(self.copies)

    @property
    def runs(self) -> Tensor:
        """The replicates that are trained on each data set, int64 (D, C); the last one on all of its rows."""
        return torch.arange(len(self.data_set)).reshape(-1, self.copies)

    @cached_property
    def seeds(self) -> list[int]:
        """Of each replicate's initial policy, (R,): its data set's; a fold's run starts from weights of its own."""
        last = self.copies - 1
        numbered = ((seed, copy) for seed in self.rows.seed.tolist() for copy in range(self.copies))
        return [seed if copy == last else hash_int64([seed, "fold", copy]) % 2**31 for seed, copy in numbered]

    @cached_property
    def split(self) -> Split:
        """Of all replicates, (R, ...)."""
        parts = [self.held_out.split(ids) for ids in self.rows.row_id.numpy()]
        return Split(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    @property
    def rows_train(self) -> int:
        return self.split.train.shape[-1]

    @property
    def report(self) -> ActionReport:
        rows = self.rows
        return ActionReport(
            replicates=len(self.data_set),
            copies=self.copies,
            rows_train=round(float(self.split.train.sum(-1).min())),
            rows_val=self.split.held_out.shape[-1],
            features=rows.context.shape[-1],
            actions=rows.fresh_reward.shape[-1],
            fresh_contexts=rows.fresh_context.shape[-2],
            z_mean=float(rows.z.mean()),
            equal_actions=float((rows.action[..., 0] == rows.action[..., 1]).float().mean()),
            difference_sd=float(rows.difference.square().mean(-1).sqrt().mean()),
        )

    # -- what others ask about rows ------------------------------------------------------------------------

    def fingerprint(self) -> dict[str, str]:
        """{"rows": a hash of every array, "sizes": what a policy must agree with}."""
        features, actions = self.rows.context.shape[-1], self.rows.fresh_reward.shape[-1]
        sizes = f"{len(self.data_set)} replicates, {features} features, {actions} actions"
        return {"rows": self._digest, "sizes": sizes}

    def start(self, layers: list[int]) -> list[list[tuple[Tensor, Tensor]]] | None:
        """Weights and biases that each replicate's policy starts with; None where the policy draws its own."""
        starts = {seed: self.source.student(seed, layers) for seed in dict.fromkeys(self.seeds)}
        found = [start for seed in self.seeds if (start := starts[seed]) is not None]
        return found or None

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.blake2b(digest_size=16)
        for field in fields(self.rows):
            hasher.update(np.ascontiguousarray(getattr(self.rows, field.name).numpy()).data)
        return hasher.hexdigest()

    @cached_property
    def _by_row_id(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted row ids and their reward differences. Replicates of one seed share both."""
        row_id, first = np.unique(self.rows.row_id.numpy(), return_index=True)
        return row_id, self.rows.difference.numpy().ravel()[first]

    def reward_difference(self, row_id: Tensor) -> Tensor:
        """u = reward 1 - reward 0 as the true link takes it, float32, shape of row_id."""
        known, difference = self._by_row_id
        wanted = row_id.cpu().numpy()
        at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        if (unknown := known[at] != wanted).any():
            raise DataError(f"row id {wanted[unknown].flat[0]} is not among the {len(known)} rows of this data")
        return torch.from_numpy(difference[at])

    def true_link(self, data_set: int) -> Any:
        """Psi of a data set: u -> P(z = 1)."""
        return self.labels.each[data_set % len(self.labels.each)].link

    def group(self, row_id: Tensor) -> Tensor:
        """Each row by itself: every row has a context of its own."""
        return row_id

    def swapped(self, row_id: Tensor) -> Tensor:
        """bool, shape of row_id: no row is ever turned round."""
        return torch.zeros(row_id.shape, dtype=torch.bool)

    # -- loaders -------------------------------------------------------------------------------------------

    @cached_property
    def orders(self) -> list[RowOrder]:
        """One a seed, over the rows that training visits."""
        lengths = np.zeros(self.rows_train, dtype=np.int64)
        return [
            RowOrder(
                seed=hash_int64([self.seed, seed]), lengths=lengths, global_batch=self.global_batch, keep_last=True
            )
            for seed in dict.fromkeys(self.rows.seed.tolist())
        ]

    @cached_property
    def _order_of(self) -> Tensor:
        """Which of them is each replicate's, int64 (R,)."""
        seeds = self.rows.seed[self.data_set].tolist()
        number = {seed: k for k, seed in enumerate(dict.fromkeys(seeds))}
        return torch.tensor([number[seed] for seed in seeds])

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every training row once."""
        return self.orders[0].batches_per_epoch

    longest_row = 0  # actions have no tokens

    def epoch(self, step: int) -> float:
        """Passes over the training rows after `step` optimizer steps."""
        return step / self.steps_per_epoch

    def step(self, k: int) -> list[PreferenceBatch]:
        """The micro-batches of global batch k, (R, micro_batch) rows each."""
        if self.trainer is not None and self.trainer.world_size > 1:
            raise ConfigError(
                "a tabular policy trains in one process: give hardware=cpu, or hardware=gpu with 1 device"
            )
        epoch, number = divmod(k, self.steps_per_epoch)
        at = self._epoch(epoch)[number][self._order_of]
        there = at != NO_ROW
        at = at.clamp_min(0)  # any row will do where its weight is 0
        weight = self.split.train.gather(-1, at) * there
        parts = zip(*(torch.split(x, self.micro_batch, dim=-1) for x in (at, weight)), strict=True)
        return [self.batch(*part) for part in parts]

    def _epoch(self, epoch: int) -> Tensor:
        """Rows, or NO_ROW, of every batch of a data epoch, int64 (batches, orders, global_batch); the last one asked
        for stays."""
        if self._kept is None or self._kept[0] != epoch:
            orders = np.stack([order.epoch(epoch) for order in self.orders], axis=1)
            self._kept = epoch, torch.from_numpy(orders)
        return self._kept[1]

    _kept: tuple[int, Tensor] | None = None

    def batch(self, at: Tensor, weight: Tensor) -> PreferenceBatch:
        """Rows `at` (R, B) of each replicate's data set, with their weights."""
        rows = self.rows
        flat = (at + self.data_set[:, None] * rows.z.shape[-1]).flatten()  # whole rows are copied at once

        def taken(values: Tensor) -> Tensor:
            return values.flatten(0, 1).index_select(0, flat).reshape(*at.shape, *values.shape[2:])

        pair = ActionPairs(taken(rows.context), taken(rows.action))
        return PreferenceBatch(pair, taken(rows.z), weight, taken(rows.row_id))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """As Lightning's own, which walks through every field by deep copies: half of a small step."""
        return [part.to(device) for part in batch] if isinstance(batch, list) else batch.to(device)

    def train_dataloader(self) -> DataLoader[list[PreferenceBatch]]:
        if self.total_steps is None:
            raise ConfigError("datamodule.total_steps is not set: give the optimizer steps of the run before fit")
        return loader(Steps(self), StepSampler(self, self.total_steps))

    def val_dataloader(self) -> DataLoader[PreferenceBatch]:
        return loader(Once(self, self.split.held_out, self.split.held_out_weight))

    def sweep_dataloader(self) -> "Once":
        """Every training row once: for a refit under the current policy."""
        return Once(self, torch.arange(self.rows_train).expand(len(self.data_set), -1), self.split.train)

    # -- checkpoints ---------------------------------------------------------------------------------------

    @property
    def _resume_fingerprint(self) -> dict[str, str]:
        order = f"seed {self.seed}, global_batch {self.global_batch}, {self.copies} copies of {self.rows_train} rows"
        return {**self.fingerprint(), "order": order}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "fingerprint": self._resume_fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises DataError where the checkpoint comes from other rows or another order."""
        self.position = position_in(state_dict, self._resume_fingerprint)


@dataclass(frozen=True)
class Once:
    """Rows `at` (R, N) of every replicate once, in their order, in batches of micro_batch rows."""

    module: ActionDataModule
    at: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return -(-self.at.shape[-1] // self.module.micro_batch)

    def __getitem__(self, k: int) -> PreferenceBatch:
        if not 0 <= k < len(self):
            raise IndexError(k)
        part = slice(k * self.module.micro_batch, (k + 1) * self.module.micro_batch)
        return self.module.batch(self.at[:, part], self.weight[:, part])

    def __iter__(self) -> Iterator[PreferenceBatch]:
        return (self[k] for k in range(len(self)))
