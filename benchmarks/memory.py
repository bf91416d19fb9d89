"""Index memory and refits at n = 10^6 rows: what they cost beside the steps between two refits.

    python benchmarks/memory.py                       10^6 rows, isotonic and kernel
    python benchmarks/memory.py --rows 20000          a small case

A memory of n rows is filled in global batches of --batch rows (one row id in 16 twice, as where a pass ends), then a
link is refitted from it as a run does it: gather, sort by row id, the newest of each row, fit. One core, medians.
Beside it: the steps between two refits (conf: a tenth of the run that fills the memory) times --step-s, and what they
remember and look up. Bar: under 1%. Predictions, measurements and reasons: benchmarks/NOTES.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from spo.link.base import Link
from spo.link.isotonic import Isotonic
from spo.link.kernel import Kernel
from spo.refit import RefitSchedule, WorkingLink
from spo.types import IndexSample

LINKS: dict[str, Callable[[], Link]] = {
    "isotonic": lambda: Isotonic(symmetric=True, interpolation="pchip", width=None, eps=0.02, max_knots=512),
    "kernel": lambda: Kernel(symmetric=True, constant=1.5, pseudo_count=1.0, eps=0.001, cells=4, grid_size=1025),
}
RUNS = 3  # of a refit, after one that warms up
REPEATED = 16  # one row id in so many comes twice


def batch_of(k: int, rows: int, size: int, generator: torch.Generator) -> IndexSample:
    """Rows of step k, labels of a shifted-mixture link."""
    t = torch.randn(size, generator=generator)
    p = 0.5 * torch.sigmoid(4 * (t - 0.75)) + 0.5 * torch.sigmoid(4 * (t + 0.75))
    z = (torch.rand(size, generator=generator) < p).float()
    number = torch.arange(k * size, (k + 1) * size) % (rows - rows // REPEATED)
    return IndexSample(t, z, torch.ones(size), (number * 0x9E3779B97F4A7C1) ^ 0x5DEECE66D)


def seconds(work: Callable[[], object], runs: int) -> float:
    took = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def measure(name: str, rows: int, batch: int, step_s: float) -> None:
    steps = rows // batch
    schedule = RefitSchedule(
        every=None, warm_start_steps=None, warm_start_scale=0.5, source="memory", memory_size=rows, max_age=None
    )
    working = WorkingLink(LINKS[name]().allocate(()), schedule, steps, learns=True, flat_start=True)
    generator = torch.Generator().manual_seed(0)
    taken = []
    for k in range(steps):
        new = batch_of(k, rows, batch, generator)
        start = time.perf_counter()
        working.remember(new, k)
        taken.append(time.perf_counter() - start)
    remember = statistics.median(taken)

    def gathered() -> IndexSample:
        sample, _ = working.remembered(steps)
        return sample.present()

    sample = gathered()
    sort = seconds(gathered, RUNS)
    working.fit(sample)
    fit = seconds(lambda: working.fit(sample), RUNS)
    own = seconds(lambda: working.own(new.row_id), RUNS)
    assert working.plan is not None
    between = working.plan.every * step_s
    cost = sort + fit + working.plan.every * (remember + own)
    print(
        f"{name:>10} {len(sample.t):>10,} {1e3 * remember:>10.3f} {1e3 * own:>8.3f} {sort:>10.3f} {fit:>8.3f} "
        f"{working.plan.every:>8,} {between:>12,.0f} {100 * cost / between:>9.4f}%",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--batch", type=int, default=128, help="pairs of a step")
    parser.add_argument("--step-s", type=float, default=0.5, help="seconds of a step (0.5: a GPU; two cores take 100)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("      link       rows   remember      own       sort      fit    every      between      share")
    print("                              ms       ms          s        s    steps            s")
    for name in LINKS:
        measure(name, options.rows, options.batch, options.step_s)


if __name__ == "__main__":
    main()
