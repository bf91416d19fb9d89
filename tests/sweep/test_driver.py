"""The driver, with a launcher that does as it is told: what comes at a bad moment harms no job and no row."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from spo.errors import ConfigError
from spo.run_folder import RunFolder
from spo.submit import Ended, Launcher, Started
from spo.sweep.driver import Driver, Options, Work
from spo.sweep.slots import Need, Slots
from spo.sweep.store import Job, SweepFolder


class Waits(Started):
    """Ends when it is told to, as a process does that is killed before it has written anything."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def poll(self) -> int | None:
        return 128 + self.told[-1] if self.told else None

    def stop(self, number: int) -> None:
        self.told.append(number)


class Starts(Launcher):
    def __init__(self, start: Callable[[RunFolder], Started]) -> None:
        self.one = start

    def check(self) -> None: ...

    def start(
        self, run: Path, *, processes: int = 1, environment: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Started:
        return self.one(RunFolder(run))


def ends_ok(run: RunFolder) -> Started:
    run.update_status(state="ok", exit_code=0, finished="2026-01-01T00:00:09+0000")
    return Ended(0)


def drive(sweep: SweepFolder, start: Callable[[RunFolder], Started], lines: list[str] | None = None) -> Driver:
    driver = Driver(
        sweep,
        Slots(cores=1, gpus=(), max_jobs=1),
        Starts(start),
        Options(0, False),
        [].append if lines is None else lines.append,
    )
    for job in driver.jobs:
        driver.look_again(job)
    folders = {job.job: sweep.path / job.folder for job in driver.jobs}
    driver.run([Work(j, Need(1, 0, 1), None, lambda j=j: folders[j.job].mkdir(exist_ok=True)) for j in driver.jobs])  # type: ignore[misc]
    return driver


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    made = SweepFolder(tmp_path)
    made.save([Job(n, f"job{n}", [f"seed={n}"], f"h{n}") for n in range(2)])
    return made


def test_a_signal_that_comes_while_a_job_is_being_started_reaches_it(sweep: SweepFolder):
    """Submitting takes seconds: the sweep would otherwise go on to the end of that job."""
    begun = Waits()

    def start(run: RunFolder) -> Started:
        os.kill(os.getpid(), signal.SIGINT)
        return begun

    driver = drive(sweep, start)
    assert begun.told == driver.received == [signal.SIGINT]
    assert [job.status for job in sweep.jobs()] == ["interrupted", "queued"]


def test_a_job_that_the_third_signal_killed_was_interrupted(sweep: SweepFolder):
    class Stubborn(Waits):
        def poll(self) -> int | None:
            os.kill(os.getpid(), signal.SIGINT)
            return 137 if signal.SIGKILL in self.told else None

    drive(sweep, lambda run: Stubborn())
    assert [(job.status, job.message) for job in sweep.jobs()] == [("interrupted", "interrupted"), ("queued", "")]


def test_a_job_that_cannot_be_started_harms_no_other(sweep: SweepFolder):
    def start(run: RunFolder) -> Started:
        if run.name == "job0":
            raise ConfigError("the cluster refused the job: too many")
        return ends_ok(run)

    drive(sweep, start)
    assert [(job.status, job.exit_code) for job in sweep.jobs()] == [("failed", 2), ("ok", 0)]
    assert sweep.jobs()[0].message == "the cluster refused the job: too many"


def test_a_job_whose_folder_was_deleted_is_done_again(sweep: SweepFolder):
    drive(sweep, ends_ok)
    (sweep.path / "job1/status.json").unlink()
    drive(sweep, ends_ok)
    assert [(job.status, job.attempts) for job in sweep.jobs()] == [("ok", 1), ("ok", 2)]


def test_what_was_submitted_is_looked_at_again(sweep: SweepFolder):
    """Nobody waits for it: the next command sees that one has ended and another has failed, and does that again."""
    drive(sweep, lambda run: Ended(0))
    assert [job.status for job in sweep.jobs()] == ["submitted", "submitted"]
    ends_ok(sweep.run(sweep.jobs()[0]))
    sweep.run(sweep.jobs()[1]).update_status(state="failed", exit_code=1)
    drive(sweep, ends_ok)
    assert [(job.status, job.attempts) for job in sweep.jobs()] == [("ok", 1), ("ok", 2)]


def test_a_job_that_ended_after_its_sweep_was_killed_has_its_own_times(sweep: SweepFolder):
    jobs = sweep.jobs()
    jobs[0].status, jobs[0].started, jobs[0].attempts = "running", "2026-01-01T00:00:02+0000", 1
    sweep.save(jobs)
    ends_ok(sweep.run(jobs[0]))
    lines: list[str] = []
    drive(sweep, ends_ok, lines)
    job = sweep.jobs()[0]
    assert (job.status, job.finished, job.seconds, job.attempts) == ("ok", "2026-01-01T00:00:09+0000", 7.0, 1)
    assert lines[0] == "1 of 2  ok after 7 s  job0"
