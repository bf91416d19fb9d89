"""A stream as buffers of global batches: which rows a batch has is a function of the seed and its place alone."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spo.data.collate import TokenisedRows
from spo.data.lookup import rows_digest
from spo.data.order import RowOrder
from spo.data.row_stream import RowStream
from spo.data.sources import Place
from spo.data.table import TokenTable
from spo.errors import DataError
from spo.hashing import digest


@dataclass(frozen=True)
class Start:
    """Where a buffer begins: all that is needed to read it again. Plain values, for a checkpoint."""

    batch: int  # number of its first global batch
    passes: int  # passes over the source before it
    number: int  # buffers of this pass before it
    place: Place  # of the source, before its first row


BEGINNING = Start(0, 0, 0, {})


@dataclass(frozen=True)
class Buffer:
    """Consecutive rows of the stream, in batches; `after` is the start of the next one."""

    start: Start
    table: TokenTable
    rows: TokenisedRows  # of the table, oriented
    batches: np.ndarray  # int64 (batches, global_batch), positions among the rows
    after: Start

    def digest(self) -> str:
        """Hash of its rows and labels."""
        return digest([rows_digest(self.rows), self.rows.row_id.tolist(), self.rows.z.tolist()])


class Buffers:
    """of(k): the buffer that holds global batch k = 0, 1, ... without end; read forwards, a buffer at a time.

    A buffer is the next `size` global batches of usable rows, put into batches as a RowOrder puts rows in memory; what
    does not fill a batch at the end of a pass is dropped, and the next pass begins. orient: turns responses round.

    live: the buffers in memory, those that hold a batch that is still to come, or the last one that was consumed. One
    thread may read ahead: it alone asks for batches that were not read yet, and what others are told does not depend
    on how far it has come.
    """

    def __init__(
        self,
        stream: RowStream,
        *,
        orient: Callable[[TokenTable], TokenisedRows],
        seed: int,
        size: int,
        global_batch: int,
        bucket_window: int,
    ) -> None:
        self.stream, self.orient, self.seed, self.size = stream, orient, seed, size
        self.global_batch, self.bucket_window = global_batch, bucket_window
        self.live: list[Buffer] = []
        self.current: int | None = None  # number of the batch that the run works on; None: nobody reads ahead
        self._next = BEGINNING
        self._expected: str | None = None  # digest of the buffer at _next, where a checkpoint knows it

    def of(self, k: int, position: int) -> Buffer:
        """position: global batches consumed; buffers that end before it are forgotten when the next one is read."""
        while k >= self._next.batch:
            self.live = [buffer for buffer in self.live if buffer.after.batch >= position]
            buffer = self.read(self._next)
            if self._expected is not None and buffer.digest() != self._expected:
                raise DataError(
                    f"{self.stream.source.path}: the rows where the checkpoint was made are not those that are there "
                    "now: resume with the run's own data"
                )
            self.live = [*self.live, buffer]
            self._next, self._expected = buffer.after, None
        found = [buffer for buffer in self.live if buffer.start.batch <= k < buffer.after.batch]
        if not found:
            raise IndexError(f"batch {k} of the stream was passed: it can only be read forwards")
        return found[0]

    @property
    def in_use(self) -> list[Buffer]:
        """The one that the run works on; where nobody reads ahead, all."""
        k = self.current
        return [buffer for buffer in self.live if k is None or buffer.start.batch <= k < buffer.after.batch]

    def read(self, start: Start) -> Buffer:
        """The buffer that begins there. Raises DataError where a whole pass gives no global batch."""
        table, place = self.stream.take(start.place, self.size * self.global_batch)
        rows, report = self.orient(table), self.stream.report
        report.count_rows(rows)
        batches = self._batches(rows, start)
        batch = start.batch + len(batches)
        if place is not None:
            after = Start(batch, start.passes, start.number + 1, place)
            return Buffer(start, table, rows, batches, after)
        if not start.number and not len(batches):
            first = "".join(f". The first {reason}: {row}" for reason, row in report.first_dropped.items())
            raise DataError(
                f"{self.stream.source.path}: a whole pass gives {len(rows)} training rows, fewer than global_batch "
                f"{self.global_batch} (dropped: {dict(report.dropped) or 'none'}; for validation: "
                f"{report.rows_held_out}). Lower global_batch or data.val_fraction, or give more rows{first}"
            )
        report.passes = (report.passes or 0) + 1
        return Buffer(start, table, rows, batches, Start(batch, start.passes + 1, 0, {}))

    def _batches(self, rows: TokenisedRows, start: Start) -> np.ndarray:
        if len(rows) < self.global_batch:
            return np.zeros((0, self.global_batch), dtype=np.int64)
        order = RowOrder(
            seed=self.seed,
            lengths=rows.lengths,
            global_batch=self.global_batch,
            bucket_window=self.bucket_window,
            row_id=rows.row_id,
        )
        return order.epoch(start.batch)  # no two buffers begin at one batch, whichever pass they are of

    def one_pass(self) -> Iterator[Buffer]:
        """Every buffer of a pass; afterwards the next batch is number 0 again."""
        start = BEGINNING
        while not start.passes:
            self.live = [self.read(start)]
            yield self.live[0]
            start = self.live[0].after
        self.live, self._next = [], BEGINNING

    def state(self, position: int) -> dict[str, Any]:
        """Where the buffer of the next batch begins, and the digest of its rows where it has been read."""
        mine = [buffer for buffer in self.live if buffer.start.batch <= position < buffer.after.batch]
        if not mine:
            return {"start": asdict(self._next), "digest": self._expected}
        met = self.current is None or mine[0].start.batch <= self.current
        return {"start": asdict(mine[0].start), "digest": mine[0].digest() if met else None}

    def restore(self, state: dict[str, Any]) -> None:
        self.live, self._next, self._expected = [], Start(**state["start"]), state["digest"]
