"""The search: known optimum, kills, failures, the grammar, and the sweeper as Hydra calls it."""

import functools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hydra.core.plugins
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus

from spo.cli.commands import find_commands
from spo.cli.compose import compose_jobs
from spo.cli.hydra_app import hydra_app, prepare
from spo.cli.space import Space, read_space
from spo.errors import ConfigError
from spo.paths import asset_dir
from spo.sweep.search import Search
from spo.sweep.space import Choice, Real, Whole

ROOT = Path(__file__).parents[2]
RATE, BEST_RATE = "optim.learning_rate", 1e-4
SPACE = {RATE: Real(1e-6, 1e-2, None, True), "link": Choice(("isotonic", "kernel", "spline"))}
Jobs = list[list[str]]


class Launcher:
    """Answers -(log10 rate + 4)^2, less 1 for any link but kernel: best 0 at rate 1e-4 and kernel."""

    def __init__(self, stop_at: int | None = None, fails: Callable[[int], bool] = lambda number: False) -> None:
        self.ran: dict[int, list[str]] = {}
        self.stop_at, self.fails = stop_at, fails

    def __call__(self, jobs: Jobs, first: int) -> list[Mapping[str, Any]]:
        return [self.one(first + i, words) for i, words in enumerate(jobs)]

    def one(self, number: int, words: list[str]) -> Mapping[str, Any]:
        if number == self.stop_at:
            raise KeyboardInterrupt
        assert number not in self.ran
        self.ran[number] = words
        if self.fails(number):
            return {"status": "failed", "metrics": {}}
        return {"status": "ok", "metrics": {"val/auc": value(words), "val/loss": 0.0}}


def value(words: list[str]) -> float:
    given = dict(word.split("=") for word in words)
    return -((math.log10(float(given[RATE]) / BEST_RATE)) ** 2) - (given["link"] != "kernel")


def search(folder: Path, **changed: Any) -> Search:
    options: dict[str, Any] = {
        "folder": folder,
        "space": SPACE,
        "fixed": ["seed=0"],
        "metric": "val/auc",
        "direction": "maximize",
        "n_trials": 8,
        "jobs_at_once": 3,
        "seed": 0,
        "sampler": functools.partial(
            optuna.samplers.TPESampler, n_startup_trials=4, multivariate=True, constant_liar=True
        ),
        "study_name": None,
        "storage": "search.sqlite3",
    }
    return Search(**{**options, **changed})


def trials(folder: Path, name: str | None = None) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=name or folder.name, storage=f"sqlite:///{folder / 'search.sqlite3'}")
    return study.trials


def best(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "best.json").read_text()))


class Whole8(NamedTuple):
    """A search of 8 trials that nothing interrupted."""

    ran: dict[int, list[str]]
    best: dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole8:
    folder, launcher = tmp_path_factory.mktemp("whole"), Launcher()
    search(folder).run(launcher)
    return Whole8(launcher.ran, best(folder))


def test_the_optimum_is_found_in_few_trials(tmp_path: Path):
    """Within a factor of 2 of the best rate, and the best link; a random trial is as near with p = 0.05."""
    launcher = Launcher()
    search(tmp_path, n_trials=24, jobs_at_once=4).run(launcher)
    found = best(tmp_path)
    rate, link = (word.partition("=")[2] for word in found["overrides"])
    assert link == "kernel"
    assert BEST_RATE / 2 < float(rate) < BEST_RATE * 2
    assert found["value"] == max(value(words) for words in launcher.ran.values())
    assert launcher.ran[found["trial"]] == ["seed=0", *found["overrides"]]
    assert sorted(launcher.ran) == list(range(24))


@pytest.mark.parametrize("stop_at", [1, 6])
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, stop_at: int, whole: Whole8):
    """Stopped in the middle of a batch and gone on with: the same trials, each number once, exactly n_trials."""
    first, second = Launcher(stop_at), Launcher()
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path).run(first)
    search(tmp_path).run(second)
    batch = (
        stop_at - stop_at % 3
    )  # its jobs were not told: the launcher is asked for them again, and knows which it has
    assert sorted(second.ran) == list(range(batch, 8))
    assert {**first.ran, **second.ran} == whole.ran
    assert all(second.ran[number] == words for number, words in first.ran.items() if number in second.ran)
    assert [t.number for t in trials(tmp_path)] == list(range(8))
    assert best(tmp_path) == whole.best
    search(tmp_path).run(Launcher(stop_at=0))  # a finished search runs nothing


def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path):
    """A process is killed by SIGKILL as it begins its 2nd and its 4th trial; what is written is kept."""
    code = (
        "import functools, optuna, sys; from pathlib import Path; from spo.sweep.search import Search\n"
        "from spo.sweep.space import Real\n"
        "def launch(jobs, first):\n"
        "    for i, job in enumerate(jobs): print(first + i, *job, flush=True)\n"
        "    return [{'status': 'ok', 'metrics': {'m': 1.0}} for job in jobs]\n"
        "Search(folder=Path(sys.argv[1]), space={'x': Real(0.0, 1.0, None, False)}, fixed=[], metric='m',\n"
        "       direction='minimize', n_trials=5, jobs_at_once=1, seed=0, sampler=optuna.samplers.RandomSampler,\n"
        "       study_name='s', storage='search.sqlite3').run(launch)"
    )
    ran: dict[str, str] = {}
    for begun in (2, 4, None):
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                number, _, word = line.strip().partition(" ")
                if not number.isdigit():
                    continue
                assert ran.setdefault(number, word) == word, "asked again with another value"
                if begun is not None and len(ran) >= begun:
                    os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == (0 if begun is None else -signal.SIGKILL)
    assert len(ran) == 5
    assert [t.state.name for t in trials(tmp_path, "s")] == ["COMPLETE"] * 5


def test_a_failed_job_is_a_failed_trial_and_no_bad_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    search(tmp_path, direction="minimize").run(Launcher(fails=lambda number: number % 2 == 0))
    assert [t.state.name for t in trials(tmp_path)] == ["FAIL", "COMPLETE"] * 4
    assert all(t.value is None for t in trials(tmp_path)[::2])
    found = best(tmp_path)
    assert found["trial"] % 2 == 1
    assert found["n_failed"] == 4
    assert "trial 1 of 8 failed (the job failed)" in capsys.readouterr().out


def test_where_every_job_fails_there_is_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    search(tmp_path, n_trials=2).run(Launcher(fails=lambda number: True))
    assert "0 of 2 trials have a result; there is no best one" in capsys.readouterr().out
    assert not (tmp_path / "best.json").exists()


def test_an_interrupted_job_is_asked_for_again(tmp_path: Path):
    def interrupted(jobs: Jobs, first: int) -> list[Mapping[str, Any]]:
        return [{"status": "ok", "metrics": {"val/auc": 0.5}}, *[{"status": "interrupted"}] * (len(jobs) - 1)]

    search(tmp_path).run(interrupted)
    assert [t.state.name for t in trials(tmp_path)] == ["COMPLETE", "RUNNING", "RUNNING"]
    launcher = Launcher()
    search(tmp_path).run(launcher)
    assert sorted(launcher.ran) == list(range(1, 8))


def test_an_unknown_metric_names_those_there_are_and_loses_no_job(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is 'val/acu', which no job has given: give one of val/auc, val/loss"):
        search(tmp_path, metric="val/acu").run(Launcher())
    assert [t.state.name for t in trials(tmp_path)] == ["RUNNING"] * 3
    search(tmp_path, n_trials=3).run(Launcher())
    assert [t.state.name for t in trials(tmp_path)] == ["COMPLETE"] * 3


@pytest.mark.parametrize("changed", [{"space": SPACE | {RATE: Real(1e-6, 1.0, None, True)}}, {"fixed": []}])
def test_another_search_in_the_same_folder_is_refused(tmp_path: Path, changed: dict[str, Any]):
    search(tmp_path, n_trials=2).run(Launcher())
    with pytest.raises(ConfigError, match=r"holds another search .* hydra.sweep.dir=FOLDER"):
        search(tmp_path, **changed).run(Launcher())
    more = Launcher()
    search(tmp_path, n_trials=4).run(more)  # more trials are no other search
    assert sorted(more.ran) == [2, 3]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_trials": 0}, "n_trials is 0: give a whole number >= 1"),
        ({"jobs_at_once": True}, "jobs_at_once is True"),
        ({"direction": "up"}, "direction is 'up': give maximize or minimize"),
        ({"metric": None}, "metric is None"),
        ({"storage": "/a/b.db"}, "storage is '/a/b.db'"),
        ({"seed": "x"}, "seed is 'x'"),
    ],
)
def test_bad_options(tmp_path: Path, changed: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=rf"hydra\.sweeper\.{message}"):
        search(tmp_path, **changed)


def space(params: dict[str, Any], *words: str) -> Space:
    prepare(None)
    with hydra_app(find_commands(asset_dir("conf"))["train"]):
        return read_space(params, list(words), GlobalHydra.instance().config_loader())


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("a,b", Choice(("a", "b"))),
        ("choice(1,2.5,[x,y])", Choice(("1", "2.5", "[x,y]"))),
        ("range(1,5)", Whole(1, 4, 1, False)),
        ("range(2,9,3)", Whole(2, 8, 3, False)),
        ("range(0,1,0.25)", Real(0.0, 0.75, 0.25, False)),
        ("interval(1e-5,1e-3)", Real(1e-5, 1e-3, None, False)),
        ("tag(log,interval(1e-5,1e-3))", Real(1e-5, 1e-3, None, True)),
        ("int(interval(1,4))", Whole(1, 4, 1, False)),
        ("tag(log,int(interval(8,64)))", Whole(8, 64, 1, True)),
        ("glob(iso*)", Choice(("isotonic",))),
    ],
)
def test_the_grammar(text: str, dimension: Any):
    key = "link" if "glob" in text else RATE
    found = space({key: text}, "seed=3")
    assert found == Space({key: dimension}, {"seed": "seed=3"})
    dimension.distribution()
    assert all(isinstance(word, str) for word in dimension.probes)


def test_the_command_line_goes_before_the_file():
    found = space(
        {RATE: "interval(1e-5,1e-3)", "link": "isotonic,kernel"}, f"{RATE}=interval(1e-4,1e-3)", "link=probit"
    )
    assert found == Space({RATE: Real(1e-4, 1e-3, None, False)}, {"link": "link=probit"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interval(2,1)", "goes from 2.0 to 1.0: give the smaller end first"),
        ("tag(log,interval(0,1))", "begins at 0.0: give a low end > 0"),
        ("range(1,2)", "has 1 value"),
        ("3", "there is nothing to search"),
    ],
)
def test_what_is_no_space_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        space({RATE: text})


def test_both_ends_and_every_choice_are_checked_before_the_first_job(tmp_path: Path):
    command = find_commands(asset_dir("conf"))["train"]
    words = ["hydra/sweeper=optuna", f"data.train_path={tmp_path}", "optim.learning_rat=interval(1e-5,1e-3)"]
    prepare(None)
    with hydra_app(command):
        _, jobs, problems = compose_jobs(command, [*words, "link=choice(isotonic,kernl,kernel)"], multirun=True)
    assert len(jobs) == 3
    assert any("unknown key optim.learning_rat: did you mean optim.learning_rate?" in p for p in problems)
    assert any("link=kernl is no option of link" in p for p in problems)


def test_a_pair_that_is_not_there_is_refused_by_name():
    """`method=pair/OBJECTIVE-LINK` has no file; the nearest is named all the same."""
    command = find_commands(asset_dir("conf"))["train"]
    prepare(None)
    with hydra_app(command):
        _, _, problems = compose_jobs(command, ["data.train_path=x", "method=pair/brier-splin"], multirun=False)
        assert problems[0].startswith(
            "method=pair/brier-splin is no option of method: did you mean method=pair/brier-spline?"
        )
        _, (job,), problems = compose_jobs(command, ["data.train_path=x", "method=pair/brier-spline"], multirun=False)
    assert not problems
    assert (job.choices["objective"], job.choices["link"]) == ("brier", "spline")


def test_hydra_finds_the_sweeper_and_its_jobs_are_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answers = Launcher()

    class Fake:
        def launch(self, job_overrides: Jobs, initial_job_idx: int) -> list[JobReturn]:
            outcomes = answers(job_overrides, initial_job_idx)
            return [JobReturn(status=JobStatus.COMPLETED, _return_value=outcome) for outcome in outcomes]

    monkeypatch.setattr(hydra.core.plugins.Plugins, "instantiate_launcher", lambda *a, **k: Fake())
    prepare(None)
    with hydra_app(find_commands(asset_dir("conf"))["train"]):
        app = GlobalHydra.instance().hydra
        words = ["hydra/sweeper=optuna", f"hydra.sweep.dir={tmp_path}", "hydra.sweeper.n_trials=3", "seed=4"]
        words += [f"{RATE}=tag(log,interval(1e-6,1e-2))", "link=isotonic,kernel"]
        returned = app.multirun("train", lambda config: None, [*words, "hydra.mode=MULTIRUN"])  # type: ignore[union-attr]
    assert sum(map(len, returned)) == 3
    assert sorted(answers.ran) == [0, 1, 2]
    assert all("seed=4" in words for words in answers.ran.values())
    assert best(tmp_path)["value"] == max(value(words) for words in answers.ran.values())


def test_optuna_is_imported_by_a_search_alone():
    code = (
        "import sys; from hydra.core.plugins import Plugins; import spo.sweep.search, spo.cli.space\n"
        "Plugins.instance(); assert 'hydra_plugins.spo_optuna' in sys.modules\n"
        "assert not {'optuna', 'torch', 'sqlalchemy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
