"""Which rows make up global batch number k: a function of the seed and k alone (DESIGN 14)."""

import numpy as np

from spo.errors import ConfigError
from spo.hashing import uniform

NO_ROW = -1  # fills a batch up


class RowOrder:
    """batch(k) -> row positions of global batch k, k = 0, 1, ... without end.

    Data epoch e permutes the rows by a hash of (row id, seed, e), drops what is left over after whole global
    batches, and cuts the rest into windows of `bucket_window` global batches. Inside a window rows are sorted
    by length, then id, and cut into batches, so that a batch holds rows of like length; the batches of a window
    are shuffled by a hash of (seed, e, window). bucket_window = 1 means no sorting over batches.

    keep_last: nothing is dropped; the last batch is filled up with NO_ROW, and an epoch visits every row once.

    lengths: int (n,), tokens of a row's longer side (zeros where it does not matter). row_id: int64 (n,), default
    0..n-1. Nothing here depends on ranks, on an earlier call, or on numpy's own random streams.
    """

    def __init__(
        self,
        *,
        seed: int,
        lengths: np.ndarray,
        global_batch: int,
        bucket_window: int = 1,
        row_id: np.ndarray | None = None,
        keep_last: bool = False,
    ) -> None:
        self.seed, self.lengths, self.global_batch, self.bucket_window = seed, lengths, global_batch, bucket_window
        self.row_id = np.arange(len(lengths)) if row_id is None else row_id
        self.batches_per_epoch = -(-len(lengths) // global_batch) if keep_last else len(lengths) // global_batch
        if self.batches_per_epoch == 0:
            raise ConfigError(
                f"global_batch is {global_batch}, but there are {len(lengths)} training rows: incomplete batches are "
                "dropped, so that nothing would be left to train on. Lower global_batch, or give more rows"
            )
        self._kept: tuple[int, np.ndarray] | None = None  # the last data epoch used; a cache, no state

    def batch(self, k: int) -> np.ndarray:
        """int64 (global_batch,); NO_ROW at places that hold none."""
        epoch, number = divmod(k, self.batches_per_epoch)
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, self.epoch(epoch)
        batch: np.ndarray = self._kept[1][number]
        return batch

    def epoch(self, epoch: int) -> np.ndarray:
        """All batches of one data epoch, int64 (batches_per_epoch, global_batch)."""
        rows = np.argsort(uniform(self.row_id, self.seed, f"epoch/{epoch}"), kind="stable")
        rows = rows[: self.batches_per_epoch * self.global_batch]
        size = self.bucket_window * self.global_batch
        windows = [self._window(rows[i : i + size], f"{epoch}/{i // size}") for i in range(0, len(rows), size)]
        return np.concatenate(windows)

    def _window(self, rows: np.ndarray, name: str) -> np.ndarray:
        rows = rows[np.lexsort((self.row_id[rows], self.lengths[rows]))]
        rows = np.pad(rows, (0, -len(rows) % self.global_batch), constant_values=NO_ROW)
        batches = rows.reshape(-1, self.global_batch)
        if len(batches) == 1:
            return batches
        shuffled = np.argsort(uniform(np.arange(len(batches)), self.seed, f"window/{name}"), kind="stable")
        return batches[shuffled]
