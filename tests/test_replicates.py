"""Many tabular runs in one training (NUMERICS 24, 34, 35; DESIGN 1)."""

import functools
import math

import pytest
import torch

from spo.averaging import NoAveraging
from spo.callbacks.diagnosis import NoDiagnosis
from spo.cli.evaluate import load_best
from spo.cli.train import train
from spo.data.actions import ActionDataModule
from spo.data.held_out import Folds, LastShare, Nothing
from spo.divergence.kl import KL
from spo.errors import ConfigError, SpoError
from spo.evaluate.base import Learned
from spo.evaluate.ensemble import OnAllRows
from spo.evaluate.kappa import Exact
from spo.evaluate.tabular import TabularTilt
from spo.hardware import Hardware
from spo.link.logistic import Logistic
from spo.loggers import NoLogger
from spo.loop import LastStep, Selection, over_folds
from spo.objective.profile import Profile
from spo.optim import AdamW
from spo.policy.tabular import Tabular, Uniform
from spo.refit import Free
from spo.run_folder import RunFolder
from spo.schedule import Constant
from spo.simulate.seeds import AuthorSeeds
from tests.small import SIZES, data, go, labels, shifted, teachers
from tests.tiny import losses, refit

PAPER = ["dpo", "pspo", "ospo", "rspo"]


def replicate(trained, r):
    """The state of one replicate: weights, link, orientation."""
    return {name: value[r] for name, value in trained.module.state_dict().items()}


def evaluate(trained, kl=0.05):
    module = trained.module
    step = trained.selection.kept_step
    kept = Learned(module.policy, module.divergence, module.link, module.orientation, module.alive, step, None)
    found = TabularTilt(betas=[1.0], kl_target=kl, kappa_rule=Exact(), ensemble=OnAllRows()).frontier(
        kept, trained.data
    )
    return found.samples[found.samples["kl_target"].notna()].set_index("seed")


class Exploding(Tabular):
    """Replicate 1 gives nan from its `calls`-th training forward on, as a run with an overflow would."""

    def __init__(self, calls, **options):
        super().__init__(**options)
        self.calls = calls

    def log_prob(self, pair):
        value = super().log_prob(pair)
        if torch.is_grad_enabled():
            self.calls -= 1
        factor = torch.ones(len(value), 1, 1)
        factor[1] = math.nan if self.calls < 0 else 1.0
        return value * factor


@pytest.mark.parametrize(
    ("method", "source"), [*((method, "sweep") for method in (*PAPER, "efficient")), ("pspo", "memory")]
)
def test_what_fills_a_batch_up_changes_nothing(tmp_path, method, source):
    """160 rows in batches of 160, and in batches of 200 of which 40 have weight 0: steps, refits, metrics."""
    full, filled = (
        go(tmp_path / str(n), [4, 7], method, data={"global_batch": n, "micro_batch": n},
           refit={"source": source, "memory_size": 4000})
        for n in (160, 200)
    )  # fmt: skip
    assert full.data.steps_per_epoch == filled.data.steps_per_epoch == 1
    for name, value in full.module.policy.trainable_state_dict().items():
        torch.testing.assert_close(
            filled.module.policy.trainable_state_dict()[name], value, atol=2e-4, rtol=1e-3, msg=name
        )
    aside = ("perf", "link/ece")  # bins of p: rounding moves a row with p = 1/2 from one into the next
    then, now = (
        {(m.step, m.name): m.value for m in RunFolder(tmp_path / str(n)).metrics() if not m.name.startswith(aside)}
        for n in (160, 200)
    )
    assert then.keys() == now.keys()
    assert [k for k in then if now[k] != pytest.approx(then[k], abs=2e-3, rel=2e-3)] == []


def test_the_start_of_a_replicate_depends_on_its_seed_alone():
    many, alone = Tabular(seeds=[4, 7, 9], **SIZES), Tabular(seeds=[7], **SIZES)
    many.build()
    alone.build()
    for name, value in alone.trainable_state_dict().items():
        assert torch.equal(many.trainable_state_dict()[name][1], value[0])


@pytest.mark.parametrize("method", PAPER)
def test_a_replicate_alone_ends_as_the_replicate_among_many(tmp_path, method):
    """Parameters after two data epochs within float32 rounding; later rewards at equal KL within 2e-3 (NUMERICS 35)."""
    early = [go(tmp_path / f"early{len(s)}", s, method, steps=10) for s in ([4, 7, 9], [7])]
    for name, value in replicate(early[1], 0).items():
        torch.testing.assert_close(replicate(early[0], 1)[name], value, atol=2e-4, rtol=1e-3, msg=name)
    many, alone = (go(tmp_path / f"late{len(s)}", s, method, steps=60, validate_every=60) for s in ([4, 7, 9], [7]))
    rewards = [evaluate(trained).loc[7, "reward"] for trained in (many, alone)]
    assert rewards[0] == pytest.approx(rewards[1], abs=2e-3)


@pytest.mark.parametrize("method", PAPER)
def test_a_seed_and_shift_alone_is_the_one_among_seeds_shifts_and_folds(tmp_path, method):
    """Each run of 2 seeds, 2 shifts and 3 + 1 folds starts and ends as the run of that seed and shift alone."""
    options = {"held_out": Folds(count=3)}
    free = {"policy": Tabular(seeds=None, **SIZES), "steps": 10}
    many = go(tmp_path / "many", [4, 7], method, data={**options, "labels": shifted(0.0, 1.5)}, **free)
    free["policy"] = Tabular(seeds=None, **SIZES)
    alone = go(tmp_path / "alone", [7], method, data={**options, "labels": shifted(1.5)}, **free)
    assert many.module.policy.replicates == (16,)
    for name, value in alone.module.state_dict().items():
        torch.testing.assert_close(many.module.state_dict()[name][12:], value, atol=2e-4, rtol=1e-3, msg=name)
    assert torch.equal(many.selection.kept_step[12:], alone.selection.kept_step)


def test_folds_share_the_start_and_the_run_on_all_rows_is_the_run_without_folds(tmp_path):
    """It is kept at the step that the mean of the folds' AUCs chose."""
    folds = go(tmp_path / "folds", [4, 7], policy=Tabular(seeds=None, **SIZES), data={"held_out": Folds(count=3)})
    whole = go(
        tmp_path / "whole", [4, 7], policy=Tabular(seeds=None, **SIZES), data={"held_out": Nothing()},
        validate_every=None, keep=LastStep(),
    )  # fmt: skip
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(folds.module.state_dict()[name][[3, 7]], value, atol=1e-5, rtol=1e-5, msg=name)
    assert whole.selection.kept_step.tolist() == [15, 15]
    whole.selection.restore(whole.module)
    found = evaluate(folds)
    assert list(found.index) == [4, 7]


def test_the_folds_choose_the_step_of_the_run_on_all_rows(tmp_path, monkeypatch):
    seen = {}
    original = Selection.on_validation_end

    def watch(self, trainer, module):
        state = {name: value.clone() for name, value in module.policy.trainable_state_dict().items()}
        seen[trainer.global_step] = module.validation_auc.value.clone(), state
        original(self, trainer, module)

    monkeypatch.setattr(Selection, "on_validation_end", watch)
    trained = go(
        tmp_path / "run", [1, 2, 3], steps=40, validate_every=4, rate=3e-2, data={"held_out": Folds(count=3)},
        policy=Tabular(seeds=None, **SIZES),
    )  # fmt: skip
    trained.selection.restore(trained.module)
    steps = sorted(seen)
    for r in (3, 7, 11):
        assert bool(seen[4][0][r].isnan())
        curve = torch.stack([seen[k][0][r - 3 : r].mean() for k in steps])
        best = steps[len(steps) - 1 - int(curve.flip(0).argmax())]
        assert int(trained.selection.kept_step[r]) == best
        for name, value in seen[best][1].items():
            assert torch.equal(trained.module.policy.trainable_state_dict()[name][r], value[r])
    assert len({int(trained.selection.kept_step[r]) for r in (3, 7, 11)}) > 1
    rows = [m for m in RunFolder(tmp_path / "run").metrics() if m.name == "val/auc"]
    assert all(math.isfinite(m.value) for m in rows)


def test_folds_of_dead_runs_do_not_count():
    value, pseudo = torch.tensor([0.6, 0.8, 0.5, 0.7, 0.9, 0.5]), torch.arange(12.0).reshape(6, 2)
    alive = torch.tensor([True, True, True, False, True, True])
    mean, every = over_folds(value, pseudo, alive, 3)
    torch.testing.assert_close(mean, torch.tensor([0.7] * 3 + [0.9] * 3))
    assert every[0].tolist() == every[2].tolist() == [0, 1, 2, 3]
    assert every[5].tolist() == [0, 0, 8, 9]


def test_the_authors_students_start_as_the_data_say(tmp_path):
    source = teachers([4, 7], seed_scheme=AuthorSeeds())
    policy = Tabular(seeds=None, **SIZES)
    module = data([4, 7], source=source, labels=shifted(0.0, 1.0))
    policy.meet(module)
    policy.build()
    (weight, bias), last = source.student(7, [6, 16, 5])
    assert torch.equal(policy.layer_0_weight[2], weight.T)
    assert torch.equal(policy.layer_0_bias[3], bias)
    assert torch.equal(policy.layer_1_weight[3], last[0].T)


def test_gradients_are_clipped_for_each_replicate_by_itself(tmp_path):
    """One replicate with a 1,000 times larger loss leaves the others' steps alone, where one norm would not."""

    class Loud(Tabular):
        def log_prob(self, pair):
            value = super().log_prob(pair)
            return value * torch.tensor([1.0, 1e3, 1.0])[: len(value), None, None]

    options = {"steps": 5, "clip_norm": 0.05}
    loud = go(tmp_path / "loud", [4, 7, 9], policy=Loud(seeds=[4, 7, 9], **SIZES), **options)
    plain = go(tmp_path / "plain", [4, 7, 9], **options)
    for r in (0, 2):
        for name, value in replicate(plain, r).items():
            assert torch.equal(replicate(loud, r)[name], value), name


@pytest.mark.parametrize("source", ["sweep", "memory"])
@pytest.mark.parametrize("method", [*PAPER, "efficient"])
def test_a_replicate_that_explodes_is_frozen_and_the_others_go_on(tmp_path, method, source, capsys):
    """Its weights are those before the step, it is left out of every mean; the others equal the run without it bit
    for bit, link and orientation too."""
    seeds = [4, 7, 9]
    hurt = go(tmp_path / "hurt", seeds, method, policy=Exploding(7, seeds=seeds, **SIZES), refit={"source": source})
    whole = go(tmp_path / "whole", seeds, method, refit={"source": source})
    stopped = go(tmp_path / "stopped", seeds, method, steps=7, validate_every=7, refit={"source": source})
    assert hurt.module.alive.tolist() == [True, False, True]
    for r in (0, 2):
        for name, value in replicate(whole, r).items():
            assert torch.equal(replicate(hurt, r)[name], value), name
    for name, value in hurt.module.policy.trainable_state_dict().items():
        assert torch.equal(value[1], stopped.module.policy.trainable_state_dict()[name][1])
    assert all(math.isfinite(m.value) for m in RunFolder(tmp_path / "hurt").metrics())
    hurt.selection.restore(hurt.module)
    assert hurt.module.alive.tolist() == [True, False, True]
    assert int(hurt.selection.kept_step[1]) <= 7
    assert load_best(RunFolder(tmp_path / "hurt")).alive.tolist() == [True, False, True]
    assert set(evaluate(hurt).index) == {4, 9}


def test_the_command_exits_1_where_a_replicate_exploded(tmp_path, capsys):
    """The others are evaluated, and the run folder says which one is left out."""
    run = RunFolder(tmp_path / "run")
    run.create({"_target_": "spo.cli.train.train"}, {})
    code = train(
        run=run, policy=Exploding(7, seeds=[4, 7, 9], **SIZES), reference=Uniform(), truth=labels(), divergence=KL(),
        data=functools.partial(ActionDataModule, source=teachers([4, 7, 9]), held_out=LastShare(share=0.2)),
        objective=Profile(),
        link=Logistic(1.0), refit=refit(), index_scale=Free(), schedule=Constant(warmup=0.0),
        averaging=NoAveraging(),
        optim=AdamW(learning_rate=5e-3, weight_decay=0.0, betas=[0.9, 0.999], eps=1e-8, clip_norm=1.0),
        selection=Selection(patience=None, within_se=1.0), logger=NoLogger(), diagnosis=NoDiagnosis(),
        hardware=Hardware(accelerator="cpu", devices=1, nodes=1, strategy=None, precision="32-true", threads=1,
                          launcher=None),
        evaluate=TabularTilt(betas=[1.0], kl_target=0.02, kappa_rule=Exact(), ensemble=OnAllRows()),
        seed=0, epochs=None, steps=15,
        global_batch=32, micro_batch=32, micro_tokens=None, validate_every=5, checkpoint_every=5, log_every=5,
    )  # fmt: skip
    assert code == 1
    assert "replicates [1] met a non-finite number" in capsys.readouterr().out
    assert run.read_json("target.json")["n_replicates"] == 2


def test_a_run_in_which_every_replicate_explodes_stops(tmp_path):
    with pytest.raises(SpoError, match="every replicate"):
        go(tmp_path / "run", [4, 7], rate=1e30, clip_norm=None)


def test_selection_keeps_the_best_weights_of_each_replicate(tmp_path, monkeypatch):
    """Weights, link and orientation of each replicate are those of its own best validation, in memory and on disk."""
    from spo.loop import Selection

    seen = {}
    original = Selection.on_validation_end

    def watch(self, trainer, module):
        seen[trainer.global_step] = (
            module.validation_auc.value.clone(),
            {name: value.clone() for name, value in module.state_dict().items()},
        )
        original(self, trainer, module)

    monkeypatch.setattr(Selection, "on_validation_end", watch)
    trained = go(tmp_path / "run", [1, 2, 3, 4, 5, 6], "pspo", steps=40, validate_every=2, rate=2e-2)
    trained.selection.restore(trained.module)
    steps = sorted(seen)
    aucs = torch.stack([seen[k][0] for k in steps])
    best = len(steps) - 1 - aucs.flip(0).argmax(0)  # of equal ones the latest
    assert len(set(best.tolist())) > 1
    torch.testing.assert_close(trained.selection.kept_auc, aucs.amax(0))
    on_disk = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt")["state_dict"]
    for r, k in enumerate(best.tolist()):
        for name, value in seen[steps[k]][1].items():
            assert torch.equal(trained.module.state_dict()[name][r], value[r]), name
            assert torch.equal(on_disk[name][r], value[r]), name


def test_patience_waits_for_the_last_replicate(tmp_path):
    trained = go(tmp_path / "run", [1, 2, 3], steps=60, validate_every=1, rate=1e-9, selection={"patience": 3})
    assert trained.trainer.global_step < 60
    assert bool((trained.selection._best["waited"] >= 3).all())


@pytest.mark.parametrize("method", ["pspo", "efficient"])
def test_a_stopped_run_goes_on_exactly(tmp_path, method, monkeypatch):
    """Killed after step 7, resumed from the checkpoint at 5: every number, bit for bit (NUMERICS 26)."""
    from spo.loop import Checkpoints

    whole = go(tmp_path / "whole", [4, 7], method)
    original = Checkpoints.on_train_batch_end

    class Killed(Exception):
        pass

    def kill(self, trainer, *args):
        original(self, trainer, *args)
        if trainer.global_step == 7:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", kill)
        with pytest.raises(Killed):
            go(tmp_path / "cut", [4, 7], method)
    resumed = go(tmp_path / "cut", [4, 7], method)
    assert losses(RunFolder(tmp_path / "cut")) == losses(RunFolder(tmp_path / "whole"))
    for name, value in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], value)


@pytest.mark.parametrize("method", PAPER)
def test_the_direction_error_falls_with_n(tmp_path, method):
    """The whole loop on simulated single-index data, the same six teachers at n = 150 and 4,000 (NUMERICS 24)."""
    seeds, error = list(range(6)), {}
    for rows in (150, 4000):
        trained = go(
            tmp_path / str(rows), seeds, method, rows=rows, steps=150, validate_every=15, rate=1e-2,
            refit={"every": 10, "warm_start_steps": 20}, selection={"within_se": 1.0},
        )  # fmt: skip
        trained.selection.restore(trained.module)
        error[rows] = evaluate(trained)["direction_error"]
    assert (error[4000] < error[150]).all()
    assert error[4000].mean() < 0.5 * error[150].mean()


def test_a_policy_of_other_sizes_is_refused_before_it_is_built(tmp_path):
    with pytest.raises(ConfigError, match=r"2 replicates, 6 features, 5 actions, the data 3 replicates"):
        go(tmp_path / "run", [1, 2, 3], policy=Tabular(seeds=[1, 2], **SIZES))
