"""`spo evaluate TRAIN_RUN`: what a trained policy is worth, by the parts of its training's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from spo.cli.checks import check_tilt
from spo.cli.instantiate import instantiate
from spo.cli.summary import record
from spo.errors import CRASHED, ConfigError, exit_code_of
from spo.evaluate import DETERMINED
from spo.evaluate.base import Evaluation, Learned
from spo.link.base import Link
from spo.loggers import LoggerChoice
from spo.media import MediaLogger
from spo.policy.base import Policy
from spo.policy.causal_lm import pick_device
from spo.run_folder import RunFolder


def evaluate(
    *,
    run: RunFolder,
    train_run: str,
    evaluate: Evaluation,
    logger: LoggerChoice,
    device: Literal["auto", "cpu", "cuda"],
) -> None:
    """Policy, data and truth are those of TRAIN_RUN's resolved config; the weights are its best checkpoint's."""
    source = RunFolder(Path(train_run))
    parts = instantiate(_parts(source))
    policy, data, divergence = parts["policy"], parts["data"], parts["divergence"]
    evaluate.check(divergence, policy)
    check_tilt(evaluate, parts["reference"], policy)
    kept = load_best(source)
    size = {"global_batch": 1, "micro_batch": 1, "micro_tokens": None}  # of a training that will not be
    module = data(tokenizer=policy.tokenizer, labels=parts["truth"], seed=source.config["seed"], **size)
    evaluate.check_data(module)
    module.load()
    policy.meet(module)
    policy.build()
    policy.load_trainable_state_dict(kept.weights)
    place = pick_device(device)
    policy.to(place)
    code = CRASHED
    try:
        ids = {"train_run": str(source.path.resolve()), "train_wandb_run_id": source.status.get("wandb_run_id")}
        log = logger.build(
            run=run,
            config={**run.config, "trained": {**ids, **source.config}},
            choices=run.choices,
            job_type="evaluate",
            resume_id=None,
        )
        learned = Learned(
            policy=policy,
            divergence=divergence,
            link=_fitted(parts["link"], policy, kept).to(place) if parts["objective"].needs_link else None,
            orientation=kept.orientation.to(place),
            alive=kept.alive.to(place),
            kept_step=kept.step,
            first_refit=source.first_refit,
        )
        record(
            evaluate.run(learned, module),
            run,
            choices={**source.choices, **run.choices},
            overrides=_overrides(source, run),
            log=lambda scalars: None if log is None else log.log_metrics(scalars, step=0),
            loggers=[log] if isinstance(log, MediaLogger) else [],
            step=0,
            known={},
        )
        code = 0
    except BaseException as error:
        code = exit_code_of(error)
        raise
    finally:
        logger.finish(code)


def _overrides(source: RunFolder, run: RunFolder) -> list[str]:
    """What was asked for: of the training without its evaluation, and of this evaluation."""
    return [*(word for word in source.overrides if not word.lstrip("+~").startswith("evaluate.")), *run.overrides]


def _parts(source: RunFolder) -> Mapping[str, Any]:
    """The nodes of the training's config that an evaluation needs. ConfigError where it is not a training run."""
    wanted = ("policy", "reference", "data", "truth", "divergence", "objective", "link")
    if missing := [name for name in wanted if name not in source.config]:
        raise ConfigError(f"{source.path} is not a run of `spo train`: its config has no {', '.join(missing)}")
    return {name: source.config[name] for name in wanted}


class Kept(NamedTuple):
    """Trainable weights of the policy, the link's buffers, and of each replicate the link's orientation, whether it
    counts, and the optimizer step, (*R,)."""

    weights: dict[str, Tensor]
    link: dict[str, Tensor]
    orientation: Tensor
    alive: Tensor
    step: Tensor


def load_best(source: RunFolder) -> Kept:
    """What selection kept: the content of best.ckpt."""
    path = source.checkpoints / "best.ckpt"
    if not path.is_file():
        raise ConfigError(f"{source.path} has no checkpoints/best.ckpt: let the training reach its first validation")
    kept = torch.load(path, map_location="cpu", weights_only=True)
    state = kept["state_dict"]
    say_undetermined(state["orientation_z"])
    weights, link = (
        {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
        for part in ("policy.", "link.")
    )
    return Kept(weights, link, state["orientation"], state["alive"], kept["kept_step"])


def say_undetermined(score: Tensor) -> None:
    """Whether the data tell which way the index points. score: z-score (*R,) of the link's orientation, 0 where no link
    was fitted."""
    undetermined = (score != 0) & (score.abs() < DETERMINED)
    if bool(undetermined.any()):
        which = f" of {int(undetermined.sum())} of {len(score)} replicates" if score.dim() else ""
        print(
            f"the orientation of the link{which} is undetermined (z-score {float(score[undetermined].flatten()[0]):.1f}"
            f", below {DETERMINED:g}): the data do not say whether a larger index is better; more rows or passes may"
        )


def _fitted(link: Link, policy: Policy, kept: Kept) -> Link:
    """The link as selection kept it."""
    link.allocate(policy.replicates).load_state_dict(kept.link)
    return link
