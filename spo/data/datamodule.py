"""PreferenceDataModule: everything between rows that fit into memory and PreferenceBatches."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spo.data.collate import Batches, TokenisedRows, every_row_once
from spo.data.load import PairTable, first_seam, held_out, orient, refuse_seams, shuffled, tokenise
from spo.data.lookup import RowLookup, rows_digest
from spo.data.order import RowOrder
from spo.data.position import position_in
from spo.data.report import DataReport, decoded
from spo.data.text import TextDataModule
from spo.data.tokens import Rendered, Renderer
from spo.errors import DataError
from spo.hashing import digest


@dataclass(kw_only=True, eq=False, repr=False)
class PreferenceDataModule(TextDataModule):
    """Rows of a file, a saved folder or a hub dataset, all in memory. Adds train to what a TextDataModule has.

    max_rows: usable rows of train_path to take, by a hash of the row id; None: all.
    """

    max_rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loaded = False
        self._longest = 0
        few = self.max_rows is not None and self.max_rows < 1
        self.refuse((few, f"data.max_rows is {self.max_rows}: give rows >= 1, or null for all"))

    # -- loading -------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads, checks, labels, splits, orients and tokenises all rows. Idempotent. Raises DataError."""
        if self._loaded:
            return
        report = DataReport(labels_from="file" if self.labels is None else "the true link")
        renderer = self.build_renderer()
        table = self._read(report)
        table, rendered = self._tokenise(table, renderer, report)
        is_val = table.from_val if self.val_path else held_out(table.group, self.val_fraction)
        report.count_rendered(rendered)
        refuse_seams(report, len(rendered), table.pairs[first_seam(rendered)].origin, self.max_seam_mismatch)
        swapped = orient(table, self.seed, hashed=self.hashed)
        self.train, self.val = (table.tokenised(rendered, swapped, np.flatnonzero(mine)) for mine in (~is_val, is_val))
        if not len(self.train):
            raise DataError(
                f"{self.train_path}: no row is left for training: raise data.max_length, or lower val_fraction"
            )
        self._longest = max(int(rows.lengths.max(initial=0)) for rows in (self.train, self.val))
        self.micro.check_row(self._longest, "the longest row")
        report.count_rows(self.train)
        report.count_rows(self.val, val=True)
        report.count_groups(self.train, self.val)
        report.reward_sd, report.example = self.reward_sd, decoded(self.train, 0, renderer.tokenizer)
        self.renderer, self.report, self._loaded = renderer, report, True

    def _read(self, report: DataReport) -> PairTable:
        parser = self.parser()
        table = PairTable.read(self.train_path, parser, self.bad_row, report)
        files = [(self.train_path, table)]
        if self.val_path:
            files.append((self.val_path, PairTable.read(self.val_path, parser, self.bad_row, report, is_val=True)))
            table = table.joined(files[1][1])
        parser.refuse_columns_never_seen(", ".join(path for path, _ in files))
        if self.labels is None:
            for path, part in files:
                part.refuse_constant_labels(path, parser.columns_read, hashed=self.hashed)
        else:
            table.draw_labels(self.labels)
        self.reward_sd = self._reward_sd(table)
        report.count_columns(parser)
        return table

    def _tokenise(self, table: PairTable, renderer: Renderer, report: DataReport) -> tuple[PairTable, list[Rendered]]:
        """The rows that are kept, in file order."""
        train, val = np.flatnonzero(~table.from_val), np.flatnonzero(table.from_val)
        if self.max_rows is not None:
            train = train[shuffled(table.row_id[train])]
        rendered = tokenise(table, train, self.max_rows, renderer, self.bad_row, report)
        if len(val):
            rendered |= tokenise(table, val, None, renderer, self.bad_row, report)
        kept = sorted(rendered)
        report.rows_beyond_max = report.rows_read - report.dropped.total() - len(kept)
        return table.take(np.array(kept)), [rendered[i] for i in kept]

    def _reward_sd(self, table: PairTable) -> float | None:
        """sqrt(mean((reward 1 - reward 0)^2)) over all rows that have both: about 0, because which response is called 0
        is arbitrary. Where labels are drawn, the sd that they used."""
        if self.labels is not None:
            return self.labels.sd
        known = table.reward_difference[np.isfinite(table.reward_difference)]
        return float(np.sqrt(np.mean(known**2))) if known.any() else None

    # -- what others ask about rows ------------------------------------------------------------------------

    def fingerprint(self) -> dict[str, str]:
        """{"rows", "renderer"}: what log-probabilities of rows depend on; not seed, split or labels."""
        self.load()
        return {"rows": self._rows_digest, "renderer": self.renderer.fingerprint()}

    @cached_property
    def _rows_digest(self) -> str:
        return rows_digest(self._every_row)

    @property
    def _every_row(self) -> TokenisedRows:
        self.load()
        return TokenisedRows.cat(self.train, self.val)

    @cached_property
    def _lookup(self) -> RowLookup:
        return RowLookup(self._every_row)

    def reward_difference(self, row_id: Tensor) -> Tensor:
        raw = self._lookup.reward_difference[self._lookup.find(row_id)]
        return torch.from_numpy(np.asarray(raw / (self.reward_sd or np.nan), dtype=np.float32))

    @property
    def row_count(self) -> int:
        return len(self._every_row)

    def prompts_among(self, groups: Collection[int]) -> set[int]:
        return set(groups) & set(self._every_row.group.tolist())

    def all_rows(self) -> Batches:
        """Every row of train and val once, in micro-batches of like length, for a reference table."""
        rows = self._every_row
        return Batches(rows, every_row_once(rows, self.micro), self.renderer.pad_token_id)

    # -- steps ---------------------------------------------------------------------------------------------

    @cached_property
    def order(self) -> RowOrder:
        self.load()
        return RowOrder(
            seed=self.seed,
            lengths=self.train.lengths,
            global_batch=self.global_batch,
            bucket_window=self.bucket_window,
            row_id=self.train.row_id,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that see every training row once, but for an incomplete last batch."""
        return self.order.batches_per_epoch

    @property
    def longest_row(self) -> int:
        return self._longest

    def epoch(self, step: int) -> float:
        return step / self.steps_per_epoch

    def batch(self, k: int) -> tuple[TokenisedRows, np.ndarray]:
        return self.train, self.order.batch(k)

    def sweep_dataloader(self) -> Batches:
        """Every training row once over the ranks, as in validation: for a refit under the current policy."""
        self.load()
        return self._once(self.train)

    # -- checkpoints ---------------------------------------------------------------------------------------

    @cached_property
    def _resume_fingerprint(self) -> dict[str, str]:
        self.load()
        labels = {name: getattr(self.train, name).tobytes().hex() for name in ("row_id", "z", "weight", "swapped")}
        order = f"seed {self.seed}, global_batch {self.global_batch}, bucket_window {self.bucket_window}"
        return {**self.fingerprint(), "labels": digest(labels), "order": order}

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "fingerprint": self._resume_fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises DataError where the checkpoint comes from other rows, labels, tokens or another order."""
        self.position = position_in(state_dict, self._resume_fingerprint)
