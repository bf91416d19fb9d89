"""A sweep under fire: jobs are killed at random, the sweep itself twice, and at the end every result is there once.

    python benchmarks/chaos.py --jobs 200

Each job is a training of a small tabular policy. SIGKILL, as the system does where memory is short, falls on jobs at
random moments and on the sweep's own command in the first and in the second half; what is left is done by
`spo sweep resume`. Exit code 0 only if jobs.parquet has exactly as many finished jobs as were asked for, each with its
own seed, its results once, and every optimizer step once.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = 40
SWEEP_KILLS = 2
LOOK_S = 0.1  # between two looks
MOST_RESUMES = 20  # without another kill; a sweep that needs more does not converge


def words(jobs: int, folder: Path) -> list[str]:
    """A job a seed."""
    tiny = ["data.source.rows=64", "data.source.fresh_contexts=16", "data.source.features=4", "data.source.hidden=[8]"]
    short = [f"steps={STEPS}", "epochs=null", "global_batch=32", "micro_batch=32", "log_every=1"]
    seeds = ",".join(f"[{seed}]" for seed in range(jobs))
    grid = [f"data.source.seeds={seeds}", "truth.shifts=[0.0]", "checkpoint_every=5", "logger=none"]
    return ["train", "-m", "experiment=synthetic", "budget=paper", *tiny, *short, *grid, f"hydra.sweep.dir={folder}"]


def begin(arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """`spo ARGUMENTS`, its output added to `log`."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("ab") as file:
        command = [sys.executable, "-m", "spo", *arguments]
        return subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | {"PYTHONPATH": path})


def running_jobs(folder: Path) -> list[int]:
    """Process numbers of the jobs under way."""
    found = []
    for path in folder.glob("*/status.json"):
        status = json.loads(path.read_text())
        if status["state"] == "running" and Path(f"/proc/{status['pid']}").exists():
            found.append(int(status["pid"]))
    return found


def finished(folder: Path) -> int:
    return sum(json.loads(path.read_text())["state"] == "ok" for path in folder.glob("*/status.json"))


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def under_fire(arguments: list[str], folder: Path, jobs: int, choice: random.Random, share: float) -> int:
    """Run the sweep, killing a share of its jobs and, twice, itself; returns how many jobs were killed."""
    log, killed, sweep_kills = folder.with_suffix(".log"), 0, 0
    limits = [(k + 1) * jobs // (SWEEP_KILLS + 1) for k in range(SWEEP_KILLS)]
    command = begin(arguments, log)
    budget = round(share * jobs)
    while command.poll() is None:
        time.sleep(LOOK_S)
        done = finished(folder)
        if sweep_kills < SWEEP_KILLS and done >= limits[sweep_kills]:
            kill(command.pid)
            command.wait()
            sweep_kills += 1
            print(f"{done} of {jobs} jobs done: the sweep is killed, then resumed", flush=True)
            command = begin(["sweep", "resume", str(folder)], log)
        elif killed < budget * (done + 1) / jobs and (there := running_jobs(folder)):
            time.sleep(choice.uniform(0, 1))
            kill(choice.choice(there))
            killed += 1
    return killed


def verify(folder: Path, jobs: int) -> list[str]:
    """What is wrong; nothing if all is well."""
    sys.path.insert(0, str(ROOT))
    from spo import study
    from spo.sweep.store import SweepFolder

    sweep = SweepFolder(folder)
    rows = sweep.jobs()
    problems = []
    if len(rows) != jobs or any(row.status != "ok" for row in rows):
        problems.append(f"{len(rows)} jobs, {sum(row.status == 'ok' for row in rows)} of them ok; asked for {jobs}")
    if len({row.config_hash for row in rows}) != len(rows) or len({row.folder for row in rows}) != len(rows):
        problems.append("two jobs have one config or one folder")
    folders = {path.parent.name for path in folder.glob("*/config.resolved.yaml")}
    if folders != {row.folder for row in rows}:
        problems.append(f"folders that are no job, or jobs without one: {folders ^ {row.folder for row in rows}}")
    table = study.read([sweep.run(row).results_path for row in rows if row.status == "ok"])
    at = table[table["kl_target"].notna()]
    if sorted(at["seed"]) != list(range(jobs)):
        problems.append(f"{len(at)} results of {at['seed'].nunique()} seeds")
    for row in rows:
        steps = [step for step, _ in sweep.run(row).series("train/loss")]
        if steps != list(range(1, STEPS + 1)):
            problems.append(f"{row.folder} has {len(steps)} steps, {len(set(steps))} of them different")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.25, help="of the jobs that are killed")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    parser.add_argument("--folder", type=Path, help="of the sweep, a new one; without it a temporary one")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "chaos"
        folder.parent.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        killed = under_fire(words(given.jobs, folder), folder, given.jobs, random.Random(given.seed), given.share)
        resumes = 0
        while finished(folder) < given.jobs and resumes < MOST_RESUMES:
            resumes += 1
            begin(["sweep", "resume", str(folder)], folder.with_suffix(".log")).wait()
        problems = verify(folder, given.jobs)
        attempts = f"{killed} jobs and {SWEEP_KILLS} times the sweep killed, {resumes} resumes after that"
        print(f"{finished(folder)} of {given.jobs} jobs done in {time.monotonic() - begun:.0f} s; {attempts}")
        print("\n".join(problems) or "every job once, every result once, every step once")
        return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
