"""The rows of a data set into a reference table: what `spo precompute` and reference=shared_table do."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from spo.errors import ConfigError
from spo.policy.table import TableWriter
from spo.types import PreferenceBatch, TokenPairs


class RowSource(Protocol):
    """Where the rows come from (spo.data.text.TextDataModule)."""

    @property
    def row_count(self) -> int | None:
        """Rows of training and validation; None of a stream."""
        ...

    def all_rows(self) -> Iterable[PreferenceBatch]:
        """Every row of training and validation once."""
        ...

    def swapped(self, row_id: Tensor) -> Tensor:
        """bool, True where the row's responses were exchanged at load, against the order in the file."""
        ...


def fill_table(
    writer: TableWriter,
    data: RowSource,
    score: Callable[[TokenPairs], Tensor],
    *,
    device: torch.device,
    shard_rows: int,
) -> None:
    """Every row that the table does not have, in shards of at least shard_rows; then the table is complete.

    score: log pi_ref of pairs on `device`, (B, 2), in nats.
    """
    ids: list[np.ndarray] = []
    logps: list[np.ndarray] = []
    tokens, started = 0, time.monotonic()
    with tqdm(desc="reference", total=data.row_count, unit=" pairs", dynamic_ncols=True) as bar:
        for batch in data.all_rows():
            rows = _without(batch, writer.done)
            bar.update(len(batch) - len(rows))
            if len(rows):
                pair = rows.to(device).pair
                assert isinstance(pair, TokenPairs)
                logp = score(pair).cpu()
                swapped = data.swapped(rows.row_id)
                logps.append(torch.where(swapped[:, None], logp.flip(1), logp).numpy())  # back to the file's order
                ids.append(rows.row_id.numpy())
                tokens += int(pair.attention_mask.sum())  # prompt and response tokens of both sides
                bar.set_postfix_str(f"{tokens / (time.monotonic() - started):.0f} tokens/s", refresh=False)
                bar.update(len(rows))
            if sum(map(len, ids)) >= shard_rows:
                writer.append(np.concatenate(ids), np.concatenate(logps))
                ids, logps = [], []
    if ids:
        writer.append(np.concatenate(ids), np.concatenate(logps))
    writer.finish()


def _without(batch: PreferenceBatch, done: set[int]) -> PreferenceBatch:
    """The rows of a batch that are not done and do not only fill it up."""
    fresh = torch.tensor([i not in done for i in batch.row_id.tolist()], dtype=torch.bool)
    keep = (fresh & (batch.weight > 0)).nonzero().squeeze(1)
    if not isinstance(batch.pair, TokenPairs):
        raise ConfigError("precompute is for language models: a tabular policy computes its reference as it goes")
    pair = TokenPairs(batch.pair.input_ids[keep], batch.pair.attention_mask[keep], batch.pair.response_mask[keep])
    return replace(batch, pair=pair, z=batch.z[keep], weight=batch.weight[keep], row_id=batch.row_id[keep])
