"""Training steps of spo beside TRL's DPOTrainer: the same model, adapters, rows, batches and losses.

    pip install "trl==1.16.*"        for this benchmark only
    python benchmarks/train.py human --data human_pairwise.jsonl     8 pairs a step, at most 256 tokens a side
    python benchmarks/train.py long                                  8 pairs, prompts of 192 tokens, responses of 64
    python benchmarks/train.py wide --device cuda --model qwen3-0.6b [--full]    16 pairs of 1,024 tokens, bfloat16
    python benchmarks/train.py long --model qwen3-0.6b --tiny --alone           a trial of the script, in seconds

--model: as policy.path, or a published shape, with random weights.

Each tool is a process of its own and waits at the start of every step until it is let go, so that steps alternate and
one rests while the other works. A step is the whole cycle: waiting for data, forward, backward, optimizer, logging.
TRL has its best settings for the machine: reference computed beforehand, no recomputation, no bfloat16 on a CPU. Both
start from the same adapters; the first step is warm-up, medians of the rest are shown; memory is the process's peak (on
a GPU what torch allocated). Tokens are real ones: prompt and response of both sides, no padding, prompts counted twice.
FLOP utilisation, on a GPU: (2 + 2 + 2 · full) · weights · real tokens / seconds / the peak named by --peak-tflops.
Bars: human at least 2 times TRL's tokens a second at 0.6 of its memory; long at least 2.2 times. Reasons: NOTES.md.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from shapes import SHAPES, SMOLLM2, write_model
from train_workers import WORKERS, Task


@dataclass(frozen=True)
class Rows:
    """What a case is trained on: rows of a file, or random words of one token each."""

    pairs: int  # a step
    prompt: int | None  # tokens; None: rows of --data
    response: int

    @property
    def max_length(self) -> int:
        return self.response if self.prompt is None else self.prompt + self.response


WORDS = "the staff were friendly and slow on this train ride to Paris but we had great coffee near a dirty window today"
CASES = {"human": Rows(8, None, 256), "long": Rows(8, 192, 64), "wide": Rows(16, 512, 512)}


def write_rows(rows: Rows, data: str | None, model: str, steps: int, path: Path) -> None:
    """Rows that TRL can express too: one response is preferred."""
    if rows.prompt is None:
        if data is None:
            raise SystemExit(
                "this case trains on preferences: give --data FILE.jsonl with prompt, response_0, response_1, z"
            )
        kept = [line for line in Path(data).read_text().splitlines() if json.loads(line)["z"] in (0, 1)]
        path.write_text("\n".join(kept) + "\n")
        return
    words, draw = single_tokens(model), random.Random(0)
    with path.open("w") as file:
        for i in range(rows.pairs * steps):
            sizes = {"prompt": rows.prompt, "chosen": rows.response - 1, "rejected": rows.response - 1}  # and the EOS
            row = {name: "".join(draw.choices(words, k=size)) for name, size in sizes.items()}
            file.write(json.dumps({"id": str(i), **row}) + "\n")


def single_tokens(model: str) -> list[str]:
    """Words that the tokenizer reads as one token, a space before them."""
    from transformers import AutoTokenizer

    from spo.policy.weights import locate

    tokenizer = AutoTokenizer.from_pretrained(locate(model).folder())
    words = {tokenizer.decode([i]) for i in range(len(tokenizer))}
    words = sorted(w for w in words if w[:1] == " " and w[1:].isalpha() and w[1:].isascii())
    return [w for w in words if len(tokenizer.encode(w, add_special_tokens=False)) == 1]


def alternate(task: Task, tools: list[str], steps: int) -> dict[str, dict[str, Any]]:
    """Seconds of every step and what each tool said at its end. The first tool writes the rows for the others."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    found: dict[str, dict[str, Any]] = {tool: {"seconds": []} for tool in tools}
    for tool in tools:
        pipes[tool], theirs = context.Pipe()
        process = context.Process(target=WORKERS[tool], args=(task, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes[tool].recv()  # it stands before its first step
    for step in range(steps):
        for tool in tools:
            start = time.perf_counter()
            pipes[tool].send("go")
            pipes[tool].recv()
            found[tool]["seconds"].append(time.perf_counter() - start)
            print(f"step {step + 1}  {tool:4} {found[tool]['seconds'][-1]:8.2f} s", flush=True)
    for tool in tools:
        pipes[tool].send("go")  # the step that only shows where the one before it ended
        found[tool] |= pipes[tool].recv()
    return found


def show(found: dict[str, dict[str, Any]], tokens: list[int], options: argparse.Namespace) -> None:
    """A line a tool, their ratio, and the same as JSON."""
    figures = {}
    for tool, said in found.items():
        rate = statistics.median(n / s for n, s in zip(tokens[1:], said["seconds"][1:], strict=False))
        step = statistics.median(said["seconds"][1:])
        figures[tool] = {"step_s": step, "tokens_per_s": rate, "peak_gb": said["peak_gb"]}
        use = ""
        if options.peak_tflops:
            flops = (6 if options.full else 4) * said["weights"] * rate
            use = f"   {flops / options.peak_tflops / 1e12:.2%} of {options.peak_tflops:g} TFLOP/s"
        print(f"{tool:4} {step:8.2f} s a step {rate:10.1f} tokens/s {said['peak_gb']:8.2f} GB{use}")
    if len(found) == 2:
        ours, theirs = figures["spo"], figures["trl"]
        losses = [found[tool]["losses"] for tool in ("spo", "trl")]
        gap = max(abs(a - b) for a, b in zip(*losses, strict=True))
        print(
            f"ratio {ours['tokens_per_s'] / theirs['tokens_per_s']:.2f} tokens/s, "
            f"{ours['peak_gb'] / theirs['peak_gb']:.2f} memory; losses differ by at most {gap:.1e}: "
            + ", ".join(f"{x:.4f}" for x in losses[0])
        )
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--data", help="JSONL of preferences, for the case human")
    parser.add_argument("--model", default=SMOLLM2, help=f"as policy.path, or {', '.join(SHAPES)}")
    parser.add_argument("--tiny", action="store_true", help="of a shape: every size small")
    parser.add_argument("--alone", action="store_true", help="spo without TRL beside it")
    parser.add_argument("--steps", type=int, default=6, help="timed steps, the first of them warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--full", action="store_true", help="train every weight instead of LoRA r=8 on all linear layers"
    )
    parser.add_argument("--override", nargs="*", default=[], help="of spo's configuration, e.g. policy.compile=true")
    parser.add_argument(
        "--peak-tflops", type=float, help="of the device in the precision used: 989 for an H100 in bfloat16"
    )
    options = parser.parse_args()
    rows = CASES[options.case]
    with tempfile.TemporaryDirectory() as scratch:
        if options.model in SHAPES:
            dtype = torch.bfloat16 if options.device == "cuda" and not options.full else torch.float32
            texts = [WORDS, f" {WORDS}"]
            options.model = str(
                write_model(Path(scratch) / "model", options.model, texts, layers=None, tiny=options.tiny, dtype=dtype)
            )
        task = Task(
            folder=Path(scratch), model=options.model, steps=options.steps + 1, pairs=rows.pairs,
            max_length=rows.max_length, chat=rows.prompt is None, threads=options.threads,
            gpu=options.device == "cuda", full=options.full, overrides=options.override,
        )  # fmt: skip
        write_rows(rows, options.data, options.model, task.steps, task.rows)
        found = alternate(task, ["spo"] if options.alone else ["spo", "trl"], options.steps)
        tokens = [sum(len(r["prompt_ids"]) * 2 + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in step)
                  for step in json.loads(task.batches.read_text())]  # fmt: skip
    show(found, tokens, options)


if __name__ == "__main__":
    main()
