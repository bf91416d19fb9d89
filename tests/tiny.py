"""A tiny training run for tests: rows with rewards on disk, and every part built as `spo train` builds it."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spo.averaging import NoAveraging
from spo.callbacks.diagnosis import HeldOut
from spo.cli.train import Trained, fit
from spo.data.datamodule import PreferenceDataModule
from spo.divergence.kl import KL
from spo.hardware import Hardware
from spo.link.isotonic import Isotonic
from spo.link.kernel import Kernel
from spo.link.logistic import Logistic
from spo.loggers import NoLogger
from spo.loop import Selection
from spo.module import SPOModule
from spo.objective.orthogonal import Orthogonal
from spo.objective.profile import Profile
from spo.objective.ranking import PairsOfPairs
from spo.optim import AdamW
from spo.policy.causal_lm import CausalLM
from spo.policy.lora import LoRA
from spo.policy.reference import AdapterOff
from spo.refit import Free, RefitSchedule
from spo.run_folder import RunFolder
from spo.schedule import Linear
from spo.simulate.labels import TrueLinkLabels
from spo.simulate.truth import ShiftedMixture

WORDS = ["train", "ride", "staff", "great", "dirty", "slow", "happy", "journey", "service", "good", "bad", "nice"]
GOOD, BAD = {"great", "happy", "good", "nice"}, {"dirty", "slow", "bad"}


def write_pairs(path: Path, rows: int = 60, prompts: int = 40) -> Path:
    """JSONL with rewards (good words less bad words) and no labels."""
    draw = random.Random(0)
    with path.open("w") as file:
        for i in range(rows):
            sides = [draw.choices(WORDS, k=draw.randint(3, 9)) for _ in range(2)]
            rewards = [sum(w in GOOD for w in s) - sum(w in BAD for w in s) for s in sides]
            row: dict[str, Any] = {"prompt": f"Write about train {i % prompts}."}
            row |= {f"response_{j}": " ".join(sides[j]) for j in (0, 1)} | {f"reward_{j}": rewards[j] for j in (0, 1)}
            file.write(json.dumps(row) + "\n")
    return path


def isotonic() -> Isotonic:
    return Isotonic(symmetric=True, interpolation="pchip", width=None, eps=0.05, max_knots=128)


def kernel() -> Kernel:
    return Kernel(symmetric=True, constant=1.5, pseudo_count=1.0, eps=0.01, cells=8, grid_size=513)


def orthogonal(score: str = "plug_in") -> Orthogonal:
    return Orthogonal(score=score, symmetric=True, constant=1.5, cells=8, grid_size=513)  # type: ignore[arg-type]


METHODS: dict[str, Any] = {
    "dpo": lambda: {"objective": Profile(), "link": Logistic(0.5)},
    "pspo": lambda: {"objective": Profile(), "link": isotonic()},
    "ospo": lambda: {"objective": orthogonal(), "link": kernel()},
    "rspo": lambda: {"objective": PairsOfPairs(surrogate="logistic", scale=1.0), "link": Logistic(0.5)},
    "efficient": lambda: {"objective": orthogonal("efficient"), "link": kernel()},
}


def diagnosis(draws: int = 99) -> HeldOut:
    return HeldOut(draws=draws, max_labels=10**6, band=0.9, bandwidth=1.5, seed=0)


def refit(**changes: Any) -> RefitSchedule:
    options = {"every": 3, "warm_start_steps": 2, "warm_start_scale": 0.5, "source": "memory", "memory_size": 64}
    return RefitSchedule(**{**options, "max_age": None, **changes})  # type: ignore[arg-type]


@dataclass
class Tiny:
    """A run of a tiny model; `go` may be called with changes."""

    model: Path
    pairs: Path
    folder: Path
    options: dict[str, Any] = field(default_factory=dict)

    def go(self, name: str = "run", method: str = "pspo", **changes: Any) -> Trained:
        options = {
            "steps": 8, "epochs": None, "seed": 0, "validate_every": 4, "checkpoint_every": 2, "log_every": 1,
            "global_batch": 8, "micro_batch": 4, "micro_tokens": None, "learning_rate": 2e-3, "lora": {},
            "policy": None, "refit": {}, "reference": None, "data": {}, "module": {}, "selection": {},
            "hardware": {}, "logger": None,
        }  # fmt: skip
        options |= self.options | changes
        lora, seed = options.pop("lora"), options["seed"]
        policy = options.pop("policy") or self.policy(seed, **lora)
        data = self.data(
            policy,
            seed=seed,
            **options.pop("data"),
            **{k: options.pop(k) for k in ("global_batch", "micro_batch", "micro_tokens")},
        )
        run = RunFolder(self.folder / name)
        if not run.config_path.exists():
            run.create({"_target_": "spo.cli.train.train"}, {})
        parts = METHODS[method]() | options.pop("module")
        rate, plan = options.pop("learning_rate"), refit(**options.pop("refit"))
        reference = options.pop("reference") or AdapterOff()
        hardware = {
            "accelerator": "cpu",
            "devices": 1,
            "nodes": 1,
            "strategy": None,
            "precision": "32-true",
            "threads": 1,
            "launcher": None,
        }

        def module(total_steps: int) -> SPOModule:
            return SPOModule(
                **{
                    "policy": policy, "reference": reference, "divergence": KL(), "refit": plan, "index_scale": Free(),
                    "optim": AdamW(learning_rate=rate, weight_decay=0.0, betas=[0.9, 0.99], eps=1e-8, clip_norm=1.0),
                    "schedule": Linear(warmup=0.0, final=0.1), "averaging": NoAveraging(),
                    "total_steps": total_steps,
                }
                | parts
            )  # fmt: skip

        return fit(
            run=run,
            policy=policy,
            reference=reference,
            data=data,
            true_link=ShiftedMixture(shift=0.75, temperature=0.25),
            module=module,
            selection=Selection(**{"patience": None, "within_se": 1.0} | options.pop("selection")),
            hardware=Hardware(**hardware | options.pop("hardware")),
            logger=options.pop("logger") or NoLogger(),
            diagnosis=diagnosis(),
            **options,
        )

    def run(self, name: str = "run") -> RunFolder:
        return RunFolder(self.folder / name)

    def policy(self, seed: int = 0, **lora: Any) -> CausalLM:
        return CausalLM(
            path=str(self.model), dtype="float32", attn_implementation="sdpa", head_chunk=64,
            gradient_checkpointing=False, packing="auto", compile=False, seed=seed,
            lora=LoRA(**{"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"} | lora),
        )  # fmt: skip

    def data(self, policy: CausalLM, **changes: Any) -> PreferenceDataModule:
        labels = TrueLinkLabels(link=ShiftedMixture(shift=0.75, temperature=0.25), draws=1, seed=0, reward_sd=None)
        options = {"train_path": str(self.pairs), "val_fraction": 0.2, "max_length": 128, "labels": labels}
        return PreferenceDataModule(**{**options, "tokenizer": policy.tokenizer, "bucket_window": 2, **changes})


def losses(run: RunFolder) -> list[tuple[int, str, str]]:
    """Every number of the run, exactly, but those that measure the machine."""
    return [(m.step, m.name, float(m.value).hex()) for m in run.metrics() if not m.name.startswith("perf/")]


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.module.policy.trainable_state_dict().items()}
