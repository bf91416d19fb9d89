"""Where and how to compute: what the hardware group hands to Lightning's Trainer."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from spo.errors import ConfigError
from spo.submit import Launcher


class Strategy(ABC):
    """How several devices work together."""

    shards: ClassVar[bool]  # True where no process holds the whole model

    @abstractmethod
    def build(self, processes: int) -> Any:
        """A Lightning Strategy for so many processes over all nodes."""


@dataclass(frozen=True, kw_only=True)
class DDP(Strategy):
    """Every process holds the whole model; gradients are averaged.

    process_group_backend: gloo (CPU), nccl (CUDA), None for Lightning's choice by accelerator.
    find_unused_parameters: only for models with branches that a step may skip.
    broadcast_buffers: False, for rank 0 must not overwrite what another rank keeps in its buffers.
    """

    process_group_backend: str | None
    find_unused_parameters: bool
    broadcast_buffers: bool
    shards: ClassVar[bool] = False

    def build(self, processes: int) -> Any:
        from lightning.pytorch.strategies import DDPStrategy

        return DDPStrategy(
            process_group_backend=self.process_group_backend,
            find_unused_parameters=self.find_unused_parameters,
            broadcast_buffers=self.broadcast_buffers,
        )


@dataclass(frozen=True, kw_only=True)
class FSDP(Strategy):
    """Weights, gradients and Adam's moments are spread over all processes (FSDP2, `fully_shard` of torch).

    data_parallel_size is the number of processes and tensor_parallel_size 1: Lightning's own defaults do no data
    parallelism on one node. A checkpoint is a folder, to which every process writes its shard, and can be gone on with
    by another number of processes.
    process_group_backend: gloo (CPU), nccl (CUDA), None for Lightning's choice by accelerator.
    """

    process_group_backend: str | None
    shards: ClassVar[bool] = True

    def build(self, processes: int) -> Any:
        from lightning.pytorch.strategies import ModelParallelStrategy

        return ModelParallelStrategy(
            data_parallel_size=processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=True,
            process_group_backend=self.process_group_backend,
        )


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """accelerator: Lightning's name. devices: processes on each node, or "auto" for every device there is. nodes:
    machines; more than one are started by torchrun or Slurm (docs/distributed.md). strategy: how several devices work
    together, None for one device. precision: "32-true" float32; "bf16-mixed" float32 weights, bfloat16 products;
    "bf16-true" bfloat16 weights too (log-probabilities, the index and every link stay float32). threads: CPU threads
    per process, None for OMP_NUM_THREADS or an even share of the cores. launcher: what starts the run, None for this
    machine at once.
    """

    accelerator: Literal["cpu", "gpu", "auto"]
    devices: int | Literal["auto"]
    nodes: int
    strategy: Strategy | None
    precision: Literal["32-true", "bf16-mixed", "bf16-true"]
    threads: int | None
    launcher: Launcher | None

    def __post_init__(self) -> None:
        problems = []
        if self.devices != "auto" and self.devices < 1:
            problems.append(f"devices is {self.devices}: give a count >= 1, or auto")
        elif self.strategy is None and self.devices != 1:
            problems.append(f"devices is {self.devices} without a strategy: give hardware=ddp, or devices=1")
        if self.nodes < 1:
            problems.append(f"nodes is {self.nodes}: give a count >= 1")
        elif self.strategy is None and self.nodes != 1:
            problems.append(f"nodes is {self.nodes} without a strategy: give hardware=ddp or fsdp, or nodes=1")
        if self.threads is not None and self.threads < 1:
            problems.append(f"threads is {self.threads}: give a count >= 1, or null for an even share of the cores")
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def threads_per_process(self) -> int:
        """CPU threads for torch in each process. A launcher that runs several jobs gives each its part of the cores in
        OMP_NUM_THREADS, which counts where `threads` is None."""
        given = os.environ.get("OMP_NUM_THREADS", "")
        if self.threads is not None or given.isdecimal():
            return self.threads or max(1, int(given))
        return max(1, (os.cpu_count() or 1) // (1 if self.devices == "auto" else self.devices))

    @property
    def shards(self) -> bool:
        """True where no process holds the whole model."""
        return self.strategy is not None and self.strategy.shards

    @property
    def processes(self) -> int:
        """Over all nodes."""
        return self.nodes * (self._devices_there_are() if self.devices == "auto" else self.devices)

    def _devices_there_are(self) -> int:
        import torch

        return 1 if self.accelerator == "cpu" else max(1, torch.cuda.device_count())

    def check(self) -> None:
        """Raises ConfigError where this machine lacks what is asked for. Not in the constructor: the job may run on
        another one."""
        import torch

        if self.accelerator != "gpu":
            return
        there = torch.cuda.device_count() or int(torch.backends.mps.is_available())
        wanted = 1 if self.devices == "auto" else self.devices
        if there < wanted:
            mend = f"hardware.devices={there}" if there else "hardware=cpu"
            raise ConfigError(f"hardware asks for GPUs, {wanted} a machine, and this one has {there}: give {mend}")

    def trainer_kwargs(self) -> dict[str, Any]:
        """Arguments for lightning.Trainer."""
        return {
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.nodes,
            "strategy": "auto" if self.strategy is None else self.strategy.build(self.processes),
            "precision": self.precision,
        }
