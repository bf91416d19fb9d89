"""The reference policy: log pi_ref(y | x) of the rows of a batch, never trained, never in a checkpoint."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.policy.base import Policy
from spo.policy.remembered import RememberedRows
from spo.policy.table import ReferenceTable
from spo.types import PreferenceBatch


class RowKeeper(Protocol):
    """What a stored table needs to know of the data (spo.data.PreferenceDataModule)."""

    def fingerprint(self) -> dict[str, str]:
        """`rows` and `renderer`: hashes that the table must have been made with."""
        ...

    def swapped(self, row_id: Tensor) -> Tensor:
        """bool, True where the row's responses were exchanged at load, against the order in the file."""
        ...


class Reference(ABC):
    """prepare once, then ask for log-probabilities batch by batch."""

    @abstractmethod
    def prepare(self, policy: Policy, data: RowKeeper) -> None:
        """Check that policy, data and reference belong together; before weights load."""

    @abstractmethod
    def is_start_of(self, policy: Policy) -> bool:
        """True where this is what the policy is tilted against when it is evaluated: the model it started from."""

    @abstractmethod
    def build(self) -> None:
        """Load weights of its own, if it has any; called from configure_model, does nothing the second time."""

    @property
    @abstractmethod
    def network(self) -> Policy | None:
        """The model with these weights, for a trainer to put where the policy is; None where there is none."""

    @property
    @abstractmethod
    def remembered(self) -> RememberedRows | None:
        """Where a training keeps what `log_prob` gave, so that it asks once for each row; empty again after `prepare`.
        None where to ask costs no forward pass of a model."""

    @abstractmethod
    def log_prob(self, batch: PreferenceBatch, policy: Policy) -> Tensor:
        """log pi_ref(y_j | x): float32 (*R, B, 2) on the batch's device, without a gradient."""

    @property
    @abstractmethod
    def equals_initial_policy(self) -> bool:
        """True where a policy that `starts_at_reference` has index 0 on every row at step 0."""


class AdapterOff(Reference):
    """The policy's own base model: one copy of the weights, one more forward pass for a row the first time it comes.

    A training keeps what it gave, 16 bytes a row, in memory and in the checkpoint.
    """

    equals_initial_policy = True
    network = None
    remembered: RememberedRows | None = None

    def prepare(self, policy: Policy, data: RowKeeper) -> None:
        self.remembered = RememberedRows()
        if not policy.has_adapter_reference:
            raise ConfigError(
                "reference=adapter_off needs a policy with adapters, and this one has none: give reference=table (made "
                "once by `spo precompute`), reference=frozen (a second model), or, for a tabular policy, uniform"
            )

    def is_start_of(self, policy: Policy) -> bool:
        return True

    def build(self) -> None:
        return

    def log_prob(self, batch: PreferenceBatch, policy: Policy) -> Tensor:
        return policy.reference_log_prob(batch.pair)


class StoredTable(Reference):
    """Log-probabilities that `spo precompute` stored, looked up by row id.

    path: the folder that `spo precompute` wrote. Refused where model, tokenizer, template, lengths or rows
    are not those of this run.
    """

    equals_initial_policy = True  # `prepare` has compared the fingerprints of the base model
    network = None
    remembered = None

    def __init__(self, *, path: str) -> None:
        if not Path(path).is_dir():
            raise ConfigError(f"path {path}: no such folder. Run `spo precompute` and give the folder it names")
        self.path = Path(path)
        self._table: ReferenceTable | None = None
        self._data: RowKeeper | None = None

    def prepare(self, policy: Policy, data: RowKeeper) -> None:
        self._table = ReferenceTable.load(self.path, {"model": policy.fingerprint(), **data.fingerprint()})
        self._data = data

    def is_start_of(self, policy: Policy) -> bool:
        return True

    def build(self) -> None:
        return

    def log_prob(self, batch: PreferenceBatch, policy: Policy) -> Tensor:
        """Rows are stored in the file's order; rows that were exchanged at load are exchanged here too."""
        if self._table is None or self._data is None:
            raise RuntimeError("StoredTable.prepare() has not been called")
        row_id = batch.row_id.cpu()
        stored = self._table.lookup(row_id.numpy())
        swapped = np.asarray(self._data.swapped(row_id), dtype=bool)
        oriented = np.where(swapped[..., None], stored[..., ::-1], stored)
        return torch.from_numpy(oriented).to(batch.row_id.device)
