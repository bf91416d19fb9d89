"""The shared table: equal to the online reference, computed once by however many ask, finished after a kill."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import spo.policy.shared
from spo.errors import ConfigError, SpoError
from spo.lock import exclusive
from spo.policy.causal_lm import CausalLM
from spo.policy.reference import StoredTable
from spo.policy.shared import SharedTable
from spo.policy.tabular import Tabular
from spo.types import PreferenceBatch, TokenPairs

from .conftest import move_adapters, tiny_policy

ROOT = Path(__file__).parents[2]


class Rows:
    """Three rows of a data module, one of them exchanged at load."""

    row_count: int | None = 3

    def __init__(self, batch: PreferenceBatch, name: str = "r0", batch_rows: int = 3) -> None:
        self.batch, self.name, self.batch_rows = batch, name, batch_rows

    def fingerprint(self) -> dict[str, str]:
        return {"rows": self.name, "renderer": "t0"}

    def swapped(self, row_id: Tensor) -> Tensor:
        return row_id == 17

    def all_rows(self) -> Iterator[PreferenceBatch]:
        pair = self.batch.pair
        assert isinstance(pair, TokenPairs)
        for i in range(0, 3, self.batch_rows):
            at = slice(i, i + self.batch_rows)
            part = TokenPairs(pair.input_ids[at], pair.attention_mask[at], pair.response_mask[at])
            fields = {name: getattr(self.batch, name)[at] for name in ("z", "weight", "row_id")}
            yield replace(self.batch, pair=part, **fields)


@pytest.fixture
def policy(tiny_llama_dir: Path) -> CausalLM:
    return move_adapters(tiny_policy(tiny_llama_dir))


@pytest.fixture
def data(three_rows: PreferenceBatch) -> Rows:
    return Rows(three_rows)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that computed a table."""
    seen: list[str] = []
    original = spo.policy.shared.fill_table

    def fill(*arguments: object, **options: object) -> None:
        seen.append(threading.current_thread().name)
        original(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(spo.policy.shared, "fill_table", fill)
    return seen


def shared(folder: Path | None) -> SharedTable:
    return SharedTable(folder=None if folder is None else str(folder), shard_rows=1, device="cpu")


def test_it_equals_the_online_reference_and_leaves_the_policy_as_it_was(
    policy: CausalLM, data: Rows, three_rows: PreferenceBatch, tmp_path: Path, computed: list[str]
) -> None:
    """Of a policy that has moved: its base model is scored, not what trains. Random numbers are left alone too."""
    before, state = {k: v.clone() for k, v in policy.trainable_state_dict().items()}, torch.get_rng_state()
    table = shared(tmp_path)
    table.prepare(policy, data)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in policy.trainable_state_dict().items())
    online = policy.reference_log_prob(three_rows.pair)
    torch.testing.assert_close(table.log_prob(three_rows, policy), online, atol=1e-4, rtol=0)
    assert not torch.allclose(policy.log_prob(three_rows.pair), online, atol=1e-2)
    shared(tmp_path).prepare(policy, data)
    assert len(computed) == 1
    (place,) = tmp_path.iterdir()
    StoredTable(path=str(place)).prepare(policy, data)  # a table like any other
    shared(tmp_path).prepare(policy, Rows(three_rows, name="r1"))
    assert len(computed) == 2, "other rows are another table"


def test_no_folder_is_the_cache(policy: CausalLM, data: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPO_CACHE", str(tmp_path))
    shared(None).prepare(policy, data)
    assert len(list((tmp_path / "reference").iterdir())) == 1


def test_of_many_that_ask_at_once_one_computes(
    policy: CausalLM, data: Rows, three_rows: PreferenceBatch, tmp_path: Path, computed: list[str]
) -> None:
    """A lock is of an open file, so threads race as processes do."""
    start = threading.Barrier(4)

    def ask(_: int) -> Tensor:
        table = shared(tmp_path)
        start.wait()
        table.prepare(policy, data)
        return table.log_prob(three_rows, policy)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(ask, range(4))
    assert len(computed) == 1
    assert all(torch.equal(first, other) for other in others)


def test_a_process_that_is_killed_while_it_computes_holds_up_none(
    policy: CausalLM, data: Rows, tmp_path: Path, computed: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Another process holds the lock: this one says that it waits, and computes when the other is killed."""
    table = shared(tmp_path)
    table.prepare(policy, data)
    (place,) = tmp_path.iterdir()
    (place / "manifest.json").unlink()  # the beginning of a table
    code = (
        "import sys, time; from pathlib import Path; from spo.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(place / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder, ThreadPoolExecutor(1) as pool:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = pool.submit(shared(tmp_path).prepare, policy, data)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        assert len(computed) == 1
        holder.send_signal(signal.SIGKILL)
        waiting.result(timeout=30)
    assert len(computed) == 2
    assert "is being computed by another process: waiting for it" in capfd.readouterr().err


def test_what_was_killed_half_way_is_finished(
    policy: CausalLM, three_rows: PreferenceBatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second batch: the next one scores the other two rows, and the table is the online reference."""
    data, scored = Rows(three_rows, batch_rows=1), []
    original = CausalLM.log_prob

    def counted(self: CausalLM, pair: TokenPairs) -> Tensor:
        scored.append(len(pair.input_ids))
        if len(scored) == 2:
            raise KeyboardInterrupt
        return original(self, pair)

    with monkeypatch.context() as patched:
        patched.setattr(CausalLM, "log_prob", counted)
        with pytest.raises(KeyboardInterrupt):
            shared(tmp_path).prepare(policy, data)
        (place,) = tmp_path.iterdir()
        with pytest.raises(ConfigError, match="not complete"):
            StoredTable(path=str(place)).prepare(policy, data)
        table = shared(tmp_path)
        table.prepare(policy, data)
    assert scored == [1, 1, 1, 1]
    online = policy.reference_log_prob(three_rows.pair)
    torch.testing.assert_close(table.log_prob(three_rows, policy), online, atol=1e-4, rtol=0)


def test_what_it_refuses(policy: CausalLM, data: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="shard_rows is 0"):
        SharedTable(folder=None, shard_rows=0, device="auto")
    tabular = Tabular(features=2, hidden=[3], actions=2, seeds=[0])
    with pytest.raises(ConfigError, match="reference=uniform"):
        shared(tmp_path).prepare(tabular, data)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        shared(tmp_path / "file").prepare(policy, data)
    monkeypatch.setattr(Rows, "row_count", None)
    with pytest.raises(ConfigError, match="cannot tell two streams apart"):
        shared(tmp_path).prepare(policy, data)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("spo.lock.fcntl.flock", refuse)
    with pytest.raises(SpoError, match="without locks"), exclusive(tmp_path / ".lock"):
        pass
