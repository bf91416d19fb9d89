"""A stream of 10^6 preference rows of JSONL: seconds to the first step, resident memory, waiting for data.

    python benchmarks/stream.py                    10^6 rows, a file of about 700 MB in a temporary folder
    python benchmarks/stream.py --rows 20000       a small case

`spo train data=stream` in a process of its own, with a model of 2 layers of width 32, so that hardly anything but the
data costs time. Imports, tokenizer, validation rows and first buffer are in the seconds to the first step, which are
given as wall time and as seconds of a core (those of an idle machine). The wait of a warm step is the time between two
steps' work (perf/data_wait_share). It is given as a share of this model's step, and of a language model's (--step-s;
8 s: SmolLM2-135M, 8 pairs, two cores), during which the thread that makes steps has that much more time. Bars: first
step within 30 s, under 2 GB, under 2% of the language model's step. Predictions, measurements and reasons:
benchmarks/NOTES.md.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from shapes import write_model

from spo.run_folder import RunFolder

TEXT = "the train was late and staff kind ride great dirty slow happy journey service good bad nice a seat window"
PROMPT, RESPONSE = 40, 60  # words at most
BATCH = 8  # pairs a step


def write_rows(path: Path, rows: int) -> None:
    draw, words = random.Random(0), TEXT.split()
    text = [draw.choice(words) for _ in range(10**5)]

    def some(longest: int) -> str:
        start = draw.randrange(len(text) - longest)
        return " ".join(text[start : start + draw.randint(longest // 4, longest)])

    with path.open("w") as file:
        for i in range(rows):
            row = {"prompt": f"{i}: {some(PROMPT)}", "response_0": some(RESPONSE), "response_1": some(RESPONSE)}
            file.write(json.dumps({**row, "z": draw.randint(0, 1)}) + "\n")


def train(folder: Path, steps: int, prefetch: int | None) -> tuple[float, float, float]:
    """From the start of the process to the end of its first step, wall seconds and seconds of a core; its peak, GB."""
    words = ["data=stream", f"data.train_path={folder / 'rows.jsonl'}", f"policy.path={folder / 'model'}", "truth=none"]
    words += ["method=dpo", f"steps={steps}", f"global_batch={BATCH}", f"micro_batch={BATCH}", "log_every=1"]
    words += [f"validate_every={steps}", f"checkpoint_every={steps}", "logger=none", "hardware=cpu"]
    words += [f"hydra.run.dir={folder / 'run'}", *([] if prefetch is None else [f"data.prefetch={prefetch}"])]
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "spo", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    assert child.stderr is not None
    reader = threading.Thread(target=lambda: said.extend(child.stderr or ()), daemon=True)
    reader.start()
    first = None
    while child.poll() is None:
        if first is None and _first_step_is_logged(folder / "run"):
            family = [mine := psutil.Process(child.pid), *mine.children(recursive=True)]
            first = time.perf_counter() - start, sum(sum(p.cpu_times()[:2]) for p in family)
        time.sleep(0.02)
    reader.join()
    if child.returncode or first is None:
        raise SystemExit("".join(said))
    return *first, max(value("perf/peak_memory_gb", folder / "run"))


def _first_step_is_logged(run: Path) -> bool:
    return any(metric.step >= 1 and metric.name == "train/loss" for metric in metrics(run))


def metrics(run: Path) -> list:
    try:
        return list(RunFolder(run).metrics())
    except (OSError, ValueError, KeyError):  # not there yet, or a line is being written
        return []


def value(name: str, run: Path) -> list[float]:
    """By step."""
    return [metric.value for metric in sorted(metrics(run), key=lambda m: m.step) if metric.name == name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--steps", type=int, default=400, help="of 8 pairs; a buffer is 64 of them")
    parser.add_argument("--warm", type=int, default=32, help="first steps that are left out of the wait")
    parser.add_argument("--step-s", type=float, default=8.0, help="seconds of a language model's step")
    parser.add_argument("--prefetch", type=int, help="data.prefetch; default: that of the option")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", options.rows)
        write_model(folder / "model", "qwen3-0.6b", [TEXT], layers=None, tiny=True, dtype=torch.float32)
        size = (folder / "rows.jsonl").stat().st_size
        print(f"{options.rows:,} rows, {size / 1e6:,.0f} MB", flush=True)
        first, cpu, peak = train(folder, options.steps, options.prefetch)
        seconds = value("perf/step_s", folder / "run")[options.warm :]
        shares = value("perf/data_wait_share", folder / "run")[options.warm :]
    wait = sum(a * b for a, b in zip(seconds, shares, strict=True)) / len(seconds)
    longest = max(a * b for a, b in zip(seconds, shares, strict=True))
    mean = sum(seconds) / len(seconds)
    print(f"first step       {first:.1f} s after the process began, {cpu:.1f} s of a core (bar: 30)")
    print(f"resident peak    {peak:.2f} GB (bar: 2)")
    said = f"{1e3 * wait:.2f} ms a step over {len(seconds)} warm steps, the longest {1e3 * longest:.0f} ms"
    print(f"wait for data    {said}")
    print(f"                 {100 * wait / mean:.1f}% of this model's step of {1e3 * mean:.0f} ms")
    print(f"                 {100 * wait / (options.step_s + wait):.3f}% of one of {options.step_s:g} s (bar: 2%)")


if __name__ == "__main__":
    main()
