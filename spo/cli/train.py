"""spo train: a straight line from the config's objects to a finished run folder."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import lightning as L
import torch

from spo.averaging import Averaging
from spo.callbacks import Progress, observers
from spo.callbacks.diagnosis import Diagnosis
from spo.callbacks.observer import log_scalars, media_loggers
from spo.cli.advice import advising
from spo.cli.checks import check_parts
from spo.cli.evaluate import load_best, say_undetermined
from spo.cli.instantiate import instantiate
from spo.cli.summary import kept_values, record, summarize
from spo.data.position import DataPosition
from spo.divergence.base import Divergence
from spo.errors import CRASHED, ConfigError, exit_code_of
from spo.evaluate.base import Evaluation, Learned
from spo.hardware import Hardware
from spo.link.base import Link
from spo.loggers import LoggerChoice
from spo.loop import Checkpoints, GracefulStop, Keeping, Validation
from spo.module import SPOModule
from spo.objective.base import Objective
from spo.optim import AdamW
from spo.out_of_memory import EVALUATION, PREPARING_REFERENCE, at_work
from spo.policy.base import Policy
from spo.policy.reference import Reference
from spo.quiet import quieten
from spo.refit import IndexScale, RefitSchedule
from spo.report.results import Result
from spo.report.verdict import headline
from spo.run_folder import RunFolder
from spo.schedule import Schedule
from spo.simulate.labels import Truth

_SHARE = 10  # an interval that is not given is this part of the run


class Trained(NamedTuple):
    """What a run leaves in memory, for tests and notebooks."""

    module: SPOModule
    data: Any
    trainer: L.Trainer
    selection: Keeping
    interrupted: int | None  # the signal that stopped it


def train(
    *,
    run: RunFolder,
    policy: Policy,
    reference: Reference,
    data: Callable[..., Any],
    truth: Truth | None,
    divergence: Divergence,
    objective: Objective,
    link: Link,
    refit: RefitSchedule,
    index_scale: IndexScale,
    optim: AdamW,
    schedule: Schedule,
    averaging: Averaging,
    selection: Keeping,
    hardware: Hardware,
    logger: LoggerChoice,
    diagnosis: Diagnosis,
    evaluate: Evaluation,
    seed: int,
    epochs: float | None,
    steps: int | None,
    global_batch: int,
    micro_batch: int | None,
    micro_tokens: int | None,
    validate_every: int | None,
    checkpoint_every: int | None,
    log_every: int,
) -> int:
    """Train, keep the best weights, evaluate them if asked. Returns 0, or 128 + the signal that stopped it.

    A folder whose run did not end well and that holds checkpoints/last.ckpt is gone on with from there.
    """
    if run.status.get("previous_state") == "ok":
        print(f"{run.path} has finished already; start another run with `spo train`")
        return 0
    check_parts(
        divergence=divergence,
        objective=objective,
        link=link,
        index_scale=index_scale,
        policy=policy,
        reference=reference,
        evaluate=evaluate,
    )
    code = CRASHED
    try:
        rows = data(
            tokenizer=policy.tokenizer,
            labels=truth,
            seed=seed,
            global_batch=global_batch,
            micro_batch=micro_batch,
            micro_tokens=micro_tokens,
        )
        evaluate.check_data(rows)
        with advising(run, rows):
            trained = fit(
                run=run,
                policy=policy,
                reference=reference,
                data=rows,
                true_link=None if truth is None else truth.link,
                module=functools.partial(
                    SPOModule,
                    policy=policy,
                    reference=reference,
                    divergence=divergence,
                    objective=objective,
                    link=link,
                    refit=refit,
                    index_scale=index_scale,
                    optim=optim,
                    schedule=schedule,
                    averaging=averaging,
                ),
                selection=selection,
                hardware=hardware,
                logger=logger,
                diagnosis=diagnosis,
                seed=seed,
                epochs=epochs,
                steps=steps,
                validate_every=validate_every,
                checkpoint_every=checkpoint_every,
                log_every=log_every,
            )
        if trained.interrupted is not None:
            code = 128 + trained.interrupted
            print(f"stopped at optimizer step {trained.trainer.global_step}; go on with `spo execute {run.path}`")
            return code
        trained.selection.restore(trained.module)
        _say_kept(trained, run)
        if trained.trainer.is_global_zero:
            if not trained.selection.kept_step.dim():
                run.update_status(kept_step=int(trained.selection.kept_step))
            say_undetermined(trained.module.orientation_z)
            result = Result(run, run)
            if result.diagnosis is not None:
                print(result.shown_replicate + headline(result.diagnosis))
            trained.module.to(trained.trainer.strategy.root_device)
            if evaluate.samples and hardware.shards:  # one process samples, from weights that it holds whole
                policy = _whole_again(run).to(trained.trainer.strategy.root_device)
            learned = Learned(
                policy=policy,
                divergence=divergence,
                link=link if objective.needs_link else None,
                orientation=trained.module.orientation,
                alive=trained.module.alive,
                kept_step=trained.selection.kept_step,
                first_refit=run.first_refit,
            )
            best = kept_values(run, trained.selection, trained.module.alive)
            summarize(run, media_loggers(trained.trainer), best)  # now: an evaluation may take long, and may fail
            with advising(run, rows), at_work(EVALUATION):
                found = evaluate.run(learned, trained.data)
            record(
                found,
                run,
                choices=run.choices,
                overrides=run.overrides,
                log=functools.partial(log_scalars, trained.trainer),
                loggers=media_loggers(trained.trainer),
                step=trained.trainer.global_step,
                known=best,
            )
        code = CRASHED if not bool(trained.module.alive.all()) else 0
        if code:
            dead = torch.nonzero(~trained.module.alive).flatten().tolist()
            print(f"replicates {dead} met a non-finite number and are left out: lower optim.learning_rate")
        return code
    except BaseException as error:
        code = exit_code_of(error)
        raise
    finally:
        logger.finish(code)


def fit(
    *,
    run: RunFolder,
    policy: Policy,
    reference: Reference,
    data: Any,
    true_link: Any,
    module: Callable[..., SPOModule],
    selection: Keeping,
    hardware: Hardware,
    logger: LoggerChoice,
    diagnosis: Diagnosis,
    seed: int,
    epochs: float | None,
    steps: int | None,
    validate_every: int | None,
    checkpoint_every: int | None,
    log_every: int,
) -> Trained:
    """Everything that can be checked without weights is checked first; then Lightning runs."""
    quieten()
    hardware.check()
    torch.set_num_threads(hardware.threads_per_process)
    torch.manual_seed(seed)
    policy.check_training(hardware.precision)
    if hardware.shards and policy.replicates:
        raise ConfigError("hardware=fsdp shards language models: give hardware=cpu or gpu with a tabular policy")
    total = data.total_steps = run_length(steps, epochs, data.steps_per_epoch)
    data.load()
    if validate_every is not None and not data.report.rows_val:
        raise ConfigError(f"validate_every is {validate_every}, but no row is held out: give validate_every=null")
    validate_every = interval("validate_every", validate_every, total)
    checkpoint_every = interval("checkpoint_every", checkpoint_every, total)
    interval("log_every", log_every, total)
    run.write_json("data_report.json", data.report.to_dict())
    print("\n".join(data.report.lines()))
    if not data.report.rows_val and selection.needs_held_out:
        raise ConfigError(
            "there are no validation rows, and the weights to keep are chosen on them: raise data.val_fraction, or "
            "give data.val_path, or selection=last"
        )
    policy.meet(data)
    with at_work(PREPARING_REFERENCE):
        reference.prepare(policy, data)
    built = module(total_steps=total)
    if built.learns_link and built.refit.sweeps and data.steps_per_epoch is None:
        raise ConfigError("refit=sweep scores every training row again, and a stream has no end: give refit=memory")
    passes = "of a stream" if data.steps_per_epoch is None else f"{data.steps_per_epoch} a pass over the data"
    print(f"run              {total} optimizer steps, {passes}; {built.working}")
    print(f"averaging        {built.averaging}")
    selection.path = run.checkpoints / "best.ckpt"
    stop = GracefulStop()
    resume = run.last_checkpoint
    if resume is not None and resume.is_dir() != hardware.shards:
        raise ConfigError(
            f"{resume} is {'' if resume.is_dir() else 'not '}of a sharded model: go on with "
            f"{'hardware=fsdp' if resume.is_dir() else 'the hardware it was made with'}, with any number of processes"
        )
    trainer = L.Trainer(
        **hardware.trainer_kwargs(),
        max_epochs=1,
        max_steps=total,
        # Validation (a callback) decides when; Lightning's own interval would fall outside the checkpoint's order
        check_val_every_n_epoch=2,
        num_sanity_val_steps=0,
        log_every_n_steps=log_every,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        callbacks=[
            DataPosition(),
            *observers(run, true_link, data.reward_difference),
            *diagnosis.callbacks(run, data.group),
            selection,
            stop,
            *([Validation(validate_every)] if data.report.rows_val else []),
            Progress(),
            Checkpoints(run.checkpoints, checkpoint_every),
        ],
    )
    if trainer.is_global_zero:
        run.update_status(processes=trainer.world_size)
    data.micro.check(data.global_batch, trainer.world_size)
    trainer.logger = logger.build(  # only now, that no logger holds a run which could not start
        run=run,
        config=run.config,
        choices=run.choices,
        job_type="train",
        resume_id=run.status.get("wandb_run_id") if resume else None,
    )
    if resume:
        print(f"going on from {resume}")
    else:
        run.cut(-1)  # what a run that was killed before its first checkpoint wrote
    with stop.listening():
        trainer.fit(built, datamodule=data, ckpt_path=resume)
    if trainer.is_global_zero:
        run.write_json("data_report.json", data.report.to_dict())  # a stream has been read on since
    return Trained(built, data, trainer, selection, stop.received)


def _whole_again(run: RunFolder) -> Policy:
    """The run's policy with the kept weights, built by this process alone."""
    policy: Policy = instantiate(run.config["policy"], "policy")
    policy.build()
    policy.load_trainable_state_dict(load_best(run).weights)
    return policy


def run_length(steps: int | None, epochs: float | None, steps_per_epoch: int | None) -> int:
    """Optimizer steps of the run: `steps`, or `epochs` passes over the training rows (one pass if neither is given).

    steps_per_epoch: None of a stream, whose end no one knows."""
    if steps is not None and epochs is not None:
        raise ConfigError(f"steps is {steps} and epochs {epochs}: give one of them, and null for the other")
    if steps is None:
        if steps_per_epoch is None:
            raise ConfigError(
                "steps is not set, and data=stream does not know its length: give steps=N, optimizer steps"
            )
        epochs = 1 if epochs is None else epochs
        steps = math.floor(epochs * steps_per_epoch)
        if steps < 1:
            raise ConfigError(f"epochs is {epochs}: that is less than one optimizer step ({steps_per_epoch} a pass)")
    if steps < 1:
        raise ConfigError(f"steps is {steps}: give at least 1 optimizer step")
    return steps


def interval(name: str, every: int | None, total: int) -> int:
    """`every`, or a tenth of the run; refused where it would never come."""
    if every is None:
        return max(1, total // _SHARE)
    if not 1 <= every <= total:
        raise ConfigError(f"{name} is {every} optimizer steps, but the run has {total}: give 1 to {total}, or null")
    return every


def _say_kept(trained: Trained, run: RunFolder) -> None:
    step, auc = trained.selection.kept_step, trained.selection.kept_auc
    if bool(auc.isnan().all()):  # they were not chosen by it
        print(f"kept the weights of step {int(step.max())}, the last")
        return
    if not step.dim():
        known = f"{float(auc):.3f}"
        if trained.trainer.is_global_zero and Result(run, run).auc is None:  # selection takes such a one for a coin's
            known = "unknown: no two of these rows can be ranked; raise data.val_fraction, or give data.val_path"
        print(f"kept the weights of step {int(step)}, held-out AUC {known}")
        return
    alive = trained.module.alive.cpu()
    step, auc = step[alive], auc[alive]
    if len(step):
        shown = f"steps {int(step.min())} to {int(step.max())}, held-out AUC {float(auc.mean()):.3f} on average"
        print(f"kept weights of each of {len(step)} replicates: {shown}")
