"""What a report says about one run, read from its folder and from nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from spo.errors import ConfigError, DataError
from spo.evaluate import DETERMINED
from spo.evaluate.frontier import reward_at_kl
from spo.run_folder import Record, RunFolder

NOT_SETTINGS = ("run.", "hydra.", "logger.", "train_run")  # keys in which two runs always differ
_CLASS = "._target_"  # how the key of an option's class ends


@dataclass
class Result:
    """A training run and what an evaluation of it found. `label` tells it from the others of the report."""

    run: RunFolder  # of the training
    evaluation: RunFolder  # where frontier.json and target.json lie: the same folder, or that of `spo evaluate`
    label: str = ""
    evaluations: Sequence[RunFolder] = ()  # all of `spo evaluate`, oldest first
    kl: float | None = None  # nats at which to compare instead of the evaluation's own target

    @cached_property
    def studied(self) -> list[RunFolder]:
        """Where results.parquet of a tabular study lies: the training's folder, then those of its evaluations."""
        return [folder for folder in (self.run, *self.evaluations) if folder.results_path.is_file()]

    def newest(self, name: str) -> RunFolder | None:
        """Where the file of an evaluation lies: the newest of `spo evaluate` that has it, or the training's folder."""
        return _newest([self.run, *self.evaluations], name)

    @property
    def is_study(self) -> bool:
        """Whether it is a tabular run with an evaluation to come or done, so that it belongs to a study."""
        config = {} if self.studied else self.run.config
        source = (config.get("data") or {}).get("source") or {}
        return bool(self.studied) or ("seeds" in source and "kl_target" in (config.get("evaluate") or {}))

    @cached_property
    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Metric -> (step, value) in order of steps; of a step written twice (a resumed run) the last value."""
        found: dict[str, dict[int, float]] = {}
        for metric in self.run.metrics():
            found.setdefault(metric.name, {})[metric.step] = metric.value
        return {name: sorted(points.items()) for name, points in found.items()}

    @cached_property
    def links(self) -> list[Record]:
        """Each fit of the link, over the rows it was fitted to; the link at each validation where none was fitted.

        Never both: on training rows t lies wider than on held-out ones, so that the scale of the true link differs.
        """
        return [record for record in self.link_records if record["kind"] == "refit"] or self.link_records

    @cached_property
    def link_records(self) -> list[Record]:
        """All of the link history, of refits and of validations."""
        return _last_of_step(self.run.link_history(), ("step", "kind"))

    @cached_property
    def diagnoses(self) -> list[Record]:
        """What the held-out rows say of the link, at each validation."""
        return _last_of_step(self.run.diagnosis_history(), ("step",))

    @property
    def diagnosis(self) -> Record | None:
        """That of the weights that selection kept; the last one where it kept none or several."""
        kept = self.run.status.get("kept_step")
        return next((d for d in self.diagnoses if d["step"] == kept), self.diagnoses[-1] if self.diagnoses else None)

    @property
    def shown_replicate(self) -> str:
        """The beginning of a sentence about what only replicate 0 shows; "" where there is nothing but one policy."""
        seeds = (self.run.config.get("policy") or {}).get("seeds")
        return f"replicate 0 of {len(seeds)}: " if isinstance(seeds, list) else ""

    @cached_property
    def indices(self) -> list[Record]:
        return _last_of_step(self.run.index_history(), ("step",))

    @cached_property
    def frontier(self) -> list[Record]:
        """By rising KL, the reference first."""
        return sorted(self.evaluation.frontier, key=lambda point: (point["beta"] is not None, point["kl"] or 0.0))

    @cached_property
    def target(self) -> Record | None:
        """target.json; at another KL from the samples, None where there are none that can be read."""
        if self.kl is not None and not self.is_study:
            return self._target_at(self.kl)
        found: Record | None = self.evaluation.read_json("target.json")
        return found

    def _target_at(self, kl: float) -> Record | None:
        if not self.evaluation.samples_path.is_file():
            return None
        try:
            found = reward_at_kl(pd.read_parquet(self.evaluation.samples_path), kl)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return None
        return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in found.items()}

    @property
    def auc(self) -> tuple[float, float, int] | None:
        """Held-out AUC, its standard error (nan if not logged) and the step, of the weights that selection kept.

        The step is status.json's `kept_step`; without it that of the largest AUC.
        """
        points = {step: value for step, value in self.series.get("val/auc", []) if math.isfinite(value)}
        if not points:
            return None
        kept = self.run.status.get("kept_step")
        step = kept if kept in points else max(points, key=lambda k: points[k])
        return points[step], dict(self.series.get("val/auc_se", [])).get(step, math.nan), step

    @property
    def undetermined(self) -> float | None:
        """The z-score of the orientation of the kept weights' link, where it is too small to say which way the index
        points; None where the rows say so, or no link was fitted."""
        kept = self.run.status.get("kept_step", math.inf)
        points = [score for step, score in self.series.get("link/orientation_z", []) if step <= kept]
        return points[-1] if points and abs(points[-1]) < DETERMINED else None

    @property
    def missing(self) -> list[str]:
        """What the report cannot show, and what would make it, as sentences."""
        out = []
        state = self.run.status.get("state")
        if state not in ("ok", None):
            message = self.run.status.get("message") or "no message"
            out.append(f"The run's state is “{state}” ({message}): its numbers may be incomplete.")
        if not self.series:
            out.append("There is no metrics.csv: the run logged nothing.")
        if (score := self.undetermined) is not None:
            out.append(
                f"The data do not say which way the index points (z-score {score:.1f}, below "
                f"{DETERMINED:g}): more rows or passes may."
            )
        if not self.links:
            out.append(
                "There is no link history: the method has no link, or the run ended before its first validation."
            )
        if not self.diagnoses:
            out.append(
                "There is no diagnosis of the link: diagnosis=none, or the run ended before its first validation."
            )
        if not self.indices:
            out.append("There is no index history: the run ended before its first validation.")
        if not self.frontier:
            out.append(f"The run has not been evaluated: `spo evaluate {self.run.path}` adds reward and KL.")
        elif self.target is None:
            out.append("There is no reward at a target KL: the evaluation was not asked for one.")
        elif note := self.target.get("note"):
            out.append(f"Reward at the target KL: {note}.")
        return out


def find_results(folders: Sequence[Path]) -> list[Result]:
    """The runs in these folders: each is a run folder or holds some, at any depth.

    A `spo evaluate` run is shown with the training run that it evaluated. DataError names a folder without runs.
    """
    runs: dict[Path, RunFolder] = {}
    for folder in folders:
        found = _run_folders(folder)
        if not found:
            raise DataError(
                f"{folder} is no run folder and holds none (none has a config.resolved.yaml): "
                "give the folder that `spo train` printed, or one above it"
            )
        runs |= {path.resolve(): RunFolder(path) for path in found}
    trained = {path: run for path, run in runs.items() if command_of(run) == "train"}
    evaluated: dict[Path, list[RunFolder]] = {}
    for run in runs.values():
        source = run.config.get("train_run")
        if command_of(run) == "evaluate" and source:
            path = Path(source).resolve()
            if (path / "config.resolved.yaml").is_file():
                trained.setdefault(path, RunFolder(source))
            evaluated.setdefault(path, []).append(run)  # folders are dated: the last one is the newest
    if not trained:
        commands = ", ".join(sorted({command_of(run) for run in runs.values()}))
        raise DataError(
            f"{', '.join(map(str, folders))} holds no training run, only {commands}: give a run of `spo train`"
        )
    results = []
    for path, run in sorted(trained.items()):
        evaluations = evaluated.get(path, [])
        results.append(Result(run, _newest([run, *evaluations], "frontier.json") or run, run.name, evaluations))
    study = any(result.studied for result in results)  # its runs are many, and named by their table
    alone = [result for result in results if not (study and result.is_study)]
    for result, label in zip(alone, _labels(alone), strict=True):
        result.label = label
    return results


def _newest(folders: Sequence[RunFolder], name: str) -> RunFolder | None:
    """The last of these that holds the file."""
    return next((folder for folder in reversed(folders) if (folder.path / name).is_file()), None)


def require_samples(results: Sequence[Result], kl: float | None) -> None:
    """ConfigError where a KL was asked for at which nothing can be interpolated."""
    if kl is None:
        return
    if not kl > 0:
        raise ConfigError(f"kl is {kl:g}: give nats > 0, or null for the target of the evaluations")
    if not any(result.evaluation.samples_path.is_file() and not result.is_study for result in results):
        raise ConfigError(
            f"kl is {kl:g}, but no run has samples (samples.parquet) of a language model to interpolate: evaluate one "
            "with `spo evaluate RUN`; results of tabular studies are at their own evaluate.kl_target"
        )


def command_of(run: RunFolder) -> str:
    """The command that made the run; a folder that does not say is taken for a training."""
    return str(run.invocation.get("command") or run.status.get("command") or "train")


def differences(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """(key, value per run) of every setting in which the runs differ."""
    flat = [flatten(result.run.config) for result in results]
    keys = dict.fromkeys(key for settings in flat for key in settings if not key.startswith(NOT_SETTINGS))
    rows = [(key, [str(settings.get(key, "-")) for settings in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists stay whole unless they hold mappings."""
    if isinstance(value, Mapping) and value:
        nested = [flatten(item, f"{prefix}{key}.") for key, item in value.items()]
        return {key: item for part in nested for key, item in part.items()}
    return {prefix[:-1]: value}


def _labels(results: Sequence[Result]) -> list[str]:
    """The method of each; where two have the same, the settings that tell them apart too, else the folder."""
    methods = [str(result.run.choices.get("method") or result.run.name).upper() for result in results]
    labels = []
    for i, method in enumerate(methods):
        same = [results[j] for j in range(len(results)) if methods[j] == method]
        position = same.index(results[i])
        changed = sorted(differences(same), key=lambda row: not row[0].endswith(_CLASS))  # options before their keys
        told = [f"{key.removesuffix(_CLASS)}={_short(key, values[position])}" for key, values in changed]
        short = [text for text in told if len(text) <= 24]
        labels.append(" ".join([method, *short[:2]]))
    return [
        label if labels.count(label) == 1 else f"{label} ({result.run.name})"
        for label, result in zip(labels, results, strict=True)
    ]


def _short(key: str, value: str) -> str:
    """A class or a file without what is before its name; a number as it is."""
    if key.endswith(_CLASS):
        return value.rpartition(".")[2]
    return value.rstrip("/").rpartition("/")[2] or value


def _run_folders(folder: Path) -> list[Path]:
    if (folder / "config.resolved.yaml").is_file():
        return [folder]
    return sorted(path.parent for path in folder.rglob("config.resolved.yaml")) if folder.is_dir() else []


def _last_of_step(records: list[Record], keys: tuple[str, ...]) -> list[Record]:
    """In order of steps; of records with the same keys the one written last."""
    newest = {tuple(record[key] for key in keys): record for record in records}
    return sorted(newest.values(), key=lambda record: record["step"])
