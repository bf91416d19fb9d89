import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerFast

from spo.data.collate import TokenisedRows
from spo.data.datamodule import PreferenceDataModule
from spo.errors import ConfigError, DataError
from spo.hashing import uniform
from spo.types import PreferenceBatch
from tests.data.conftest import rows_with_z

Write = Callable[..., str]


class StepLabels:
    """z = 1 where the reward difference is above 0, after scaling by its sd about 0."""

    def __init__(self) -> None:
        self.sd: float | None = None
        self.calls: list[int] = []

    def __call__(self, row_id: np.ndarray, reward_difference: np.ndarray) -> np.ndarray:
        self.sd = float(np.sqrt(np.mean(reward_difference**2)))
        self.calls.append(len(row_id))
        return (reward_difference > 0).astype(np.float64)


def module(path: str, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> PreferenceDataModule:
    options: dict[str, Any] = {"tokenizer": tokenizer, "global_batch": 4, "micro_batch": 2, "max_seam_mismatch": 1.0}
    return PreferenceDataModule(train_path=path, **{**options, **changes})


def loaded(path: str, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> PreferenceDataModule:
    data = module(path, tokenizer, **changes)
    data.load()
    return data


def every(data: PreferenceDataModule) -> TokenisedRows:
    return TokenisedRows.cat(data.train, data.val)


def test_the_yaml_holds_every_parameter_but_those_the_command_completes() -> None:
    import inspect

    conf = yaml.safe_load((Path(__file__).parents[2] / "conf/data/preferences.yaml").read_text())
    options = {k: v for k, v in conf.items() if not k.startswith("_")}
    parameters = inspect.signature(PreferenceDataModule.__init__).parameters
    completed = {"self", "tokenizer", "labels", "seed", "global_batch", "micro_batch", "micro_tokens"}
    assert options.keys() == parameters.keys() - completed
    for name, value in options.items():
        assert name == "train_path" or parameters[name].default == value, name


# -- orientation ---------------------------------------------------------------------------------------------


def chosen_rejected(n: int) -> list[dict[str, Any]]:
    return [{"prompt": f"p{i}", "chosen": f"kind {i}", "rejected": f"late {i}"} for i in range(n)]


def test_chosen_and_rejected_are_oriented_by_a_hash_of_row_and_seed(
    write: Write, chatml: PreTrainedTokenizerFast
) -> None:
    """NUMERICS 17: mean(z) near 1/2 (within 4 sd of a coin), z = 1 exactly where the order of the file was kept,
    the same for any order of the file, another for another seed."""
    rows = chosen_rejected(400)
    data = loaded(write(rows), chatml)
    all_rows = every(data)
    assert abs(all_rows.z.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
    assert (all_rows.z == ~all_rows.swapped).all()
    assert (all_rows.swapped == (uniform(all_rows.row_id, 0, "orientation") < 0.5)).all()
    for i in range(0, 400, 40):
        better = chatml.decode(all_rows.tokens(i)[1 + int(all_rows.z[i])])
        assert "kind" in better
    again = loaded(write(rows[::-1]), chatml)
    row_id = torch.from_numpy(all_rows.row_id)
    assert torch.equal(again.swapped(row_id), data.swapped(row_id))
    assert not torch.equal(loaded(write(rows), chatml, seed=1).swapped(row_id), data.swapped(row_id))


def test_rows_with_z_keep_their_order_unless_hashed(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """MATH C14: position bias lives in the order given."""
    path = write(rows_with_z(30))
    keep, hashed = loaded(path, chatml), loaded(path, chatml, orientation="hash")
    assert not every(keep).swapped.any()
    a, b = every(keep), every(hashed)
    assert 5 < b.swapped.sum() < 25
    where = {r: i for i, r in enumerate(a.row_id)}
    for i, row in enumerate(b.row_id):
        j = where[row]
        assert b.z[i] == pytest.approx(1 - a.z[j] if b.swapped[i] else a.z[j])


@pytest.mark.parametrize(("z", "chosen"), [(1, "response_1"), (0, "response_0")])
def test_a_constant_z_is_refused_and_the_mend_works(
    write: Write, chatml: PreTrainedTokenizerFast, z: float, chosen: str
) -> None:
    path = write([{**row, "z": z} for row in rows_with_z(12)])
    with pytest.raises(DataError, match=rf"z is {z} in all 12 usable rows.*chosen: {chosen}"):
        loaded(path, chatml)
    other = "response_0" if chosen == "response_1" else "response_1"
    mended = every(loaded(path, chatml, columns={"chosen": chosen, "rejected": other}))
    assert 0 < mended.z.mean() < 1
    assert 0 < every(loaded(path, chatml, orientation="hash")).z.mean() < 1


def test_nothing_but_ties_is_refused_in_any_form(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    path = write([{**row, "z": 0.5} for row in rows_with_z(12)])
    for orientation in ("keep", "hash"):
        with pytest.raises(DataError, match=r"z is 0.5 in all 12 usable rows.*Give rows with a preference"):
            loaded(path, chatml, orientation=orientation)


def test_soft_labels_ties_and_weights_pass_through(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """NUMERICS 25: z in float32 as given, weights too, also into the batch."""
    rows = rows_with_z(8)
    wanted = {}
    for i, row in enumerate(rows):
        row["z"], row["weight"] = i / 8, 1 + i / 4
        wanted[f"{row['z']}"] = row["weight"]
    data = loaded(write(rows), chatml, val_fraction=0.0)
    batches = [b for k in range(2) for b in data.step(k)]
    z, weight = (torch.cat([getattr(b, name) for b in batches]) for name in ("z", "weight"))
    assert {str(a): b for a, b in zip(z.tolist(), weight.tolist(), strict=True)} == wanted


# -- labels --------------------------------------------------------------------------------------------------


def with_rewards(n: int) -> list[dict[str, Any]]:
    rows = rows_with_z(n)
    for i, row in enumerate(rows):
        del row["z"]
        row["reward_0"], row["reward_1"] = 0.0, 0.1 * ((i * 7) % 11 - 5) + 0.05
    return rows


def test_labels_are_drawn_from_rewards_over_all_rows_together(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """DESIGN 3: one call with train and validation rows; the difference is kept in sd, after orientation."""
    rows = with_rewards(30)
    labels = StepLabels()
    train, val = write(rows[:20], "a.jsonl"), write(rows[20:], "b.jsonl")
    data = loaded(train, chatml, val_path=val, labels=labels, orientation="hash")
    assert labels.calls == [30]
    assert (len(data.train), len(data.val)) == (20, 10)
    all_rows = every(data)
    assert (all_rows.z == (all_rows.reward_difference > 0)).all()
    raw = np.array([row["reward_1"] for row in rows])
    assert data.reward_sd == pytest.approx(np.sqrt((raw**2).mean()))
    u = data.reward_difference(torch.from_numpy(all_rows.row_id))
    assert u.dtype == torch.float32
    assert u.numpy() == pytest.approx(all_rows.reward_difference / data.reward_sd, rel=1e-6)
    assert ((u > 0) == torch.from_numpy(all_rows.z == 1)).all()


def test_rewards_without_labels_are_kept_for_pictures(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    rows = rows_with_z(6)
    rows[0] |= {"reward_0": 1.0, "reward_1": 4.0}
    data = loaded(write(rows), chatml)
    u = data.reward_difference(torch.from_numpy(every(data).row_id))
    assert u.isnan().sum() == 5
    assert u.nan_to_num().sum().item() == pytest.approx(1.0)  # 3 in its own root mean square
    assert loaded(write(rows_with_z(6)), chatml).reward_sd is None


def test_labels_and_rewards_belong_together(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="reward_0 and reward_1, from which the true link draws labels"):
        loaded(write(rows_with_z(4)), chatml, labels=StepLabels())
    with pytest.raises(DataError, match=r"no column for the label z .*data.columns=\{z: THEIR_NAME\}"):
        loaded(write(with_rewards(4)), chatml)
    flat = [{**row, "reward_1": 0.5} for row in with_rewards(4)]
    with pytest.raises(DataError, match=r"every label drawn from the rewards is 1.*shift and temperature"):
        loaded(write(flat), chatml, labels=StepLabels())


# -- bad input -----------------------------------------------------------------------------------------------


def dirty() -> list[dict[str, Any]]:
    rows = rows_with_z(12)
    rows[2]["response_0"] = ""
    rows[4]["response_1"] = rows[4]["response_0"]
    rows[5]["response_1"] = None
    rows[7]["response_0"] = "far too long " * 200
    return rows


def test_bad_rows_are_dropped_and_counted_or_raise(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """USERS B6: counts by reason that add up, with the first line of each."""
    path = write(dirty())
    report = loaded(path, chatml).report
    assert report.dropped == {"empty_response": 1, "identical": 1, "not_text": 1, "too_long": 1}
    assert (report.rows_read, report.rows_kept) == (12, 8)
    assert f"{path}:8" in report.first_dropped["too_long"]
    with pytest.raises(DataError, match=r"rows.jsonl:3: response_0 is empty.*data.on_bad_row=drop"):
        loaded(path, chatml, on_bad_row="raise")


def test_a_file_of_which_nothing_is_left_says_why(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    rows = [{**row, "response_0": ""} for row in rows_with_z(5)]
    with pytest.raises(DataError, match=r"none of its 5 rows can be used \(5 empty_response\). The first: .*:1"):
        loaded(write(rows), chatml)
    with pytest.raises(DataError, match=r"none of its 5 rows can be used \(5 too_long\).*raise data.max_length"):
        loaded(write(rows_with_z(5)), chatml, max_length=8)


def test_structural_faults_raise_though_bad_rows_are_dropped(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    rows: list[Any] = [json.dumps(row) for row in rows_with_z(3)]
    with pytest.raises(DataError, match=r"rows.jsonl:3: not valid JSON"):
        loaded(write([*rows[:2], rows[2][:-9]]), chatml)
    with pytest.raises(DataError, match=r"rows.jsonl:1: no column for the prompt; the row has 'id', 'response_0'"):
        loaded(write([{k: v for k, v in row.items() if k != "prompt"} for row in rows_with_z(3)]), chatml)
    with pytest.raises(DataError, match=r"rows.jsonl:2: 'z' is 7, outside"):
        loaded(write([{**row, "z": 7 * i} for i, row in enumerate(rows_with_z(3))]), chatml)
    with pytest.raises(DataError, match="does not exist"):
        loaded("nowhere.jsonl", chatml)


def test_too_many_seam_mismatches_stop_the_run(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """NUMERICS 6: the share is counted, and a threshold stops."""
    rows = [{**row, "response_0": "\n" + row["response_0"]} for row in rows_with_z(6)]
    assert loaded(write(rows), chatml).report.seam_mismatches == 6
    with pytest.raises(DataError, match=r"rows.jsonl:1: in 100.0% of 6 rows.*data.max_seam_mismatch"):
        loaded(write(rows), chatml, max_seam_mismatch=0.5)


def test_options_out_of_range_are_named_all_at_once(chatml: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError) as error:
        module("x", chatml, val_fraction=1.0, max_rows=0, max_length=1, bucket_window=0, micro_batch=0)
    for name in ("val_fraction is 1.0", "max_rows is 0", "max_length is 1", "bucket_window is 0", "micro_batch is 0"):
        assert name in str(error.value)
    with pytest.raises(ConfigError, match="max_prompt_length is 64"):
        module("x", chatml, max_length=64, max_prompt_length=64)


# -- split, subset, report -----------------------------------------------------------------------------------


def test_a_prompt_is_never_on_both_sides_of_the_split(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """MATH C7: groups by prompt; the split does not depend on the seed."""
    rows = rows_with_z(90, prompts=30)
    data = loaded(write(rows), chatml, val_fraction=0.2)
    assert not np.intersect1d(data.train.group, data.val.group).size
    assert 0 < len(data.val) <= 18
    assert len(data.train) + len(data.val) == 90
    assert data.report.val_prompts_in_train == 0
    other = loaded(write(rows[::-1]), chatml, val_fraction=0.2, seed=5)
    assert set(other.val.row_id) == set(data.val.row_id)


def test_a_validation_file_that_repeats_training_prompts_is_reported(
    write: Write, chatml: PreTrainedTokenizerFast
) -> None:
    rows = rows_with_z(20, prompts=5)
    data = loaded(write(rows[:10], "a.jsonl"), chatml, val_path=write(rows[10:], "b.jsonl"))
    assert data.report.val_prompts_in_train == 5
    assert any(line.startswith("WARNING") for line in data.report.lines())


def test_there_is_a_validation_prompt_in_the_smallest_file_and_none_if_unwanted(
    write: Write, chatml: PreTrainedTokenizerFast
) -> None:
    path = write(rows_with_z(5))
    assert len(loaded(path, chatml).val) == 1
    without = loaded(path, chatml, val_fraction=0.0)
    assert len(without.val) == 0
    assert without.val_dataloader() == []


def test_max_rows_takes_usable_rows_by_hash(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """The same rows for every seed and order of the file; not simply the first."""
    rows = dirty() + rows_with_z(40)[12:]
    some = loaded(write(rows), chatml, max_rows=15)
    report = some.report
    assert report.rows_kept == 15
    assert report.rows_read == 40 == report.rows_kept + report.rows_beyond_max + sum(report.dropped.values())
    again = loaded(write(rows[::-1]), chatml, max_rows=15, seed=3)
    assert set(every(again).row_id) == set(every(some).row_id)
    assert loaded(write(rows), chatml, max_rows=1000).report.rows_kept == 36


def test_parquet_and_jsonl_of_the_same_rows_give_the_same_data(
    write: Write, chatml: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = rows_with_z(12)
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    assert loaded(str(tmp_path / "a.parquet"), chatml).fingerprint() == loaded(write(rows), chatml).fingerprint()


def test_the_fingerprint_follows_texts_not_seed_split_or_labels(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """NUMERICS 32: one reference table for every seed and label; a changed text or length limit is another."""
    rows = rows_with_z(12)
    first = loaded(write(rows), chatml, orientation="hash").fingerprint()
    relabelled = [{**row, "z": 1 - row["z"]} for row in rows[::-1]]
    assert loaded(write(relabelled), chatml, orientation="hash", seed=9, val_fraction=0.4).fingerprint() == first
    changed = [{**rows[0], "response_0": "other"}, *rows[1:]]
    assert loaded(write(changed), chatml, orientation="hash").fingerprint()["rows"] != first["rows"]
    assert loaded(write(rows), chatml, max_length=99).fingerprint()["renderer"] != first["renderer"]


# -- loaders -------------------------------------------------------------------------------------------------


def test_ranks_share_each_global_batch_out(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """DESIGN 14: rank r takes rows r, r + W, ...; micro-batches of the size asked for; each row once."""
    path = write(rows_with_z(33))
    whole = loaded(path, chatml, global_batch=8, micro_batch=8, val_fraction=0.0)
    assert whole.steps_per_epoch == 4
    for world in (2, 4):
        ranks = [loaded(path, chatml, global_batch=8, micro_batch=2, val_fraction=0.0) for _ in range(world)]
        for rank, data in enumerate(ranks):
            data.set_world(rank, world)
        for k in (0, 3, 4, 17):
            (batch,) = whole.step(k)
            for rank, data in enumerate(ranks):
                parts = data.step(k)
                assert [len(part) for part in parts] == [2] * (4 // world)
                assert torch.cat([part.row_id for part in parts]).tolist() == batch.row_id[rank::world].tolist()
    data.set_world(0, 3)
    with pytest.raises(ConfigError, match="global_batch 8 is not a multiple of 3 processes x micro_batch 2"):
        data.step(0)


def test_validation_and_sweeps_and_tables_see_every_row_once(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    data = loaded(write(rows_with_z(23)), chatml, val_fraction=0.3)
    for batches, rows in ((data.val_dataloader(), data.val), (data.sweep_dataloader(), data.train)):
        seen = []
        for rank in range(2):
            data.set_world(rank, 2)
            loader = data.val_dataloader() if rows is data.val else data.sweep_dataloader()
            seen += [int(i) for b in loader for i in b.row_id[b.weight > 0]]
        assert sorted(seen) == sorted(rows.row_id.tolist())
        assert len(batches) > 0
    table = data.all_rows()
    assert sum(len(batch) for batch in table) == 23
    assert len(list(table)) == len(table)


def test_iterating_draws_no_global_random_numbers(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """NUMERICS 29: else a validation would change the dropout of the step after it."""
    data = loaded(write(rows_with_z(23)), chatml)
    data.total_steps = 3
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    batches = [*data.val_dataloader(), *(b for step in data.train_dataloader() for b in step), *data.sweep_dataloader()]
    assert all(isinstance(batch, PreferenceBatch) for batch in batches)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002


def test_an_unknown_row_id_is_named(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    data = loaded(write(rows_with_z(5)), chatml)
    with pytest.raises(DataError, match="row id 12345 is not among the 5 rows"):
        data.swapped(torch.tensor([12345]))


def test_the_prompts_that_it_has_are_known(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    data = loaded(write(rows_with_z(20, prompts=5)), chatml)
    mine = {*data.train.group.tolist(), *data.val.group.tolist()}
    assert len(mine) == 5
    assert data.prompts_among({*mine, 1}) == mine
    assert data.prompts_among({1, 2}) == set()
    assert (data.row_count, data.epoch(6)) == (20, 6 / data.steps_per_epoch)


def test_the_run_length_must_be_known(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="total_steps is not set"):
        loaded(write(rows_with_z(5)), chatml).train_dataloader()
