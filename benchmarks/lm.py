"""The language-model study's three costs on SmolLM2-135M: labelling, tilted evaluation, the reference.

    python benchmarks/lm.py [--parts label tilt table] [--rounds 3] [--threads 2] [--device cpu] [--model PATH]
    python benchmarks/lm.py --model qwen3-0.6b --device cuda --dtype bfloat16   random weights of that shape, on a GPU
    python benchmarks/lm.py --model qwen3-0.6b --tiny --rounds 1                a trial of the script, in seconds

label: responses of the reference to 64 prompts of prompts=train_ride, up to 24 tokens, batch 64: response tokens/s.
tilt: the same prompts from the token-level tilt at beta = 2 (two models, two caches, exact KL), against the policy
alone. The adapters are at their start, so that both draw the same tokens: `equal` is the share of responses that are
the same, 1 but for float noise where random weights give flat distributions.
table: log-probabilities of 64 pairs by the reference's forward pass (adapters off), against reading a stored table and
looking them up.
Each part is a process of its own, its variants alternate, medians are shown; memory is the peak of the process, and on
a GPU that of torch's tensors in each variant, weights included.
Bars, on two cores in float32: label at least 130 tokens/s; tilt at most 2.2 times; table saves at least 90%.
Reasons: benchmarks/NOTES.md.
"""

import argparse
import contextlib
import json
import multiprocessing
import queue
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import SHAPES, SMOLLM2, write_model

from spo.data.prompts import PromptTemplate
from spo.data.tokens import Renderer
from spo.evaluate.generation import Sampling, sample
from spo.policy.causal_lm import CausalLM
from spo.policy.lora import LoRA
from spo.policy.table import ReferenceTable, TableWriter
from spo.types import TokenPairs

PROMPTS, NEW_TOKENS, BETA = 64, 24, 2.0
PAIRS, MICRO_BATCH, PROMPT_TOKENS, RESPONSE_TOKENS = 64, 8, 48, 24
Figures = dict[str, float]


def build(model: str, device: str, dtype: str = "float32") -> CausalLM:
    lora = LoRA(r=8, alpha=16, dropout=0.0, target_modules="all-linear")
    policy = CausalLM(
        path=model, dtype=dtype, attn_implementation="sdpa", lora=lora, head_chunk=256,
        gradient_checkpointing=False, packing="auto", compile=False, seed=0,
    )  # fmt: skip
    policy.build()
    policy.to(torch.device(device))
    return policy


def texts() -> list[str]:
    things = ["a train ride", "a hotel stay", "a flight", "a concert", "a gym", "a haircut", "a bakery", "a taxi ride"]
    aspects = ["the staff", "the price", "the noise", "the view", "the crowd", "the smell", "the music", "the signs"]
    slots = {"thing": things, "aspect": aspects}
    found = PromptTemplate("Write one sentence reviewing {thing}. Mention {aspect}.", slots).load()
    return [text for text in found[:PROMPTS] if isinstance(text, str)]


def draw(policy: CausalLM, beta: float | None) -> list[list[int]]:
    prompts = Renderer(policy.tokenizer).prompts_ids(texts())
    drawn = sample(
        policy, prompts, seeds=list(range(PROMPTS)), beta=beta, batch_size=PROMPTS,
        sampling=Sampling(NEW_TOKENS, temperature=1.0, top_p=1.0, top_k=None),
    )  # fmt: skip
    return [generation.ids for generation in drawn]


def alternated(
    variants: dict[str, Callable[[], Any]], rounds: int, device: str
) -> tuple[dict[str, list[float]], dict[str, Any], Figures]:
    """Seconds of each round after one that warms up, what each variant found last, and on a GPU its peak memory."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    found, peaks = {}, dict.fromkeys(variants, 0.0)
    on_gpu = device != "cpu"
    for round_number in range(rounds + 1):
        for name, run in variants.items():
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            found[name] = run()
            if on_gpu:
                torch.cuda.synchronize()
                peaks[name] = max(peaks[name], torch.cuda.max_memory_allocated() / 2**20)
            if round_number:
                times[name].append(time.perf_counter() - start)
    return times, found, {f"{name}_peak_mb": peak for name, peak in peaks.items()} if on_gpu else {}


def label(policy: CausalLM, rounds: int, device: str) -> Figures:
    times, found, peaks = alternated({"reference": lambda: draw(policy, None)}, rounds, device)
    tokens = sum(map(len, found["reference"]))
    return {"tokens": tokens, "tokens_per_s": tokens / statistics.median(times["reference"]), **peaks}


def tilt(policy: CausalLM, rounds: int, device: str) -> Figures:
    def alone() -> list[list[int]]:
        """The policy as if it were the reference: one stream, adapters on."""
        policy.as_reference = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        try:
            return draw(policy, None)
        finally:
            del policy.as_reference

    times, found, peaks = alternated({"alone": alone, "tilted": lambda: draw(policy, BETA)}, rounds, device)
    tokens = {name: sum(map(len, drawn)) for name, drawn in found.items()}
    assert tokens["alone"] == tokens["tilted"], "the tilt drew another number of tokens than the policy, its reference"
    equal = np.mean([a == b for a, b in zip(found["alone"], found["tilted"], strict=True)])
    ratios = [t / a for t, a in zip(times["tilted"], times["alone"], strict=True)]
    seconds = {name: statistics.median(values) for name, values in times.items()}
    speed = {f"{name}_tokens_per_s": tokens[name] / value for name, value in seconds.items()}
    return {**seconds, "ratio": statistics.median(ratios), "equal": float(equal), **speed, **peaks}


def table(policy: CausalLM, rounds: int, device: str) -> Figures:
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

        times, found, peaks = alternated({"forward": forward, "stored": stored}, rounds, device)
    assert np.allclose(found["forward"], found["stored"], atol=1e-3), "the table holds other numbers"
    seconds = {name: statistics.median(values) for name, values in times.items()}
    speed = {"forward_tokens_per_s": ids.numel() / seconds["forward"]}
    return {**seconds, "saved": 1 - seconds["stored"] / seconds["forward"], **speed, **peaks}


PARTS = {"label": label, "tilt": tilt, "table": table}


def measure(part: str, options: argparse.Namespace, results: Any) -> None:
    """In a process of its own."""
    torch.set_num_threads(options.threads)
    policy = build(options.model, options.device, options.dtype)
    found = PARTS[part](policy, options.rounds, options.device)
    results.put(found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def options_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"], help="of the weights")
    parser.add_argument("--model", default=SMOLLM2, help=f"a model folder with a chat template, or {', '.join(SHAPES)}")
    parser.add_argument("--layers", type=int, help="of a shape: so many instead of its own")
    parser.add_argument("--tiny", action="store_true", help="of a shape: every size small, for a trial of the script")
    options = parser.parse_args(words)
    if (options.layers or options.tiny) and options.model not in SHAPES:
        parser.error(f"--layers and --tiny are of a shape: give --model {' or '.join(SHAPES)}")
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: torch sees no GPU here")
    return options


@contextlib.contextmanager
def written(options: argparse.Namespace) -> Iterator[None]:
    """A shape's random weights on the disk, as --model, while the parts run."""
    with tempfile.TemporaryDirectory() as folder:
        if options.model in SHAPES:
            sizes = {"layers": options.layers, "tiny": options.tiny, "dtype": getattr(torch, options.dtype)}
            options.model = str(write_model(Path(folder), options.model, texts(), **sizes))
        yield


def main() -> None:
    options = options_of()
    where = torch.cuda.get_device_name() if options.device != "cpu" else f"CPU, {options.threads} threads"
    print(f"{options.model}, {options.dtype}, {where}, torch {torch.__version__}")
    context = multiprocessing.get_context("spawn")
    with written(options):
        for part in options.parts:
            results = context.Queue()
            process = context.Process(target=measure, args=(part, options, results))
            process.start()
            found = None
            while found is None:
                with contextlib.suppress(queue.Empty):
                    found = results.get(timeout=1)
                if found is None and not process.is_alive():
                    raise SystemExit(f"{part} failed: see above")
            process.join()
            print(f"{part:6}" + "".join(f"  {name} {value:,.3f}" for name, value in found.items()))
            print(json.dumps({"part": part, **found}))


if __name__ == "__main__":
    main()
