"""The real command line on the tiny Llama: `python -m spo ...` in processes, or its two halves in this one.

A process spends some ten seconds on imports, so a test starts one only where the process itself is what it is about.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from spo.cli import main
from spo.cli.execute import execute
from spo.run_folder import RunFolder
from tests.tiny import write_pairs

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600
TINY = [
    "policy=causal_lm",
    "policy.lora.r=4",
    "data.max_length=128",
    "data.val_fraction=0.2",
    "truth=shifted_mixture",
    "global_batch=8",
    "optim.learning_rate=2e-3",
    "hardware.threads=1",
]
Here = Callable[..., int]


def process(*words: str) -> "subprocess.Popen[str]":
    """`python -m spo WORDS` in the current folder; killed with all its children by `finish`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "spo", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=subprocess.STDOUT)


def finish(started: "subprocess.Popen[str]") -> tuple[int, str]:
    """(exit code, all that was printed)."""
    try:
        out, _ = started.communicate(timeout=TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
    return started.returncode, out


def spo(*words: str) -> str:
    """Runs to its end, which must be good; returns what was printed."""
    code, out = finish(process(*words))
    assert code == 0, out[-5000:]
    assert "Traceback" not in out
    return out


def reach(run: RunFolder, step: int, started: "subprocess.Popen[str]") -> None:
    """Wait until the metrics table has a training step >= `step` that this process wrote."""
    end = time.monotonic() + TIMEOUT_S
    while not (run.status.get("state") == "running" and last_step(run) >= step):
        assert started.poll() is None, started.communicate()[0][-5000:]
        assert time.monotonic() < end, f"step {step} was not reached"
        time.sleep(0.005)


def last_step(run: RunFolder) -> int:
    return max((step for step, _ in run.series("train/loss")), default=0)


def stop(run: RunFolder, number: signal.Signals) -> None:
    """To the executing process itself, whoever its parent is."""
    os.kill(run.status["pid"], number)


def twin(run: RunFolder, path: Path, **changes: object) -> RunFolder:
    """A folder with the configuration of `run` and other top-level nodes."""
    made = RunFolder(path)
    made.create(yaml.safe_load(run.config_path.read_text()) | changes, run.invocation)
    return made


def table(run: RunFolder) -> list[tuple[int, str, str]]:
    """Every number that does not measure the machine, exactly, in the order in which it was written."""
    return [(m.step, m.name, m.value.hex()) for m in run.metrics() if not m.name.startswith("perf/")]


def assert_close(ours: RunFolder, theirs: RunFolder, tolerance: float) -> None:
    """The same metrics at the same steps, within `tolerance` of the largest value that a metric takes in its run."""
    for name in sorted({m.name for run in (ours, theirs) for m in run.metrics()}):
        if not name.startswith("perf/"):
            a, b = ours.series(name), theirs.series(name)
            assert [step for step, _ in a] == [step for step, _ in b], name
            scale = max(abs(value) for _, value in b)
            assert [v for _, v in a] == pytest.approx([v for _, v in b], rel=0, abs=tolerance * scale + 1e-7), name


@pytest.fixture
def tiny(tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a run on the tiny Llama and 60 rows with rewards, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl")
    return [*TINY, f"policy.path={tiny_llama_dir}", "data.train_path=pairs.jsonl"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """`here("train", ...)`: main, and the child's work in this process too; returns the exit code."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr("spo.cli.launch.run_child", lambda launcher, folder: execute(folder))
    return lambda *words: main(list(words))
