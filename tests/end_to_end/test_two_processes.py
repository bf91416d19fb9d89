"""Two gloo processes compute what one computes on the same global batch (NUMERICS 28).

Adam divides each gradient by its own size, so that a gradient of 0 and one of 1e-10 take different steps: with a
large eps its steps are smooth in the gradients, and what is left is the order of float32 sums.
"""

import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from spo.cli.execute import execute
from spo.run_folder import RunFolder
from tests.tiny import write_pairs

from .conftest import ROOT, assert_close, finish, last_step, process, reach, spo, stop, twin

STEPS = 12
RUN = [
    *(f"steps={STEPS}", "validate_every=4", "checkpoint_every=2", "logger=none", "optim.eps=1e-2", "micro_batch=2"),
    *("refit.every=3", "refit.warm_start_steps=2", "optim.learning_rate=2e-2", "data.val_path=seven.jsonl"),
]
TWO = ["hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2", "hardware.strategy.process_group_backend=gloo"]
ONE = yaml.safe_load((ROOT / "conf/hardware/cpu.yaml").read_text()) | {"threads": 1}
CLOSE = 1e-3  # of the largest value of a metric
METHODS = {
    "pspo": ["method=pspo"],
    "sweep": ["method=pspo", "link=kernel", "refit=sweep"],
    "rspo": ["method=rspo"],
    "stream": ["method=pspo", "data=stream", "data.shuffle_buffer=8", "truth.reward_sd=2"],
    "efficient": ["method=ospo", "objective.score=efficient", "index_scale=pinned"],
    "budget": ["method=rspo", "micro_batch=null", "micro_tokens=300"],
    "averaged": ["method=pspo", "averaging=ema", "averaging.decay=0.8"],
}


@pytest.fixture
def seven(tiny: list[str]) -> list[str]:
    """With a validation file of seven rows, so that two processes do not get equally many."""
    write_pairs(Path("seven.jsonl"), rows=7, prompts=7)
    text = Path("seven.jsonl").read_text().replace("Write about", "Tell of")
    Path("seven.jsonl").write_text(text)
    return [*tiny, *RUN]


def alone(run: RunFolder) -> RunFolder:
    """The same configuration in one process, with the micro-batches of both."""
    made = twin(run, Path("alone"), hardware=ONE, micro_batch=4, micro_tokens=None)
    assert execute(made.path) == 0
    return made


def assert_same_end(ours: RunFolder, theirs: RunFolder) -> None:
    assert_close(ours, theirs, CLOSE)
    for a, b in zip(ours.link_history(), theirs.link_history(), strict=True):
        assert (a["step"], a["kind"], a["link"]) == (b["step"], b["kind"], b["link"])
        assert a["p"] == pytest.approx(b["p"], abs=1e-3)
    rows = [pd.read_parquet(run.validation_path).sort_values("row_id") for run in (ours, theirs)]
    assert len(rows[0]) == len(set(rows[0].row_id)) == 7
    assert list(rows[0].row_id) == list(rows[1].row_id)
    assert list(rows[0].t) == pytest.approx(list(rows[1].t), rel=0, abs=CLOSE * rows[1].t.abs().max())
    # best.ckpt is one file, whatever the strategy; both keep the weights of the same step
    state = [torch.load(run.checkpoints / "best.ckpt")["state_dict"] for run in (ours, theirs)]
    for name, value in state[0].items():
        if name.startswith("policy."):
            torch.testing.assert_close(value, state[1][name], atol=1e-5, rtol=1e-3)


def test_two_processes_and_their_checkpoint_in_one(seven: list[str]) -> None:
    """Losses, gradient norms, metrics and links up to a SIGTERM at which both stop at one step; then the
    checkpoint of two processes goes on in one."""
    run = RunFolder("two")
    started = process("train", *seven, *TWO, *METHODS["pspo"], "hydra.run.dir=two")
    reach(run, 6, started)
    stop(run, signal.SIGTERM)
    code, out = finish(started)
    assert code == 143, out[-5000:]
    assert out.count("67 read") == 1, "every rank prints"
    assert "sync_dist" not in out
    stopped = last_step(run)
    one = alone(run)
    assert_close(run, one_until(one, stopped), CLOSE)
    run.config_path.write_text(yaml.safe_dump(run.config | {"hardware": ONE, "micro_batch": 4}))
    assert execute(run.path) == 0
    assert_same_end(run, one)


def one_until(run: RunFolder, step: int) -> RunFolder:
    cut = RunFolder(f"{run.path}_until")
    for m in run.metrics():
        if m.step <= step:
            cut.append_metrics(m.step, {m.name: m.value})
    return cut


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_objective_and_refit(seven: list[str], method: str) -> None:
    spo("train", *seven, *TWO, *METHODS[method], "hydra.run.dir=two")
    run = RunFolder("two")
    assert run.status["state"] == "ok"
    assert_same_end(run, alone(run))
