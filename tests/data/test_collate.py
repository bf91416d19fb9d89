import numpy as np
import pytest
import torch

from spo.data.collate import FILLER, Batches, TokenisedRows, collate, every_row_once
from spo.data.micro import OfPairs
from spo.data.tokens import Rendered
from spo.types import TokenPairs

from .made import rows_of

PAD = 9


# The docstring's picture: p = 1, a = 2, b = 3.
PICTURE = [Rendered([1, 1, 1], ([2, 2], [3])), Rendered([1], ([2], [3, 3, 3]))]


def test_collate_gives_the_picture_in_its_docstring() -> None:
    """NUMERICS 1, 2: padding to the right, outside both masks; the response mask is exactly the response."""
    batch = collate(rows_of(PICTURE), np.array([0, 1]), pad_token_id=PAD)
    pair = batch.pair
    assert isinstance(pair, TokenPairs)
    assert pair.input_ids.tolist() == [
        [[1, 1, 1, 2, 2], [1, 1, 1, 3, PAD]],
        [[1, 2, PAD, PAD, PAD], [1, 3, 3, 3, PAD]],
    ]
    assert pair.attention_mask.tolist() == [[[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]]
    assert pair.response_mask.int().tolist() == [[[0, 0, 0, 1, 1], [0, 0, 0, 1, 0]], [[0, 1, 0, 0, 0], [0, 1, 1, 1, 0]]]
    assert (pair.input_ids.dtype, pair.attention_mask.dtype, pair.response_mask.dtype) == (
        torch.int64,
        torch.int64,
        torch.bool,
    )
    assert (batch.z.dtype, batch.weight.dtype, batch.row_id.dtype) == (torch.float32, torch.float32, torch.int64)
    assert batch.row_id.tolist() == [100, 101]


def test_a_pad_token_equal_to_eos_stays_inside_the_response() -> None:
    """NUMERICS 2: masks follow lengths, not ids."""
    rows = rows_of([Rendered([1], ([2, PAD], [3, 3, PAD]))])
    pair = collate(rows, np.array([0]), pad_token_id=PAD).pair
    assert isinstance(pair, TokenPairs)
    assert pair.response_mask.sum(-1).tolist() == rows.response_lengths.tolist() == [[2, 3]]
    assert pair.input_ids[0, 0].tolist() == [1, 2, PAD, PAD]


def test_swapping_turns_ids_label_and_reward_round_and_keeps_the_length() -> None:
    """NUMERICS 13, data part."""
    keep, swap = rows_of(PICTURE), rows_of(PICTURE, [True, True])
    for i in range(2):
        prompt, a, b = keep.tokens(i)
        assert [x.tolist() for x in swap.tokens(i)] == [prompt.tolist(), b.tolist(), a.tolist()]
    assert (swap.z == 1 - keep.z).all()
    assert (swap.reward_difference == -keep.reward_difference).all()
    assert (swap.lengths == keep.lengths).all()
    assert keep.lengths.tolist() == [5, 4]


def test_a_filler_is_a_row_of_weight_zero() -> None:
    batch = collate(rows_of(PICTURE), np.array([1, FILLER]), pad_token_id=PAD)
    assert batch.weight.tolist() == [2, 0]
    assert batch.row_id.tolist() == [101, 100]


def test_two_sets_of_rows_joined_keep_their_ids() -> None:
    rows = rows_of(PICTURE)
    both = TokenisedRows.cat(rows, rows)
    assert len(both) == 4
    for i in range(4):
        assert [x.tolist() for x in both.tokens(i)] == [x.tolist() for x in rows.tokens(i % 2)]
    assert both.ids is rows.ids
    with pytest.raises(ValueError, match="two tables"):
        TokenisedRows.cat(rows_of([]), rows)
    assert len(rows_of([]).lengths) == 0


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_validation_sees_seven_rows_once_each_on_any_number_of_ranks(world: int, micro_batch: int) -> None:
    """NUMERICS 28, USERS B22: each row counted once, and equal numbers and sizes of batches on every rank."""
    rows = rows_of([Rendered([1] * (i % 3 + 1), ([2], [3])) for i in range(7)])
    seen: list[int] = []
    shapes = []
    for rank in range(world):
        batches = Batches(rows, every_row_once(rows, OfPairs(micro_batch), rank, world), PAD)
        shapes.append([len(batch) for batch in batches])
        assert len(batches) == len(shapes[-1])
        seen += [int(i) for batch in batches for i in batch.row_id[batch.weight > 0]]
    assert sorted(seen) == rows.row_id.tolist()
    assert all(shape == shapes[0] for shape in shapes)
