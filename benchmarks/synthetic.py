"""Core-seconds a run of the tabular study at the paper's budgets, everything included, by method and number of runs.

    python benchmarks/synthetic.py                                  64 seeds x 7 shifts x 4 methods, and fewer
    python benchmarks/synthetic.py --methods pspo --seeds 1 4       a small case
    python benchmarks/synthetic.py --hardware gpu                   seconds of wall time instead, on a GPU

Each case is one `spo train experiment=synthetic budget=paper` in a process of its own: imports, data, training,
checkpoints, evaluation and tables are in it. Core-seconds are user and system time of that process; they do not count
waiting for a core, but a busy machine's shared cache makes them larger. Bars: 0.20 a run averaged over DPO and RSPO,
0.20 for OSPO, 0.06 for PSPO; at least 10 times less than with one run; flat in the number of runs. Predictions and
measurements: benchmarks/NOTES.md.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHIFTS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
BARS = {"dpo": 0.20, "rspo": 0.20, "ospo": 0.20, "pspo": 0.06}


def cost(method: str, seeds: int, shifts: list[float], hardware: str) -> tuple[float, float]:
    """Core-seconds and wall seconds of one training of seeds x shifts runs."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["experiment=synthetic", "budget=paper", f"method={method}", f"hardware={hardware}"]
        words += [f"data.source.seeds=0-{seeds - 1}", f"truth.shifts={shifts}".replace(" ", ""), "logger=none"]
        words += [f"hydra.run.dir={Path(folder) / 'run'}"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "spo", "train", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        wall = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr or done.stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(BARS), default=list(BARS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 8, 16, 64], help="each times 7 shifts")
    parser.add_argument("--hardware", default="cpu", choices=["cpu", "gpu"])
    options = parser.parse_args()
    print(f"{'method':>8} {'runs':>6} {'core-s':>9} {'core-s a run':>13} {'1 run / this':>13} {'bar':>6} {'wall s':>8}")
    for method in options.methods:
        alone, wall = cost(method, 1, SHIFTS[-1:], options.hardware)
        cases = [(1, alone, wall)]
        cases += [(seeds * len(SHIFTS), *cost(method, seeds, SHIFTS, options.hardware)) for seeds in options.seeds]
        for runs, seconds, wall in cases:
            line = f"{seconds / runs:>13.3f} {alone * runs / seconds:>13.1f} {BARS[method]:>6.2f} {wall:>8.1f}"
            print(f"{method:>8} {runs:>6} {seconds:>9.1f} {line}", flush=True)


if __name__ == "__main__":
    main()
