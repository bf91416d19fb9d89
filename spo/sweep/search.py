"""A search for the best overrides: Optuna proposes jobs, a launcher runs them, their metric is told back.

The state of the search is one SQLite file in the sweep's folder, written by this process alone. A kill at any moment
loses nothing: a trial is written whole before its job starts, and is asked for again, with the same values and the
same number, until its result is written. Why SQLite (Optuna's RDBStorage) and not its journal file: a line of the
journal that a kill or a full disk has torn is followed by the next one without a line break, and the file can never be
read again; a lock that a killed process left holds up the next one for half a minute. A transaction has neither fault.

The sampler is made anew for every trial from (seed, number of the trial), so that a search which was interrupted
proposes what it would have proposed otherwise, and never repeats its first random trials.
"""

import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spo.errors import ConfigError
from spo.hashing import hash_int64
from spo.sweep.space import Dimension

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

BEST = "best.json"
_IDENTITY = "search"  # the study's attribute that says what is searched
_SEEDS = 2**32  # numpy's seeds are below this
_UNFINISHED = ("queued", "running", "interrupted")  # states of a job whose trial is asked for again

Outcome = Mapping[str, Any]  # what the launcher returns for a job: {"status": "ok", "metrics": {"val/auc": 0.7}}
Launch = Callable[[list[list[str]], int], Sequence[Outcome]]  # (overrides of each job, number of the first)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, for what, and with how many trials.

    folder: of the sweep. space: key -> dimension; fixed: overrides of every job. metric: name in a job's metrics.
    direction: maximize | minimize. n_trials: in all, failed ones and those before a restart included. jobs_at_once:
    trials proposed before one of them is told. seed: of the proposals. sampler: called with seed=. study_name: None
    for the folder's name. storage: the file's name in the folder.
    """

    folder: Path
    space: Mapping[str, Dimension]
    fixed: Sequence[str]
    metric: str
    direction: Literal["maximize", "minimize"]
    n_trials: int
    jobs_at_once: int
    seed: int
    sampler: "Callable[..., BaseSampler]"
    study_name: str | None
    storage: str

    def __post_init__(self) -> None:
        counts = {"n_trials": self.n_trials, "jobs_at_once": self.jobs_at_once}
        problems = [f"{k} is {v!r}: give a whole number >= 1" for k, v in counts.items() if not _is_count(v)]
        if self.direction not in ("maximize", "minimize"):
            problems.append(f"direction is {self.direction!r}: give maximize or minimize")
        if not isinstance(self.seed, int):
            problems.append(f"seed is {self.seed!r}: give a whole number")
        if not isinstance(self.metric, str) or not self.metric:
            problems.append(f"metric is {self.metric!r}: give the name of a metric, such as val/auc")
        if not isinstance(self.storage, str) or Path(self.storage).name != self.storage:
            problems.append(f"storage is {self.storage!r}: give the name of a file; it lies in the sweep's folder")
        if problems:
            raise ConfigError("\n".join(f"hydra.sweeper.{problem}" for problem in problems))

    def run(self, launch: Launch) -> None:
        """Until there are n_trials trials, each run once. What was begun before in this folder is gone on with."""
        study = self._study()
        if done := len(_finished(study)):
            print(f"search: {done} of {self.n_trials} trials were done before", flush=True)
        while batch := self._batch(study):
            outcomes = launch([self._overrides(trial) for trial in batch], batch[0].number)
            self._check_metric(study, outcomes)
            for trial, outcome in zip(batch, outcomes, strict=True):
                self._tell(study, trial, outcome)
            if any(outcome["status"] in _UNFINISHED for outcome in outcomes):
                print("search: interrupted; in the same folder it goes on where it was", flush=True)
                return
        self._conclude(study)

    # ---- the study ----------------------------------------------------------------------------------

    def _study(self) -> "Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder.resolve() / self.storage}")
        known = optuna.get_all_study_names(storage)
        name = self.study_name or (known[0] if len(known) == 1 else self.folder.resolve().name)  # it may have moved
        study = optuna.create_study(storage=storage, study_name=name, direction=self.direction, load_if_exists=True)
        self._recognise(study)
        return study

    def _recognise(self, study: "Study") -> None:
        """ConfigError where the folder holds a search for something else: its trials would mislead this one."""
        dimensions = {key: f"{type(d).__name__} {json.dumps(asdict(d))}" for key, d in self.space.items()}  # type: ignore[call-overload]
        wanted = {"space": dimensions, "fixed": sorted(self.fixed), "direction": self.direction, "metric": self.metric}
        stored: Mapping[str, Any] = study.user_attrs.get(_IDENTITY) or {}
        trials = study.get_trials(deepcopy=False)
        free = () if any(trial.state.is_finished() for trial in trials) else ("metric",)  # none was measured by it yet
        other = [key for key in wanted if stored and trials and key not in free and stored.get(key) != wanted[key]]
        if other:
            shown = "; ".join(f"{key}: {stored.get(key)} there, {wanted[key]} asked for" for key in other)
            raise ConfigError(
                f"{self.folder} holds another search ({shown}): give another folder with hydra.sweep.dir=FOLDER"
            )
        study.set_user_attr(_IDENTITY, wanted)

    def _batch(self, study: "Study") -> "list[FrozenTrial]":
        """The next trials to run: first those that were proposed before and have no result."""
        from optuna.trial import TrialState

        batch = study.get_trials(states=(TrialState.RUNNING,))[: self.jobs_at_once]
        while len(batch) < self.jobs_at_once and len(study.get_trials(deepcopy=False)) < self.n_trials:
            batch.append(self._propose(study))
        return batch

    def _propose(self, study: "Study") -> "FrozenTrial":
        """Drawn in memory and then written at once: a kill leaves no trial that has half of its values."""
        import optuna

        trials = study.get_trials()
        sampler = self.sampler(seed=hash_int64([self.seed, len(trials)]) % _SEEDS)
        copy = optuna.create_study(direction=self.direction, sampler=sampler)
        copy.add_trials(trials)
        drawn = copy.ask({key: dimension.distribution() for key, dimension in self.space.items()})
        study.add_trial(copy.trials[drawn.number])
        return study.trials[-1]

    def _overrides(self, trial: "FrozenTrial") -> list[str]:
        return [*self.fixed, *self._chosen(trial)]

    def _chosen(self, trial: "FrozenTrial") -> list[str]:
        return [f"{key}={dimension.text(trial.params[key])}" for key, dimension in self.space.items()]

    # ---- results ------------------------------------------------------------------------------------

    def _check_metric(self, study: "Study", outcomes: Sequence[Outcome]) -> None:
        """ConfigError where no job has ever given the metric: it is misspelt. Nothing is told, so nothing is lost."""
        given = [outcome.get("metrics") or {} for outcome in outcomes if outcome["status"] == "ok"]
        if given and not any(self.metric in metrics for metrics in given) and not _measured(study):
            names = sorted({name for metrics in given for name in metrics})
            raise ConfigError(
                f"hydra.sweeper.metric is {self.metric!r}, which no job has given: give one of {', '.join(names)}. The "
                "jobs that are done are not run again"
            )

    def _tell(self, study: "Study", trial: "FrozenTrial", outcome: Outcome) -> None:
        """A job that failed, or has no finite metric, is a failed trial: never a bad value."""
        from optuna.trial import TrialState

        if outcome["status"] in _UNFINISHED:
            return
        value = (outcome.get("metrics") or {}).get(self.metric) if outcome["status"] == "ok" else None
        where = f"search: trial {trial.number + 1} of {self.n_trials}"
        if value is None or not math.isfinite(value):
            study.tell(trial.number, state=TrialState.FAIL)
            why = f"{self.metric} is {value}" if outcome["status"] == "ok" else f"the job {outcome['status']}"
            print(f"{where} failed ({why}): {' '.join(self._chosen(trial))}", flush=True)
            return
        study.tell(trial.number, float(value))
        best = study.best_trial
        leads = "the best so far" if best.number == trial.number else f"best {best.value:.4g}, trial {best.number + 1}"
        print(f"{where}: {self.metric} {value:.4g} ({leads}): {' '.join(self._chosen(trial))}", flush=True)

    def _conclude(self, study: "Study") -> None:
        """Print the best trial and write best.json."""
        done, finished = _measured(study), _finished(study)
        counts = f"{len(done)} of {len(finished)} trials have a result"
        if not done:
            print(f"search: {counts}; there is no best one", flush=True)
            return
        best = study.best_trial
        chosen = self._chosen(best)
        record = {
            "trial": best.number,  # from 0: the number of the job
            "metric": self.metric,
            "direction": self.direction,
            "value": best.value,
            "overrides": chosen,
            "fixed": list(self.fixed),
            "n_trials": len(finished),
            "n_failed": len(finished) - len(done),
        }
        part = self.folder / f".{BEST}.part"
        part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        part.replace(self.folder / BEST)
        print(f"search: {counts}. Best: {self.metric} {best.value:.4g}, trial {best.number + 1}", flush=True)
        print(f"  {' '.join(chosen)}  ({self.folder / BEST})", flush=True)


def check_installed() -> None:
    """ConfigError where Optuna is missing: it is an extra, for searches alone."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError('hydra/sweeper=optuna needs optuna: pip install "spo[search]"')


def _finished(study: "Study") -> "list[FrozenTrial]":
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def _measured(study: "Study") -> "list[FrozenTrial]":
    return [trial for trial in _finished(study) if trial.value is not None]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
