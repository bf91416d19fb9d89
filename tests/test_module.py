"""The training loop on a tiny language model (NUMERICS 12, 26, 27, 29, 30, 31)."""

import math

import pytest
import torch

from spo.errors import ConfigError, SpoError
from spo.link.logistic import Logistic
from spo.module import SPOModule
from spo.policy.reference import AdapterOff
from spo.refit import Pinned
from tests.tiny import METHODS, Tiny, losses, weights, write_pairs


@pytest.fixture
def tiny(tiny_llama_dir, tmp_path):
    return Tiny(tiny_llama_dir, write_pairs(tmp_path / "pairs.jsonl"), tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_logs_what_it_should(tiny, method):
    trained = tiny.go(method=method)
    run = tiny.run()
    names = {m.name for m in run.metrics()}
    assert {"train/loss", "val/auc", "link/nll", "link/ece", "rewards/margins", "logps/chosen", "lr"} <= names
    assert [step for step, _ in run.series("val/auc")] == [0, 4, 8]
    assert [step for step, _ in run.series("train/loss")] == list(range(1, 9))
    assert all(math.isfinite(m.value) for m in run.metrics() if m.name.startswith(("train/", "val/auc", "link/")))
    expected = len([s for s in range(1, 9) if s >= 2 and (s - 2) % 3 == 0]) if trained.module.learns_link else 0
    assert trained.module.refit_count == expected


def test_at_step_zero_the_index_is_zero_and_the_dpo_loss_ln_2(tiny):
    """pi = pi_ref: t = 0, loss = -log sigmoid(0) = ln 2, gradient not 0 (NUMERICS 12)."""
    tiny.go(method="dpo", steps=1, validate_every=1, checkpoint_every=1)
    run = tiny.run()
    assert run.last("index/max_at_start") == 0.0
    assert run.series("train/loss")[0][1] == pytest.approx(math.log(2), abs=1e-6)
    assert run.series("train/grad_norm")[0][1] > 1e-4


def test_rounding_at_step_zero_is_not_ranked(tiny):
    """A stored reference differs from the policy's own start by rounding: the index of every row counts as 0, so that
    the AUC is 1/2 exactly and selection does not see noise; a difference beyond rounding is refused."""

    class Stored(AdapterOff):
        error = 1e-5

        def log_prob(self, batch, policy):
            exact = super().log_prob(batch, policy)
            return exact + self.error * (batch.row_id[:, None] % 7 - 3) * torch.tensor([0.0, 1.0])

    tiny.go(method="dpo", steps=1, validate_every=1, checkpoint_every=1, reference=Stored())
    assert 0 < tiny.run().last("index/max_at_start") < 1e-3
    assert tiny.run().series("val/auc")[0] == (0, 0.5)

    class Wrong(Stored):
        error = 1.0

    with pytest.raises(SpoError, match="the policy should equal its reference"):
        tiny.go("wrong", method="dpo", steps=1, validate_every=1, checkpoint_every=1, reference=Wrong())


def test_after_one_step_every_trained_tensor_has_a_finite_gradient(tiny):
    """With LoRA, B's is not 0; A's is, because B = 0 (NUMERICS 30)."""
    grads = {}

    class Watch(Logistic):
        pass

    trained = tiny.go(method="dpo", steps=1, validate_every=1, checkpoint_every=1, module={"link": Watch(0.5)})
    for name, p in trained.module.policy.named_parameters():
        if p.requires_grad:
            grads[name] = p.grad
    assert grads
    assert all(g is not None and torch.isfinite(g).all() for g in grads.values())
    assert all(float(g.abs().max()) > 0 for name, g in grads.items() if "lora_B" in name)


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_change_nothing(tiny, method):
    """1 x 8 = 2 x 4 = 8 x 1: losses, gradient norms and weights (NUMERICS 27)."""
    runs = {size: tiny.go(f"micro{size}", method=method, micro_batch=size, steps=5) for size in (8, 4, 1)}
    for size in (4, 1):
        for name in ("train/loss", "train/grad_norm", "val/auc"):
            ours, theirs = (tiny.run(f"micro{s}").series(name) for s in (size, 8))
            assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], rel=2e-3, abs=1e-5)
        for name, value in weights(runs[8]).items():
            torch.testing.assert_close(weights(runs[size])[name], value, atol=2e-4, rtol=1e-2)


@pytest.mark.parametrize("method", ["dpo", "rspo"])
def test_a_budget_of_tokens_changes_nothing(tiny, method):
    """Losses, gradient norms and weights are those of one micro-batch, also where rows are coupled (NUMERICS 27)."""
    whole = tiny.go("whole", method=method, micro_batch=8, steps=4)
    cut = tiny.go("cut", method=method, micro_batch=None, micro_tokens=200, steps=4)
    assert len({len(part) for k in range(4) for part in cut.data.step(k)}) > 1, "no step was cut unevenly"
    for name in ("train/loss", "train/grad_norm", "val/auc"):
        ours, theirs = ([v for _, v in tiny.run(n).series(name)] for n in ("cut", "whole"))
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-5)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], value, atol=2e-4, rtol=1e-2)


def test_two_runs_of_one_seed_are_the_same_and_another_seed_is_not(tiny):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.go(name, seed=seed)
    assert losses(tiny.run("a")) == losses(tiny.run("b"))
    assert losses(tiny.run("a")) != losses(tiny.run("c"))


@pytest.mark.parametrize("changes", [{}, {"lora": {"dropout": 0.2}}, {"refit": {"source": "sweep"}}], ids=str)
@pytest.mark.parametrize("method", ["pspo", "efficient", "rspo"])
def test_a_stopped_run_goes_on_exactly(tiny, method, changes, monkeypatch):
    """Killed after each of some steps, resumed from the last checkpoint: every number of the table is the same bit
    for bit, and so are link and weights (NUMERICS 26)."""
    whole = tiny.go("whole", method=method, **changes)
    for stop in (3, 5):
        name = f"stopped{stop}"

        class Killed(Exception):
            pass

        from spo.loop import Checkpoints

        original = Checkpoints.on_train_batch_end

        def kill(self, trainer, *args, original=original, stop=stop, killed=Killed):
            original(self, trainer, *args)
            if trainer.global_step == stop:
                raise killed

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "on_train_batch_end", kill)
            with pytest.raises(Killed):
                tiny.go(name, method=method, **changes)
        resumed = tiny.go(name, method=method, **changes)
        assert losses(tiny.run(name)) == losses(tiny.run("whole"))
        for key, value in whole.module.state_dict().items():
            torch.testing.assert_close(resumed.module.state_dict()[key], value, atol=0, rtol=0)
        for key, value in whole.selection.state_dict().items():
            torch.testing.assert_close(resumed.selection.state_dict()[key], value, atol=0, rtol=0)


def test_the_schedule_counts_optimizer_steps(tiny):
    """Linear without warm-up from 1 to 0.1: the last step's rate is the end of the schedule (NUMERICS 31)."""
    tiny.go(micro_batch=2, steps=5)
    rates = [value for _, value in tiny.run().series("lr")]
    assert rates == pytest.approx([2e-3 * f for f in (1, 0.775, 0.55, 0.325, 0.1)])


@pytest.mark.parametrize("method", ["dpo", "pspo", "ospo", "rspo"])
def test_dropout_is_on_in_training_and_off_in_measuring_whatever_the_method(tiny, method, monkeypatch):
    """In each training pass, also after a validation and after a refit that sweeps over the rows; in these two never:
    else methods that refit would be trained without the dropout of those that do not."""
    policy = tiny.policy(dropout=0.1)
    policy.build()
    phases, seen = ["measuring"], []

    def during(name, phase):
        original = getattr(SPOModule, name)

        def wrapped(self, *given):
            phases.append(phase)
            try:
                return original(self, *given)
            finally:
                phases.pop()

        monkeypatch.setattr(SPOModule, name, wrapped)

    during("training_step", "training")
    during("refit_link", "measuring")
    drops = [m for m in policy.modules() if isinstance(m, torch.nn.Dropout) and m.p == 0.1]
    assert drops
    for drop in drops:
        drop.register_forward_pre_hook(lambda drop, _: seen.append((phases[-1], drop.training)))
    plan = {"source": "sweep", "every": 1}
    trained = tiny.go(method=method, policy=policy, refit=plan, steps=4, validate_every=2)
    assert (trained.module.refit_count > 0) == trained.module.learns_link
    assert set(seen) == {("training", True), ("measuring", False)}
    passes = 2 if trained.module.objective.couples_rows else 1  # over 4 steps of 2 micro-batches
    assert seen.count(("training", True)) == passes * 4 * 2 * len(drops)


@pytest.mark.parametrize("source", ["memory", "sweep"])
def test_a_refit_leaves_flags_and_random_numbers_as_they_were(tiny, source):
    """NUMERICS 29."""
    trained = tiny.go(refit={"source": source}, lora={"dropout": 0.1})
    module = trained.module
    flags, rng = [m.training for m in module.modules()], torch.get_rng_state()
    module.trainer.datamodule = trained.data
    module._log = lambda *_: None
    module.refit_link()
    assert [m.training for m in module.modules()] == flags
    assert torch.equal(torch.get_rng_state(), rng)


def test_nothing_of_the_reference_is_trained_or_saved(tiny):
    policy = tiny.policy()
    policy.build()
    frozen = {n: p.detach().clone() for n, p in policy.named_parameters() if not p.requires_grad}
    trained = tiny.go(policy=policy)
    for name, p in policy.named_parameters():
        if name in frozen:
            assert torch.equal(p, frozen[name])
    saved = torch.load(tiny.run().last_checkpoint)
    assert all("lora_" in k for k in saved["state_dict"] if k.startswith("policy."))
    assert sum(len(g["params"]) for g in saved["optimizer_states"][0]["param_groups"]) == len(weights(trained))


def test_a_checkpoint_of_another_configuration_is_refused(tiny):
    trained = tiny.go()
    state = trained.module.state_dict()
    state.pop("orientation")
    with pytest.raises(SpoError, match="another configuration"):
        trained.module.load_state_dict(state)


def test_the_kept_weights_are_those_of_a_validation(tiny):
    trained = tiny.go(selection={"within_se": 0.0})
    aucs = dict(tiny.run().series("val/auc"))
    assert float(trained.selection.kept_auc) == pytest.approx(max(aucs.values()))
    assert aucs[int(trained.selection.kept_step)] == pytest.approx(max(aucs.values()))
    trained.selection.restore(trained.module)
    best = torch.load(tiny.run().path / "checkpoints" / "best.ckpt")["state_dict"]
    for name, value in trained.module.state_dict().items():
        torch.testing.assert_close(value, best[name], atol=0, rtol=0)


def test_patience_stops_the_run(tiny):
    trained = tiny.go(steps=20, validate_every=1, selection={"patience": 2}, learning_rate=1e-9)
    assert trained.trainer.global_step < 20


@pytest.mark.parametrize("method", ["dpo", "rspo"])
def test_a_policy_without_gradient_noise_learns(tiny, method):
    """Training AUC after three passes is far above chance."""
    trained = tiny.go(method=method, steps=15, validate_every=5, learning_rate=5e-3)
    first, *_, last = [v for _, v in tiny.run().series("train/loss")]
    assert last < 0.8 * first
    assert float(trained.module.validation_auc.value) > 0.5
    diagnosis, val = tiny.run().diagnosis_history()[-1], trained.data.val
    assert (diagnosis["working_p"] is None) == (method == "rspo")
    assert diagnosis["groups"] == len(set(val.group)) < len(val.group)
    assert trained.data.group(torch.from_numpy(val.row_id)).tolist() == val.group.tolist()


def test_the_pinned_scale_draws_the_index_to_its_value(tiny):
    plan = {"every": 1, "source": "sweep"}
    free = tiny.go("free", steps=30, refit=plan)
    held = tiny.go("held", steps=30, refit=plan, module={"index_scale": Pinned(sd=0.5, weight=1.0)})
    rms = [float(m.module.validation_sample.t.square().mean().sqrt()) for m in (free, held)]
    assert abs(rms[1] - 0.5) < abs(rms[0] - 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5, "epochs": 1}, "give one of them"),
        ({"steps": 5, "validate_every": 6}, "validate_every"),
        ({"steps": 5, "checkpoint_every": 6}, "checkpoint_every"),
        ({"refit": {"warm_start_steps": 0}}, "warm_start_steps is 0"),
        ({"refit": {"warm_start_steps": 1}}, "warm_start_steps is 1"),
        ({"refit": {"warm_start_steps": 0, "source": "sweep"}}, "at least 1"),
        ({"refit": {"every": 9}}, "never be used"),
        ({"refit": {"every": 0}}, "refit.every"),
        ({"steps": None, "epochs": 0.001}, "less than one optimizer step"),
        ({"global_batch": 9}, "multiple"),
    ],
)
def test_bad_options_are_named(tiny, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny.go(**changes)


def test_a_non_finite_loss_stops_the_run_and_names_the_rows(tiny):
    with pytest.raises(SpoError, match="learning_rate"):
        tiny.go(method="dpo", learning_rate=1e30)
