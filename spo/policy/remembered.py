"""Log-probabilities that a reference has given once: it gives the same for ever."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spo.types import PreferenceBatch, TokenPairs

_RECENT = 1 << 14  # rows that wait in a dictionary until they are sorted in among the others


class RememberedRows:
    """row id -> log pi_ref of both responses, float32, as the rows of this run are oriented; 16 bytes a row.

    Nothing is forgotten: of a stream of 10^8 different rows that is 1.6 GB. Row ids must be unique in the run (a stream
    takes them to be). What was computed first stays, and it is part of a checkpoint: another micro-batch would give it
    other last digits, and a resumed run other losses.
    """

    def __init__(self) -> None:
        self._row_id = np.empty(0, np.int64)  # sorted
        self._log_prob = np.empty((0, 2), np.float32)
        self._recent: dict[int, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._row_id) + len(self._recent)

    def of(
        self, batch: PreferenceBatch, compute: Callable[[PreferenceBatch], Tensor], gather: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """(B, 2) on the batch's device; only rows that are not known yet are computed.

        gather: (B,) of every rank, concatenated in the order of ranks. Every rank comes to know what any computes, so
        that all know the same; and since a sharded model runs on all ranks or on none, each computes as many rows as
        the one that knows fewest of its own.
        """
        ids = batch.row_id
        own = ids.cpu().numpy()
        every = gather(ids).reshape(-1, len(own)).cpu().numpy()  # (ranks, B)
        if most := int((~self.lookup(every)[0]).sum(1).max()):
            unknown_first = np.argsort(self.lookup(own)[0], kind="stable")
            at = torch.from_numpy(unknown_first[:most]).to(ids.device)
            fresh = compute(_rows(batch, at))
            self.add(gather(ids[at]), torch.stack([gather(side) for side in fresh.unbind(1)], 1))
        return torch.from_numpy(self.lookup(own)[1]).to(ids.device)

    def lookup(self, row_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 (...) -> (known? bool (...), log-probabilities float32 (..., 2), 0 where not)."""
        log_prob = np.zeros((*row_id.shape, 2), np.float32)
        known = np.zeros(row_id.shape, bool)
        if len(self._row_id):
            at = np.searchsorted(self._row_id, row_id).clip(max=len(self._row_id) - 1)
            known = self._row_id[at] == row_id
            log_prob[known] = self._log_prob[at[known]]
        for place in zip(*np.nonzero(~known), strict=True):
            if (found := self._recent.get(int(row_id[place]))) is not None:
                known[place], log_prob[place] = True, found
        return known, log_prob

    def add(self, row_id: Tensor, log_prob: Tensor) -> None:
        """(N,), (N, 2); rows that are known keep what they have."""
        ids, values = row_id.cpu().numpy(), log_prob.detach().cpu().numpy()
        for i in np.flatnonzero(~self.lookup(ids)[0]):
            self._recent.setdefault(int(ids[i]), (float(values[i, 0]), float(values[i, 1])))
        if len(self._recent) >= _RECENT:
            self._sort_in()

    def _sort_in(self) -> None:
        row_id = np.concatenate([self._row_id, np.fromiter(self._recent, np.int64, len(self._recent))])
        recent = np.array(list(self._recent.values()), np.float32).reshape(-1, 2)
        order = np.argsort(row_id, kind="stable")
        self._row_id, self._log_prob = row_id[order], np.concatenate([self._log_prob, recent])[order]
        self._recent = {}

    def state_dict(self) -> dict[str, Tensor]:
        self._sort_in()
        return {"row_id": torch.from_numpy(self._row_id), "log_prob": torch.from_numpy(self._log_prob)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._row_id, self._log_prob, self._recent = state["row_id"].cpu().numpy(), state["log_prob"].cpu().numpy(), {}


def _rows(batch: PreferenceBatch, at: Tensor) -> PreferenceBatch:
    """Those rows of the batch; itself where it is all of them, in their order."""
    if len(at) == len(batch) and bool((at == torch.arange(len(at), device=at.device)).all()):
        return batch
    pair = batch.pair
    assert isinstance(pair, TokenPairs)
    pair = TokenPairs(pair.input_ids[at], pair.attention_mask[at], pair.response_mask[at])
    return replace(batch, pair=pair, z=batch.z[at], weight=batch.weight[at], row_id=batch.row_id[at])
