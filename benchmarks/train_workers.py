"""The two tools of benchmarks/train.py, each as a process that stops before every step."""

import json
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

BETA, LEARNING_RATE, RANK, ALPHA = 0.1, 1e-4, 8, 16


@dataclass(frozen=True)
class Task:
    folder: Path  # what the tools hand to one another lies here
    model: str  # as policy.path
    steps: int  # optimizer steps
    pairs: int  # a step
    max_length: int  # tokens a side
    chat: bool  # rows are a chat's, rendered by the model's template
    threads: int
    gpu: bool
    full: bool  # every weight is trained
    overrides: list[str]  # of spo's configuration

    @property
    def rows(self) -> Path:
        """What spo reads."""
        return self.folder / "rows.jsonl"

    @property
    def batches(self) -> Path:
        """The token ids of every step in order, written by spo before its first one."""
        return self.folder / "batches.json"

    @property
    def start(self) -> Path:
        """The adapters that both start from; none where every weight is trained."""
        return self.folder / "start.pt"


def spo(task: Task, pipe: Connection) -> None:
    """`spo train`, its steps gated; for that it runs in this process and not in a child."""
    os.chdir(task.folder)
    import torch

    from spo.cli import launch, main
    from spo.cli.execute import execute
    from spo.module import SPOModule
    from spo.run_folder import RunFolder

    right = SPOModule.training_step

    def gated(self: SPOModule, batches: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            write_batches(self.trainer.datamodule, task)
            torch.save({} if task.full else dict(self.policy.network.state_dict()), task.start)
            weights.append(sum(p.numel() for p in self.policy.parameters()))
        pipe.send(batch_idx)
        pipe.recv()
        right(self, batches, batch_idx)

    weights: list[int] = []
    launch.run_child = lambda _, folder: execute(folder)
    SPOModule.training_step = gated  # type: ignore[method-assign]
    code = main(["train", *spo_words(task)])
    if code:
        raise SystemExit(code)
    losses = [value for _, value in RunFolder(task.folder / "run").series("train/loss")]
    pipe.send({"losses": losses, "peak_gb": peak_gb(task), "weights": weights[0]})


def spo_words(task: Task) -> list[str]:
    words = [
        f"policy={'full' if task.full else 'causal_lm'}",
        f"policy.path={task.model}",
        f"data.train_path={task.rows}",
        "data.val_fraction=0",
        f"data.max_length={task.max_length}",
        "data.truncation=truncate_response",
        "data.bucket_window=1",
        f"data.chat_template={'model' if task.chat else 'none'}",
        "method=dpo",
        f"link.scale={BETA}",
        f"optim.learning_rate={LEARNING_RATE}",
        "schedule=constant",
        "schedule.warmup=0",
        "reference=shared_table",
        "selection=last",
        "diagnosis=none",
        "logger=none",
        f"steps={task.steps}",
        f"global_batch={task.pairs}",
        f"micro_batch={task.pairs}",
        f"hardware={'gpu' if task.gpu else 'cpu'}",
        f"hardware.threads={task.threads}",
        f"hydra.run.dir={task.folder / 'run'}",
    ]
    if not task.full:
        words += [f"policy.lora.r={RANK}", f"policy.lora.alpha={ALPHA}"]
    if task.gpu and not task.full:
        words += ["policy.dtype=bfloat16"]
    return words + task.overrides


def write_batches(data: Any, task: Task) -> None:
    steps = []
    for k in range(task.steps):
        rows, positions = data.batch(k)
        step = []
        for position in positions:
            prompt, *sides = (part.tolist() for part in rows.tokens(position))
            chosen, rejected = sides[::-1] if rows.z[position] == 1 else sides
            step.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        steps.append(step)
    task.batches.write_text(json.dumps(steps))


def trl(task: Task, pipe: Connection) -> None:
    """TRL's DPOTrainer on the batches that spo wrote."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from spo.policy.weights import locate

    class Gate(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            pipe.send(0)
            pipe.recv()

    class OnIds(DPOTrainer):
        """Rows are token ids already, and keep their order."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    torch.set_num_threads(task.threads)
    folder = locate(task.model).folder()
    settings = DPOConfig(
        output_dir=str(task.folder / "trl"), beta=BETA, max_length=task.max_length, learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant", per_device_train_batch_size=task.pairs, max_steps=task.steps, logging_steps=1,
        precompute_ref_log_probs=True, gradient_checkpointing=False, bf16=task.gpu, use_cpu=not task.gpu,
        dataloader_pin_memory=task.gpu, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    dtype = torch.bfloat16 if task.gpu and not task.full else torch.float32
    trainer = OnIds(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        args=settings,
        train_dataset=Dataset.from_list([row for step in json.loads(task.batches.read_text()) for row in step]),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=None if task.full else lora,
        callbacks=[Gate()],
    )
    start = torch.load(task.start, weights_only=True)
    lost = trainer.model.load_state_dict(start, strict=not task.full)
    assert task.full or not lost.missing_keys
    weights = sum(p.numel() for p in trainer.model.parameters())
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    pipe.send({"losses": losses, "peak_gb": peak_gb(task), "weights": weights})


def peak_gb(task: Task) -> float:
    """10^9 bytes."""
    import torch

    from spo.callbacks.throughput import peak_memory_gb

    return peak_memory_gb(torch.device("cuda" if task.gpu else "cpu"))


WORKERS = {"spo": spo, "trl": trl}
