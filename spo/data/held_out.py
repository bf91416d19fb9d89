"""Which rows of a tabular data set a run trains on, and on which it is validated: runs of one data set are its copies.

Shapes: C copies, n rows, v rows of a validation. A row of weight 0 is not there.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.hashing import uniform


class Split(NamedTuple):
    """Training visits the first rows of the data set, as many as `train` has columns; the last copy is the one that is
    kept and evaluated."""

    train: Tensor  # float32 (C, n or fewer), weight of each row
    held_out: Tensor  # int64 (C, v), rows
    held_out_weight: Tensor  # float32 (C, v)


class HeldOut(ABC):
    """One option of the group `held_out`."""

    copies: int  # C

    @abstractmethod
    def split(self, row_id: np.ndarray) -> Split:
        """The split of one data set, a function of its row ids (n,). ConfigError where there are too few rows."""


class LastShare(HeldOut):
    """The last rows are held out, one run a data set.

    Cost: none, but the rows are lost to training.
    """

    copies = 1

    def __init__(self, *, share: float) -> None:
        """share: of the rows, in (0, 1)."""
        if not 0 < share < 1:
            raise ConfigError(f"data.held_out.share is {share}: give a share between 0 and 1")
        self.share = share

    def split(self, row_id: np.ndarray) -> Split:
        n = len(row_id)
        count = round(n * self.share)
        if not 2 <= count < n:
            raise ConfigError(
                f"data.held_out.share is {self.share}: that is {count} of {n} rows; at least 2 must be held out"
            )
        return Split(torch.ones(1, n - count), torch.arange(n - count, n)[None], torch.ones(1, count))


class Folds(HeldOut):
    """Cross-validation: `count` runs that each leave one fold out, and one on all rows, all trained at once.

    A fold left out has weight 0 in the batches of its run; all runs of a data set share the row order and the steps, so
    that the epoch that the folds choose is an epoch of the run on all rows (MATH C11), and each starts from weights of
    its own, so that their indices may be averaged (ensemble=mean_index). Folds
    are equal parts, to one row, in the order of a hash of the row ids: shifts of one seed have the same ones.
    Cost: count + 1 times that of one run.
    """

    def __init__(self, *, count: int) -> None:
        """count: folds."""
        if count < 2:
            raise ConfigError(f"data.held_out.count is {count}: give at least 2 folds")
        self.count = count
        self.copies = count + 1

    def split(self, row_id: np.ndarray) -> Split:
        n, size = len(row_id), -(-len(row_id) // self.count)
        if n < 2 * self.count:
            raise ConfigError(f"data.held_out.count is {self.count}: {n} rows do not give each fold 2")
        order = torch.from_numpy(np.argsort(uniform(row_id, 0, "folds"), kind="stable"))
        train = torch.ones(self.copies, n)
        held_out = torch.zeros(self.copies, size, dtype=torch.int64)
        weight = torch.zeros(self.copies, size)
        for fold, rows in enumerate(torch.tensor_split(order, self.count)):
            train[fold, rows] = 0.0
            held_out[fold, : len(rows)] = rows
            weight[fold, : len(rows)] = 1.0
        return Split(train, held_out, weight)


class Nothing(HeldOut):
    """Every row is trained on: nothing can be selected by.

    Cost: none.
    """

    copies = 1

    def split(self, row_id: np.ndarray) -> Split:
        n = len(row_id)
        return Split(torch.ones(1, n), torch.empty(1, 0, dtype=torch.int64), torch.empty(1, 0))
