"""StreamDataModule: rows that need not fit into memory."""

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spo.data.buffers import Buffer, Buffers
from spo.data.collate import Batches, TokenisedRows, collate, every_row_once
from spo.data.load import read_file, tokenise
from spo.data.lookup import RowLookup
from spo.data.position import position_in
from spo.data.report import DataReport, decoded
from spo.data.row_ids import StreamIds
from spo.data.row_stream import RowStream
from spo.data.table import TokenTable, refuse_constant_labels
from spo.data.text import TextDataModule
from spo.errors import ConfigError
from spo.hashing import digest
from spo.types import PreferenceBatch


@dataclass(kw_only=True, eq=False, repr=False)
class StreamDataModule(TextDataModule):
    """Rows of a file, a saved folder or a hub dataset, a buffer at a time, pass after pass.

    The order of rows is a function of the seed and of the place in the stream: the next shuffle_buffer global batches
    are permuted, and sorted by length inside windows of bucket_window batches, as in memory. A checkpoint holds
    where the buffer in use begins and how many batches were consumed; a resumed run reads that buffer again. Every rank
    reads the whole stream and keeps its own share of each batch.

    val_rows: rows for validation, in memory: the first ones whose prompt's hash is below val_fraction; no such prompt
    is ever trained on. labels need a reward_sd that is given, because measuring it takes all rows.
    """

    prefetch: int = 16
    val_rows: int = 512
    shuffle_buffer: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loaded = False
        self._found: tuple[tuple[int, ...], RowLookup] | None = None  # a cache: the buffers, their lookup
        window = max(self.bucket_window, 1)
        self.refuse(
            (
                self.labels is not None and self.labels.sd is None,
                "data=stream draws labels as rows come, and the true link divides rewards by their sd, which only all "
                "rows tell: give truth.reward_sd=SD (`spo data PATH` on a part of them prints one), or truth=none",
            ),
            (self.val_rows < 1, f"data.val_rows is {self.val_rows}: give rows >= 1 (none at all: data.val_fraction=0)"),
            (
                self.shuffle_buffer < 1 or self.shuffle_buffer % window > 0,
                f"data.shuffle_buffer is {self.shuffle_buffer}: give a multiple of data.bucket_window, which is "
                f"{self.bucket_window} global batches",
            ),
        )

    # -- loading -------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads the validation rows and the first buffer. Idempotent. Raises DataError."""
        if self._loaded:
            return
        self.micro.check_row(self.longest_row, "a row of a stream, known only when it comes, of data.max_length tokens")
        self.report = DataReport(labels_from="file" if self.labels is None else "the true link", passes=0)
        self.report.files.append(self.train_path)
        self.renderer = self.build_renderer()
        self._stream = RowStream(
            self.train_path,
            parser=self.parser(StreamIds()),
            renderer=self.renderer,
            rule=self.bad_row,
            report=self.report,
            labels=self.labels,
            held_out=0.0 if self.val_path else self.val_fraction,
            max_seam_mismatch=self.max_seam_mismatch,
        )
        self.val = self._oriented(self._validation())
        self.report.count_rows(self.val, val=True)
        self._buffers = Buffers(
            self._stream,
            orient=self._oriented,
            seed=self.seed,
            size=self.shuffle_buffer,
            global_batch=self.global_batch,
            bucket_window=self.bucket_window,
        )
        self._check(self._buffers.of(0, 0))
        self._loaded = True

    def _validation(self) -> TokenTable:
        if self.val_path is None:
            return self._stream.validation(self.val_rows) if self.val_fraction else TokenTable.build([], [])
        parsed = read_file(self.val_path, self._stream.parser, self.bad_row, self.report)
        found = tokenise(parsed, np.arange(len(parsed)), None, self.renderer, self.bad_row, self.report)
        kept = sorted(found)
        rendered = [found[i] for i in kept]
        self.report.count_rendered(rendered)
        table = TokenTable.build([parsed[i] for i in kept], rendered)
        return table if self.labels is None else table.labelled(self.labels)

    def _oriented(self, table: TokenTable) -> TokenisedRows:
        return table.oriented(np.arange(len(table)), table.swapped(self.seed, hashed=self.hashed))

    def _check(self, first: Buffer) -> None:
        """What the first buffer tells of all."""
        parser = self._stream.parser
        if self.labels is None:
            z, ordered = first.table.z, first.table.ordered
            refuse_constant_labels(self.train_path, z, ordered, parser.columns_read, hashed=self.hashed)
        else:
            first.table.refuse_constant_draws()
        parser.refuse_columns_never_seen(self.train_path)
        self.report.count_columns(parser)
        self.report.reward_sd = self.reward_sd
        self.report.example = decoded(first.rows, 0, self.renderer.tokenizer)

    @property
    def reward_sd(self) -> float | None:
        """By which the true link divides; without a true link nobody asks."""
        return None if self.labels is None else self.labels.sd

    # -- steps ---------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self) -> None:
        """Nobody knows before the end."""
        return None

    @property
    def longest_row(self) -> int:
        return self.max_length

    def epoch(self, step: int) -> float:
        """Whole passes only: what share of one is done, nobody knows."""
        return float(self._buffer(step - 1).start.passes)

    def batch(self, k: int) -> tuple[TokenisedRows, np.ndarray]:
        buffer = self._buffer(k)
        return buffer.rows, buffer.batches[k - buffer.start.batch]

    def begin(self, k: int) -> None:
        self._buffers.current = k

    def _buffer(self, k: int) -> Buffer:
        self.load()
        return self._buffers.of(k, self.position)

    def sweep_dataloader(self) -> Batches:
        raise ConfigError("refit=sweep scores every training row again, and a stream has no end: give refit=memory")

    # -- what others ask about rows ------------------------------------------------------------------------

    def fingerprint(self) -> dict[str, str]:
        """{"renderer"}: which rows there are, only all of them would tell; a table is joined by row id."""
        self.load()
        return {"renderer": self.renderer.fingerprint()}

    @property
    def _lookup(self) -> RowLookup:
        self.load()
        live = self._buffers.in_use
        key = tuple(buffer.start.batch for buffer in live)
        if self._found is None or self._found[0] != key:
            self._found = key, RowLookup(self.val, *(buffer.rows for buffer in live))
        return self._found[1]

    def reward_difference(self, row_id: Tensor) -> Tensor:
        """nan for rows that are in no buffer any more."""
        at, known = self._lookup.locate(row_id)
        raw = np.where(known, self._lookup.reward_difference[at], np.nan)
        return torch.from_numpy(np.asarray(raw / (self.reward_sd or np.nan), dtype=np.float32))

    @property
    def row_count(self) -> None:
        return None

    def prompts_among(self, groups: Collection[int]) -> set[int]:
        """Reads the stream once more, without tokenising, until all are found."""
        self.load()
        wanted = set(groups)
        found = wanted & set(self.val.group.tolist())
        for group in self._stream.prompts():
            if len(found) == len(wanted):
                break
            if group in wanted:
                found.add(group)
        return found

    def all_rows(self) -> Iterator[PreferenceBatch]:
        """Validation, then one pass, a buffer's rows by length; for a table, not in the middle of training."""
        self.load()
        for rows in itertools.chain([self.val], (buffer.rows for buffer in self._buffers.one_pass())):
            for at in every_row_once(rows, self.micro):
                yield collate(rows, at, pad_token_id=self.renderer.pad_token_id)

    # -- checkpoints ---------------------------------------------------------------------------------------

    @cached_property
    def _resume_fingerprint(self) -> dict[str, str]:
        self.load()
        rows = [self.train_path, self.val_path, self.val_fraction, self.columns, self.label_map, self.orientation]
        order = f"seed {self.seed}, global_batch {self.global_batch}, bucket_window {self.bucket_window}"
        validation = digest([self.val.row_id.tolist(), self.val.z.tolist(), self.val.swapped.tolist()])
        return {
            **self.fingerprint(),
            "rows": digest(rows),
            "validation": validation,
            "order": f"{order}, shuffle_buffer {self.shuffle_buffer}",
        }

    def state_dict(self) -> dict[str, Any]:
        fingerprint = self._resume_fingerprint
        return {"position": self.position, "fingerprint": fingerprint, **self._buffers.state(self.position)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises DataError where the checkpoint comes from other options, or (when they are read) from other rows."""
        self.position = position_in(state_dict, self._resume_fingerprint)
        self._buffers.restore(state_dict)
