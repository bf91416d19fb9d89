"""Steps made ahead, in a thread: the same steps, and nothing else that a run could notice."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from spo.data.loader import THREAD, StepsAhead
from spo.data.position import StepSampler
from spo.data.stream import StreamDataModule
from spo.errors import ConfigError, DataError
from spo.types import PreferenceBatch
from tests.data.conftest import rows_with_z
from tests.data.test_datamodule import module
from tests.data.test_position import STEPS, run
from tests.data.test_stream import OPTIONS

Write = Callable[..., str]
CPU = torch.device("cpu")


class Counting:
    """Steps that are their own number; step 5 cannot be made where it is said so."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.position = 0
        self.breaks = breaks
        self.made: list[int] = []
        self.begun: list[int] = []
        self.allowed = threading.Semaphore(0)

    def step(self, k: int) -> list[PreferenceBatch]:
        if self.breaks and k == 5:
            raise DataError("row 41: the file is cut off")
        self.made.append(k)
        self.allowed.release()
        return [k]  # type: ignore[list-item]

    def begin(self, k: int) -> None:
        self.begun.append(k)


def ahead_of(data: Any, total: int, ahead: int) -> StepsAhead:
    return StepsAhead(data, StepSampler(data, total), ahead=ahead, device=CPU)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not threads()


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_the_steps_are_those_of_the_sampler_and_their_turn_is_said(ahead: int) -> None:
    data = Counting()
    data.position = 2
    steps = ahead_of(data, 9, ahead)
    assert len(steps) == 9, "as of the whole run, also after a resume"
    seen = []
    for step in steps:
        assert data.begun == [*range(2, step[0] + 1)]  # type: ignore[index,operator]
        seen += step
    assert seen == data.made == [*range(2, 9)]  # type: ignore[comparison-overlap]


def test_as_many_steps_are_made_ahead_as_are_asked_for() -> None:
    """While step 0 is worked on, steps 1, 2 and 3 are made and no more."""
    data = Counting()
    steps = iter(ahead_of(data, 20, 3))
    next(steps)
    for _ in range(4):
        assert data.allowed.acquire(timeout=10)
    assert not data.allowed.acquire(timeout=0.05)
    assert (data.made, data.position) == ([0, 1, 2, 3], 0)
    steps.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_cannot_be_made_is_raised_where_its_turn_comes(ahead: int) -> None:
    steps = iter(ahead_of(Counting(breaks=True), 9, ahead))
    assert [next(steps) for _ in range(5)] == [[0], [1], [2], [3], [4]]  # type: ignore[comparison-overlap]
    with pytest.raises(DataError, match="row 41: the file is cut off"):
        next(steps)


def test_a_loop_that_is_left_leaves_no_thread() -> None:
    for step in ahead_of(Counting(), 100, 2):
        if step == [3]:
            assert len(threads()) == 1
            break


def toy(kind: str, path: str, tokenizer: PreTrainedTokenizerFast, prefetch: int) -> Any:
    if kind == "rows in memory":
        return module(path, tokenizer, prefetch=prefetch)
    options = {**OPTIONS, "val_fraction": 0.15, "shuffle_buffer": 2, "prefetch": prefetch}
    return StreamDataModule(train_path=path, tokenizer=tokenizer, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["rows in memory", "stream"])
def test_a_run_is_the_same_however_far_ahead_it_reads(
    kind: str, write: Write, chatml: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """NUMERICS 26: rows and weights, whole and resumed at step 6; its checkpoint holds the steps that were taken."""
    path = write(rows_with_z(24))
    plain = run(toy(kind, path, chatml, 0), tmp_path / "plain")
    for prefetch in (1, 50):
        folder = tmp_path / str(prefetch)
        data = toy(kind, path, chatml, prefetch)
        whole = run(data, folder)
        assert (whole.rows, whole.validated) == (plain.rows, plain.validated)
        assert torch.equal(whole.weight, plain.weight)
        assert data.position == STEPS
        saved = [
            torch.load(at / "step=6.ckpt", weights_only=True)[type(data).__name__]
            for at in (folder, tmp_path / "plain")
        ]
        assert saved[0] == saved[1]
        assert saved[0]["position"] == 6
        again = toy(kind, path, chatml, prefetch)
        assert run(again, tmp_path / f"again{prefetch}", resume=folder / "step=6.ckpt").rows == plain.rows[6:]


def test_what_a_stream_knows_of_rows_does_not_depend_on_how_far_it_has_read(
    write: Write, chatml: PreTrainedTokenizerFast
) -> None:
    """Of rows read ahead it says nothing before their turn; of those in turn all."""
    data = toy("stream", write(rows_with_z(40)), chatml, 50)
    data.total_steps = 12
    rows = []
    for k, step in enumerate(data.train_dataloader()):
        row_id = torch.cat([batch.row_id for batch in step])
        assert data.group(row_id).shape == row_id.shape
        data.position = k + 1
        rows.append(len(data._lookup.row_id) - len(data.val))
        assert data.epoch(k + 1) >= 0
    assert set(rows) <= {8, 4, 5, 6, 7}, "rows of one buffer of two global batches at a time, or of the end of a pass"


def test_an_interrupted_fit_leaves_no_thread(
    write: Write, chatml: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its limit, by an error of its own and by one of the data, all through Lightning."""
    path = write(rows_with_z(24))
    run(module(path, chatml), tmp_path / "limit", stop=5)
    assert not threads()
    data = module(path, chatml)
    monkeypatch.setattr(data, "transfer_batch_to_device", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(data, tmp_path / "own")
    assert not threads()
    broken = module(path, chatml)
    step = broken.step
    monkeypatch.setattr(broken, "step", lambda k: step(k) if k < 4 else Counting(breaks=True).step(5))
    with pytest.raises(DataError, match="the file is cut off"):
        run(broken, tmp_path / "data")


def test_steps_made_ahead_are_counted_from_zero(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match=r"data\.prefetch is -1: give optimizer steps"):
        module(write(rows_with_z(5)), chatml, prefetch=-1)
