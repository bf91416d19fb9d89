"""The index memory: the rows a link is refitted from. Shapes: R leading replicate axes, B rows, C capacity."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spo.types import IndexSample

_EMPTY = torch.iinfo(torch.int64).max  # row id of a place nothing was written to


class IndexMemory:
    """The newest (t, z, weight) of up to C visited rows, filled as training goes, the oldest out first.

    Plain tensors, not buffers: DDP overwrites buffers with rank 0's at every forward. Every replicate takes the
    same number of rows a step. `max_age`: optimizer steps after which a row's t is too old to be fitted to
    (t drifts as the policy moves); None keeps rows until they are pushed out.
    """

    def __init__(self, size: int, max_age: int | None) -> None:
        self.size = size
        self.max_age = max_age
        self._next = 0
        self._sample: IndexSample | None = None
        self._step: Tensor | None = None

    def add(self, rows: IndexSample, step: int) -> None:
        """Store rows (*R, B) as seen at an optimizer step. One of weight 0 is not there: it replaces no older entry."""
        row_id = torch.where(rows.weight > 0, rows.row_id, _EMPTY)
        rows = IndexSample(rows.t.detach().float(), rows.z.float(), rows.weight.float(), row_id)
        if self._sample is None or self._step is None:
            shape = (*rows.t.shape[:-1], self.size)
            zeros = rows.t.new_zeros(shape)
            empty = rows.row_id.new_full(shape, _EMPTY)
            self._sample = IndexSample(zeros, zeros.clone(), zeros.clone(), empty)
            self._step = torch.full_like(empty, -1)
        batch = rows.t.shape[-1]
        place = torch.arange(self._next, self._next + batch, device=rows.t.device) % self.size
        for name in ("t", "z", "weight", "row_id"):
            getattr(self._sample, name)[..., place] = getattr(rows, name)
        self._step[..., place] = step
        self._next = (self._next + batch) % self.size

    def newest(self, step: int, gather: Callable[[Tensor], Tensor]) -> tuple[IndexSample, Tensor]:
        """The stored rows of all ranks and the steps they were seen at, sorted by row id, (*R, C · ranks).

        Of a row id seen more than once the newest entry keeps its weight; older entries, entries beyond max_age
        and empty places have weight 0. gather: concatenates the last axis over ranks.
        """
        if self._sample is None or self._step is None:
            raise RuntimeError("the index memory is empty: no row has been visited yet")
        entry = {name: gather(getattr(self._sample, name)) for name in ("t", "z", "weight", "row_id")}
        seen = gather(self._step)
        order = seen.argsort(dim=-1, stable=True)
        order = order.gather(-1, entry["row_id"].gather(-1, order).argsort(dim=-1, stable=True))
        entry = {name: value.gather(-1, order) for name, value in entry.items()}
        seen = seen.gather(-1, order)
        row_id = entry["row_id"]
        keep = row_id != torch.nn.functional.pad(row_id[..., 1:], (0, 1), value=_EMPTY)
        if self.max_age is not None:
            keep &= seen >= step - self.max_age
        return IndexSample(entry["t"], entry["z"], entry["weight"] * keep, row_id), seen

    def state_dict(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """All ranks' rows, plain tensors."""
        if self._sample is None or self._step is None:
            return {}
        sample = {name: gather(getattr(self._sample, name)) for name in ("t", "z", "weight", "row_id")}
        return {**sample, "step": gather(self._step), "next": self._next}

    def load_state_dict(self, state: dict[str, Any], rank: int, world: int) -> None:
        """Take this rank's share of what all ranks stored, at whatever world size they were."""
        if not state:
            return
        if state["t"].shape[-1] == self.size * world:  # as many ranks as then: exactly what this rank had
            part = slice(rank * self.size, (rank + 1) * self.size)
            share = {name: state[name][..., part].clone() for name in ("t", "z", "weight", "row_id", "step")}
            self._next = state["next"]
        else:  # the newest rows, dealt out; the oldest place is written next
            order = state["step"].argsort(dim=-1, stable=True, descending=True)[..., rank::world][..., : self.size]
            share = {name: state[name].gather(-1, order) for name in ("t", "z", "weight", "row_id", "step")}
            free = self.size - order.shape[-1]
            pad = {"t": 0.0, "z": 0.0, "weight": 0.0, "row_id": _EMPTY, "step": -1}
            # oldest last in `order`, so flipped the newest are at the end and writing starts with the oldest or free
            share = {n: torch.nn.functional.pad(v.flip(-1), (free, 0), value=pad[n]) for n, v in share.items()}
            self._next = 0
        self._step = share.pop("step")
        self._sample = IndexSample(**share)


class FittedSample:
    """The sample a link was last fitted to, looked up by row id: (*R, N), sorted by row id."""

    def __init__(self, sample: IndexSample) -> None:
        self.sample = sample

    def own(self, row_id: Tensor) -> IndexSample:
        """Each row's entry (*R, B); weight 0 where the row was not in the sample."""
        ids = self.sample.row_id
        # older entries of a row stand before its newest one: take the last of equals
        place = (torch.searchsorted(ids, row_id.contiguous(), right=True) - 1).clamp_min(0)
        found = ids.gather(-1, place) == row_id
        entry = {name: getattr(self.sample, name).gather(-1, place) for name in ("t", "z", "weight")}
        return IndexSample(entry["t"], entry["z"], entry["weight"] * found, row_id)


def no_own(row_id: Tensor) -> IndexSample:
    """The own entries of rows before any fit: none of them is in a sample."""
    zeros = torch.zeros(row_id.shape, device=row_id.device)
    return IndexSample(zeros, zeros, zeros, row_id)
