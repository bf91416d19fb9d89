"""Small tabular runs for tests: every part built as `spo train experiment=tabular` builds it."""

from pathlib import Path
from typing import Any

from spo.averaging import NoAveraging
from spo.cli.train import Trained, fit
from spo.data.actions import ActionDataModule
from spo.data.held_out import LastShare
from spo.divergence.kl import KL
from spo.hardware import Hardware
from spo.link.logistic import Logistic
from spo.loggers import NoLogger
from spo.loop import Selection
from spo.module import SPOModule
from spo.optim import AdamW
from spo.policy.tabular import Tabular, Uniform
from spo.refit import Free
from spo.run_folder import RunFolder
from spo.schedule import Constant
from spo.simulate.labels import ShiftedLabels, TrueLinkLabels
from spo.simulate.seeds import OwnSeeds
from spo.simulate.tabular import Teachers
from spo.simulate.truth import ShiftedMixture
from tests.tiny import METHODS, diagnosis, refit

SIZES: dict[str, Any] = {"features": 6, "hidden": [16], "actions": 5}


def labels(shift: float = 1.5, reward_sd: float | None = 1.0) -> TrueLinkLabels:
    return TrueLinkLabels(link=ShiftedMixture(shift=shift, temperature=0.25), draws=1, seed=0, reward_sd=reward_sd)


def shifted(*shifts: float) -> ShiftedLabels:
    return ShiftedLabels(shifts=list(shifts), temperature=0.25, draws=1, seed=0, reward_sd=1.0)


def teachers(seeds: list[int], rows: int = 200, fresh: int = 100, **changes: Any) -> Teachers:
    options = {**SIZES, "seed_scheme": OwnSeeds(), "divergence": KL(), **changes}
    return Teachers(seeds=seeds, reward_scale=10.0, rows=rows, fresh_contexts=fresh, **options)


def data(seeds: list[int], rows: int = 200, **changes: Any) -> ActionDataModule:
    options = {"held_out": LastShare(share=0.2), "tokenizer": None, "labels": labels(), "seed": 0, "global_batch": 32}
    options |= {"micro_batch": 32, "micro_tokens": None, "source": teachers(seeds, rows)}
    return ActionDataModule(**{**options, **changes})


def go(folder: Path, seeds: list[int], method: str = "dpo", **changes: Any) -> Trained:
    """Train these seeds at once in `folder`; parts may be given."""
    options: dict[str, Any] = {
        "steps": 15, "epochs": None, "seed": 0, "validate_every": 5, "checkpoint_every": 5, "log_every": 5,
        "rate": 5e-3, "clip_norm": 1.0, "data": {}, "rows": 200, "policy": None, "selection": {}, "keep": None,
        "refit": {}, "averaging": NoAveraging(),
        "divergence": KL(), "parts": {},
    }  # fmt: skip
    assert not changes.keys() - options.keys()
    options |= changes
    policy = options.pop("policy") or Tabular(seeds=seeds, **SIZES)
    parts: dict[str, Any] = METHODS[method]() | options.pop("parts")
    if not parts["link"].is_fitted_from_data:
        parts["link"] = Logistic(1.0)
    divergence = options.pop("divergence")
    rate, clip_norm, averaging = (options.pop(name) for name in ("rate", "clip_norm", "averaging"))
    plan = refit(**{"warm_start_scale": 1.0, "source": "sweep", **options.pop("refit")})
    run = RunFolder(folder)
    if not run.config_path.exists():
        run.create({"_target_": "spo.cli.train.train"}, {})
    rows = options.pop("rows")
    keep = options.pop("keep")
    selection = Selection(**{"patience": None, "within_se": 0.0} | options.pop("selection"))

    def module(total_steps: int) -> SPOModule:
        optim = AdamW(learning_rate=rate, weight_decay=0.0, betas=[0.9, 0.999], eps=1e-8, clip_norm=clip_norm)
        return SPOModule(
            policy=policy, reference=Uniform(), divergence=divergence, refit=plan, optim=optim,
            schedule=Constant(warmup=0.0), averaging=averaging, total_steps=total_steps,
            **{"index_scale": Free(), **parts},
        )  # fmt: skip

    return fit(
        run=run,
        policy=policy,
        reference=Uniform(),
        data=data(seeds, rows, **options.pop("data")),
        true_link=labels().link,
        module=module,
        selection=keep or selection,
        hardware=Hardware(
            accelerator="cpu", devices=1, nodes=1, strategy=None, precision="32-true", threads=1, launcher=None
        ),
        logger=NoLogger(),
        diagnosis=diagnosis(),
        **options,
    )
