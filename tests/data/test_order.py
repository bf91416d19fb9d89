import itertools

import numpy as np
import pytest

from spo.data.order import NO_ROW, RowOrder
from spo.errors import ConfigError

LENGTHS = np.array([(7 * i) % 23 for i in range(50)])


def order(**changes: object) -> RowOrder:
    options: dict[str, object] = {"seed": 0, "lengths": LENGTHS, "global_batch": 4, "bucket_window": 3}
    return RowOrder(**{**options, **changes})  # type: ignore[arg-type]


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    """DESIGN 14: asked in any order, by a fresh object or one in use."""
    used = order()
    forwards = [used.batch(k).tolist() for k in range(40)]
    assert [order().batch(k).tolist() for k in reversed(range(40))] == forwards[::-1]
    assert order(seed=1).batch(0).tolist() != forwards[0]


def test_an_epoch_sees_each_row_at_most_once_and_drops_only_the_remainder() -> None:
    one = order()
    assert one.batches_per_epoch == 12
    left_out = set()
    for epoch in range(5):
        rows = np.concatenate([one.batch(k) for k in range(12 * epoch, 12 * (epoch + 1))])
        assert len(set(rows.tolist())) == 48
        left_out |= set(range(50)) - set(rows.tolist())
    assert len(left_out) > 2  # others each time
    assert one.batch(0).tolist() != one.batch(12).tolist()


@pytest.mark.parametrize("window", [1, 3])
def test_an_epoch_that_keeps_its_last_batch_sees_every_row_once(window: int) -> None:
    """50 rows in 13 batches of 4: 2 places hold no row, and other batches are those that lose the remainder."""
    one = order(keep_last=True, bucket_window=window)
    assert one.batches_per_epoch == 13
    for epoch in range(3):
        batches = one.epoch(epoch)
        assert sorted(batches[batches != NO_ROW].tolist()) == list(range(50))
        assert batches.shape == (13, 4)
    if window == 1:
        assert (one.epoch(1)[:12] == order(bucket_window=1).epoch(1)).all()
    assert sorted(order(keep_last=True, global_batch=64).batch(0).tolist()) == [NO_ROW] * 14 + list(range(50))


def test_rows_of_a_window_are_sorted_by_length_into_batches() -> None:
    """Within a window of 3 batches the batches' length ranges do not overlap, and their order is shuffled."""
    one = order()
    first_is_shortest = 0
    for window in range(40):
        batches = [LENGTHS[one.batch(3 * window + k)] for k in range(3)]
        by_length = sorted(batches, key=lambda lengths: (lengths.min(), lengths.max()))
        for a, b in itertools.pairwise(by_length):
            assert a.max() <= b.min()
        first_is_shortest += batches[0].min() == min(b.min() for b in batches)
    assert 0 < first_is_shortest < 40


def test_a_window_of_one_batch_does_not_sort_over_batches() -> None:
    """Then a batch is a random set of rows: its mean length varies as that of 4 random rows, not less."""
    epoch = [LENGTHS[order(bucket_window=1).batch(k)].std() for k in range(60)]
    sorted_epoch = [LENGTHS[order(bucket_window=12).batch(k)].std() for k in range(60)]
    assert np.mean(sorted_epoch) < 0.3 * np.mean(epoch)


def test_rows_follow_their_ids_when_the_file_is_shuffled() -> None:
    """NUMERICS 32: the order joins on row id, not on the place in the file."""
    row_id = np.arange(50) * 977 % 1009
    move = np.random.default_rng(0).permutation(50)
    a, b = order(row_id=row_id), order(row_id=row_id[move], lengths=LENGTHS[move])
    for k in range(20):
        assert row_id[a.batch(k)].tolist() == row_id[move][b.batch(k)].tolist()


def test_ranks_that_take_every_wth_row_share_a_batch_out() -> None:
    batch = order(global_batch=6).batch(3)
    for world in (1, 2, 3):
        shares = [batch[rank::world] for rank in range(world)]
        assert sorted(np.concatenate(shares).tolist()) == sorted(batch.tolist())
        assert len({len(share) for share in shares}) == 1


def test_the_order_never_changes_between_versions() -> None:
    """A resumed run must find its rows: these numbers were written down once."""
    assert order().batch(0).tolist() == [8, 31, 38, 2]


def test_a_global_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="global_batch is 51, but there are 50 training rows"):
        order(global_batch=51)
