"""Out of memory in the middle of a run: which part, what to change, and a checkpoint from which it goes on."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spo import out_of_memory as memory
from spo.cli import main
from spo.cli.advice import advice
from spo.cli.execute import execute
from spo.data.micro import OfPairs, OfTokens
from spo.module import SPOModule
from spo.out_of_memory import OutOfMemory, at_work, is_out_of_memory
from spo.policy.causal_lm import CausalLM
from spo.run_folder import RunFolder
from spo.types import ActionPairs, PreferenceBatch, TokenPairs
from tests.end_to_end.conftest import TINY
from tests.tiny import Tiny, losses, weights, write_pairs

FULL = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB"


@pytest.fixture
def tiny(tiny_llama_dir: Path, tmp_path: Path) -> Tiny:
    return Tiny(tiny_llama_dir, write_pairs(tmp_path / "pairs.jsonl"), tmp_path)


def fail_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """The method raises at its call with gradients number `number`."""
    original, calls = getattr(owner, name), []

    def patched(*args: Any, **options: Any) -> Any:
        calls.extend([1] * torch.is_grad_enabled())
        if len(calls) == number:
            calls.append(1)
            raise torch.OutOfMemoryError(FULL)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, patched)


PARTS = {
    "forward": (CausalLM, "log_prob", memory.FORWARD),
    "backward": (SPOModule, "manual_backward", memory.BACKWARD),
}
RUN: dict[str, Any] = {"steps": 6, "validate_every": 3, "checkpoint_every": 6, "lora": {"dropout": 0.2}}


@pytest.mark.parametrize("part", PARTS)
def test_the_step_has_not_happened(tiny: Tiny, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second micro-batch of step 5, no checkpoint being due: last.ckpt is the end of step 4, and the run goes on
    from it to the numbers and weights of one that was left alone, dropout included."""
    whole = tiny.go("whole", **RUN)
    owner, name, expected = PARTS[part]
    with monkeypatch.context() as patch:
        fail_at(patch, owner, name, 2 * 4 + 2)
        with pytest.raises(OutOfMemory, match="tried to allocate 2") as raised:
            tiny.go("cut", **RUN)
    assert raised.value.parts == [expected]
    assert raised.value.kept == 4
    assert torch.load(tiny.run("cut").checkpoints / "last.ckpt")["global_step"] == 4
    resumed = tiny.go("cut", **RUN)
    assert losses(tiny.run("cut")) == losses(tiny.run("whole"))
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key])


def test_where_the_step_has_changed_something_the_last_checkpoint_counts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimizer may have moved some tensors before it fails; a refit and a validation come after it."""
    run = RUN | {"checkpoint_every": 2, "validate_every": 5}
    cuts = [
        (torch.optim.AdamW, "step", 4, [memory.OPTIMIZER], 2),
        (SPOModule, "validation_step", 2, [memory.VALIDATION], 4),
    ]
    whole = tiny.go("whole", **run)
    for owner, name, number, parts, kept in cuts:
        with monkeypatch.context() as patch:
            if name == "validation_step":  # at step 5, after that before the first step
                original = SPOModule.validation_step

                def fail(self: Any, *args: Any, original: Any = original) -> None:
                    if self.trainer.global_step:
                        raise MemoryError
                    original(self, *args)

                patch.setattr(owner, name, fail)
            else:
                fail_at(patch, owner, name, number)
            with pytest.raises(OutOfMemory) as raised:
                tiny.go("cut", **run)
        assert raised.value.parts == parts
        assert raised.value.kept is None
        assert torch.load(tiny.run("cut").checkpoints / "last.ckpt")["global_step"] == kept
    tiny.go("cut", **run)
    assert losses(tiny.run("cut")) == losses(tiny.run("whole"))
    assert whole.trainer.global_step == 6


def test_spo_train_says_what_to_change_and_goes_on_with_it(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and no traceback; then `spo execute RUN` with the keys that the message gives."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr("spo.cli.launch.run_child", lambda launcher, folder: execute(folder))
    write_pairs(Path("pairs.jsonl"))
    words = [*TINY, f"policy.path={tiny_llama_dir}", "data.train_path=pairs.jsonl", "logger=none", "diagnosis=none"]
    words += ["steps=3", "micro_batch=4", "hydra.run.dir=run"]
    with monkeypatch.context() as patch:
        fail_at(patch, SPOModule, "manual_backward", 4)
        assert main(["train", *words]) == 2
    said = capfd.readouterr().err
    assert "Traceback" not in said
    run = RunFolder("run")
    assert run.status["state"] == "failed"
    for part in (
        "out of memory in the backward pass, with a micro-batch of 4 pairs, 2 x 4 x ",
        "last.ckpt holds the state before optimizer step 2",
        "run micro_batch=2` (now 4)",
        "run policy.gradient_checkpointing=true`",
    ):
        assert part in said.replace("\n", " ")
        assert part in run.status["message"]
    assert main(["execute", "run", "steps=4"]) == 2
    assert main(["execute", "run", "micro_batch=2", "micro_tokens=many"]) == 2
    refused = capfd.readouterr().err
    assert "steps cannot be changed" in refused
    assert "micro_tokens is 'many': give" in refused
    keys = ["micro_batch=null", "micro_tokens=300", "policy.gradient_checkpointing=true"]
    assert main(["execute", "run", *keys]) == 0
    run = RunFolder("run")
    assert [step for step, _ in run.series("train/loss")] == [1, 2, 3]
    assert (run.config["micro_batch"], run.config["micro_tokens"]) == (None, 300)
    assert run.config["policy"]["gradient_checkpointing"] is True
    assert run.invocation["changed"] == keys
    assert main(["execute", "run", "micro_tokens=400"]) == 2
    assert "finished already" in capfd.readouterr().err


def pairs(rows: int, length: int) -> PreferenceBatch:
    ids = torch.zeros(rows, 2, length, dtype=torch.int64)
    pair = TokenPairs(ids, torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool))
    return PreferenceBatch(pair, torch.zeros(rows), torch.ones(rows), torch.arange(rows))


def test_which_errors_are_of_memory_and_what_they_say() -> None:
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes. Error code 12")
    for error in (cpu, torch.OutOfMemoryError(FULL), MemoryError()):
        assert is_out_of_memory(error)
    for other in (RuntimeError("shapes do not fit"), ValueError("out of memory")):
        assert not is_out_of_memory(other)
        with pytest.raises(type(other)), at_work(memory.REFIT):
            raise other
    with pytest.raises(OutOfMemory) as raised, at_work(memory.VALIDATION), at_work(memory.FORWARD, pairs(3, 50)):
        raise cpu
    assert str(raised.value) == (
        "out of memory in the policy's forward pass, in a validation, with a micro-batch of 3 pairs, 2 x 3 x 50 = 300 "
        "tokens (tried to allocate 4096 bytes)"
    )
    actions = ActionPairs(torch.zeros(5, 7, 2), torch.zeros(5, 7, 2, dtype=torch.int64))
    batch = PreferenceBatch(actions, torch.zeros(5, 7), torch.ones(5, 7), torch.zeros(5, 7, dtype=torch.int64))
    assert "micro-batch of 5 x 7 rows" in str(OutOfMemory(memory.FORWARD, MemoryError(), batch))


def test_advice_fits_the_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    policy = {"gradient_checkpointing": False, "lora": None, "dtype": "float32"}
    run.create({"_target_": "x", "micro_batch": 8, "policy": policy, "hardware": {"strategy": None}}, {})

    def said(part: memory.Part, micro: Any, longest: int, batch: PreferenceBatch | None = None) -> str:
        rows = SimpleNamespace(micro=micro, longest_row=longest)
        return advice(OutOfMemory(part, MemoryError(), batch), run, rows, None)  # type: ignore[arg-type]

    forward = said(memory.FORWARD, OfPairs(8), 100, pairs(8, 100))
    for words in ("micro_batch=4` (now 8)", "micro_batch=null micro_tokens=800`", "policy.gradient_checkpointing=true"):
        assert f"`spo execute {run.path} {words}" in forward
    assert "begins anew" in forward
    assert "adapters" in forward
    assert "hardware=fsdp" in forward
    optimizer = said(memory.OPTIMIZER, OfPairs(8), 100)
    assert "micro" not in optimizer
    assert "adapters" in optimizer
    assert "gradient_checkpointing" not in said(memory.REFERENCE, OfTokens(900), 100, pairs(8, 50))
    assert "micro_tokens=450` (now 900)" in said(memory.REFERENCE, OfTokens(900), 100, pairs(8, 50))
    assert "reference=shared_table" in said(memory.REFERENCE, OfTokens(900), 100, pairs(8, 50))
