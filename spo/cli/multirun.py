"""`spo COMMAND -m`: from overrides to jobs in a sweep's folder, and what is said of them at the end."""

import contextlib
import functools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from spo.cli.commands import Command
from spo.cli.compose import Composition, compose_job
from spo.cli.instantiate import instantiate
from spo.errors import ConfigError, SpoError
from spo.hashing import digest
from spo.lock import FolderLock
from spo.run_folder import RunFolder
from spo.submit import Launcher
from spo.sweep.driver import Driver, Options, Work
from spo.sweep.slots import NOTHING, Need, Room
from spo.sweep.store import FAILED, INTERRUPTED, OK, SUBMITTED, Job, SweepFolder
from spo.sweep.sync import sync_command

Invocation = Callable[[Composition], Mapping[str, Any]]


class SweepEnded(Exception):
    """Before all was done: it was interrupted, or a job failed under fail_fast. The sweeper asks for no more."""


@dataclass
class Multirun:
    """The task that Hydra's sweeper hands to the launcher; the launcher asks `run` for batch after batch.

    jobs: those that were composed and checked before, of a grid all. request: what sweep.json keeps of the command.
    identity, name: of a new sweep. invocation: what a job's run folder keeps. hydras: overrides of Hydra's
    own. folder: the sweep's, set by the launcher.
    """

    command: Command
    jobs: Sequence[Composition]
    request: Mapping[str, Any]
    identity: str
    name: str | None
    invocation: Invocation
    hydras: Sequence[str] = ()
    folder: str = ""
    asked: dict[int, Job] = field(default_factory=dict, init=False)
    before: int = field(default=0, init=False)  # jobs that were done when this command began
    received: list[int] = field(default_factory=list, init=False)  # signals
    _lock: FolderLock | None = field(default=None, init=False)

    def __call__(self, config: DictConfig) -> int:
        raise ConfigError(
            "hydra/launcher: a job of spo is a process of its own, which can be gone on with; no launcher of Hydra's "
            "does that. Give hydra/launcher=local, or submitit for a Slurm cluster"
        )

    @property
    def sweep(self) -> SweepFolder:
        return SweepFolder(self.folder)

    def run(
        self, batch: Sequence[Sequence[str]], first: int, room: Room, starter: Launcher, options: Options
    ) -> list[Job]:
        """The rows of these jobs, ended. first: number of the first one, as Hydra counts."""
        composed = [self._composed(list(words), first + i) for i, words in enumerate(batch)]
        launchers = [own_launcher(job.config) for job in composed]
        needs = [
            NOTHING if launcher else Need.of(job.config, len(room.gpus))
            for job, launcher in zip(composed, launchers, strict=True)
        ]
        room.check(needs)
        for launcher in [starter, *filter(None, launchers)]:
            launcher.check()
        for job in composed:
            self._check_folder(job)
        self._open()
        return self._drive(composed, launchers, needs, Driver(self.sweep, room, starter, options, self._say))

    def _drive(
        self, composed: list[Composition], launchers: list[Launcher | None], needs: list[Need], driver: Driver
    ) -> list[Job]:
        rows = [self._row(job, driver.jobs) for job in composed]
        for row in rows:
            driver.look_again(row)  # a damaged folder is named before the first job
        work = {
            row.job: Work(row, need, launcher, functools.partial(self._prepare, row, job))
            for row, need, launcher, job in zip(rows, needs, launchers, composed, strict=True)
        }
        self.before += sum(w.job.is_done and n not in self.asked for n, w in work.items())
        self.asked |= {n: w.job for n, w in work.items()}
        self._say(self._plan(list(work.values()), driver.room))
        driver.run(list(work.values()))
        self.received = driver.received
        if driver.stopped:
            raise SweepEnded
        return rows

    def finish(self) -> int:
        """Say how it ended, and note it. Returns 0, 1 where a job failed, 128 + the signal that interrupted it."""
        self._open()  # a search that was finished has asked for nothing
        jobs = self.sweep.jobs() if self._is_search else list(self.asked.values())
        self.before += sum(job.is_done and job.job not in self.asked for job in jobs)
        failed = [job for job in jobs if job.status == FAILED]
        done, submitted = sum(job.is_done for job in jobs), sum(job.status == SUBMITTED for job in jobs)
        self.sweep.end(INTERRUPTED if self.received else OK if done == len(jobs) else FAILED)
        if self._lock is not None:
            self._lock.release()
        before = f", {self.before} of them before" if self.before else ""
        elsewhere = f" or submitted ({submitted})" if submitted else ""
        self._say(f"{done} of {len(jobs)} jobs ok{elsewhere}{before}")
        for job in failed:
            print(
                f"  exit code {job.exit_code}: {' '.join(job.overrides)}  ({self.sweep.path / job.folder})",
                file=sys.stderr,
            )
            print("".join(f"    {line}\n" for line in self.sweep.tail(job, _TAIL)), end="", file=sys.stderr)
        if done < len(jobs):
            mend = f"`spo sweep resume {shlex.quote(self.shown)}` does what is not done"
            if self._is_search and len(failed) == len(jobs) - done and not self.received:
                mend = "they are failed trials of the search, and stay so"
            print(f"spo {self.command.name}: {len(jobs) - done} jobs are not done: {mend}", file=sys.stderr)
        if done:
            self._say(f"the answer: spo report {shlex.quote(str(self.sweep.path))}")
        if upload := sync_command(self.sweep.path):
            self._say(f"its W&B runs are offline; upload them with `{upload}`")
        return 128 + self.received[0] if self.received else 0 if done == len(jobs) else 1

    def abandon(self, error: BaseException) -> None:
        """Note that it ended before its time."""
        if self._lock is not None:
            with contextlib.suppress(SpoError, OSError):
                self.sweep.end(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED)
            self._lock.release()

    @property
    def _is_search(self) -> bool:
        """Its jobs are proposed while it runs: no command asks for all of them, and each is asked for once."""
        return any(job.number is None for job in self.jobs)

    @property
    def shown(self) -> str:
        """How a user may name it: by its id where that is the folder's name, else by the folder."""
        return self.sweep.id if self.sweep.path.name == self.sweep.id else str(self.sweep.path)

    def _composed(self, words: list[str], number: int) -> Composition:
        """A sweeper that chooses values while it runs asks for jobs that nobody has seen before."""
        known = next((job for job in self.jobs if job.number == number and job.overrides == words), None)
        if known is not None:
            return known
        job, problems = compose_job(self.command, [*self.hydras, *words], number)
        if problems:
            raise ConfigError("\n".join(problems))
        return job

    def _open(self) -> None:
        """Take the folder; ConfigError where another command is at work in it."""
        if self._lock is not None:
            return
        lock = FolderLock(Path(self.folder))
        if not lock.take():
            raise ConfigError(
                f"{self.folder} is being worked on by process {lock.holder}: see `spo sweep status {self.folder}`, or "
                "give another folder with hydra.sweep.dir=FOLDER"
            )
        self._lock = lock
        self.sweep.create(self.identity, self.name)
        self.sweep.begin(self.request)

    def _check_folder(self, composed: Composition) -> None:
        """A job has a folder of its own: in the sweep's it would wait for the sweep to end."""
        sweep = self.sweep.path.resolve()
        if sweep.is_relative_to((sweep / composed.folder).resolve()):
            raise ConfigError(
                f"hydra.sweep.subdir is {composed.folder!r}, which is no folder in the sweep's: give each job one, "
                "such as hydra.sweep.subdir='${hydra.job.num}'"
            )

    def _row(self, composed: Composition, rows: list[Job]) -> Job:
        """Its row in the table, by its config; a new one where there is none. A folder holds one config for ever."""
        key = digest([self.command.name, composed.config])
        if known := next((row for row in rows if row.config_hash == key), None):
            return known
        taken = {row.folder for row in rows}
        folder = composed.folder
        if folder in taken or not self._is_free_for(composed, folder):
            folder = f"{folder}_{key[:_DIGITS]}"
        row = Job(1 + max((row.job for row in rows), default=-1), folder, composed.overrides, key)
        rows.append(row)
        return row

    def _is_free_for(self, composed: Composition, folder: str) -> bool:
        run = RunFolder(self.sweep.path / folder)
        return not run.config_path.exists() or run.holds(composed.config)

    def _prepare(self, row: Job, composed: Composition) -> None:
        """Its run folder, if it was not made before."""
        run = self.sweep.run(row)
        if not run.config_path.exists():
            run.create(
                composed.config, {**self.invocation(composed), "sweep": {"id": self.sweep.id, "folder": self.folder}}
            )

    def _plan(self, work: list[Work], room: Room) -> str:
        waiting = [w.need for w in work if not w.job.is_done]
        here = f"sweep {self.sweep.id} in {self.sweep.path}: {len(work)} jobs"
        if len(waiting) < len(work):
            here += f", {len(work) - len(waiting)} finished before"
        return f"{here}, {room.at_once(waiting)} at a time" if waiting else here

    def _say(self, line: str) -> None:
        print(f"spo {self.command.name}: {line}", flush=True)


_DIGITS = 8  # of the hash, in a folder's name
_TAIL = 5  # lines of a failed job's log at the end


def own_launcher(config: Mapping[str, Any]) -> Launcher | None:
    """What hardware.launcher asks to start the run elsewhere; None where it leaves that to others."""
    launcher: Launcher | None = instantiate((config.get("hardware") or {}).get("launcher"), "hardware.launcher")
    return launcher
