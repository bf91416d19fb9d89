"""What the response-only, chunked head saves against full logits, side by side: memory and time.

    python benchmarks/logprob.py [--steps 5] [--threads 2]

head: 8 sequences of 128 prompt + 128 response tokens, SmolLM2's head (576 x 49,152), forward and backward in the hidden
states. step: a whole DPO training step of SmolLM2-135M with LoRA r=16, fp32, 4 such pairs, reference = adapters off.
Each variant is its own process; memory is its peak less what it held before. Variants alternate, medians are shown.
Bars: head at most 0.2 of the memory; step at most 0.85 of time and memory. Reasons: benchmarks/NOTES.md.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from shapes import SMOLLM2
from torch import Tensor

ROWS, PROMPT, RESPONSE, HIDDEN, VOCABULARY = 8, 128, 128, 576, 49_152
LogProb = Callable[..., Tensor]


def full_logits(hidden: Tensor, weight: Tensor, target: Tensor, mask: Tensor, **_: Any) -> Tensor:
    """What most trainers do: logits at every position, log-softmax, gather."""
    token = (hidden @ weight.T)[:, :-1].log_softmax(-1).gather(-1, target[:, 1:, None]).squeeze(-1)
    return (token * mask[:, 1:]).sum(-1)


def chunked(*args: Any, **options: Any) -> Tensor:
    from spo.logprob import sequence_log_prob

    return sequence_log_prob(*args, **options)


VARIANTS: dict[str, LogProb] = {"full logits": full_logits, "response only": chunked}


def tokens() -> tuple[Tensor, Tensor]:
    target = torch.randint(VOCABULARY, (ROWS, PROMPT + RESPONSE), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(target, dtype=torch.bool)
    mask[:, PROMPT:] = True
    return target, mask


def head(log_prob: LogProb) -> Callable[[], None]:
    target, mask = tokens()
    hidden = torch.randn(*target.shape, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCABULARY, HIDDEN) / HIDDEN**0.5
    return lambda: log_prob(hidden, weight, target, mask, chunk=256).sum().backward()


def step(log_prob: LogProb) -> Callable[[], None]:
    import spo.policy.causal_lm as room
    from spo.policy.lora import LoRA
    from spo.types import TokenPairs

    room.sequence_log_prob = lambda *a, bias_V=None, **k: log_prob(*a, **k)
    lora = LoRA(r=16, alpha=32, dropout=0.0, target_modules="all-linear")
    policy = room.CausalLM(
        path=SMOLLM2, dtype="float32", attn_implementation="sdpa", lora=lora, head_chunk=256,
        gradient_checkpointing=False, packing="never", compile=False, seed=0,
    )  # fmt: skip
    policy.build()
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=1e-4)
    target, mask = tokens()
    ids = target.view(ROWS // 2, 2, -1)
    pair = TokenPairs(ids, torch.ones_like(ids), mask.view(ids.shape))

    def once() -> None:
        log_ratio = policy.log_prob(pair) - policy.reference_log_prob(pair)
        torch.nn.functional.softplus(0.1 * (log_ratio[:, 0] - log_ratio[:, 1])).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return once


PARTS = {"head": head, "step": step}


def measure(part: str, variant: str, steps: int, threads: int, results: Any) -> None:
    """In a process of its own: seconds a run (median, after one warm-up) and peak memory, MB."""
    torch.set_num_threads(threads)
    run = PARTS[part](VARIANTS[variant])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # the head's own memory; for a step what the user sees, the whole process
    memory = peak - before if part == "head" else peak
    results.put((statistics.median(took[1:]), memory / 1024))


def in_process(part: str, variant: str, steps: int, threads: int) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(part, variant, steps, threads, results))
    process.start()
    found: tuple[float, float] = results.get()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=5, help="timed runs of each variant, after one warm-up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=1, help="processes of each variant, alternating")
    options = parser.parse_args()
    for part in options.parts:
        runs: dict[str, list[tuple[float, float]]] = {v: [] for v in VARIANTS}
        for _ in range(options.rounds):
            for variant in VARIANTS:
                runs[variant].append(in_process(part, variant, options.steps, options.threads))
        median = {v: [statistics.median(x) for x in zip(*found, strict=True)] for v, found in runs.items()}
        for variant, (seconds, megabytes) in median.items():
            print(f"{part:6}{variant:16}{seconds:8.2f} s{megabytes:10.0f} MB")
        ratio = [ours / theirs for ours, theirs in zip(median["response only"], median["full logits"], strict=True)]
        print(f"{part:6}{'ratio':16}{ratio[0]:8.2f}  {ratio[1]:10.2f}")
        print(json.dumps({"part": part, "time_ratio": ratio[0], "memory_ratio": ratio[1]}))


if __name__ == "__main__":
    main()
