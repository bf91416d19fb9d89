"""Rows that `spo label` writes: two responses of the reference to a prompt, and their true rewards.

FOLDER/00000.parquet, 00001.parquet, ...   each appears whole or not at all
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spo.errors import DataError
from spo.simulate.rewards import Reward, score
from spo.types import as_messages

Row = dict[str, Any]

_RETOKENISED = b"retokenised"  # of a shard's own metadata
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_OF_EACH = {"response": pa.string(), "ended": pa.bool_(), "reward": pa.float64()}  # of response 0, and of response 1


class RowShards:
    """The shards of a job that may be killed: what is there stays, and is not made again.

    messages: some prompt is a list of messages; then all are written as one, since a column has one type (a single
    message of a user is the same prompt as its text: spo.data.rows).
    """

    def __init__(self, folder: Path, *, messages: bool) -> None:
        self.folder, self.messages = folder, messages
        both = [(f"{name}_{j}", kind) for name, kind in _OF_EACH.items() for j in (0, 1)]
        self.schema = pa.schema([("id", pa.string()), ("prompt", _MESSAGES if messages else pa.string()), *both])
        folder.mkdir(parents=True, exist_ok=True)
        self.done = {int(path.stem) for path in folder.glob("*.parquet") if path.stem.isdigit()}

    def write(self, k: int, rows: Sequence[Row], retokenised: int | None) -> None:
        """Shard k, on the disk before it has its name: whole, also where the machine stops. retokenised: how many of
        its responses a training reads as other tokens than were sampled, None where that is not known."""
        schema = self.schema if retokenised is None else self.schema.with_metadata({_RETOKENISED: str(retokenised)})
        if self.messages:
            rows = [row | {"prompt": as_messages(row["prompt"])} for row in rows]
        part = self.folder / f".{k:05d}.part"
        try:
            with part.open("wb") as file:
                pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        part.replace(self._path(k))
        _flush_names(self.folder)
        self.done.add(k)

    def rescore(self, reward: Reward) -> None:
        """The responses that are there by another reward, a shard at a time."""
        for k in sorted(self.done):
            rows, retokenised = pq.read_table(self._path(k)).to_pylist(), self._retokenised(k)[0]
            for j in (0, 1):
                scores = score(reward, [row["prompt"] for row in rows], [row[f"response_{j}"] for row in rows])
                for row, value in zip(rows, scores, strict=True):
                    row[f"reward_{j}"] = value
            self.write(k, rows, retokenised)

    def retokenised_share(self) -> float | None:
        """Of the responses of the shards that know it; None where none does."""
        known = [(count, rows) for count, rows in map(self._retokenised, self.done) if count is not None]
        return sum(count for count, _ in known) / sum(2 * rows for _, rows in known) if known else None

    def _retokenised(self, k: int) -> tuple[int | None, int]:
        """The count of a shard, and its rows."""
        metadata = pq.read_metadata(self._path(k))
        count = (metadata.metadata or {}).get(_RETOKENISED)
        return None if count is None else int(count), metadata.num_rows

    def rewards(self) -> Iterator[np.ndarray]:
        """(n, 2) float64 of each shard."""
        for k in sorted(self.done):
            try:
                table = pq.read_table(self._path(k), columns=["reward_0", "reward_1"])
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{self._path(k)} is not readable ({error}): remove it, and `spo execute` of the run makes it again"
                ) from error
            yield np.stack([column.to_numpy() for column in table.columns], axis=-1)

    def _path(self, k: int) -> Path:
        return self.folder / f"{k:05d}.parquet"


def _flush_names(folder: Path) -> None:
    """A renamed file is safe once its folder is."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def reward_summary(shards: RowShards, bins: int = 20) -> Row:
    """Mean and sd of the reward over responses, sd of the difference (about 0) over rows, ties, and a histogram; in two
    passes over the shards, of which one at a time is in memory."""
    rows = 0
    mean = squares = difference_squares = 0.0  # squares: sum of (reward - mean)^2
    equal, least, most = 0, np.inf, -np.inf
    for rewards in shards.rewards():
        n, before = rewards.size, 2 * rows
        gap = float(rewards.mean()) - mean
        squares += float(((rewards - rewards.mean()) ** 2).sum()) + gap**2 * n * before / (n + before)
        mean += gap * n / (n + before)
        difference = rewards[:, 1] - rewards[:, 0]
        difference_squares += float((difference**2).sum())
        equal += int((difference == 0).sum())
        least, most = min(least, float(rewards.min())), max(most, float(rewards.max()))
        rows += len(rewards)
    edges = np.histogram_bin_edges([least, most], bins)
    counts = sum(np.histogram(rewards, edges)[0] for rewards in shards.rewards())
    return {
        "n_rows": rows,
        "mean": mean,
        "sd": float(np.sqrt(squares / (2 * rows))),
        "difference_sd": float(np.sqrt(difference_squares / rows)),
        "equal_share": equal / rows,
        "histogram": {"edges": edges.tolist(), "counts": np.asarray(counts).tolist()},
    }
