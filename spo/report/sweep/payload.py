"""Everything that the page draws, as one plain value: what page.js calls DATA."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from spo import study
from spo.report.compared.comparison import Comparison
from spo.report.compared.payload import payload
from spo.report.labels import REFERENCE
from spo.report.results import Result, require_samples
from spo.report.statistics import LEVEL
from spo.report.sweep import outcomes, records
from spo.report.sweep.keys import Key, differing, estimators
from spo.run_folder import Record
from spo.sweep.store import SweepFolder
from spo.sweep.tail import tail

CURVE_NUMBERS = 500_000  # of all curves together; more jobs have fewer points a curve
MOST_CURVES, FEW_CURVES, MANY_JOBS = 16, 8, 300  # metrics with curves; of a sweep of more jobs
CURVE_POINTS = (12, 120)  # of one curve: at least, at most
HISTORY_RECORDS = 2400  # links, and histograms of the index, of all jobs together
HISTORY_STEPS = (2, 12)  # of one job
FAILED = ("failed", "interrupted")
MOST_TAILS = 200  # failed jobs whose last lines are shown
_DEGREES = 200  # of freedom; beyond it the quantile of t is that of the normal


class Sweep:
    """A sweep's folder, read once. page_folder: where the page will lie; links to run folders start there. kl: nats at
    which language models are compared instead of their evaluations' own target."""

    def __init__(self, folder: SweepFolder, page_folder: Path, kl: float | None = None) -> None:
        self.folder, self.page_folder = folder, page_folder
        self.record = folder.record
        self.jobs = folder.jobs()
        self.results = [Result(run, run, job.folder) for job in self.jobs for run in [folder.run(job)]]
        self.kl = kl
        require_samples(self.begun, kl)
        for result in self.begun:
            result.kl = kl

    @cached_property
    def begun(self) -> list[Result]:
        """The jobs that left a run folder, with its configuration."""
        return [result for result in self.results if result.run.config_path.is_file()]

    @cached_property
    def _keys(self) -> tuple[list[Key], list[list[int]]]:
        return differing(self.jobs, [result.run for result in self.results])

    @cached_property
    def compared(self) -> Comparison:
        """The jobs that left samples of a language model; their places are those of the jobs."""
        return Comparison(self.results, self.kl, self._keys)

    @cached_property
    def data(self) -> Record:
        """The whole payload."""
        keys, choices = self._keys
        labels, told = estimators(keys, choices)
        rankings = [outcomes.ranking_metrics(one.ranking) for one in self.compared.evaluated]
        reached = [outcomes.job_metrics(*pair) for pair in zip(self.jobs, self.results, strict=True)]
        metrics = [found | more for found, more in zip(reached, rankings, strict=True)]
        names = _metric_names(metrics)
        tables = [self._study(result) for result in self.results]
        rows, seeds_kept = outcomes.thinned(self._rows(tables, metrics, keys, choices))
        curves, points = self._curves()
        return {
            "sweep": self._head(),
            "keys": [asdict(key) for key in keys],
            "estimators": labels,
            "references": [i for i, label in enumerate(labels) if self._is_reference(i, told, keys, choices)],
            "metrics": names,
            "jobs": [
                self._job(i, choices[i], told[i], [metrics[i].get(name) for name in names])
                for i in range(len(self.jobs))
            ],
            "rows": outcomes.as_columns(rows),
            "target": self._target(tables, metrics),
            "study": any(table is not None for table in tables),
            "curves": curves,
            **self._histories(),
            "frontiers": self._frontiers(tables),
            "compared": payload(self.compared),
            "t": records.short(stdtrit(np.arange(1, _DEGREES + 1), (1 + LEVEL) / 2)),
            "fewest_rows": records.FEWEST_ROWS,
            "thinning": {
                "curve_points": points,
                "history_steps": self._history_steps,
                "seeds_kept": seeds_kept,
                "tails": MOST_TAILS,
            },
        }

    def _head(self) -> Record:
        kept = ("id", "name", "command", "command_line", "words", "created", "finished", "state", "host")
        head = {name: self.record.get(name) for name in (*kept, "spo_version", "git_commit")}
        return head | {"counts": dict(Counter(job.status for job in self.jobs))}

    def _job(self, i: int, choice: Sequence[int], estimator: int, metrics: list[float | None]) -> Record:
        job = self.jobs[i]
        shown = records.short([job.seconds])[0]
        out: Record = {"job": job.job, "status": job.status, "k": list(choice), "e": estimator, "seconds": shown}
        out |= {"href": Path(os.path.relpath(self.folder.path / job.folder, self.page_folder)).as_posix()}
        out |= {"folder": job.folder, "attempts": job.attempts, "exit_code": job.exit_code, "message": job.message}
        out["m"] = [None if v is None else records.short([v])[0] for v in metrics]
        return out | ({"tail": tail(self.folder.path / job.folder)} if i in self._with_tails else {})

    @cached_property
    def _with_tails(self) -> set[int]:
        """The failed jobs whose last lines are shown."""
        return set([i for i, job in enumerate(self.jobs) if job.status in FAILED][:MOST_TAILS])

    def _study(self, result: Result) -> pd.DataFrame | None:
        return study.read(folder.results_path for folder in result.studied) if result.studied else None

    def _rows(self, tables: list[Any], metrics: list[dict[str, float]], keys: list[Any], choices: Any) -> pd.DataFrame:
        parts = [
            outcomes.run_row(i, self.results[i], metrics[i], keys, choices[i])
            if table is None
            else outcomes.study_rows(i, table)
            for i, table in enumerate(tables)
        ]
        full = [part for part in parts if len(part)]
        return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=outcomes.POINT)

    def _target(self, tables: list[Any], metrics: list[dict[str, float]]) -> list[float]:
        """The KLs at which rewards are compared; one, where they can be."""
        found = {outcomes.study_target(table) for table in tables if table is not None}
        found |= {round(of["target/kl"], 6) for of in metrics if "target/reward" in of and "target/kl" in of}
        return sorted(kl for kl in found if kl is not None)

    def _is_reference(self, estimator: int, told: list[int], keys: list[Any], choices: list[list[int]]) -> bool:
        row = choices[told.index(estimator)]
        return any(key.name == "method" and key.values[v] == REFERENCE for key, v in zip(keys, row, strict=True))

    def _curves(self) -> tuple[Record, int]:
        names = records.curve_names(self.begun, MOST_CURVES if len(self.begun) <= MANY_JOBS else FEW_CURVES)
        low, high = CURVE_POINTS
        points = int(np.clip(CURVE_NUMBERS // max(3 * len(names) * len(self.begun), 1), low, high))
        steps: dict[tuple[int, ...], int] = {}  # a list of steps -> its number: jobs share them
        jobs: dict[int, dict[int, Any]] = {}
        for i, result in enumerate(self.results):
            for j, name in enumerate(names):
                found = records.curve(result, name, points)
                if found is not None:
                    number = steps.setdefault(tuple(found[0]), len(steps))
                    jobs.setdefault(i, {})[j] = [number, *found[1]]
        return {"names": names, "steps": [list(s) for s in steps], "jobs": jobs}, points

    @property
    def _history_steps(self) -> int:
        return int(np.clip(HISTORY_RECORDS // max(len(self.begun), 1), *HISTORY_STEPS))

    def _histories(self) -> Record:
        most = self._history_steps
        found: Record = {"links": {}, "indices": {}, "reliability": {}}
        for i, result in enumerate(self.results):
            for name, value in (
                ("links", records.links(result, most)),
                ("indices", records.indices(result, most)),
                ("reliability", records.reliability(result)),
            ):
                if value:
                    found[name][i] = value
        return found

    def _frontiers(self, tables: list[Any]) -> list[Record]:
        found = []
        for i, (result, table) in enumerate(zip(self.results, tables, strict=True)):
            if table is not None:
                found += outcomes.study_frontiers(i, table)
            elif (one := records.frontier(result)) is not None:
                found.append(one | {"job": i})
        return found


def _metric_names(metrics: Sequence[dict[str, float]]) -> list[str]:
    """All, reward and AUC first, a standard error right after its metric."""
    first = ("target/reward", "target/reward_minus_reference", "target/kl", "val/auc")
    rank = {name: i for i, name in enumerate(first)}
    names = {name for of in metrics for name in of}
    return sorted(names, key=lambda n: (rank.get(n.removesuffix("_se"), len(rank)), n))
