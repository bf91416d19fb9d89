"""Tokenised rows on disk: the same run with and without, made once, made anew where anything that matters changed."""

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from spo.data import datamodule
from spo.data.collate import TokenisedRows
from spo.data.datamodule import PreferenceDataModule
from spo.data.load import Corpus
from spo.data.sources import open_source
from spo.data.tokens import Renderer
from spo.errors import ConfigError, DataError
from tests.data.conftest import rows_with_z
from tests.data.test_datamodule import StepLabels, dirty, loaded, with_rewards

Write = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of every corpus that is read from its files."""
    seen: list[str] = []

    def counting(paths: list[str], *args: Any, **kwargs: Any) -> Corpus:
        seen.extend(paths[:1])
        return read(paths, *args, **kwargs)

    read = datamodule.read_corpus
    monkeypatch.setattr(datamodule, "read_corpus", counting)
    return seen


def assert_equal(one: PreferenceDataModule, other: PreferenceDataModule) -> None:
    """Arrays bit by bit, the report with the order of its entries, the row order, what a checkpoint holds."""
    for a, b in ((one.train, other.train), (one.val, other.val)):
        for field in fields(TokenisedRows):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert x.dtype == y.dtype, field.name
            assert x.tobytes() == y.tobytes(), field.name
    assert json.dumps(one.report.to_dict()) == json.dumps(other.report.to_dict())
    assert one.report.lines() == other.report.lines()
    assert one.report.histograms() == other.report.histograms()
    assert one.state_dict() == other.state_dict()
    for k in range(2 * one.steps_per_epoch):
        assert np.array_equal(one.order.batch(k), other.order.batch(k))


def entries(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("entry.json"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"orientation": "hash", "seed": 3, "max_rows": 9},
        {"truncation": "truncate_prompt_left", "max_length": 60, "val_fraction": 0.4},
    ],
    ids=str,
)
def test_rows_from_the_cache_are_those_from_the_file(
    write: Write, chatml: PreTrainedTokenizerFast, folder: Path, readings: list[str], changes: dict[str, Any]
) -> None:
    rows = [{**row, "weight": 1 + i / 7, "reward_0": 0.5, "reward_1": i / 3} for i, row in enumerate(dirty())]
    path = write(rows + rows_with_z(40)[12:])
    plain, first, second = (loaded(path, chatml, cache=c, **changes) for c in (None, str(folder), str(folder)))
    assert len(readings) == 2
    assert_equal(plain, first)
    assert_equal(plain, second)
    for data in (first, second):
        pages = data.train.ids.base
        assert isinstance(pages, np.memmap)
        assert pages.mode == "r"
        assert data.val.ids is data.train.ids
    assert plain.report.dropped, "the case has rows that are dropped"


def test_with_a_validation_file_and_labels_drawn(
    write: Write, chatml: PreTrainedTokenizerFast, folder: Path, readings: list[str]
) -> None:
    """The sd is that of all rows that were read, those too long to be trained on too, as without a cache."""
    rows = with_rewards(30)
    rows[3] |= {"response_0": "far too long " * 200, "reward_1": 50.0}
    paths = write(rows[:20], "a.jsonl"), write(rows[20:], "b.jsonl")
    runs = []
    for cache in (None, str(folder), str(folder)):
        labels = StepLabels()
        runs.append(loaded(paths[0], chatml, val_path=paths[1], labels=labels, cache=cache))
        assert labels.calls == [30]
    assert len(readings) == 2
    assert_equal(runs[0], runs[1])
    assert_equal(runs[0], runs[2])
    assert runs[2].reward_sd == pytest.approx(np.sqrt(np.mean([row["reward_1"] ** 2 for row in rows])))


def test_one_entry_serves_every_seed_split_and_truth(
    write: Write, chatml: PreTrainedTokenizerFast, folder: Path, readings: list[str]
) -> None:
    path = write(with_rewards(30))
    first = loaded(path, chatml, labels=StepLabels(), cache=str(folder))
    other = {"seed": 7, "val_fraction": 0.5, "bucket_window": 1, "global_batch": 2, "max_seam_mismatch": 0.9}
    second = loaded(path, chatml, labels=StepLabels(), cache=str(folder), **other)
    assert len(readings) == len(entries(folder)) == 1
    assert len(second.val) > len(first.val)
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_length": 200}, "data.max_length was 1024, is 200"),
        ({"max_prompt_length": 90}, "data.max_prompt_length was null, is 90"),
        ({"truncation": "truncate_response"}, 'data.truncation was "drop", is "truncate_response"'),
        ({"append_eos": False}, "data.append_eos was true, is false"),
        ({"chat_template": "none"}, 'data.chat_template was "model", is "none"'),
        ({"columns": {"id": None}}, 'data.columns was null, is {"id": null}'),
        ({"label_map": {0: 0, "1": 1.0, 0.5: None}}, "another data.label_map"),
        ({"orientation": "hash"}, 'data.orientation was "keep", is "hash"'),
        ({"on_bad_row": "raise"}, 'data.on_bad_row was "drop", is "raise"'),
        ({"max_rows": 5}, "data.max_rows was null, is 5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_option_makes_another_entry_and_says_which(
    write: Write,
    chatml: PreTrainedTokenizerFast,
    folder: Path,
    readings: list[str],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    named: str,
) -> None:
    path = write(rows_with_z(24))
    loaded(path, chatml, cache=str(folder))
    assert "made anew" not in capsys.readouterr().err
    changed = loaded(path, chatml, cache=str(folder), **changes)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(
        f"tokens           made anew, for those stored are of other options or rows ({named}); kept in "
    )
    assert_equal(changed, loaded(path, chatml, cache=None, **changes))
    loaded(path, chatml, cache=str(folder))
    assert capsys.readouterr().err == "", "the first entry is still there"
    assert len(readings) == 3


def test_another_tokenizer_template_or_file_makes_another_entry_and_says_so(
    write: Write,
    chatml: PreTrainedTokenizerFast,
    with_bos: PreTrainedTokenizerFast,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """USERS 7."""
    rows = rows_with_z(24)
    path = write(rows)
    loaded(path, chatml, cache=str(folder))
    capsys.readouterr()
    other = loaded(path, with_bos, cache=str(folder))
    assert "rows (another tokenizer, another text of the chat template); kept" in capsys.readouterr().err
    assert_equal(other, loaded(path, with_bos, cache=None))
    rows[5]["response_1"] = "another text"
    write(rows)
    changed = loaded(path, with_bos, cache=str(folder))
    assert f"rows (another rows of {path}); kept" in capsys.readouterr().err
    assert_equal(changed, loaded(path, with_bos, cache=None))


def test_code_that_reads_otherwise_does_not_take_what_other_code_made(
    write: Write, chatml: PreTrainedTokenizerFast, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = write(rows_with_z(6))
    loaded(path, chatml, cache=str(folder))
    monkeypatch.setattr("spo.data.token_cache.code_digest", lambda: "0" * 32)
    loaded(path, chatml, cache=str(folder))
    assert "another version of spo" in capsys.readouterr().err


def cut(entry: Path) -> None:
    file = entry / "ids.npy"
    file.write_bytes(file.read_bytes()[:-5])


def flip(entry: Path) -> None:
    file = entry / "row_id.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def half_json(entry: Path) -> None:
    (entry / "entry.json").write_text((entry / "entry.json").read_text()[:100])


def lose(entry: Path) -> None:
    (entry / "ends.npy").unlink()


def no_json(entry: Path) -> None:
    (entry / "entry.json").unlink()


@pytest.mark.parametrize("damage", [cut, flip, half_json, lose, no_json])
def test_a_damaged_entry_is_made_again_and_said(
    write: Write,
    chatml: PreTrainedTokenizerFast,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
) -> None:
    path = write(rows_with_z(12))
    loaded(path, chatml, cache=str(folder))
    (entry,) = entries(folder)
    damage(entry)
    capsys.readouterr()
    again = loaded(path, chatml, cache=str(folder))
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"tokens           made anew, for the stored ones are damaged; kept in {entry}"
    assert_equal(again, loaded(path, chatml, cache=None))
    loaded(path, chatml, cache=str(folder))
    assert capsys.readouterr().err == ""


def test_nothing_is_kept_of_rows_that_cannot_be_used(
    write: Write, chatml: PreTrainedTokenizerFast, folder: Path
) -> None:
    path = write(dirty())
    with pytest.raises(DataError, match="response_0 is empty"):
        loaded(path, chatml, on_bad_row="raise", cache=str(folder))
    loaded(path, chatml, cache=str(folder))
    with pytest.raises(DataError, match="response_0 is empty"):
        loaded(path, chatml, on_bad_row="raise", cache=str(folder))
    assert len(entries(folder)) == 1
    assert not list(folder.rglob(".part-*"))


def test_checks_that_are_no_part_of_reading_are_made_of_cached_rows_too(
    write: Write, chatml: PreTrainedTokenizerFast, folder: Path
) -> None:
    rows = [{**row, "response_0": "\n" + row["response_0"]} for row in rows_with_z(6)]
    path = write(rows)
    assert loaded(path, chatml, cache=str(folder)).report.seam_mismatches == 6
    with pytest.raises(DataError, match=r"rows.jsonl:1: in 100.0% of 6 rows.*data.max_seam_mismatch"):
        loaded(path, chatml, cache=str(folder), max_seam_mismatch=0.5)


def test_a_folder_that_cannot_be_written_is_named(write: Write, chatml: PreTrainedTokenizerFast, folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(ConfigError, match=rf"data.cache: {folder}.* cannot be written .*or null: nothing is kept"):
        loaded(write(rows_with_z(6)), chatml, cache=str(folder))


def _load_slowly(path: str, folder: str, rank: int, queue: Any) -> None:
    from tests.data.conftest import CHATML, train_tokenizer

    tokenizer = train_tokenizer(
        specials=["<|im_start|>", "<|im_end|>"], vocab_size=300, adds_bos=False, eos_token="<|im_end|>",
        chat_template=CHATML,
    )  # fmt: skip
    render = Renderer.render

    def said(self: Renderer, pairs: Any) -> Any:
        queue.put(("rendered", os.getpid()))
        return render(self, pairs)

    Renderer.render = said  # type: ignore[method-assign]
    data = loaded(path, tokenizer, cache=folder)
    queue.put(("loaded", data.fingerprint()["rows"]))


def test_of_many_processes_one_tokenises(write: Write, folder: Path) -> None:
    """Ranks of a run, jobs of a sweep."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    path = write(rows_with_z(300))
    processes = [context.Process(target=_load_slowly, args=(path, str(folder), i, queue)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    said = [queue.get(timeout=5) for _ in range(3 + 2)]
    assert all(process.exitcode == 0 for process in processes)
    assert len({pid for what, pid in said if what == "rendered"}) == 1
    assert len({rows for what, rows in said if what == "loaded"}) == 1
    assert len(entries(folder)) == 1


def test_auto_is_a_folder_of_the_cache_of_spo(
    write: Write, chatml: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPO_CACHE", str(tmp_path / "own"))
    loaded(write(rows_with_z(6)), chatml)
    assert len(entries(tmp_path / "own" / "tokens")) == 1


def test_the_digest_of_a_source_follows_what_its_rows_are_read_from(write: Write, tmp_path: Path) -> None:
    import datasets
    import pandas as pd

    def made(rows: list[dict[str, Any]]) -> list[str]:
        pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
        hub = tmp_path / "hub"
        hub.mkdir(exist_ok=True)
        (hub / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        saved = tmp_path / f"saved-{len(rows)}"
        datasets.Dataset.from_list(rows).save_to_disk(saved)
        paths = [write(rows), tmp_path / "a.parquet", f"hub:{hub}", saved]
        return [open_source(path).digest() for path in paths]

    first, again, other = made(rows_with_z(9)), made(rows_with_z(9)), made(rows_with_z(8))
    assert first[:3] == again[:3]
    assert not set(first) & set(other)
