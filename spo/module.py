"""SPOModule: forward -> index -> objective, and the refits of the link.

One Lightning batch is this rank's share of a global batch, in micro-batches, and is one optimizer step; so
every interval and `trainer.global_step` count optimizer steps. R: replicate axes, B: rows of a micro-batch.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from spo import out_of_memory as memory
from spo.averaging import Averaging
from spo.callbacks.observer import LinkObserver, log_scalars
from spo.distributed import gather_rows, gather_sample, gradients_stay_local, rank, sum_over_ranks, world_size
from spo.divergence.base import Divergence
from spo.errors import SpoError
from spo.evaluate.ranking import AUC, orientation
from spo.index import index
from spo.link.base import Link
from spo.measures import chosen_and_rejected, clamped_share, held_out, mean_over_ranks
from spo.objective.base import Objective, weighted_mean
from spo.optim import AdamW, gradient_norm, scale_gradients
from spo.policy.base import Policy, evaluating
from spo.policy.reference import Reference
from spo.refit import IndexScale, RefitSchedule, WorkingLink
from spo.schedule import Schedule
from spo.types import IndexSample, PreferenceBatch

_FLAT_TOLERANCE = 1e-3  # nats: largest |t| at step 0 where the policy is said to start at the reference


class SPOModule(L.LightningModule):
    """min over policies of sum_i w_i l(t_i, z_i; Psi) / sum_i w_i, t = f'(rho_1) - f'(rho_0), Psi refitted as it goes.

    The policy is `policy`, the link `link`; `active_link` is the one in use (the logistic pilot until the first
    refit). `orientation` (*R,) is the sign with which the index orders responses, from training rows.
    """

    orientation: Tensor
    orientation_z: Tensor
    alive: Tensor  # bool (*R,): replicates that have met no non-finite number
    trainer: Any  # Lightning's Trainer; its own annotation lacks `datamodule` and `callbacks`

    def __init__(
        self,
        *,
        policy: Policy,
        reference: Reference,
        divergence: Divergence,
        objective: Objective,
        link: Link,
        refit: RefitSchedule,
        index_scale: IndexScale,
        optim: AdamW,
        schedule: Schedule,
        averaging: Averaging,
        total_steps: int,
    ) -> None:
        super().__init__()
        objective.check(link)
        self.automatic_optimization = False
        self.policy, self.reference, self.divergence = policy, reference, divergence
        self.objective, self.link, self.refit, self.index_scale = objective, link, refit, index_scale
        self.optim, self.averaging = optim, averaging
        self.rate_factors = schedule.factors(total_steps)
        averaging.check(total_steps)
        self.learns_link = objective.needs_link and link.is_fitted_from_data
        index_scale.check(self.learns_link)
        self.working = WorkingLink(
            link, refit, total_steps, learns=self.learns_link, flat_start=reference.equals_initial_policy
        )
        self.validation_sample: IndexSample | None = None
        self.validation_auc: AUC | None = None
        self._validation_rows: list[IndexSample] = []
        self._validation_log_ratios: list[Tensor] = []
        self._rng: Tensor | None = None
        self._at_start_of_step: Tensor | None = None

    # ---- building ------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        with memory.at_work(memory.LOADING_POLICY):
            self.policy.build()
        with memory.at_work(memory.LOADING_REFERENCE):
            self.reference.build()
        if not hasattr(self, "orientation"):
            self.reference_network = self.reference.network  # so that it is put where the policy is
            if self.device_mesh is not None:
                self._shard(self.device_mesh["data_parallel"])
            replicates = self.policy.replicates
            self.link.allocate(replicates)
            self.objective.allocate(replicates)
            self.register_buffer("orientation", torch.ones(replicates))
            self.register_buffer("orientation_z", torch.zeros(replicates))
            self.register_buffer("alive", torch.ones(replicates, dtype=torch.bool))

    def _shard(self, mesh: DeviceMesh) -> None:
        """The policy and a reference with weights of its own, each by itself, over every process of the run."""
        if mesh.size() != world_size():
            raise SpoError(
                f"{mesh.size()} of {world_size()} processes would share the data: see conf/hardware/fsdp.yaml"
            )
        self.policy.shard(mesh)
        if self.reference_network is not None:
            self.reference_network.shard(mesh)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optim.build(self._trainable())

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.policy.parameters() if p.requires_grad]

    @property
    def active_link(self) -> Link:
        return self.working.active

    @property
    def uses_link(self) -> bool:
        return self.objective.needs_link

    @property
    def tokens_computed(self) -> int:
        return self.policy.tokens_computed

    @property
    def refit_count(self) -> int:
        return self.working.count

    # ---- one optimizer step --------------------------------------------------------------------------

    def compute_index(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(t (*R, B), log pi (*R, B, 2), log pi_ref (*R, B, 2)), nats."""
        with memory.at_work(memory.REFERENCE, batch):
            reference = self._reference_log_prob(batch)
        with memory.at_work(memory.FORWARD, batch):
            log_prob = self.policy(batch.pair)
        return index(self.divergence, log_prob, reference), log_prob, reference

    def _reference_log_prob(self, batch: PreferenceBatch) -> Tensor:
        """Of a row that has been asked about before, without a forward pass."""
        remembered = self.reference.remembered
        if remembered is None:
            return self.reference.log_prob(batch, self.policy)
        return remembered.of(batch, lambda rows: self.reference.log_prob(rows, self.policy), gather_rows)

    def training_step(self, batches: list[PreferenceBatch], batch_idx: int) -> None:
        self._at_start_of_step = torch.get_rng_state()
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        step = self.trainer.global_step
        learning_rate = self.optim.learning_rate * self.rate_factors[step]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.zero_grad()
        backward = self._backward_coupled if self.objective.couples_rows else self._backward_rows
        rows, loss, log_prob, reference = backward(batches)
        norm = gradient_norm(self._trainable(), len(self.policy.replicates))
        self._check_finite(loss, norm, rows)
        if self.optim.clip_norm is not None:
            factor = (self.optim.clip_norm / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1.0)
            scale_gradients(self._trainable(), torch.where(self.alive, factor, 0.0))
        before = None if bool(self.alive.all()) else [p.detach().clone() for p in self._trainable()]
        self._at_start_of_step = None
        with memory.at_work(memory.OPTIMIZER):
            optimizer.step()
            if before is not None:
                self._restore_dead(before)
            self.averaging.update(self.policy)
        rows = self._living(rows)
        self.working.remember(rows, step)
        if (step + 1) % self.trainer.log_every_n_steps == 0:
            own = {"train/loss": loss, "train/grad_norm": norm, "lr": torch.tensor(learning_rate)}
            own["train/non_finite"] = (~self.alive).sum()  # replicates
            self._log(own | self._measures(rows, log_prob, reference))
        if self.working.due(step + 1):
            self.refit_link()

    def undo_step(self) -> bool:
        """After an error: True where a step was under way that had changed nothing yet. The random numbers are then as
        at its beginning, and its gradients are gone."""
        if self._at_start_of_step is None:
            return False
        torch.set_rng_state(self._at_start_of_step)
        self._at_start_of_step = None
        self.zero_grad(set_to_none=True)
        return True

    def _measures(self, rows: IndexSample, log_prob: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """What a step's rows say of policy and index."""
        log_ratio = log_prob - reference
        rewards = log_ratio * self.active_link.reward_scale
        return {
            "train/index_rms": mean_over_ranks(rows.t.square(), rows.weight).sqrt(),
            **chosen_and_rejected(rewards, rows, "rewards"),
            **chosen_and_rejected(log_prob, rows, "logps"),
            **clamped_share(self.divergence, log_ratio, rows.weight, "index/clamped_share"),
            "data/epoch": torch.tensor(self.trainer.datamodule.epoch(self.trainer.global_step)),
        }

    def _backward_rows(self, batches: list[PreferenceBatch]) -> tuple[IndexSample, Tensor, Tensor, Tensor]:
        """Rows whose losses do not depend on one another: each micro-batch by itself.

        Returns rows, loss (*R,), log pi and log pi_ref (*R, B, 2) of this rank's share.
        """
        total = sum_over_ranks(torch.stack([b.weight.sum(-1) for b in batches]).sum(0))
        total = torch.where(total > 0, total, 1.0)
        seen, losses, log_probs, references = [], [], [], []
        for k, batch in enumerate(batches):
            t, log_prob, reference = self.compute_index(batch)
            rows = IndexSample(t, batch.z, batch.weight, batch.row_id)
            loss = (self._row_losses(rows) * batch.weight).sum(-1) / total
            stay = gradients_stay_local(self.trainer.strategy, k + 1 < len(batches))
            with memory.at_work(memory.BACKWARD, batch), stay:
                self.manual_backward(loss.sum() * world_size())  # DDP takes the mean over ranks
            seen.append(IndexSample(t.detach(), batch.z, batch.weight, batch.row_id))
            losses.append(loss.detach())
            log_probs.append(log_prob.detach())
            references.append(reference)
        loss = sum_over_ranks(torch.stack(losses).sum(0))
        return IndexSample.cat(seen), loss, torch.cat(log_probs, -2), torch.cat(references, -2)

    def _backward_coupled(self, batches: list[PreferenceBatch]) -> tuple[IndexSample, Tensor, Tensor, Tensor]:
        """Rows coupled over the global batch: dL/dt on the whole pool first, then t's own gradient by micro-batch.

        With one micro-batch the graph of the first pass is used; with more, t is computed without gradients and
        again with them, under the same random numbers.
        """
        one = len(batches) == 1
        with torch.set_grad_enabled(one), torch.random.fork_rng(enabled=not one):
            passes = [self.compute_index(b) for b in batches]
        rows = IndexSample.cat(
            [IndexSample(p[0].detach(), b.z, b.weight, b.row_id) for p, b in zip(passes, batches, strict=True)]
        )
        pool = gather_sample(rows)
        leaf = pool.t.clone().requires_grad_()
        with torch.enable_grad():
            losses = self._row_losses(IndexSample(leaf, pool.z, pool.weight, pool.row_id))
            loss = weighted_mean(losses, pool.weight)
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        size = rows.t.shape[-1]
        slope = slope[..., rank() * size : (rank() + 1) * size] * world_size()
        log_prob, reference = torch.cat([p[1].detach() for p in passes], -2), torch.cat([p[2] for p in passes], -2)
        start = 0
        for k, batch in enumerate(batches):
            t = passes[k][0] if one else self.compute_index(batch)[0]
            part = slope[..., start : start + len(batch)]
            start += len(batch)
            stay = gradients_stay_local(self.trainer.strategy, k + 1 < len(batches))
            with memory.at_work(memory.BACKWARD, batch), stay:
                self.manual_backward((part * t).sum())
        return rows, loss.detach(), log_prob, reference

    def _row_losses(self, rows: IndexSample) -> Tensor:
        """Loss of each row, nan where t is not finite: no link can be asked there."""
        finite = torch.isfinite(rows.t)
        rows = IndexSample(torch.where(finite, rows.t, 0.0), rows.z, rows.weight, rows.row_id)
        losses: Tensor = self.objective(rows, self.active_link, self.working.own(rows.row_id))
        return torch.where(finite, losses + self.index_scale.penalty(rows.t, self.working.fitted), torch.nan)

    def _check_finite(self, loss: Tensor, norm: Tensor, rows: IndexSample) -> None:
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        if bool((finite | ~self.alive).all()):
            return
        if not self.policy.replicates:
            raise SpoError(
                f"loss {loss.item():.4g} and gradient norm {norm.item():.4g} at optimizer step "
                f"{self.trainer.global_step + 1} (row ids {rows.row_id.tolist()}): lower optim.learning_rate, or use "
                "hardware.precision=32-true. The last checkpoint is untouched"
            )
        self._bury(finite)

    def _bury(self, finite: Tensor) -> None:
        """Replicates (*R,) that are not finite count no longer."""
        self.alive &= finite
        if not bool(self.alive.any()):
            raise SpoError(
                f"every replicate had met a non-finite number by optimizer step {self.trainer.global_step + 1}: lower "
                "optim.learning_rate. The last checkpoint is untouched"
            )

    def _living(self, sample: IndexSample) -> IndexSample:
        """The sample with rows of dead replicates at t = 0 and weight 0, for links and metrics to be asked."""
        if not self.policy.replicates:
            return sample
        finite = torch.isfinite(sample.t).all(-1)
        if not bool((finite | ~self.alive).all()):
            self._bury(finite)
        alive = self.alive[..., None]
        return IndexSample(torch.where(alive, sample.t, 0.0), sample.z, sample.weight * alive, sample.row_id)

    def _restore_dead(self, before: list[Tensor]) -> None:
        """A replicate that met a non-finite number keeps the weights it had."""
        with torch.no_grad():
            for p, old in zip(self._trainable(), before, strict=True):
                alive = self.alive.reshape(self.alive.shape + (1,) * (p.dim() - self.alive.dim()))
                p.copy_(torch.where(alive, p, old))

    # ---- refits --------------------------------------------------------------------------------------

    @torch.no_grad()
    def refit_link(self) -> None:
        """Fit the link to the memory (or to a sweep over the training rows); the same on every rank."""
        with memory.at_work(memory.REFIT):
            sample = self._living(self._sweep() if self.refit.sweeps else self._remembered())
            with torch.autocast(self.device.type, enabled=False):  # not around the sweep: it is scored as in training
                self.working.fit(sample)
                self.objective.fit(sample, self.link)
        sign, score = orientation(sample)
        self.orientation.copy_(sign)
        self.orientation_z.copy_(score)
        self._log({"link/orientation_z": score, "link/rows": (sample.weight > 0).sum(-1).float()})
        for callback in self.trainer.callbacks:
            if isinstance(callback, LinkObserver):
                callback.on_link_refit(self.trainer, self, sample)

    def _remembered(self) -> IndexSample:
        sample, age = self.working.remembered(self.trainer.global_step)
        self._log({"link/memory_age": age})
        return sample if self.policy.replicates else sample.present()

    def _sweep(self) -> IndexSample:
        with evaluating(self.policy), torch.random.fork_rng():
            parts = []
            for batch in self.trainer.datamodule.sweep_dataloader():
                batch = batch.to(self.device)
                parts.append(IndexSample(self.compute_index(batch)[0], batch.z, batch.weight, batch.row_id))
        sample = gather_sample(IndexSample.cat(parts))
        order = sample.row_id.argsort(dim=-1, stable=True)
        sample = IndexSample(*(x.gather(-1, order) for x in (sample.t, sample.z, sample.weight, sample.row_id)))
        return sample if self.policy.replicates else sample.present()

    # ---- validation ----------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._validation_rows, self._validation_log_ratios = [], []

    def validation_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        t, log_prob, reference = self.compute_index(batch)
        self._validation_rows.append(IndexSample(t, batch.z, batch.weight, batch.row_id))
        self._validation_log_ratios.append(log_prob - reference)

    def on_validation_epoch_end(self) -> None:
        rows, log_ratio = IndexSample.cat(self._validation_rows), torch.cat(self._validation_log_ratios, -2)
        self._validation_rows, self._validation_log_ratios = [], []
        sample = gather_sample(rows)
        if not self.policy.replicates:  # whole and in one order, however many ranks there are
            order = sample.row_id.argsort(stable=True)
            order = order[sample.weight[order] > 0]
            sample = IndexSample(sample.t[order], sample.z[order], sample.weight[order], sample.row_id[order])
        sample = self.validation_sample = self._at_start(self._living(sample))
        self.validation_auc, measures = held_out(sample, self.active_link, self.orientation)
        self._log({**measures, **clamped_share(self.divergence, log_ratio, rows.weight, "val/index_clamped_share")})

    def _at_start(self, sample: IndexSample) -> IndexSample:
        """At step 0 every t is 0 where the policy starts at its reference. A stored reference leaves rounding (1e-6
        nats), by which rows would be ranked: it is checked and taken away."""
        if self.trainer.global_step > 0:
            return sample
        largest = float(sample.t.abs().max())
        self._log({"index/max_at_start": torch.tensor(largest)})
        if not self.reference.equals_initial_policy:
            return sample
        if largest > _FLAT_TOLERANCE:
            raise SpoError(
                f"the policy should equal its reference at step 0, but the index reaches {largest:.4g} nats: the "
                "reference was made with another model, dtype or tokenizer. Recompute it with `spo precompute`"
            )
        return replace(sample, t=torch.zeros_like(sample.t))

    # ---- logging -------------------------------------------------------------------------------------

    def _log(self, values: Mapping[str, Tensor]) -> None:
        """To the loggers now, at the optimizer steps done, and to callbacks; over replicates their mean and 5% and 95%
        quantiles, of those still alive. Lightning itself would log after the step's checkpoint, and repeat old values.
        """
        scalars: dict[str, float] = {}
        for name, value in values.items():
            if not value.dim():
                scalars[name] = float(value)
                continue
            value = value.detach().float()[self.alive]
            value = value[~value.isnan()]  # of a run without held-out rows, beside others that have some
            if not len(value):
                continue
            scalars |= {name: float(value.mean())}
            scalars |= {f"{name}_q{q:02d}": float(value.quantile(q / 100)) for q in (5, 95)}
        # not by self.log_dict, which costs 50 times as much: a small step's own time
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in scalars.items()})
        log_scalars(self.trainer, scalars)

    # ---- checkpoints: trainable weights, their average, link, memory, random numbers; never the reference

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        own = {name: getattr(self, name) for name in ("orientation", "orientation_z", "alive")}
        parts = {"policy": self.policy.trainable_state_dict(), "link": self.link.state_dict()}
        parts["objective"] = self.objective.state_dict()
        return own | {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """Every key must be there and none more, whatever `strict` says."""

        def part(name: str) -> dict[str, Tensor]:
            return {k.removeprefix(f"{name}."): v for k, v in state_dict.items() if k.startswith(f"{name}.")}

        missing, unexpected = self.state_dict().keys() - state_dict.keys(), state_dict.keys() - self.state_dict().keys()
        if missing or unexpected:
            raise SpoError(
                f"the checkpoint is of another configuration: it lacks {sorted(missing)[:3]} and has "
                f"{sorted(unexpected)[:3]} that are not used here. Resume with the run's own folder: `spo execute RUN`"
            )
        self.policy.load_trainable_state_dict(part("policy"))
        self.link.load_state_dict(part("link"))
        self.objective.load_state_dict(part("objective"))
        for name in ("orientation", "orientation_z", "alive"):
            getattr(self, name).copy_(state_dict[name])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        remembered = self.reference.remembered
        checkpoint["spo"] = {
            "reference": {} if remembered is None else remembered.state_dict(),
            "working_link": self.working.state_dict(),
            "averaging": self.averaging.state_dict(),
            "rng": gather_rows(torch.get_rng_state()[:, None].T.contiguous().to(self.device)).cpu(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["spo"]
        self.working.load_state_dict(state["working_link"])
        self.averaging.load_state_dict(state["averaging"], self.policy)
        if (remembered := self.reference.remembered) is not None and state.get("reference"):
            remembered.load_state_dict(state["reference"])
        size = torch.get_rng_state().numel()
        if state["rng"].numel() == size * world_size():  # at another world size, dropout draws anew
            # a clone: torch 2.13 crashes on a state that is a view into a larger tensor, as every rank's but 0 would be
            self._rng = state["rng"].reshape(world_size(), size)[rank()].clone()

    def on_train_start(self) -> None:
        if self._rng is not None:
            torch.set_rng_state(self._rng)
            self._rng = None
