"""A reference table that the jobs of a sweep share: the first that needs it computes it, the others wait for it."""

from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from spo.cache import cache_dir
from spo.errors import ConfigError
from spo.hashing import digest
from spo.lock import exclusive
from spo.policy.base import Policy
from spo.policy.causal_lm import CausalLM, pick_device
from spo.policy.fill import RowSource, fill_table
from spo.policy.reference import Reference, RowKeeper, StoredTable
from spo.policy.table import TableWriter, is_complete
from spo.types import PreferenceBatch


class SharedTable(Reference):
    """The table of FOLDER/<hash of model, rows and renderer>: of whatever run asks for the same, in any process.

    folder: None for `reference` in the cache of spo. shard_rows: rows between two writes to disk, after which a killed
    computation goes on. device: that computes it. What computes is a copy of the policy's own base model, which is
    gone again before the policy is built. With several processes, on one machine or on several that see the folder,
    each waits for the one that computes: none has joined a process group yet.
    """

    equals_initial_policy = True
    network = None
    remembered = None

    def __init__(self, *, folder: str | None, shard_rows: int, device: Literal["auto", "cpu", "cuda"]) -> None:
        if shard_rows < 1:
            raise ConfigError(f"shard_rows is {shard_rows}: give at least 1")
        self.folder = None if folder is None else Path(folder)
        self.shard_rows = shard_rows
        self.device = device
        self._table: StoredTable | None = None

    def prepare(self, policy: Policy, data: RowKeeper) -> None:
        if not isinstance(policy, CausalLM):
            raise ConfigError("reference=shared_table is for language models: a tabular policy has reference=uniform")
        rows = cast(RowSource, data)
        if rows.row_count is None:
            raise ConfigError(
                "reference=shared_table cannot tell two streams apart: give data=preferences, or reference=table with "
                "a table that `spo precompute` made of this stream"
            )
        fingerprint = {"model": policy.fingerprint(), **data.fingerprint()}
        place = (self.folder or cache_dir() / "reference") / digest(fingerprint)
        if not is_complete(place):
            self._compute(place, fingerprint, policy, rows)
        self._table = StoredTable(path=str(place))
        self._table.prepare(policy, data)
        print(f"reference        table {place}")

    def _compute(self, place: Path, fingerprint: dict[str, str], policy: CausalLM, data: RowSource) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"folder {place.parent} cannot be written ({error.strerror}): give another") from error
        waiting = f"the reference table {place} is being computed by another process: waiting for it"
        with exclusive(place / ".lock", waiting):
            if is_complete(place):
                return
            writer = TableWriter(place, fingerprint)
            model = policy.bare()
            device = pick_device(self.device)
            with torch.random.fork_rng(), torch.no_grad():
                model.build()
                model.to(device).eval()
                fill_table(writer, data, model, device=device, shard_rows=self.shard_rows)
        del model
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def is_start_of(self, policy: Policy) -> bool:
        return True

    def build(self) -> None:
        return

    def log_prob(self, batch: PreferenceBatch, policy: Policy) -> Tensor:
        if self._table is None:
            raise RuntimeError("SharedTable.prepare() has not been called")
        return self._table.log_prob(batch, policy)
