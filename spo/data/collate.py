"""Tokenised rows in flat arrays, and batches of them.

n rows, B rows of a batch, T tokens of its longest side.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch

from spo.data.micro import MicroBatch
from spo.data.tokens import Rendered
from spo.types import PreferenceBatch, TokenPairs

FILLER = -1  # a position that only fills a batch up


@dataclass(frozen=True)
class TokenisedRows:
    """Rows after orientation. Ids lie end to end, three stretches a row: prompt, response 0, response 1."""

    ids: np.ndarray  # int32, all ids
    ends: np.ndarray  # int64 (n, 3), where each stretch ends in `ids`; the first begins at starts
    starts: np.ndarray  # int64 (n,)
    z: np.ndarray  # float32 (n,), P(response 1 preferred)
    weight: np.ndarray  # float32 (n,), > 0
    row_id: np.ndarray  # int64 (n,)
    group: np.ndarray  # int64 (n,), a hash of the prompt
    reward_difference: np.ndarray  # float64 (n,), reward 1 - reward 0, nan where unknown
    swapped: np.ndarray  # bool (n,), True where response 1 is the file's response 0

    @classmethod
    def build(
        cls,
        rendered: Sequence[Rendered],
        *,
        z: np.ndarray,
        weight: np.ndarray,
        row_id: np.ndarray,
        group: np.ndarray,
        reward_difference: np.ndarray,
        swapped: np.ndarray,
    ) -> Self:
        """rendered, z and reward_difference in file order; swapped rows are turned round here."""
        flat, ends = array("i"), array("q")
        for row, swap in zip(rendered, swapped, strict=True):
            for stretch in (row.prompt, *(reversed(row.responses) if swap else row.responses)):
                flat.extend(stretch)
                ends.append(len(flat))
        ends_n3 = np.array(ends, dtype=np.int64).reshape(-1, 3)
        return cls(
            ids=np.array(flat, dtype=np.int32),
            ends=ends_n3,
            starts=np.concatenate([np.zeros(min(1, len(ends_n3)), dtype=np.int64), ends_n3[:-1, 2]]),
            z=np.where(swapped, 1 - z, z).astype(np.float32),
            weight=weight.astype(np.float32),
            row_id=row_id.astype(np.int64),
            group=group.astype(np.int64),
            reward_difference=np.where(swapped, -reward_difference, reward_difference),
            swapped=swapped.astype(bool),
        )

    @classmethod
    def cat(cls, first: Self, second: Self) -> Self:
        """The rows of both; the ids are copied."""
        joined = {f.name: np.concatenate([getattr(first, f.name), getattr(second, f.name)]) for f in fields(cls)}
        for name in ("starts", "ends"):
            joined[name][len(first) :] += len(first.ids)
        return cls(**joined)

    def __len__(self) -> int:
        return len(self.z)

    @property
    def response_lengths(self) -> np.ndarray:
        """int64 (n, 2): tokens of each response, the end of turn included."""
        return np.diff(self.ends, axis=1)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of the longer side."""
        return self.lengths_at(np.arange(len(self)))

    def lengths_at(self, positions: np.ndarray) -> np.ndarray:
        """The same of some rows, in the shape of `positions`."""
        ends = self.ends[positions]
        total: np.ndarray = ends[..., 0] - self.starts[positions] + np.diff(ends, axis=-1).max(axis=-1, initial=0)
        return total

    def tokens(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(prompt, response 0, response 1) of one row, int32."""
        a, (b, c, d) = self.starts[position], self.ends[position]
        return self.ids[a:b], self.ids[b:c], self.ids[c:d]


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
    shape = (len(at), 2, int(rows.lengths_at(at).max()))
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
    return micro.split(columns, rows.lengths_at(columns).max(1), rank)
