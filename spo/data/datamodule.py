"""PreferenceDataModule: everything between rows that fit into memory and PreferenceBatches."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spo.cache import cache_dir
from spo.data.collate import Batches, TokenisedRows, every_row_once
from spo.data.load import Corpus, held_out, read_corpus, refuse_seams
from spo.data.lookup import RowLookup
from spo.data.order import RowOrder
from spo.data.position import position_in
from spo.data.report import DataReport, decoded
from spo.data.sources import open_source
from spo.data.table import TokenTable
from spo.data.text import TextDataModule
from spo.data.token_cache import TokenCache
from spo.data.tokens import Renderer
from spo.errors import DataError
from spo.hashing import digest


@dataclass(kw_only=True, eq=False, repr=False)
class PreferenceDataModule(TextDataModule):
    """Rows of a file, a saved folder or a hub dataset, all in memory. Adds train to what a TextDataModule has.

    max_rows: usable rows of train_path to take, by a hash of the row id; None: all. cache: the folder in which rows are
    kept as tokens, for whatever run needs the same; "auto": `tokens` in the cache of spo; None: nothing is kept.
    """

    max_rows: int | None = None
    cache: str | None = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._loaded = False
        self._longest = 0
        few = self.max_rows is not None and self.max_rows < 1
        self.refuse((few, f"data.max_rows is {self.max_rows}: give rows >= 1, or null for all"))

    # -- loading -------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Reads, checks and tokenises all rows (or finds that done); labels, splits, orients. Idempotent; DataError."""
        if self._loaded:
            return
        renderer = self.build_renderer()
        corpus = self._corpus(renderer)
        table = corpus.table
        report = DataReport.counted(corpus.counts, labels_from="file" if self.labels is None else "the true link")
        kept = np.flatnonzero(table.kept)
        refuse_seams(report, len(kept), corpus.seam_origin, self.max_seam_mismatch)
        if self.labels is not None:
            table = table.labelled(self.labels)
            table.refuse_constant_draws()
        self.reward_sd = self._reward_sd(table)
        is_val = table.from_val[kept] if self.val_path else held_out(table.group[kept], self.val_fraction)
        swapped = table.swapped(self.seed, hashed=self.hashed)
        self.train, self.val = (table.oriented(kept[mine], swapped) for mine in (~is_val, is_val))
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
        self.renderer, self.report, self._rows_digest, self._loaded = renderer, report, corpus.digest, True

    def _corpus(self, renderer: Renderer) -> Corpus:
        """What the files hold; nothing here depends on the seed, on the truth or on the split."""
        paths = [path for path in (self.train_path, self.val_path) if path is not None]

        def read() -> Corpus:
            return read_corpus(paths, self.parser(), renderer, self.bad_row, max_rows=self.max_rows, hashed=self.hashed)

        if self.cache is None:
            return read()
        folder = cache_dir() / "tokens" if self.cache == "auto" else Path(self.cache).expanduser()
        return TokenCache(folder).get(paths, self._cache_key(paths, renderer), read)

    def _cache_key(self, paths: list[str], renderer: Renderer) -> dict[str, Any]:
        """All that `read` above depends on, by the names that options have."""
        own = ("columns", "orientation", "on_bad_row", "max_rows")
        return {
            **{f"rows of {path}": open_source(path).digest() for path in paths},
            **{f"data.{name}": getattr(self, name) for name in own},
            "data.label_map": self.label_map and {str(label): z for label, z in self.label_map.items()},
            "labels": "of the file" if self.labels is None else "of the true link",
            **renderer.parts(),
        }

    def _reward_sd(self, table: TokenTable) -> float | None:
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
