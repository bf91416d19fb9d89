"""W&B, offline: what two jobs of a sweep leave in their files, and the dashboard that shows them."""

import importlib.util
import json
import math
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from spo.cli import main
from spo.cli.execute import execute
from spo.loop import GracefulStop
from spo.run_folder import RunFolder
from spo.submit import Launcher
from tests.tiny import write_pairs
from tests.wandb_reader import OfflineRun, find

from .conftest import TINY, Here
from .test_line import EVALUATION

ID = "2026-01-01_links"
RUN = [
    "steps=4",
    "micro_batch=4",
    "logger=wandb",
    "refit.every=2",
    "refit.warm_start_steps=2",
    "validate_every=2",
    "diagnosis.draws=99",
]
TILT = ["evaluate=tilt", "reward@evaluate.reward=length", *EVALUATION]


class Sweep(NamedTuple):
    """A sweep of two jobs: one that ended well, one that got SIGTERM after its second step."""

    path: Path
    done: OfflineRun
    interrupted: OfflineRun

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.path / "0")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_llama_dir: Path) -> Sweep:
    folder = tmp_path_factory.mktemp("wandb")
    path = folder / "runs" / "sweeps" / ID
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(folder))
        patch.setattr("sys.argv", ["spo"])
        patch.setattr("spo.cli.launch.run_child", as_a_job)
        pairs = write_pairs(folder / "pairs.jsonl")
        words = [*TINY, f"policy.path={tiny_llama_dir}", f"data.train_path={pairs}", *RUN]
        assert main(["train", *words, *TILT, "method=pspo", f"hydra.run.dir={path}/0"]) == 0
        patch.setattr(GracefulStop, "on_train_batch_start", terminate, raising=False)
        assert main(["train", *words, "method=dpo", f"hydra.run.dir={path}/1"]) == 128 + signal.SIGTERM
    write_table(path, ["method=pspo", "method=dpo"])
    (done,), (interrupted,) = find(path / "0"), find(path / "1")
    return Sweep(path, done, interrupted)


def as_a_job(launcher: Launcher, path: Path) -> int:
    run = RunFolder(path)
    run.write_json("invocation.json", run.invocation | {"sweep": {"id": ID, "folder": str(path.parent)}})
    return execute(path)


def terminate(self: GracefulStop, trainer: Any, *_: Any) -> None:
    if trainer.global_step == 1:
        signal.raise_signal(signal.SIGTERM)


def write_table(path: Path, overrides: list[str]) -> None:
    """sweep.json and jobs.parquet."""
    record = {"version": 1, "id": ID, "name": None, "command": "train", "command_line": "spo train -m", "words": []}
    record |= {"created": "2026-01-01", "spo_version": "0", "git_commit": None, "host": "h", "state": "failed"}
    (path / "sweep.json").write_text(json.dumps(record | {"finished": None}))
    rows: list[dict[str, Any]] = [
        {"job": i, "folder": str(i), "overrides": ["seed=0", word], "config_hash": "", "status": "ok"}
        | {"exit_code": 0, "attempts": 1, "started": None, "finished": None, "seconds": math.nan}
        | {"run_id": None, "message": ""}
        for i, word in enumerate(overrides)
    ]
    pd.DataFrame(rows).to_parquet(path / "jobs.parquet", index=False)


def test_identity_and_exit_status(sweep: Sweep) -> None:
    for found in (sweep.done, sweep.interrupted):
        assert found.group == ID
        assert found.config["choices"]["method"] in found.tags
    assert (sweep.done.name, sweep.interrupted.name) == ("0", "1")
    assert (sweep.done.exit_code, sweep.interrupted.exit_code) == (0, 128 + signal.SIGTERM)


def test_charts_tables_and_pictures(sweep: Sweep) -> None:
    """At each refit and validation, and at the evaluation's end; none of the last for a run that did not get there."""
    found = sweep.done
    validations = [0, 2, 4]
    steps = {name: [step for step, _ in found.values(f"{name}_table")] for name in found.charts}
    refits = [record["step"] for record in sweep.run.link_history()]
    assert steps == {"link/chart": refits, "link/reliability": validations, "index/chart": validations} | {
        "eval/frontier": [4]
    }
    frontier = found.table(found.values("eval/frontier_table")[0][1])
    saved = sorted(sweep.run.frontier, key=lambda point: (point["beta"] is not None, point["kl"]))
    assert [row[:3] for row in frontier["data"]] == [
        [point[key] for key in ("kl", "reward", "beta")] for point in saved
    ]
    for name in ("link/picture", "link/reliability_picture", "index/picture", "diagnosis/picture"):
        assert found.values(name)[-1][0] == 4
    picture = found.values("eval/frontier_picture")[-1][1]
    assert (found.folder / "files" / picture["path"]).read_bytes().startswith(b"\x89PNG")
    assert "eval/frontier" not in sweep.interrupted.charts
    assert sweep.interrupted.values("link/chart_table")


def test_summary_holds_the_kept_weights(sweep: Sweep) -> None:
    """best/...: the kept step's row of metrics.csv, and target.json; beside the last value of each metric."""
    run, summary = sweep.run, sweep.done.summary
    kept = run.status["kept_step"]
    assert summary["best/step"] == kept
    for name in ("val/auc", "val/auc_se", "val/accuracy", "link/nll", "link/ece"):
        assert summary[f"best/{name}"] == pytest.approx(dict(run.series(name))[kept])
    target = run.read_json("target.json")
    if target["reward"] is not None:
        for key in ("reward", "reward_se", "kl", "reward_minus_reference", "se"):
            assert summary[f"best/target/{key}"] == pytest.approx(target[key])
    best = run.read_json("best.json")
    assert {f"best/{name}": value for name, value in best.items()} == {
        name: value for name, value in summary.items() if name.startswith("best/")
    }
    assert not [name for name in sweep.interrupted.summary if name.startswith("best/")]


def test_the_dashboard_shows_what_runs_log(
    sweep: Sweep, here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the sweep's id, from where `spo train` was called: five sections, one filter, and no name that nobody logs."""
    monkeypatch.chdir(sweep.path.parents[2])
    assert here("dashboard", ID) == 0
    out = capfd.readouterr().out
    path = Path("runs/sweeps") / ID / "dashboard.json"
    assert f"{path}: the specification" in out
    assert f"`wandb sync {path.parent}/*/wandb/offline-run-*`" in out
    assert f"spo dashboard {ID} publish=true" in out
    view = json.loads(path.read_text())
    assert (view["project"], view["displayName"]) == ("spo", f"sweep {ID}")
    section = view["spec"]["section"]
    (only,) = section["runSets"][0]["filters"]["filters"]
    assert (only["key"], only["op"], only["value"]) == ({"section": "run", "name": "group"}, "=", ID)
    assert section["settings"]["xAxis"] == "trainer/global_step"
    sections = section["panelBankConfig"]["sections"]
    assert [found["name"] for found in sections] == [
        *("Is it healthy?", "Links", "Index", "Reward against KL", "What made the difference?")
    ]
    panels = [panel for found in sections for panel in found["panels"]]
    assert_names_are_logged(sweep.done, panels)
    assert_charts_are_those_of_the_runs(sweep.done, panels)
    parallel = next(panel for panel in panels if panel["viewType"] == "Parallel Coordinates Plot")
    assert parallel["config"]["columns"][0]["accessor"] == "config:choices.value.method"
    assert [panel["config"]["groupBy"] for panel in panels if panel["viewType"] == "Bar Chart"] == [
        "choices.value.method"
    ] * 2
    assert {"Run Comparer", "Scatter Plot"} <= {panel["viewType"] for panel in panels}


def assert_names_are_logged(run: OfflineRun, panels: list[dict[str, Any]]) -> None:
    logged = {name for row in run.history for name in row}
    settings = set(run.config["choices"]) | {"method"}
    for panel in panels:
        config = panel["config"]
        if panel["viewType"] == "Run History Line Plot":
            assert config["xAxis"] in logged
            assert set(config["metrics"]) <= logged, config["chartTitle"]
        elif panel["viewType"] == "Media Browser":
            assert set(config["mediaKeys"]) <= logged
        elif panel["viewType"] == "Bar Chart":
            assert set(config["metrics"]) <= run.summary.keys()
        axes = [config.get("xAxis"), config.get("yAxis"), *(c["accessor"] for c in config.get("columns", []))]
        for section, _, name in (axis.partition(":") for axis in axes if axis and ":" in axis):
            place = run.summary if section == "summary" else settings
            assert name.removeprefix("choices.value.") in place, name


def assert_charts_are_those_of_the_runs(run: OfflineRun, panels: list[dict[str, Any]]) -> None:
    """conf/dashboard.yaml says of a chart what spo/charts.py says."""
    shown: dict[str, dict[str, Any]] = {}
    for panel in (panel["config"] for panel in panels if panel["viewType"] == "Vega2"):
        (asked,) = [f for f in panel["userQuery"]["queryFields"][0]["fields"] if f["name"] == "historyTable"]
        shown[asked["args"][0]["value"].removesuffix("_table")] = panel
    assert shown.keys() == run.charts.keys()
    for name, chart in run.charts.items():
        fields = {key: column for key, column in chart["fieldSettings"].items() if column is not None}
        found = {key: column for key, column in shown[name]["fieldSettings"].items() if column is not None}
        assert (shown[name]["panelDefId"], found) == (chart["panelDefId"], fields)
        assert shown[name]["stringSettings"] == chart["stringSettings"]


def test_publishing(
    sweep: Sweep, here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Only where it is asked for and can be done; the file is there in every case. W&B itself is not asked here."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    saved: list[Any] = []
    monkeypatch.chdir(sweep.path.parents[2])
    (sweep.path / "dashboard.json").unlink(missing_ok=True)
    assert here("dashboard", str(sweep.path), "publish=true") == 2
    assert "written but not published: WANDB_MODE is offline" in capfd.readouterr().err
    assert (sweep.path / "dashboard.json").is_file()
    assert here("dashboard", ID, "report=true") == 2
    assert "give publish=true" in capfd.readouterr().err
    for cls in (ws.Workspace, wr.Report):
        monkeypatch.setattr(cls, "save", lambda self: saved.append(self) or self)
        monkeypatch.setattr(cls, "url", property(lambda self: f"https://wandb.invalid/{type(self).__name__}"))
    monkeypatch.setattr("spo.cli.dashboard.why_not", lambda: None)
    assert here("dashboard", ID, "entity=me", "--publish", "--report") == 0
    out = capfd.readouterr().out
    assert out.splitlines()[-2:] == ["https://wandb.invalid/Workspace", "https://wandb.invalid/Report"]
    workspace, report = saved
    assert (workspace.entity, report.entity, report.title) == ("me", "me", f"sweep {ID}")
    grids = [block for block in report.blocks if isinstance(block, wr.PanelGrid)]
    assert [len(grid.panels) for grid in grids] == [len(section.panels) for section in workspace.sections]


def test_no_sweep_and_no_package(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert here("dashboard", "nowhere") == 2
    assert "nowhere" in capfd.readouterr().err
    real = importlib.util.find_spec
    monkeypatch.setattr("spo.cli.dashboard.find_spec", lambda name: None if name == "wandb_workspaces" else real(name))
    assert here("dashboard", "missing") == 2
    err = capfd.readouterr().err
    assert "pip install wandb-workspaces" in err
    assert "Traceback" not in err
