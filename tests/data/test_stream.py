"""Rows as a stream: order, resume, ranks, validation, memory (NUMERICS 17, 26, 28, 32)."""

import gc
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

from spo.data.collate import TokenisedRows
from spo.data.datamodule import PreferenceDataModule
from spo.data.stream import StreamDataModule
from spo.errors import ConfigError, DataError
from spo.hashing import uniform
from spo.policy.table import ReferenceTable
from tests.data.conftest import rows_with_z
from tests.data.test_datamodule import StepLabels, with_rewards
from tests.data.test_position import run

Make = Callable[..., StreamDataModule]
OPTIONS: dict[str, Any] = {
    "global_batch": 4, "micro_batch": 2, "max_seam_mismatch": 1.0, "bucket_window": 2, "shuffle_buffer": 4,
    "val_fraction": 0.0,
}  # fmt: skip


@pytest.fixture
def make(write: Callable[..., str], chatml: PreTrainedTokenizerFast) -> Make:
    def _make(rows: list[Any] | str | None = None, **changes: Any) -> StreamDataModule:
        path = rows if isinstance(rows, str) else write(rows_with_z(43) if rows is None else rows)
        return StreamDataModule(train_path=path, **{**OPTIONS, "tokenizer": chatml, **changes})

    return _make


def ids(data: StreamDataModule, k: int) -> list[int]:
    return [int(i) for batch in data.step(k) for i in batch.row_id]


def test_the_yaml_holds_every_parameter_but_those_the_command_completes() -> None:
    conf = yaml.safe_load((Path(__file__).parents[2] / "conf/data/stream.yaml").read_text())
    parameters = inspect.signature(StreamDataModule.__init__).parameters
    completed = {"self", "tokenizer", "labels", "seed", "global_batch", "micro_batch", "micro_tokens"}
    assert {k for k in conf if not k.startswith("_")} == parameters.keys() - completed


# -- order ---------------------------------------------------------------------------------------------------


def test_a_pass_sees_every_row_once_but_for_an_incomplete_batch(make: Make) -> None:
    """43 rows: two buffers of 16, one of 11 that gives two batches; then the next pass, with other batches."""
    data = make()
    passes = [[ids(data, k) for k in range(start, start + 10)] for start in (0, 10)]
    for batches in passes:
        seen = [i for batch in batches for i in batch]
        assert len(seen) == len(set(seen)) == 40
    first, second = ({i for batch in batches[:4] for i in batch} for batches in passes)
    assert first == second, "a buffer holds the rows of its place"
    assert passes[0] != passes[1], "and shuffles them anew"
    assert [data.epoch(step) for step in (1, 10, 11, 20)] == [0, 0, 1, 1]


def test_batches_are_those_of_rows_in_memory(make: Make, chatml: PreTrainedTokenizerFast, write: Any) -> None:
    """Where all rows fit into one buffer, its batches are the first data epoch of data=preferences."""
    rows = rows_with_z(24)
    memory = PreferenceDataModule(
        train_path=write(rows, "a.jsonl"), tokenizer=chatml,
        **{k: v for k, v in OPTIONS.items() if k != "shuffle_buffer"},
    )  # fmt: skip
    stream = make(rows, shuffle_buffer=6)
    memory.load()
    for k in range(6):
        for mine, theirs in zip(stream.step(k), memory.step(k), strict=True):
            assert torch.equal(mine.row_id, theirs.row_id)
            assert torch.equal(mine.pair.input_ids, theirs.pair.input_ids)  # type: ignore[union-attr]
            assert torch.equal(mine.z, theirs.z)


def test_a_window_is_sorted_by_length(make: Make) -> None:
    """Two batches a window: no row of the shorter batch is longer than one of the other."""
    data = make(rows_with_z(64), shuffle_buffer=8)
    for window in range(0, 8, 2):
        (rows, one), (_, two) = data.batch(window), data.batch(window + 1)
        a, b = sorted([rows.lengths[one], rows.lengths[two]], key=lambda lengths: lengths.max())
        assert a.max() <= b.min()


def test_orientation_is_that_of_rows_in_memory_in_every_pass(
    make: Make, chatml: PreTrainedTokenizerFast, write: Any
) -> None:
    """NUMERICS 17: u(row id, seed) < 1/2, whatever the buffer and the pass."""
    rows = [{"prompt": f"p{i}", "chosen": f"kind {i}", "rejected": f"late {i}"} for i in range(24)]
    data = make(rows, shuffle_buffer=2)
    for k in range(12):
        for batch in data.step(k):
            swapped = uniform(batch.row_id.numpy(), 0, "orientation") < 0.5
            assert batch.z.tolist() == [0.0 if s else 1.0 for s in swapped]
            assert data.swapped(batch.row_id).tolist() == swapped.tolist()
        data.position = k + 1


def test_ranks_share_each_global_batch_out(make: Make) -> None:
    """NUMERICS 28: rows r, r + W, ... of the batches of one process; each row once; across the end of a pass."""
    whole = make(micro_batch=4)
    ranks = [make(micro_batch=2) for _ in range(2)]
    for rank, data in enumerate(ranks):
        data.set_world(rank, 2)
    for k in range(13):
        wanted = ids(whole, k)
        assert [ids(data, k) for data in ranks] == [wanted[0::2], wanted[1::2]]


# -- resume --------------------------------------------------------------------------------------------------


def saved_folder(tmp_path: Path) -> str:
    datasets.Dataset.from_list(rows_with_z(43)).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


@pytest.mark.parametrize("form", ["jsonl", "saved"])
def test_ids_of_the_first_k_and_of_the_resumed_are_those_of_the_whole(make: Make, tmp_path: Path, form: str) -> None:
    """USERS 21: for every k over two passes and a half, from plain values that survive weights_only."""
    rows = saved_folder(tmp_path) if form == "saved" else None
    whole = make(rows)
    wanted, states = [], []
    for k in range(25):
        whole.position = k
        torch.save(whole.state_dict(), tmp_path / "state")
        states.append(torch.load(tmp_path / "state", weights_only=True))
        wanted.append(ids(whole, k))
    for k in range(0, 25, 1 if form == "jsonl" else 5):
        data = make(rows)
        data.load_state_dict(states[k])
        assert data.position == k
        assert [ids(data, j) for j in range(k, min(k + 7, 25))] == wanted[k : k + 7]


def test_a_real_trainer_resumes_exactly(make: Make, tmp_path: Path) -> None:
    """NUMERICS 26, with validation in between and across the end of a pass (5 steps)."""
    changes: dict[str, Any] = {"rows": rows_with_z(24), "val_fraction": 0.15, "shuffle_buffer": 2}
    whole = run(make(**changes), tmp_path / "whole")  # type: ignore[arg-type]
    assert whole.validated
    for k in (1, 2, 5, 6, 13):
        data = make(**changes)
        resumed = run(data, tmp_path / f"from-{k}", resume=tmp_path / "whole" / f"step={k}.ckpt")  # type: ignore[arg-type]
        assert resumed.rows == whole.rows[k:], k
        assert torch.equal(resumed.weight, whole.weight)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "order: seed 0"),
        ({"shuffle_buffer": 2}, "shuffle_buffer 4 then"),
        ({"max_length": 512}, "renderer: "),
        ({"orientation": "hash"}, "rows: "),
    ],
)
def test_other_options_than_the_checkpoints_are_refused(make: Make, changes: dict[str, Any], named: str) -> None:
    data = make()
    ids(data, 0)
    with pytest.raises(DataError, match="the checkpoint was made with other data") as error:
        make(**changes).load_state_dict(data.state_dict())
    assert named in str(error.value)


def test_other_rows_at_the_checkpoints_place_are_refused(make: Make) -> None:
    """The rows themselves are known only where they are read again: the file changed after its first buffer."""
    rows = rows_with_z(43)
    data = make(rows)
    data.position = 5
    ids(data, 5)
    state = data.state_dict()
    flipped = [*rows[:20], {**rows[20], "z": 1 - rows[20]["z"]}, *rows[21:]]
    flipped[20]["z"] = 0.25
    other = make([json.dumps(row) + " " * 3 if i == 20 else row for i, row in enumerate(flipped)])
    other.load_state_dict(state)
    with pytest.raises(DataError, match="the rows where the checkpoint was made are not those that are there now"):
        other.step(5)


# -- validation ----------------------------------------------------------------------------------------------


def test_held_out_prompts_are_bounded_and_never_trained_on(make: Make) -> None:
    """By a hash threshold on the prompt: the same for every seed; those beyond val_rows are in neither set."""
    rows = rows_with_z(120, prompts=60)
    data = make(rows, val_fraction=0.3, val_rows=9)
    data.load()
    held = uniform(data.val.group, 0, "validation")
    assert len(data.val) == 9
    assert (held < 0.3).all()
    seen: list[int] = []
    for k in range(30):
        part, at = data.batch(k)
        seen += part.row_id[at].tolist()
        assert (uniform(part.group[at], 0, "validation") >= 0.3).all()
    assert not set(seen) & set(data.val.row_id.tolist())
    every = make(rows, val_fraction=0.3, val_rows=1000, seed=4)
    every.load()
    assert set(data.val.row_id) < set(every.val.row_id)
    assert every.val_dataloader()
    assert data.report.rows_held_out > 0
    assert make(rows).val_dataloader() == []


def test_a_validation_file_is_read_into_memory(make: Make, write: Callable[..., str]) -> None:
    other = write([{**row, "prompt": "Other " + row["prompt"]} for row in rows_with_z(7)], "val.jsonl")
    data = make(val_path=other, val_fraction=0.5)
    data.load()
    assert len(data.val) == data.report.rows_val == 7
    assert len({i for k in range(10) for i in ids(data, k)}) == 40, "nothing is held out of the stream then"


def test_the_prompts_that_it_has_are_found_by_one_more_pass(make: Make) -> None:
    data = make(rows_with_z(43, prompts=20), val_fraction=0.2, val_rows=2)
    data.load()
    groups = {int(g) for k in range(4) for g in data.batch(k)[0].group} | set(data.val.group.tolist())
    assert data.prompts_among({*groups, 1, 2}) == groups


# -- labels, tables ------------------------------------------------------------------------------------------


class GivenSd(StepLabels):
    def __init__(self, sd: float) -> None:
        super().__init__()
        self.sd = sd

    def __call__(self, row_id: np.ndarray, reward_difference: np.ndarray) -> np.ndarray:
        return (uniform(row_id, 0, "label") < 1 / (1 + np.exp(-reward_difference / self.sd))).astype(np.float64)


def test_labels_are_drawn_with_a_given_sd_and_refused_without(
    make: Make, chatml: PreTrainedTokenizerFast, write: Any
) -> None:
    """The draw of a row is the one it has in memory; the sd takes all rows, so a stream cannot measure it."""
    with pytest.raises(ConfigError, match=r"data=stream draws labels as rows come.*give truth.reward_sd=SD"):
        make(labels=StepLabels())
    rows = with_rewards(32)
    memory = PreferenceDataModule(
        train_path=write(rows, "a.jsonl"), tokenizer=chatml, labels=GivenSd(0.5), global_batch=4, micro_batch=2,
        val_fraction=0.0, max_seam_mismatch=1.0,
    )  # fmt: skip
    memory.load()
    z = dict(zip(memory.train.row_id.tolist(), memory.train.z.tolist(), strict=True))
    difference = dict(zip(memory.train.row_id.tolist(), memory.train.reward_difference.tolist(), strict=True))
    data = make(rows, labels=GivenSd(0.5))
    for k in range(8):
        for batch in data.step(k):
            assert batch.z.tolist() == [z[i] for i in batch.row_id.tolist()]
            u = data.reward_difference(batch.row_id)
            assert u.tolist() == pytest.approx([difference[i] / 0.5 for i in batch.row_id.tolist()])
    assert data.reward_difference(torch.tensor([12345])).isnan().all()


def test_a_table_is_joined_by_row_id_and_a_missing_row_is_named(make: Make, chatml: Any, write: Any) -> None:
    """NUMERICS 32: the ids of a stream are those of memory, repeats apart, so that one table serves both."""
    rows = [{k: v for k, v in row.items() if k != "id"} for row in rows_with_z(24)]
    memory = PreferenceDataModule(
        train_path=write(rows, "a.jsonl"), tokenizer=chatml, global_batch=4, micro_batch=2, max_seam_mismatch=1.0
    )
    data = make([*rows, rows[3]], val_fraction=0.2)
    memory.load()
    everything = TokenisedRows.cat(memory.train, memory.val)
    order = np.argsort(everything.row_id)
    table = ReferenceTable(everything.row_id[order], np.zeros((24, 2), np.float32))
    streamed = [batch.row_id for batch in data.all_rows()]
    for row_id in streamed:
        assert table.lookup(row_id.numpy()).shape == (len(row_id), 2)
    counts = np.unique(torch.cat(streamed).numpy(), return_counts=True)
    assert len(counts[0]) == 24
    assert sorted(counts[1])[-1] == 2, "both copies of the repeated row have one id"
    lacking = ReferenceTable(table.row_id[1:], table.logp[1:])
    with pytest.raises(DataError, match=f"the reference table has no row {table.row_id[0]}"):
        lacking.lookup(torch.cat(streamed).numpy())
    assert data.fingerprint().keys() == {"renderer"}


# -- report, memory, bad input -------------------------------------------------------------------------------


def test_the_report_counts_what_has_been_read_so_far(make: Make) -> None:
    """read = kept + dropped + held out (validation rows are met again when training reads them)."""
    rows = rows_with_z(43)
    rows[1]["response_0"] = ""
    rows[30]["response_1"] = rows[30]["response_0"]
    data = make(rows)
    data.load()
    assert (data.report.rows_read, data.report.rows_train, data.report.passes) == (17, 16, 0)
    assert data.report.dropped == {"empty_response": 1}
    for k in range(10):
        data.step(k)
    report = data.report
    assert (report.rows_read, report.rows_train, report.passes) == (43, 41, 1)
    assert report.dropped == {"empty_response": 1, "identical": 1}
    assert report.z_one + report.z_zero + report.z_tie == 41
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert any("read so far, to the end" in line for line in report.lines())


def test_memory_does_not_grow_with_the_stream(make: Make) -> None:
    """Objects alive after two passes and after eight; rows held are those of two buffers at most."""
    data = make()

    def objects(last: int) -> int:
        for k in range(data.position, last):
            data.step(k)
            data.position = k + 1
            assert sum(len(buffer.rows) for buffer in data._buffers.live) <= 2 * 16
        gc.collect()
        return len(gc.get_objects())

    first = objects(20)
    assert objects(80) < first + 100
    assert len(data._stream.parser.columns_seen) == 5
    assert not vars(data._stream.parser._row_ids)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"shuffle_buffer": 3}, "data.shuffle_buffer is 3: give a multiple of data.bucket_window, which is 2"),
        ({"shuffle_buffer": 0}, "data.shuffle_buffer is 0"),
        ({"val_rows": 0}, "data.val_rows is 0"),
        ({"bucket_window": 0}, "data.bucket_window is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(make: Make, changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        make(**changes)


def test_streams_that_cannot_be_trained_on_say_why(make: Make) -> None:
    with pytest.raises(DataError, match=r"a whole pass gives 3 training rows, fewer than global_batch 4"):
        make(rows_with_z(3)).load()
    with pytest.raises(DataError, match=r"gives 0 training rows.*'empty_response': 8.*The first empty_response: .*:1"):
        make([{**row, "response_0": ""} for row in rows_with_z(8)]).load()
    with pytest.raises(DataError, match="z is 1 in all 16 usable rows"):
        make([{**row, "z": 1} for row in rows_with_z(20)]).load()
    with pytest.raises(DataError, match=r"data.columns names 'wieght', which no row has"):
        make(columns={"weight": "wieght"}).load()
    with pytest.raises(DataError, match="does not exist"):
        make("nowhere.jsonl").load()
    with pytest.raises(ConfigError, match="give refit=memory"):
        make().sweep_dataloader()
