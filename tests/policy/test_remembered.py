"""A reference asked once for each row: what it gave is found again, whatever batch the row comes in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spo.policy import remembered
from spo.policy.reference import AdapterOff
from spo.policy.remembered import RememberedRows
from spo.types import PreferenceBatch, TokenPairs
from tests.tiny import Tiny, write_pairs


def rows(*ids: int) -> PreferenceBatch:
    """Row i's tokens are all i, so that what is computed says of which row it is."""
    row_id = torch.tensor(ids)
    tokens = row_id[:, None, None].expand(-1, 2, 3)
    pair = TokenPairs(tokens, torch.ones_like(tokens), torch.ones_like(tokens, dtype=torch.bool))
    return PreferenceBatch(pair, torch.zeros(len(ids)), torch.ones(len(ids)), row_id)


class Counting:
    """log pi_ref(y_j) = -i - j / 4 of row i."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, batch: PreferenceBatch) -> Tensor:
        assert isinstance(batch.pair, TokenPairs)
        self.seen.append(batch.row_id.tolist())
        own = -batch.pair.input_ids[:, 0, 0].float()
        return torch.stack([own, own - 0.25], 1)


def alone(values: Tensor) -> Tensor:
    return values


def test_only_unknown_rows_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_RECENT", 4)  # so that rows are sorted in on the way
    store, compute = RememberedRows(), Counting()
    for ids in ([9, 3], [3, 5, 9, 2], [5, 2], [8, 8], [9, 8, 1]):
        want = torch.tensor([[-i, -i - 0.25] for i in map(float, ids)])
        assert torch.equal(store.of(rows(*ids), compute, alone), want)
    assert compute.seen == [[9, 3], [5, 2], [8, 8], [1]]
    again = RememberedRows()
    again.load_state_dict(store.state_dict())
    assert len(again) == len(store) == 6
    assert torch.equal(again.of(rows(2, 9), compute, alone), torch.tensor([[-2, -2.25], [-9, -9.25]]))
    assert len(compute.seen) == 4
    again.add(torch.tensor([2]), torch.tensor([[7.0, 7.0]]))
    assert again.lookup(np.array([2]))[1].tolist() == [[-2, -2.25]], "the first value stays"


def test_ranks_compute_equally_many_rows_and_know_the_same() -> None:
    """Two ranks in step, the gathers played by hand: rank 1 knows one of its rows, rank 0 none."""
    stores, computes = [RememberedRows() for _ in range(2)], [Counting() for _ in range(2)]
    for store in stores:
        store.add(torch.tensor([4]), torch.tensor([[-4.0, -4.25]]))
    batches = [rows(1, 2), rows(4, 3)]
    both = torch.tensor([-1.0, -2.0, -3.0, -4.0])  # as each rank computes its rows: the unknown ones first
    for r in range(2):
        answers = iter([torch.tensor([1, 2, 4, 3]), torch.tensor([1, 2, 3, 4]), both, both - 0.25])
        got = stores[r].of(batches[r], computes[r], lambda _, answers=answers: next(answers))  # type: ignore[misc]
        assert got[:, 0].tolist() == [-i for i in batches[r].row_id.tolist()]
    assert [c.seen for c in computes] == [[[1, 2]], [[3, 4]]]
    states = [store.state_dict() for store in stores]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for r, ids in enumerate(([3, 4], [2, 1])):  # rows of the other rank are known, too
        stores[r].of(rows(*ids), computes[r], lambda _: torch.tensor([3, 4, 2, 1]))
    assert [len(c.seen) for c in computes] == [1, 1]


@pytest.fixture
def tiny(tiny_llama_dir: Path, tmp_path: Path) -> Tiny:
    return Tiny(tiny_llama_dir, write_pairs(tmp_path / "pairs.jsonl"), tmp_path)


class Watched(AdapterOff):
    """Counts the rows that it is asked about."""

    def __init__(self, count: Callable[[list[int]], None]) -> None:
        self.count = count

    def log_prob(self, batch: PreferenceBatch, policy: object) -> Tensor:
        self.count(batch.row_id.tolist())
        return super().log_prob(batch, policy)  # type: ignore[arg-type]


def test_a_training_asks_once_for_each_row(tiny: Tiny) -> None:
    """More than a pass over the training rows, three validations and refits that sweep over all of them."""
    asked: list[int] = []
    plan = {"source": "sweep", "every": 4, "warm_start_steps": 2}
    trained = tiny.go(steps=8, refit=plan, reference=Watched(asked.extend))
    every = {*trained.data.train.row_id.tolist(), *trained.data.val.row_id.tolist()}
    assert sorted(asked) == sorted(every)
    online = tiny.go("online", steps=8, refit=plan, reference=Forgetful())
    for name in ("train/loss", "val/auc"):
        ours, theirs = (tiny.run(run).series(name) for run in ("run", "online"))
        assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], abs=1e-4)
    assert online.module.reference.remembered is None


class Forgetful(AdapterOff):
    def prepare(self, policy: object, data: object) -> None:
        super().prepare(policy, data)  # type: ignore[arg-type]
        self.remembered = None
