"""Micro-batches by a budget of tokens: as few as there can be, none above it, the same on every rank."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from spo.data.collate import FILLER, TokenisedRows, every_row_once, share
from spo.data.datamodule import PreferenceDataModule
from spo.data.micro import OfPairs, OfTokens
from spo.data.stream import StreamDataModule
from spo.data.tokens import Rendered
from spo.errors import ConfigError, DataError

from .made import rows_of

Write = Callable[..., str]


def fewest(lengths: list[int], tokens: int) -> int:
    """Of all divisions of the rows into groups of at most `tokens` tokens, the number of groups: brute force."""
    n = len(lengths)
    for groups in range(1, n + 1):
        for labels in itertools.product(range(groups), repeat=n):
            parts = [[x for x, g in zip(lengths, labels, strict=True) if g == k] for k in range(groups)]
            if all(2 * len(p) * max(p, default=0) <= tokens for p in parts):
                return groups
    raise AssertionError


@pytest.mark.parametrize("seed", range(4))
def test_as_few_as_there_can_be(seed: int) -> None:
    lengths = np.sort(np.random.default_rng(seed).integers(1, 30, size=6))
    sizes = OfTokens(80).cut(lengths)
    parts = np.split(lengths, np.cumsum(sizes)[:-1])
    assert sum(sizes) == 6
    assert all(2 * len(p) * p.max() <= 80 for p in parts)
    assert len(sizes) == fewest(lengths.tolist(), 80)


def test_one_long_row_does_not_set_the_size_of_the_others() -> None:
    """Budget 32: rows of 2, 2, 2, 2, 4, 4 and 16 tokens a side: 16 alone, then four of at most 4, then two of 2."""
    assert OfTokens(32).cut(np.array([2, 2, 2, 2, 4, 4, 16])) == [2, 4, 1]
    assert OfPairs(3).cut(np.array([2, 2, 2, 2, 4, 4, 16])) == [3, 3, 1]


def rows_of_lengths(lengths: list[int]) -> TokenisedRows:
    """One prompt token, responses of 1 and length - 1 tokens; row ids from 100 on."""
    return rows_of([Rendered([1], ([2], [3] * (length - 1))) for length in lengths])


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_cuts_alike_and_each_row_is_seen_once(world: int) -> None:
    """Equal numbers and sizes of micro-batches, because collectives wait for every rank; none above the budget."""
    rows = rows_of_lengths([9, 2, 3, 16, 4, 4, 5, 2, 2, 12, 7])
    of_all = [every_row_once(rows, OfTokens(40), rank, world) for rank in range(world)]
    nine = np.argsort(rows.lengths, kind="stable")[: 9 // world * world]
    of_step = [share(rows, nine, OfTokens(40), rank, world) for rank in range(world)]
    for plans, whole in ((of_all, range(11)), (of_step, nine)):
        assert len({tuple(len(part) for part in plan) for plan in plans}) == 1
        seen = np.concatenate([part for plan in plans for part in plan])
        assert sorted(seen[seen != FILLER]) == sorted(whole)
        for part in (part for plan in plans for part in plan):
            at = np.where(part == FILLER, 0, part)
            assert 2 * len(part) * rows.lengths[at].max() <= 40


def data(kind: Any, path: str, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> Any:
    options = {"global_batch": 4, "micro_batch": None, "micro_tokens": 4096, "max_seam_mismatch": 1.0, **changes}
    return kind(train_path=path, tokenizer=tokenizer, **options)


def test_what_cannot_be_is_said(write: Write, chatml: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response_0": "a", "response_1": "b " * i, "z": i % 2} for i in range(1, 21)]
    path = write(rows)
    for keys in ({"micro_batch": 4}, {"micro_tokens": None}):
        with pytest.raises(ConfigError, match=r"micro_batch is .* and micro_tokens .*: give one of them"):
            data(PreferenceDataModule, path, chatml, **keys)
    with pytest.raises(ConfigError, match="micro_tokens is 0"):
        data(PreferenceDataModule, path, chatml, micro_tokens=0)
    loaded = data(PreferenceDataModule, path, chatml)
    loaded.load()
    longest = int(max(loaded.train.lengths.max(), loaded.val.lengths.max()))
    small = data(PreferenceDataModule, path, chatml, micro_tokens=2 * longest - 1)
    with pytest.raises(DataError, match=f"the longest row takes 2 x {longest} = {2 * longest} tokens.*give micro_tok"):
        small.load()
    data(PreferenceDataModule, path, chatml, micro_tokens=2 * longest).load()
    stream = data(StreamDataModule, path, chatml, bucket_window=1, shuffle_buffer=1, micro_tokens=500, max_length=251)
    with pytest.raises(DataError, match=r"a row of a stream, .* takes 2 x 251 = 502 tokens"):
        stream.load()


def test_processes_need_equal_shares_only(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """global_batch is a multiple of the processes, no longer of processes x micro_batch."""
    rows = [{"prompt": f"p{i}", "response_0": "a", "response_1": "b " * i, "z": i % 2} for i in range(1, 21)]
    path = write(rows)
    whole = data(PreferenceDataModule, path, chatml, global_batch=6, micro_tokens=10**6, val_fraction=0.0)
    whole.load()
    (batch,) = whole.step(1)
    for rank in range(3):
        ours = data(PreferenceDataModule, path, chatml, global_batch=6, micro_tokens=200, val_fraction=0.0)
        ours.load()
        ours.set_world(rank, 3)
        assert [int(i) for part in ours.step(1) for i in part.row_id] == batch.row_id[rank::3].tolist()
    ours.set_world(0, 4)
    with pytest.raises(ConfigError, match="global_batch 6 is not a multiple of 4 processes"):
        ours.step(0)


def test_what_would_take_less_memory() -> None:
    assert OfPairs(8).smaller(100) == ("micro_batch=4", 8)
    assert OfPairs(9).smaller(100) == ("micro_batch=3", 9)
    assert OfPairs(1).smaller(100) is None
    assert OfTokens(1000).smaller(100) == ("micro_tokens=500", 1000)
    assert OfTokens(1000).smaller(400) == ("micro_tokens=800", 1000)
    assert OfTokens(800).smaller(400) is None
