"""Which rows a tabular run trains on and is validated on (MATH C11)."""

import numpy as np
import pytest
import torch

from spo.data.held_out import Folds, LastShare, Nothing
from spo.errors import ConfigError
from tests.small import data, shifted, teachers

IDS = np.arange(103) + 5 * 2**32


def test_each_row_is_held_out_of_one_fold_and_trained_on_in_all_others():
    split = Folds(count=5).split(IDS)
    times = torch.zeros(103)
    for fold in range(5):
        rows = split.held_out[fold][split.held_out_weight[fold] > 0]
        assert len(rows) in (20, 21)
        assert torch.equal(torch.nonzero(split.train[fold] == 0).flatten(), rows.sort().values)
        times[rows] += 1
    assert bool((times == 1).all())
    assert bool((split.train[-1] == 1).all())
    assert float(split.held_out_weight[-1].sum()) == 0


def test_folds_are_those_of_the_row_ids_in_any_company():
    """Shifts of one seed share them; a replicate alone has those it has among many."""
    many = data([4, 7], labels=shifted(0.0, 1.5), held_out=Folds(count=3))
    alone = data([7], labels=shifted(1.5), held_out=Folds(count=3))
    assert many.copies == 4
    assert [many.seeds[k] for k in (3, 7, 11, 15)] == [4, 4, 7, 7]
    assert len(set(many.seeds[:4])) == 4  # each fold starts from weights of its own
    assert many.seeds[:4] == many.seeds[4:8]
    assert many.seeds[12:] == alone.seeds
    assert many.runs[:, -1].tolist() == [3, 7, 11, 15]
    for name in ("train", "held_out", "held_out_weight"):
        ours, theirs = getattr(many.split, name), getattr(alone.split, name)
        assert torch.equal(ours[8:12], ours[12:16])
        assert torch.equal(ours[12:16], theirs)
    for k in range(7):
        (a,), (b,) = many.step(k), alone.step(k)
        for x, y in ((a.row_id, b.row_id), (a.z, b.z), (a.weight, b.weight), (a.pair.action, b.pair.action)):
            assert torch.equal(x[12:16], y)
        assert torch.equal(a.row_id[8], a.row_id[15])


def test_a_fold_never_trains_on_what_it_is_validated_on():
    module = data([0], held_out=Folds(count=4), rows=64)
    (held_out,) = module.val_dataloader()
    assert held_out.weight.sum(-1).tolist() == [16, 16, 16, 16, 0]
    for replicate in range(5):
        ids = [b.row_id[replicate][b.weight[replicate] > 0].tolist() for k in range(2) for b in module.step(k)]
        seen = {i for part in ids for i in part}
        left_out = set(held_out.row_id[replicate][held_out.weight[replicate] > 0].tolist())
        assert not seen & left_out
        assert len(seen | left_out) == 64


def test_nothing_held_out_trains_on_every_row():
    module = data([0, 1], held_out=Nothing())
    assert (module.report.rows_train, module.report.rows_val) == (200, 0)
    assert len(module.val_dataloader()) == 0
    assert "0 to validate on" in module.report.lines()[0]


def test_too_few_rows_are_refused():
    with pytest.raises(ConfigError, match="20 rows do not give each fold 2"):
        Folds(count=11).split(IDS[:20])
    with pytest.raises(ConfigError, match="count is 1"):
        Folds(count=1)
    with pytest.raises(ConfigError, match="share is 1"):
        LastShare(share=1.0)
    with pytest.raises(ConfigError, match="at least 2 must be held out"):
        data([0], source=teachers([0], rows=40), held_out=LastShare(share=0.01)).report  # noqa: B018
