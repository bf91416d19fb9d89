"""ActionDataModule: order, batches, what it says and refuses (NUMERICS 35)."""

import pytest
import torch

from spo.data.held_out import LastShare
from spo.errors import ConfigError, DataError
from tests.small import data, labels, teachers


def test_row_order_of_a_replicate_does_not_depend_on_the_others():
    """Every batch of three data epochs, bit for bit; replicates differ from one another (NUMERICS 35)."""
    many, alone = data([4, 7, 9]), data([7])
    for k in range(3 * many.steps_per_epoch):
        (a,), (b,) = many.step(k), alone.step(k)
        for ours, theirs in ((a.row_id, b.row_id), (a.z, b.z), (a.pair.context, b.pair.context)):
            assert torch.equal(ours[1], theirs[0])
        assert not torch.equal(a.row_id[0] % 2**32, a.row_id[1] % 2**32)


def test_an_epoch_visits_each_training_row_once_and_no_held_out_one():
    """162 rows are five batches of 32 and one with 2; what fills that up has weight 0."""
    module = data([0, 1], rows=203)
    held_out = torch.cat([b.row_id for b in module.val_dataloader()], -1)
    assert held_out.shape == (2, 41)
    for epoch in range(2):
        steps = range(epoch * module.steps_per_epoch, (epoch + 1) * module.steps_per_epoch)
        batches = [b for k in steps for b in module.step(k)]
        assert [int(b.weight.sum()) for b in batches] == 5 * [64] + [4]
        seen, weight = torch.cat([b.row_id for b in batches], -1), torch.cat([b.weight for b in batches], -1)
        for replicate in range(2):
            visited = seen[replicate][weight[replicate] > 0]
            assert len(visited) == len(visited.unique()) == 162
            assert not set(visited.tolist()) & set(held_out[replicate].tolist())
    swept = torch.cat([b.row_id for b in module.sweep_dataloader()], -1)
    assert swept.shape == (2, 162)


def test_micro_batches_are_the_global_batch_in_parts():
    whole, parts = data([0, 1]).step(3), data([0, 1], micro_batch=8).step(3)
    assert [len(b) for b in parts] == [8] * 4
    assert torch.equal(torch.cat([b.row_id for b in parts], -1), whole[0].row_id)


def test_another_seed_of_the_run_changes_the_order_only():
    a, b = data([0]), data([0], seed=1)
    assert torch.equal(a.rows.z, b.rows.z)
    assert not torch.equal(a.step(0)[0].row_id, b.step(0)[0].row_id)


def test_rows_are_found_by_id():
    module = data([0, 5])
    (batch,) = module.step(0)
    u = module.reward_difference(batch.row_id)
    p = labels().link(u)
    assert u.shape == batch.z.shape
    assert float(((batch.z > 0.5) == (p > 0.5)).float().mean()) > 0.6
    with pytest.raises(DataError, match="row id 12345"):
        module.reward_difference(torch.tensor([12345]))


def test_the_report_says_what_is_there():
    report = data([0, 1]).report
    assert (report.replicates, report.rows_train, report.rows_val, report.actions) == (2, 160, 40, 5)
    assert "2, each with 160 rows" in report.lines()[0]
    assert report.to_dict()["features"] == 6


def test_a_checkpoint_of_other_rows_is_refused():
    state = data([0, 1]).state_dict()
    data([0, 1]).load_state_dict(state)
    with pytest.raises(DataError, match="other data"):
        data([0, 2]).load_state_dict(state)
    with pytest.raises(DataError, match=r"seed 0.*then"):
        data([0, 1], seed=3).load_state_dict(state)


def test_bad_options_are_named():
    with pytest.raises(ConfigError, match=r"(?s)give policy=tabular.*draws its labels.*multiple"):
        data([0], tokenizer=object(), labels=None, micro_batch=5)
    with pytest.raises(ConfigError, match="at least 2 must be held out"):
        data([0], held_out=LastShare(share=0.001)).report  # noqa: B018
    with pytest.raises(DataError, match="is the same"):
        data([0], source=teachers([0], rows=2, actions=2), held_out=LastShare(share=0.5)).load()
