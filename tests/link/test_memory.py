"""The index memory: newest entry of a row, age, ranks, resume (DESIGN 9)."""

import torch

from spo.link.memory import FittedSample, IndexMemory, no_own
from spo.types import IndexSample


def rows(ids, t):
    t = torch.tensor(t)
    return IndexSample(t, torch.full_like(t, 0.5), torch.ones_like(t), torch.tensor(ids))


def alone(x):
    return x


def content(memory, step=100):
    sample, seen = memory.newest(step, alone)
    there = sample.weight > 0
    return list(zip(sample.row_id[there].tolist(), sample.t[there].tolist(), seen[there].tolist(), strict=True))


def test_the_newest_entry_of_a_row_counts_sorted_by_id():
    memory = IndexMemory(6, max_age=None)
    memory.add(rows([5, 3], [1.0, 2.0]), step=0)
    memory.add(rows([3, 9], [4.0, 5.0]), step=1)
    assert content(memory) == [(3, 4.0, 1), (5, 1.0, 0), (9, 5.0, 1)]


def test_the_oldest_go_first_and_old_entries_do_not_count():
    memory = IndexMemory(3, max_age=5)
    memory.add(rows([1, 2], [1.0, 2.0]), step=0)
    memory.add(rows([3, 4], [3.0, 4.0]), step=3)
    assert content(memory, step=4) == [(2, 2.0, 0), (3, 3.0, 3), (4, 4.0, 3)]
    assert content(memory, step=7) == [(3, 3.0, 3), (4, 4.0, 3)]


def test_a_row_of_weight_0_replaces_no_entry():
    """It fills a batch up, and may bear the id of any row."""
    memory = IndexMemory(4, max_age=None)
    memory.add(rows([5, 3], [1.0, 2.0]), step=0)
    filled = rows([9, 5], [4.0, 8.0])
    memory.add(IndexSample(filled.t, filled.z, torch.tensor([1.0, 0.0]), filled.row_id), step=1)
    assert content(memory) == [(3, 2.0, 0), (5, 1.0, 0), (9, 4.0, 1)]
    assert FittedSample(memory.newest(1, alone)[0]).own(torch.tensor([5])).t.tolist() == [1.0]


def test_own_entries_are_found_by_id_also_behind_older_ones():
    memory = IndexMemory(8, max_age=None)
    memory.add(rows([5, 3, 5], [1.0, 2.0, 7.0]), step=0)
    memory.add(rows([5], [9.0]), step=1)
    own = FittedSample(memory.newest(1, alone)[0]).own(torch.tensor([3, 5, 8]))
    assert own.t.tolist()[:2] == [2.0, 9.0]
    assert own.weight.tolist() == [1.0, 1.0, 0.0]
    assert no_own(torch.tensor([3])).weight.tolist() == [0.0]


def test_replicates_keep_their_own_rows():
    memory = IndexMemory(4, max_age=None)
    t = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    memory.add(IndexSample(t, t, torch.ones(2, 2), torch.tensor([[7, 6], [6, 7]])), step=0)
    sample, _ = memory.newest(0, alone)
    assert sample.t[:, :2].tolist() == [[2.0, 1.0], [3.0, 4.0]]


def test_a_saved_memory_goes_on_exactly():
    memory = IndexMemory(4, max_age=None)
    for step in range(3):
        memory.add(rows([2 * step, 2 * step + 1], [float(step), float(-step)]), step)
    resumed = IndexMemory(4, max_age=None)
    resumed.load_state_dict(memory.state_dict(alone), rank=0, world=1)
    for m in (memory, resumed):
        m.add(rows([50], [0.5]), 3)
    assert content(memory) == content(resumed)


def test_two_ranks_resume_as_one_and_one_as_two():
    """The newest rows of all ranks, dealt out: together they hold the same."""
    ranks = [IndexMemory(4, max_age=None) for _ in range(2)]
    for r, memory in enumerate(ranks):
        for step in range(2):
            memory.add(rows([10 * step + r, 10 * step + 5 + r], [float(step), r + 0.5]), step)

    def both(name):
        states = [m.state_dict(alone) for m in ranks]
        return torch.cat([s[name] for s in states], -1)

    saved = {name: both(name) for name in ("t", "z", "weight", "row_id", "step")} | {"next": 0}
    one = IndexMemory(8, max_age=None)
    one.load_state_dict(saved, rank=0, world=1)
    together = sorted(content(ranks[0]) + content(ranks[1]))
    assert content(one) == together
    two = [IndexMemory(8, max_age=None) for _ in range(2)]
    for r, memory in enumerate(two):
        memory.load_state_dict(one.state_dict(alone), rank=r, world=2)
    assert sorted(content(two[0]) + content(two[1])) == together
