"""What starts a composed run: a process of this machine, or a job elsewhere that runs `spo execute RUN`.

Imports no torch, for the command line asks it.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spo.errors import ConfigError
from spo.paths import PACKAGE
from spo.run_folder import RunFolder

PARENT_VARIABLE = "SPO_PARENT_PID"  # set for a child: that process waits for it, and takes it along when it dies
_POLL_S = 0.05


class Started(ABC):
    """A run on its way."""

    @abstractmethod
    def poll(self) -> int | None:
        """The exit code, 128 + n where signal n ended it; None while it runs. Never waits."""

    @abstractmethod
    def stop(self, number: int) -> None:
        """Send it signal `number`; nothing where it has ended."""

    def wait(self) -> int:
        """The exit code, once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(_POLL_S)
        return code


class Launcher(ABC):
    """Starts `spo execute RUN` where the run is to be computed."""

    @abstractmethod
    def check(self) -> None:
        """ConfigError where it can start nothing from here; asked before the first of many."""

    @abstractmethod
    def start(
        self, run: Path, *, processes: int = 1, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Started:
        """Start the composed folder `run`. processes: on this machine, more than one under torchrun; environment: added
        to ours; log: what it prints is added there, None for our own output. A job elsewhere has its own of the three,
        and its output is added to the log when it has ended. ConfigError where it cannot be started."""


@dataclass(frozen=True)
class Ended(Started):
    """There is nothing to wait for."""

    code: int

    def poll(self) -> int:
        return self.code

    def stop(self, number: int) -> None:
        """It has ended."""


class ThisMachine(Launcher):
    """A process of this machine, in a session of its own; one that is killed with SIGKILL takes it along."""

    def check(self) -> None:
        """It can."""

    def start(
        self, run: Path, *, processes: int = 1, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Started:
        # A session of its own: Ctrl-C in a terminal reaches a whole process group, data workers and W&B included, and
        # the child would get it twice.
        several = ["--processes", str(processes)] if processes > 1 else []
        command = [sys.executable, "-m", "spo", "execute", *several, str(run)]
        with contextlib.ExitStack() as stack:
            out = None if log is None else stack.enter_context(log.open("ab"))
            child = subprocess.Popen(
                command,
                stdin=None if log is None else subprocess.DEVNULL,
                stdout=out,
                stderr=None if log is None else subprocess.STDOUT,
                start_new_session=True,
                env=child_environment() | dict(environment or {}),
            )
        return _Child(child, run, processes)


@dataclass(frozen=True)
class _Child(Started):
    process: "subprocess.Popen[bytes]"
    run: Path
    processes: int

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is None or code == 0:
            return code
        if self.processes > 1 and code > 0:  # torchrun has exit codes of its own
            return _exit_code(self.run)
        return code if code > 0 else 128 - code

    def stop(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)


def child_environment() -> dict[str, str]:
    """The child runs the code that its parent runs, from whatever folder."""
    path = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), PARENT_VARIABLE: str(os.getpid())}


@dataclass(frozen=True, kw_only=True)
class Torchrun(Launcher):
    """Starts nothing: says how torchrun starts the composed folder. nodes: machines; processes: on each of them."""

    nodes: int
    processes: int

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.processes < 1:
            raise ConfigError(f"nodes is {self.nodes} and processes {self.processes}: give counts >= 1")

    def check(self) -> None:
        """It starts nothing."""

    def start(
        self, run: Path, *, processes: int = 1, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Started:
        where = f"--nproc-per-node {self.processes}"
        print("start it with" + (", on each machine:" if self.nodes > 1 else ":"))
        for rank in range(self.nodes):
            many = f"--nnodes {self.nodes} --node-rank {rank} --master-addr HOST --master-port 29500 "
            print(f"  torchrun {many if self.nodes > 1 else ''}{where} -m spo execute {run}")
        return Ended(0)


@dataclass(frozen=True, kw_only=True)
class Submitit(Launcher):
    """A Slurm job by submitit, or (executor=local) a process of this machine that is treated as one.

    nodes, tasks_per_node, gpus_per_node, cpus_per_task: counts. memory_gb: of a node. minutes: time limit.
    partition, account: None for the cluster's default. setup: shell lines before the job. wait: False submits and
    returns. Scripts and output of the job lie in RUN/submitit.
    """

    executor: Literal["slurm", "local"]
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    memory_gb: float
    minutes: int
    partition: str | None
    account: str | None
    setup: list[str]
    wait: bool

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("nodes", "tasks_per_node", "cpus_per_task", "minutes")}
        problems = [f"{name} is {value}: give a count >= 1" for name, value in counts.items() if value < 1]
        if self.executor not in ("slurm", "local"):
            problems.append(f"executor is {self.executor!r}: give slurm or local")
        if self.gpus_per_node < 0:
            problems.append(f"gpus_per_node is {self.gpus_per_node}: give 0 or a count")
        if not self.memory_gb > 0:
            problems.append(f"memory_gb is {self.memory_gb}: give GB > 0")
        if self.executor == "local" and self.tasks_per_node != 1:
            problems.append(
                f"tasks_per_node is {self.tasks_per_node} with executor=local: give 1, Lightning starts the others"
            )
        if problems:
            raise ConfigError("; ".join(problems))

    def check(self) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise ConfigError('hardware=slurm and hydra/launcher=submitit need submitit: pip install "spo[slurm]"')
        if self.executor == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "the launcher's executor is slurm, but this machine has no sbatch: submit from a login node of the "
                "cluster, or give hardware.launcher.executor=local (hydra.launcher.executor=local)"
            )

    def start(
        self, run: Path, *, processes: int = 1, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Started:
        self.check()
        from submitit import AutoExecutor
        from submitit.core.utils import CommandFunction

        executor = AutoExecutor(folder=run / "submitit" / "%j", cluster=self.executor)
        executor.update_parameters(**self._parameters(run.name))
        command = [sys.executable, "-m", "spo", "execute", str(run)]
        try:
            job: Any = executor.submit(CommandFunction(command, verbose=True))
        except RuntimeError as error:  # submitit's FailedJobError, with what sbatch said
            raise ConfigError(f"the cluster refused the job: {error}") from error
        print(f"submitted job {job.job_id}; its output: {job.paths.stdout}", flush=True)
        return _Submitted(job, run, log) if self.wait else Ended(0)

    def _parameters(self, name: str) -> dict[str, Any]:
        """Names with `slurm_` concern that executor alone; the local one knows no others."""
        given = {
            "name": name,
            "nodes": self.nodes,
            "tasks_per_node": self.tasks_per_node,
            "gpus_per_node": self.gpus_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem_gb": self.memory_gb,
            "timeout_min": self.minutes,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_setup": self.setup or None,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass
class _Submitted(Started):
    job: Any  # of submitit
    run: Path
    log: Path | None
    _code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and self.job.done():
            self._code = 0 if self.job.exception() is None else _exit_code(self.run)
            self._keep_output()
        return self._code

    def stop(self, number: int) -> None:
        self.job.cancel()

    def _keep_output(self) -> None:
        if self.log is not None:
            with self.log.open("a") as file:
                file.writelines(text for text in (self.job.stdout(), self.job.stderr()) if text)


def _exit_code(run: Path) -> int:
    """That of status.json; 1 where the job ended before it was written."""
    return RunFolder(run).status.get("exit_code") or 1
