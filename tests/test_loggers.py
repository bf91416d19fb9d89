"""W&B offline, read back from its file; CSV; none; and when W&B goes offline by itself."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spo import loggers
from spo.errors import ConfigError
from spo.loggers import Csv, NoLogger, Wandb
from spo.media import Chart, MediaLogger
from spo.reach import why_offline
from spo.run_folder import RunFolder
from tests.wandb_reader import find

CONFIG = {"seed": 3, "link": {"_target_": "spo.link.isotonic.Isotonic", "eps": 0.02}}
CHOICES = {"method": "pspo", "link": "isotonic", "experiment": None}


def wandb_choice(**changes: Any) -> Wandb:
    plain: dict[str, Any] = {"project": "spo", "entity": None, "name": None, "group": None, "mode": "auto"}
    return Wandb(**plain | {"tags": ["mine"], "tag_groups": ["method", "experiment"]} | changes)


def write(choice: Wandb, run: RunFolder, exit_code: int = 0, resume_id: str | None = None, step: int = 5) -> None:
    logger = choice.build(run=run, config=CONFIG, choices=CHOICES, job_type="train", resume_id=resume_id)
    logger.log_metrics({"train/loss": 0.5}, step=step)
    assert isinstance(logger, MediaLogger)
    logger.log_histogram("index/hist", np.array([1.0, 3.0]), np.array([-1.0, 0.0, 1.0]), 5)
    logger.log_table("link/curve", ["step", "p"], [[5, 0.5], [5, None]], 5)
    logger.log_picture("link/picture", np.zeros((4, 6, 4), dtype=np.uint8), 5)
    choice.finish(exit_code)


def test_offline_run_read_back(tmp_path: Path) -> None:
    """Identity, the whole config, Hydra's choices, scalars, histogram, table, picture, exit code."""
    run = RunFolder(tmp_path / "first")
    write(wandb_choice(), run, exit_code=3)
    (found,) = find(run.path)
    assert (found.project, found.name, found.group, found.job_type) == ("spo", "first", "first", "train")
    assert found.tags == ["mine", "pspo"]
    assert found.config["seed"] == 3
    assert found.config["link"] == CONFIG["link"]
    assert found.config["choices"]["link"] == "isotonic"
    assert found.values("train/loss") == [(5, 0.5)]
    assert [row["global_step"] for row in found.history] == [5, 5, 5, 5]
    ((_, histogram),) = found.values("index/hist")
    assert (histogram["values"], histogram["bins"]) == ([1, 3], [-1, 0, 1])
    ((_, table),) = found.values("link/curve")
    assert found.table(table)["columns"] == ["step", "p"]
    assert found.table(table)["data"] == [[5, 0.5], [5, None]]
    ((_, picture),) = found.values("link/picture")
    assert (found.folder / "files" / picture["path"]).read_bytes().startswith(b"\x89PNG")
    assert found.exit_code == 3
    assert run.status["wandb_run_id"] == found.id


def test_one_run_per_command_and_resume_keeps_the_id(tmp_path: Path) -> None:
    """Two commands in one process are two runs; a resumed one goes on under its id."""
    first, second = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    write(wandb_choice(), first, step=1)
    write(wandb_choice(), second, step=2)
    write(wandb_choice(), first, resume_id=first.status["wandb_run_id"], step=9)
    a, b = find(first.path), find(second.path)
    assert len(b) == 1
    assert {run.id for run in a} == {first.status["wandb_run_id"]}
    assert b[0].id != a[0].id
    assert b[0].values("train/loss") == [(2, 0.5)]
    assert [step for run in a for step, _ in run.values("train/loss")] == [1, 9]


def test_jobs_of_a_sweep_share_a_group(tmp_path: Path) -> None:
    """Its id, wherever the jobs lie; a run by itself is a group of its own."""
    for name, sweep in (("0", {"id": "2026_links", "folder": str(tmp_path)}), ("alone", None)):
        run = RunFolder(tmp_path / name)
        run.create({}, {"sweep": sweep})
        write(wandb_choice(), run)
    assert [found.group for found in find(tmp_path)] == ["2026_links", "alone"]
    assert [found.name for found in find(tmp_path)] == ["0", "alone"]
    assert loggers.group_of(RunFolder(tmp_path / "no_folder")) == "no_folder"


def test_a_chart_is_a_table_and_a_built_in_preset_that_reads_the_history(tmp_path: Path) -> None:
    """The same panel as wandb.plot makes, but asking for the history of the table, which a step slider needs."""
    import wandb

    chart = Chart(
        "wandb/lineseries/v0",
        ["step", "t", "curve", "p"],
        [[5, 0.0, "fitted", 0.5], [5, 1.0, "fitted", None]],
        {"step": "t", "lineKey": "curve", "lineVal": "p"},
        {"title": "Link", "xname": "t"},
    )
    choice = wandb_choice()
    logger = choice.build(run=RunFolder(tmp_path), config=CONFIG, choices=CHOICES, job_type="train")
    assert isinstance(logger, MediaLogger)
    for step in (5, 6):
        logger.log_chart("link/chart", chart, step)
    logger.set_summary({"best/val/auc": 0.75})
    choice.finish(0)
    (found,) = find(tmp_path)
    tables = found.values("link/chart_table")
    assert [step for step, _ in tables] == [5, 6]
    assert found.table(tables[0][1])["data"] == chart.rows
    theirs = wandb.plot.line_series([0, 1], [[0, 1]], title="Link", xname="t").spec
    theirs.key = "link/chart"
    expected = theirs.config_value["panel_config"]
    assert expected["fieldSettings"].keys() == chart.fields.keys()
    (asked,) = expected["userQuery"]["queryFields"][0]["fields"][-1:]
    asked["name"] = "historyTable"
    assert found.charts["link/chart"] == expected | {"fieldSettings": dict(chart.fields)}
    assert found.summary["best/val/auc"] == 0.75
    assert found.config["seed"] == 3, "charts stand beside the run's own config"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine on which nothing about W&B is set."""
    for name in (
        "WANDB_MODE",
        "WANDB_API_KEY",
        "WANDB_BASE_URL",
        "https_proxy",
        "HTTPS_PROXY",
        "http_proxy",
        "HTTP_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    return monkeypatch


def test_no_key_is_offline_and_said_once(
    nobody: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    write(wandb_choice(), run)
    said = capsys.readouterr().err
    assert said.count("W&B: offline, because there is no key for api.wandb.ai") == 1
    assert f"wandb sync {run.path / 'wandb'}" in said
    assert len(find(run.path)) == 1


def test_key_but_no_network_is_offline(nobody: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on; a name that nobody knows."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    nobody.setenv("WANDB_API_KEY", "x" * 40)
    nobody.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    assert "127.0.0.1 does not answer" in str(why_offline())
    nobody.setenv("WANDB_BASE_URL", "https://no-such-host.invalid")
    assert "no-such-host.invalid does not answer" in str(why_offline())


def test_key_and_network_is_online(nobody: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key in the netrc file and a listening host; then the same host behind a proxy."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (tmp_path / "netrc").write_text(
            "machine 127.0.0.1 login u password k\nmachine far.invalid login u password k\n"
        )
        (tmp_path / "netrc").chmod(0o600)
        nobody.setenv("NETRC", str(tmp_path / "netrc"))
        nobody.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        assert why_offline() is None
        nobody.setenv("WANDB_BASE_URL", "https://far.invalid")
        nobody.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert why_offline() is None


def test_asked_to_be_online_without_a_key_is_refused(nobody: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"online, but there is no key .* `wandb login`"):
        write(wandb_choice(mode="online"), RunFolder(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"), [({"mode": "sometimes"}, "logger.mode"), ({"project": ""}, "logger.project")]
)
def test_bad_options(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wandb_choice(**changes)


def test_csv_and_none(tmp_path: Path) -> None:
    logger = Csv().build(run=RunFolder(tmp_path), config=CONFIG, choices=CHOICES, job_type="train")
    logger.log_metrics({"train/loss": 0.5}, step=5)
    logger.save()
    assert (tmp_path / "csv/version_0/metrics.csv").read_text().split() == ["step,train/loss", "5,0.5"]
    assert NoLogger().build(run=RunFolder(tmp_path), config=CONFIG, choices=CHOICES, job_type="train") is None
