"""Tokenised rows in flat arrays, and batches of them.

n rows, B rows of a batch, T tokens of its longest side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
import torch

from spo.data.micro import MicroBatch
from spo.types import PreferenceBatch, TokenPairs

FILLER = -1  # a position that only fills a batch up


@dataclass(frozen=True)
class TokenisedRows:
    """Rows after orientation: three stretches of ids a row, which are prompt, response 0 and response 1."""

    ids: np.ndarray  # int32, all ids; memory-mapped where a cache holds them
    starts: np.ndarray  # int64 (n, 3), where each stretch begins in `ids`
    ends: np.ndarray  # int64 (n, 3), where it ends
    z: np.ndarray  # float32 (n,), P(response 1 preferred)
    weight: np.ndarray  # float32 (n,), > 0
    row_id: np.ndarray  # int64 (n,)
    group: np.ndarray  # int64 (n,), a hash of the prompt
    reward_difference: np.ndarray  # float64 (n,), reward 1 - reward 0, nan where unknown
    swapped: np.ndarray  # bool (n,), True where response 1 is the file's response 0

    @classmethod
    def cat(cls, first: Self, second: Self) -> Self:
        """The rows of both, which are of one table: its ids are not copied."""
        if first.ids is not second.ids:
            raise ValueError("rows of two tables do not share their ids")
        rest = (f.name for f in fields(cls) if f.name != "ids")
        return cls(first.ids, *(np.concatenate([getattr(first, name), getattr(second, name)]) for name in rest))

    def __len__(self) -> int:
        return len(self.z)

    @cached_property
    def response_lengths(self) -> np.ndarray:
        """int64 (n, 2): tokens of each response, the end of turn included."""
        lengths: np.ndarray = self.ends[:, 1:] - self.starts[:, 1:]
        return lengths

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of the longer side."""
        total: np.ndarray = self.ends[:, 0] - self.starts[:, 0] + self.response_lengths.max(axis=1, initial=0)
        return total

    def tokens(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(prompt, response 0, response 1) of one row, int32."""
        prompt, first, second = zip(self.starts[position], self.ends[position], strict=True)
        return self.ids[slice(*prompt)], self.ids[slice(*first)], self.ids[slice(*second)]


def collate(rows: TokenisedRows, positions: np.ndarray, *, pad_token_id: int) -> PreferenceBatch:
    """The rows at `positions` as one batch, right-padded. With prompt p, responses a and b, padding .:

        positions [0, 1]         input_ids (B, 2, T)       attention_mask    response_mask
        row 0: ppp | aa | b      [[p p p a a]              [[1 1 1 1 1]      [[0 0 0 1 1]
                                  [p p p b .]]              [1 1 1 1 0]]      [0 0 0 1 0]]
        row 1: p | a | bbb       [[p a . . .]              [[1 1 0 0 0]      [[0 1 0 0 0]
                                  [p b b b .]]              [1 1 1 1 0]]      [0 1 1 1 0]]

    Masks, not ids, say what padding is: where the pad token is the EOS token, a response's EOS stays inside.
    A position of FILLER gives row 0 again with weight 0, so that ranks have batches of equal shape.
    """
    filler = positions == FILLER
    at = np.where(filler, 0, positions)
    shape = (len(at), 2, int(rows.lengths[at].max()))
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    attention = np.zeros(shape, dtype=np.int64)
    response = np.zeros(shape, dtype=bool)
    for i, position in enumerate(at):
        prompt, *sides = rows.tokens(position)
        start = len(prompt)
        for j, side in enumerate(sides):
            end = start + len(side)
            input_ids[i, j, :start], input_ids[i, j, start:end] = prompt, side
            attention[i, j, :end] = 1
            response[i, j, start:end] = True
    return PreferenceBatch(
        pair=TokenPairs(torch.from_numpy(input_ids), torch.from_numpy(attention), torch.from_numpy(response)),
        z=torch.from_numpy(rows.z[at]),
        weight=torch.from_numpy(np.where(filler, np.float32(0), rows.weight[at])),
        row_id=torch.from_numpy(rows.row_id[at]),
    )


class Batches(Sequence[PreferenceBatch]):
    """Batches made when asked for: `plan` holds the row positions of each."""

    def __init__(self, rows: TokenisedRows, plan: Sequence[np.ndarray], pad_token_id: int) -> None:
        self.rows, self.plan, self.pad_token_id = rows, plan, pad_token_id

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> PreferenceBatch:  # type: ignore[override]  # no slices
        return collate(self.rows, self.plan[index], pad_token_id=self.pad_token_id)

    def __iter__(self) -> Iterator[PreferenceBatch]:
        return (self[i] for i in range(len(self)))


def every_row_once(rows: TokenisedRows, micro: MicroBatch, rank: int = 0, world: int = 1) -> list[np.ndarray]:
    """Plan of batches in which each row is seen once over all ranks: rank r takes rows r, r + W, ... by length.

    Ranks that would have fewer rows are filled up, so that all have batches of equal number and size.
    """
    if not len(rows):
        return []
    lengths = rows.lengths
    order = np.lexsort((rows.row_id, lengths))
    columns = np.concatenate([order, np.full(-len(order) % world, FILLER)]).reshape(-1, world)
    longest = np.where(columns == FILLER, 0, lengths[columns]).max(1)  # fillers stand beside the longest row of all
    return micro.split(columns, longest, rank)


def share(rows: TokenisedRows, positions: np.ndarray, micro: MicroBatch, rank: int, world: int) -> list[np.ndarray]:
    """Rank's micro-batches of a global batch, whose rows lie at `positions` by length: rows r, r + W, ... of it."""
    columns = positions.reshape(-1, world)
    return micro.split(columns, rows.lengths[columns].max(1), rank)
