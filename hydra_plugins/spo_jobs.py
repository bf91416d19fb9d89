"""Hydra's part of a sweep: launchers whose jobs are processes of their own, and a sweeper that does not compose twice.

Hydra instantiates plugins below `hydra_plugins` alone; what they do is in spo/cli/multirun.py and spo/sweep.
"""

from collections.abc import Sequence
from typing import Literal

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from spo.cli.multirun import Multirun
from spo.submit import Launcher as Starter
from spo.submit import Submitit, ThisMachine
from spo.sweep.driver import Options
from spo.sweep.slots import Cluster, Room, Slots


class _JobLauncher(Launcher):
    """room: where there is place for jobs; starter: what starts one."""

    def __init__(self, room: Room, starter: Starter, options: Options) -> None:
        self.room, self.starter, self.options = room, starter, options
        self.multirun: Multirun | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        if not isinstance(task_function, Multirun):
            raise ValueError("this launcher runs jobs of `spo COMMAND -m` alone: in another program give its own")
        self.multirun = task_function
        task_function.folder = str(config.hydra.sweep.dir)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        assert self.multirun is not None
        done = self.multirun.run(job_overrides, initial_job_idx, self.room, self.starter, self.options)
        returned = []
        for overrides, result in zip(job_overrides, done, strict=True):
            entry = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)  # a failed one ends no sweep
            entry.return_value = {"status": result.status, "metrics": result.metrics}
            returned.append(entry)
        return returned


class LocalLauncher(_JobLauncher):
    """hydra/launcher=local."""

    def __init__(self, *, max_jobs: int | None, retries: int, fail_fast: bool) -> None:
        options = Options(retries=retries, fail_fast=fail_fast)
        super().__init__(Slots.of_this_machine(max_jobs), ThisMachine(), options)


class SubmititLauncher(_JobLauncher):
    """hydra/launcher=submitit."""

    def __init__(
        self,
        *,
        max_jobs: int | None,
        retries: int,
        fail_fast: bool,
        executor: Literal["slurm", "local"],
        nodes: int,
        tasks_per_node: int,
        gpus_per_node: int,
        cpus_per_task: int,
        memory_gb: float,
        minutes: int,
        partition: str | None,
        account: str | None,
        setup: Sequence[str],
    ) -> None:
        starter = Submitit(
            executor=executor,
            nodes=nodes,
            tasks_per_node=tasks_per_node,
            gpus_per_node=gpus_per_node,
            cpus_per_task=cpus_per_task,
            memory_gb=memory_gb,
            minutes=minutes,
            partition=partition,
            account=account,
            setup=list(setup),
            wait=True,
        )
        super().__init__(Cluster(max_jobs), starter, Options(retries=retries, fail_fast=fail_fast))


class Grid(BasicSweeper):
    """hydra/sweeper=grid: every combination. Hydra's own composes each job to see whether it can be; that was done."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Every job has been composed and checked before the sweep began."""
