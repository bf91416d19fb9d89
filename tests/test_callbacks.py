"""The observers: what they write, and that they change nothing. A toy module offers what SPOModule offers."""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.loggers import Logger
from scipy.optimize import minimize_scalar
from scipy.special import expit
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spo.callbacks import (
    HeldOut,
    IndexHistogram,
    LinkCurve,
    LinkDiagnosis,
    LinkObserver,
    MetricsTable,
    Progress,
    Throughput,
    observers,
)
from spo.callbacks.index_histogram import summary
from spo.callbacks.link_curve import logistic_slope
from spo.callbacks.observer import Rows, first_replicate, log_scalars
from spo.errors import ConfigError
from spo.link.logistic import Logistic
from spo.loggers import Wandb
from spo.run_folder import RunFolder
from spo.types import ActionPairs, IndexSample, PreferenceBatch, TokenPairs
from tests.tiny import diagnosis
from tests.wandb_reader import OfflineRun, find

N_VAL = 64


class Steps(Dataset[int]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> int:
        return i


def micro_batches(steps: list[int]) -> list[PreferenceBatch]:
    """Two micro-batches of two pairs; the second one's last row only fills up. 2·3 + 2·4 + 2·3 real tokens."""
    mask = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 0]], [[1, 1, 1, 1], [1, 1, 1, 1]]])
    pair = TokenPairs(torch.zeros(2, 2, 4, dtype=torch.int64), mask, mask.bool())
    z, ids = torch.tensor([0.0, 1.0]), torch.tensor([1, 2])
    return [PreferenceBatch(pair, z, torch.tensor([1.0, w]), ids) for w in (1.0, 0.0)]


class Toy(L.LightningModule):
    """t_i = theta·x_i; descends the logistic loss by manual optimization; refits (in name) every 4 steps.

    replicates: leading axes of the validation sample.
    """

    def __init__(self, replicates: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.theta = nn.Parameter(torch.tensor(0.0))
        self.dropout = nn.Dropout(0.5)  # so that training draws random numbers
        self.active_link = Logistic(1.0)
        self.orientation = torch.ones(replicates)
        self.uses_link = True
        self.replicates = replicates
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(*replicates, N_VAL, generator=generator)
        self.z = (torch.rand(*replicates, N_VAL, generator=generator) < torch.sigmoid(2 * self.x)).float()
        self.validation_sample: IndexSample | None = None
        self.losses: list[float] = []
        self.tokens_computed = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def sample(self) -> IndexSample:
        row_id = torch.arange(N_VAL).expand(self.x.shape)
        return IndexSample((self.theta * self.x).detach(), self.z, torch.ones_like(self.z), row_id)

    def training_step(self, batch: list[PreferenceBatch], batch_idx: int) -> None:
        self.tokens_computed += 25
        optimizer = self.optimizers()
        loss = nn.functional.binary_cross_entropy_with_logits(self.theta * self.dropout(self.x), self.z)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.losses.append(float(loss))
        self.report("train/loss", float(loss))
        if self.trainer.global_step % 4 == 0:
            for callback in self.trainer.callbacks:
                if isinstance(callback, LinkObserver):
                    callback.on_link_refit(self.trainer, self, self.sample())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.validation_sample = self.sample()
        self.report("val/auc", float(self.trainer.global_step) / 10)

    def report(self, name: str, value: float) -> None:
        """As SPOModule does: to the loggers at once, at the optimizer steps done, and to callbacks."""
        log_scalars(self.trainer, {name: value})
        self.log(name, value, logger=False)


def fit(
    callbacks: list[L.Callback],
    *,
    steps: int = 8,
    module: Toy | None = None,
    logger: Logger | None = None,
    log_every: int = 1,
    ckpt_path: Path | None = None,
) -> tuple[Toy, L.Trainer]:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what is tested
    random.seed(0)
    module = module or Toy()
    trainer = L.Trainer(
        max_epochs=1,
        max_steps=steps,
        val_check_interval=4,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=log_every,
        accelerator="cpu",
        logger=logger or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    train = DataLoader(Steps(8), batch_size=1, collate_fn=micro_batches)
    trainer.fit(module, train, DataLoader(Steps(2)), ckpt_path=ckpt_path)
    return module, trainer


def true_link(u: Tensor) -> Tensor:
    return 0.5 * torch.sigmoid((u - 0.75) / 0.25) + 0.5 * torch.sigmoid((u + 0.75) / 0.25)


def differences(module: Toy) -> Callable[[Tensor], Tensor]:
    """u_i = x_i, unknown for row 0."""

    def of(row_id: Tensor) -> Tensor:
        u = module.x[row_id].clone()
        u[row_id == 0] = torch.nan
        return u

    return of


def random_states() -> list[Any]:
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002


def everything(run: RunFolder, module: Toy) -> list[L.Callback]:
    return [*observers(run, true_link, differences(module)), *diagnosis().callbacks(run, in_pairs)]


def in_pairs(row_id: Tensor) -> Tensor:
    """Two rows a prompt."""
    return row_id // 2


def test_deleting_any_observer_changes_nothing(tmp_path: Path) -> None:
    """NUMERICS 29: weights, losses, flags and every random state are bit-equal with none, each and all of them."""
    bare, _ = fit([])
    expected = (bare.theta.item(), bare.losses, random_states())
    names = [type(callback).__name__ for callback in everything(RunFolder(tmp_path), bare)]
    for left_out in [None, *names]:
        module = Toy()
        kept = [c for c in everything(RunFolder(tmp_path / str(left_out)), module) if type(c).__name__ != left_out]
        choice = wandb_choice()
        logger = choice.build(run=RunFolder(tmp_path / f"w{left_out}"), config={}, choices={}, job_type="train")
        fit(kept, module=module, logger=logger)
        choice.finish(0)
        assert (module.theta.item(), module.losses, random_states()) == expected, left_out
        assert module.training
        assert module.dropout.training


def wandb_choice() -> Wandb:
    return Wandb(project="spo", entity=None, name=None, group=None, tags=[], tag_groups=[], mode="auto")


def test_offline_wandb_holds_everything(tmp_path: Path) -> None:
    """Scalars, histogram, link/curve at each refit and validation, picture, config and choices (issue 2)."""
    run, module, choice = RunFolder(tmp_path), Toy(), wandb_choice()
    logger = choice.build(run=run, config={"seed": 1}, choices={"link": "logistic"}, job_type="train")
    fit(everything(run, module), module=module, logger=logger)
    choice.finish(0)
    (found,) = find(tmp_path)
    assert found.config["seed"] == 1
    assert found.config["choices"] == {"link": "logistic"}
    assert [step for step, _ in found.values("train/loss")] == list(range(1, 9))
    assert [value for _, value in found.values("train/loss")] == pytest.approx(module.losses)
    assert found.values("val/auc") == [(4, pytest.approx(0.4)), (8, pytest.approx(0.8))]
    for name in (
        "index/mean",
        "index/std",
        "index/q05",
        "index/q25",
        "index/q50",
        "index/q75",
        "index/q95",
        "index/hist",
    ):
        assert [step for step, _ in found.values(name)] == [4, 8], name
    for name in ("perf/tokens_per_s", "perf/pairs_per_s", "perf/peak_memory_gb", "perf/step_s", "perf/data_wait_share"):
        assert found.values(name), name
    histogram = found.values("index/hist")[-1][1]
    assert sum(histogram["values"]) == N_VAL
    curves = found.values("link/curve")
    assert [step for step, _ in curves] == [4, 4, 8, 8]  # a refit and a validation each
    table = found.table(curves[-1][1])
    assert table["columns"] == ["step", "t", "p", "true_p", "logistic_p"]
    assert len(table["data"]) == 101
    assert {row[0] for row in table["data"]} == {8}
    picture = found.values("link/picture")[-1][1]
    assert (found.folder / "files" / picture["path"]).stat().st_size > 5000
    assert len(found.values("link/slope0")) == 4
    assert_charts(found)
    for name in ("diagnosis/p_logistic", "diagnosis/log_likelihood_gain", "diagnosis/logistic_slope"):
        assert [step for step, _ in found.values(name)] == [4, 8], name
    table = found.table(found.values("diagnosis/curve")[-1][1])
    columns = ["step", "t", "isotonic_p", "kernel_p", "band_low", "band_high", "logistic_p", "working_p"]
    assert table["columns"] == columns
    assert len(table["data"]) == 101
    picture = found.values("diagnosis/picture")[-1][1]
    assert (found.folder / "files" / picture["path"]).stat().st_size > 5000


def assert_charts(found: OfflineRun) -> None:
    """Each a built-in preset over the history of a table that was logged, with the columns that it draws; a picture
    beside each."""
    steps = {"link/chart": [4, 4, 8, 8], "link/reliability": [4, 8], "index/chart": [4, 8]}
    assert found.charts.keys() == steps.keys()
    for name, at in steps.items():
        tables, panel = found.values(f"{name}_table"), found.charts[name]
        assert [step for step, _ in tables] == at, name
        columns = found.table(tables[-1][1])["columns"]
        assert set(panel["fieldSettings"].values()) - {None} <= set(columns)
        (query,) = panel["userQuery"]["queryFields"]
        assert {
            "name": "historyTable",
            "args": [{"name": "tableKey", "value": f"{name}_table"}],
            "fields": [],
        } in query["fields"]
        assert panel["panelDefId"].startswith("wandb/")
    for name in ("link/picture", "link/reliability_picture", "index/picture"):
        picture = found.values(name)[-1][1]
        assert (found.folder / "files" / picture["path"]).read_bytes().startswith(b"\x89PNG"), name


def test_metrics_table_counts_optimizer_steps(tmp_path: Path) -> None:
    """Row by row, without any other logger."""
    run = RunFolder(tmp_path)
    module, _ = fit([MetricsTable(run)])
    assert run.series("train/loss") == [(k + 1, pytest.approx(loss)) for k, loss in enumerate(module.losses)]
    assert run.series("val/auc") == [(4, pytest.approx(0.4)), (8, pytest.approx(0.8))]


class SaveAt5(L.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 5:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_has_one_row_a_step(tmp_path: Path) -> None:
    """Rows after the checkpoint's step are cut before the first new one: metrics, link and index history."""
    run, module, path = RunFolder(tmp_path / "run"), Toy(), tmp_path / "at_5.ckpt"
    fit([*everything(run, module), SaveAt5(path)], module=module)
    run.append_metrics(6, {"train/loss": 99.0})
    again = Toy()
    fit(everything(run, again), module=again, ckpt_path=path)
    assert len(again.losses) == 3
    assert [step for step, _ in run.series("train/loss")] == list(range(1, 9))
    assert 99.0 not in [value for _, value in run.series("train/loss")]
    assert [record["step"] for record in run.index_history()] == [4, 8]
    assert [record["step"] for record in run.link_history()] == [4, 4, 8, 8]
    assert [record["step"] for record in run.diagnosis_history()] == [4, 8]


def test_index_summary_counts_weights() -> None:
    """NUMERICS 25: a row of weight 2 = the row twice. t = 1, 1, 3: mean 5/3, variance 8/9."""
    twice = summary(Rows(np.array([1.0, 3.0]), np.zeros(2), np.array([2.0, 1.0]), np.arange(2)))
    plain = summary(Rows(np.array([1.0, 1.0, 3.0]), np.zeros(3), np.ones(3), np.arange(3)))
    assert twice == pytest.approx(plain)
    assert twice["index/mean"] == pytest.approx(5 / 3)
    assert twice["index/std"] == pytest.approx((8 / 9) ** 0.5)
    assert (twice["index/q50"], twice["index/q95"]) == (1.0, 3.0)


def test_index_histogram_files(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    module, _ = fit([IndexHistogram(run, bins=16)])
    last = run.index_history()[-1]
    assert (len(last["counts"]), len(last["edges"])) == (16, 17)
    sample = module.validation_sample
    assert sample is not None
    counts, _ = np.histogram(sample.t.double().numpy(), bins=last["edges"])
    assert counts.tolist() == last["counts"]
    table = pq.read_table(run.validation_path)
    assert table.column_names == ["row_id", "t", "z", "weight"]
    assert table["t"].to_pylist() == pytest.approx(sample.t.tolist())


def test_rows_that_are_not_there_do_not_count(tmp_path: Path) -> None:
    """Weight 0 and non-finite t."""
    run = RunFolder(tmp_path)

    class Padded(Toy):
        def sample(self) -> IndexSample:
            whole = super().sample()
            weight, t = whole.weight.clone(), whole.t.clone()
            weight[0], t[1] = 0.0, torch.nan
            return IndexSample(t, whole.z, weight, whole.row_id)

    fit([IndexHistogram(run), LinkCurve(run)], module=Padded())
    assert sum(run.index_history()[-1]["counts"]) == N_VAL - 2
    assert pq.read_table(run.validation_path).num_rows == N_VAL - 2


def test_link_curve_against_known_curves(tmp_path: Path) -> None:
    """p = sigmoid(t) on the grid; t = theta·u exactly, so c = theta and the true curve is Psi(t/theta) (MATH C32)."""
    run, module = RunFolder(tmp_path), Toy()
    fit([LinkCurve(run, true_link, differences(module))], module=module)
    record = run.link
    theta, t = module.theta.item(), np.array(record["t"])
    assert record == run.link_history()[-1]
    assert (record["kind"], record["step"], record["link"], record["orientation"]) == ("validation", 8, "Logistic", 1)
    assert record["p"] == pytest.approx((1 / (1 + np.exp(-t))).tolist(), abs=1e-5)
    assert record["true_scale"] == pytest.approx(theta, rel=1e-5)
    assert record["true_p"] == pytest.approx(true_link(torch.tensor(t / theta)).tolist(), abs=1e-4)
    assert t[50] == 0
    assert t.tolist() == (-t[::-1]).tolist()
    assert sum(record["counts"]) <= N_VAL


def test_the_true_link_is_not_placed_by_chance(tmp_path: Path) -> None:
    """Rewards that have nothing to do with t say nothing about c of t = c·u: within two standard errors of 0."""
    run, module = RunFolder(tmp_path), Toy()
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(5))
    fit([LinkCurve(run, true_link, lambda row_id: noise[row_id % 1000])], module=module)
    assert run.link["true_scale"] is None
    assert run.link["true_p"] is None


def test_link_curve_at_a_flat_start(tmp_path: Path) -> None:
    """Every t is 0: a grid of [-1, 1], no scale for the true link, and the logistic comparison is 1/2."""
    run = RunFolder(tmp_path)

    class Still(Toy):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    module = Still()
    fit([IndexHistogram(run), LinkCurve(run, true_link, differences(module))], module=module)
    assert (run.link["t"][0], run.link["t"][-1]) == (-1, 1)
    assert run.link["true_p"] is None
    assert set(run.link["logistic_p"]) == {0.5}
    assert sum(run.index_history()[-1]["counts"]) == N_VAL


def test_diagnosis_of_known_rows(tmp_path: Path) -> None:
    """The last validation: counts, slope, groups; the working link is sigmoid(t); one sample has one record."""
    run, module = RunFolder(tmp_path), Toy()
    fit(diagnosis().callbacks(run, in_pairs), module=module)
    first, record = run.diagnosis_history()
    sample = module.validation_sample
    assert sample is not None
    rows = first_replicate(sample)
    assert (record["step"], record["rows"], record["groups"], record["draws"]) == (8, N_VAL, N_VAL // 2, 99)
    assert record["logistic_slope"] == pytest.approx(logistic_slope(rows), rel=1e-6)
    assert record["working_p"] == pytest.approx(expit(np.array(record["t"])).tolist(), abs=1e-5)
    expected = expit(record["logistic_slope"] * np.array(record["t"]))
    assert record["logistic_p"] == pytest.approx(expected.tolist(), abs=1e-5)
    assert sum(record["counts"]) <= N_VAL
    fit([again := LinkDiagnosis(RunFolder(tmp_path / "again"), diagnosis(), in_pairs)], module=Toy())
    assert again._run.diagnosis_history() == [first, record]


def test_diagnosis_of_an_index_that_points_the_wrong_way(tmp_path: Path) -> None:
    """Orientation -1: the same record as of -t under orientation +1, and the working link is asked at -t."""
    records = []
    for sign in (1, -1):

        class Turned(Toy):
            def sample(self, sign: int = sign) -> IndexSample:
                whole = super().sample()
                return IndexSample(sign * whole.t, whole.z, whole.weight, whole.row_id)

        module, run = Turned(), RunFolder(tmp_path / str(sign))
        module.orientation = torch.tensor(float(sign))
        fit(diagnosis().callbacks(run, in_pairs), module=module)
        records.append(run.diagnosis_history()[-1])
    right, wrong = records
    assert wrong["working_p"] == pytest.approx(right["working_p"][::-1])
    assert {**wrong, "working_p": None, "orientation": 1} == {**right, "working_p": None}


def test_diagnosis_where_there_is_no_link_or_no_spread(tmp_path: Path) -> None:
    """RSPO has no working link; a flat start says nothing; replicates show the first."""
    run, module = RunFolder(tmp_path / "a"), Toy((3,))
    module.uses_link = False
    fit(diagnosis().callbacks(run, in_pairs), module=module)
    assert run.diagnosis_history()[-1]["working_p"] is None
    one, first = RunFolder(tmp_path / "b"), Toy()
    whole = module.validation_sample
    assert whole is not None
    first.sample = lambda: IndexSample(*(x[0] for x in (whole.t, whole.z, whole.weight, whole.row_id)))  # type: ignore[method-assign]
    fit(diagnosis().callbacks(one, in_pairs), module=first)
    assert one.diagnosis_history()[-1]["p_logistic"] == run.diagnosis_history()[-1]["p_logistic"]
    flat, still = RunFolder(tmp_path / "c"), Toy()
    still.sample = lambda: IndexSample(0 * still.z, still.z, 0 * still.z + 1, torch.arange(N_VAL))  # type: ignore[method-assign]
    fit(diagnosis().callbacks(flat, in_pairs), module=still)
    assert [(r["rows"], r["p_logistic"], r["logistic_slope"]) for r in flat.diagnosis_history()] == [(0, 1, 0)] * 2


@pytest.mark.parametrize(
    ("name", "value"), [("draws", 98), ("max_labels", 0), ("band", 1.0), ("bandwidth", 0.0), ("seed", -1)]
)
def test_bad_diagnosis(name: str, value: Any) -> None:
    good: dict[str, Any] = {"draws": 99, "max_labels": 1, "band": 0.9, "bandwidth": 1.0, "seed": 0}
    with pytest.raises(ConfigError, match=f"{name} is {value}: give"):
        HeldOut(**{**good, name: value})


def test_replicates_show_the_first(tmp_path: Path) -> None:
    """DESIGN 1: curves of replicate 0; a link of 3 replicates is asked for all of them."""
    run, module = RunFolder(tmp_path), Toy((3,))
    seen: list[tuple[int, ...]] = []
    module.active_link.register_forward_hook(lambda _m, args, _o: seen.append(tuple(args[0].shape)))
    fit([IndexHistogram(run), LinkCurve(run)], module=module)
    assert set(seen) == {(3, 101)}
    sample = module.validation_sample
    assert sample is not None
    assert pq.read_table(run.validation_path)["t"].to_pylist() == pytest.approx(sample.t[0].tolist())


def test_logistic_slope_is_the_maximum_likelihood_one() -> None:
    """Against a direct search; soft labels and weights included. Separable rows stop at the bound, t = 0 gives 0."""
    rng = np.random.default_rng(0)
    t, z, w = rng.standard_normal(300), rng.uniform(size=300), rng.uniform(0.5, 2, size=300)
    z = np.clip(0.3 * z + 0.7 * (t > 0), 0, 1)

    def loss(a: float) -> float:
        return float(np.sum(w * (z * np.logaddexp(0, -a * t) + (1 - z) * np.logaddexp(0, a * t))))

    rows = Rows(t, z, w, np.arange(300))
    assert logistic_slope(rows) == pytest.approx(minimize_scalar(loss, bounds=(-50, 50), method="bounded").x, rel=1e-3)
    assert logistic_slope(Rows(t, (t > 0) * 1.0, w, rows.row_id)) == pytest.approx(
        50 / np.sqrt(np.average(t**2, weights=w))
    )
    assert logistic_slope(Rows(t, (t < 0) * 1.0, w, rows.row_id)) < 0
    assert logistic_slope(Rows(0 * t, z, w, rows.row_id)) == 0


def test_throughput_counts_real_tokens_and_pairs(tmp_path: Path) -> None:
    """Rates times seconds are counts: 20 tokens and 3 pairs a step; padding and filling rows do not count."""
    run = RunFolder(tmp_path)
    fit([MetricsTable(run), Throughput()], log_every=4)
    step_s = dict(run.series("perf/step_s"))
    assert list(step_s) == [4, 8]
    for step, seconds in step_s.items():
        assert dict(run.series("perf/tokens_per_s"))[step] * seconds == pytest.approx(20)
        assert dict(run.series("perf/pairs_per_s"))[step] * seconds == pytest.approx(3)
        assert 0 <= dict(run.series("perf/data_wait_share"))[step] < 1
        assert dict(run.series("perf/computed_share"))[step] == 1.25
    assert 0.05 < run.last("perf/peak_memory_gb") < 100


def test_throughput_without_tokens() -> None:
    """A tabular policy has pairs and no tokens."""
    from spo.callbacks import throughput

    pair = ActionPairs(torch.zeros(3, 4, 2), torch.zeros(3, 4, 2, dtype=torch.int64))
    batch = PreferenceBatch(pair, torch.zeros(3, 4), torch.ones(3, 4), torch.zeros(3, 4, dtype=torch.int64))
    assert throughput._tokens(batch) == 0
    assert int(throughput._pairs(batch)) == 12


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    fit([Progress(share=0.25, stream=stream)])
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["2/8", "4/8", "6/8", "8/8"]
    assert "loss" in lines[0]
    assert "steps/s" in lines[0]
    assert "auc 0.4000" in lines[2]


def test_progress_bar_on_a_terminal() -> None:
    stream = Terminal()
    fit([Progress(stream=stream)])
    assert "8/8" in stream.getvalue()
    assert "auc=0.8000" in stream.getvalue()


def test_bad_options() -> None:
    with pytest.raises(ConfigError, match="share is 0"):
        Progress(share=0)
    with pytest.raises(ConfigError, match="bins is 1"):
        IndexHistogram(RunFolder("nowhere"), bins=1)


def test_history_files_are_json_lines(tmp_path: Path) -> None:
    """A reader needs nothing but JSON."""
    run = RunFolder(tmp_path)
    fit([LinkCurve(run)])
    lines = (tmp_path / "link_history.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["refit", "validation"] * 2
