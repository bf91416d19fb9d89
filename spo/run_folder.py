"""One run, one folder: everything a command writes lies here, and `spo execute` reads nothing else.

    config.resolved.yaml   the whole configuration, interpolations resolved, plain YAML
    invocation.json        command, overrides, choices (group -> option), command line, version, git commit;
                           changed: the words of `spo execute RUN key=value`
    status.json            command, state (running|ok|failed|interrupted), exit_code, message, started, finished, ...
    error.txt              the traceback, if the run crashed
    metrics.csv            `step,name,value`, one row per number, appended and flushed
    link_history.jsonl     one JSON object per refit or validation; link.json is the last one
    index_history.jsonl    one JSON object per validation
    diagnosis_history.jsonl  one JSON object per validation: what the held-out rows say of the link
    best.json              the numbers of the kept weights: {"step", "val/auc", ..., "target/reward", "target/kl", ...}
    data_report.json, validation.parquet, results.parquet, figures/, checkpoints/
    frontier.json, target.json, samples.parquet, sequence_tilt.json, best_of_n.json, ranking.json: of an evaluation

Imports no torch and no pandas: a report over a hundred runs opens a hundred of these.
"""

import csv
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from spo.errors import ConfigError

Record = dict[str, Any]

_DIAGNOSES = "diagnosis_history.jsonl"


class Metric(NamedTuple):
    """One number: its optimizer step, its name ("val/auc") and its value."""

    step: int
    name: str
    value: float


class RunFolder:
    """The files of one run. Making the object touches nothing; writing makes what is missing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    # ---- what was asked for -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config_path(self) -> Path:
        return self.path / "config.resolved.yaml"

    @cached_property
    def config(self) -> Record:
        """The resolved configuration as plain dicts, lists and scalars. ConfigError if it is not a run folder."""
        if not self.config_path.is_file():
            raise ConfigError(f"{self.path} is not a run folder: it has no {self.config_path.name}")
        try:
            found = yaml.safe_load(self.config_path.read_text())
        except yaml.YAMLError:
            found = None
        return _mapping(found, self.config_path)

    @cached_property
    def invocation(self) -> Record:
        """Keys command, overrides, choices, command_line, version, git_commit. Empty if it was not kept."""
        return dict(self.read_json("invocation.json", {}))

    @property
    def choices(self) -> dict[str, str]:
        """Hydra's choices: group -> option, for example {"link": "isotonic"}."""
        return dict(self.invocation.get("choices", {}))

    @property
    def overrides(self) -> list[str]:
        """The words of the command line that changed the configuration, such as "link.eps=0.01"."""
        return list(self.invocation.get("overrides", []))

    def create(self, config: Mapping[str, Any], invocation: Mapping[str, Any]) -> None:
        """Begin a run. ConfigError if the folder already holds one."""
        if self.config_path.exists():
            raise ConfigError(
                f"{self.path} already holds a run: give another folder with hydra.run.dir=FOLDER, "
                f"or continue that run with `spo execute {self.path}`"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_json("invocation.json", dict(invocation))
        _replace(self.config_path, _yaml(config))

    def go_on_with(self, config: Mapping[str, Any], words: Sequence[str], *, write: bool) -> None:
        """Another config from now on; the words that made it so are added to the invocation. write: False where another
        process of the run writes it."""
        if write:
            known = self.invocation
            self.write_json("invocation.json", {**known, "changed": [*known.get("changed", []), *words]})
            _replace(self.config_path, _yaml(config))
        self.__dict__.pop("invocation", None)
        self.config = dict(config)

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether a run of this very config was begun here. ConfigError, with the keys that differ, if of another."""
        if not self.config_path.exists():
            return False
        then, now = (dict(_leaves(c)) for c in (self.config, yaml.safe_load(_yaml(config))))
        absent = object()
        other = [key for key in {**then, **now} if repr(then.get(key, absent)) != repr(now.get(key, absent))]
        if not other:
            return True
        shown = "; ".join(f"{key}: {then.get(key, '-')} there, {now.get(key, '-')} asked for" for key in other[:_SHOWN])
        more = f"; and {len(other) - _SHOWN} keys more" if len(other) > _SHOWN else ""
        raise ConfigError(
            f"{self.path} holds a run of another config ({shown}{more}), which is left alone: give another folder with "
            "hydra.sweep.dir=FOLDER, or remove this one"
        )

    # ---- how it went --------------------------------------------------------------------------------

    @property
    def status(self) -> Record:
        """The content of status.json; empty before `spo execute` began."""
        return dict(self.read_json("status.json", {}))

    def update_status(self, **changes: Any) -> None:
        """Change some keys of status.json and keep the others."""
        self.write_json("status.json", self.status | changes)

    # ---- numbers ------------------------------------------------------------------------------------

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.csv"

    def append_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add one row per value and flush. step: optimizer steps done."""
        new = not self.metrics_path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics_path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(Metric._fields)
            writer.writerows((step, name, repr(float(value))) for name, value in values.items())

    def metrics(self) -> Iterator[Metric]:
        """The rows in the order in which they were written; a last row torn by a kill is left out."""
        if not self.metrics_path.exists():
            return
        for line in _whole_lines(self.metrics_path)[1:]:
            step, name, value = next(csv.reader([line]))
            yield Metric(int(step), name, float(value))

    def series(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric."""
        return [(m.step, m.value) for m in self.metrics() if m.name == name]

    def last(self, name: str) -> float:
        """The newest value of one metric; nan if there is none."""
        return next((value for _, value in reversed(self.series(name))), math.nan)

    def cut_metrics(self, step: int) -> None:
        """Drop the rows after `step`, before a run goes on from a checkpoint of that step."""
        if not self.metrics_path.exists():
            return
        head, *rows = _whole_lines(self.metrics_path) or [",".join(Metric._fields)]
        kept = [row for row in rows if int(row.split(",", 1)[0]) <= step]
        _replace(self.metrics_path, "".join(f"{line}\n" for line in [head, *kept]))

    # ---- the link and the index over time -----------------------------------------------------------

    def append_link(self, record: Record) -> None:
        """Add a fitted link: {"step", "kind": refit|validation, "link", "t", "p", "true_p", "logistic_p", ...}."""
        self._append("link_history.jsonl", record)
        self.write_json("link.json", record)

    def link_history(self) -> list[Record]:
        return self._records("link_history.jsonl")

    @property
    def first_refit(self) -> int | None:
        """The optimizer step after which a link was fitted first; None where none was."""
        return min((record["step"] for record in self.link_history() if record["kind"] == "refit"), default=None)

    @property
    def link(self) -> Record:
        """The last fitted link; empty if none was written."""
        return dict(self.read_json("link.json", {}))

    def append_index(self, record: Record) -> None:
        """Add an index histogram: {"step", "edges", "counts"}."""
        self._append("index_history.jsonl", record)

    def index_history(self) -> list[Record]:
        return self._records("index_history.jsonl")

    def append_diagnosis(self, record: Record) -> None:
        """Add what held-out rows say of the link: the record of spo.callbacks.diagnosis."""
        self._append(_DIAGNOSES, record)

    def put_diagnosis(self, record: Record) -> None:
        """The same in the order of steps, and instead of what was said of its step: a history has each step once."""
        kept = [other for other in self.diagnosis_history() if other["step"] != record["step"]]
        ordered = sorted([*kept, record], key=lambda other: other["step"])
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.path / _DIAGNOSES, "".join(_line(other) for other in ordered))

    def diagnosis_history(self) -> list[Record]:
        return self._records(_DIAGNOSES)

    def cut(self, step: int) -> None:
        """Drop what was written after `step`: metrics and histories."""
        self.cut_metrics(step)
        for name in ("link_history.jsonl", "index_history.jsonl", _DIAGNOSES):
            kept = [record for record in self._records(name) if record["step"] <= step]
            if (self.path / name).exists():
                _replace(self.path / name, "".join(json.dumps(record) + "\n" for record in kept))
        if history := self.link_history():
            self.write_json("link.json", history[-1])
        else:
            (self.path / "link.json").unlink(missing_ok=True)

    # ---- other files --------------------------------------------------------------------------------

    @property
    def figures(self) -> Path:
        return self._folder("figures")

    @property
    def checkpoints(self) -> Path:
        return self._folder("checkpoints")

    @property
    def last_checkpoint(self) -> Path | None:
        """checkpoints/last.ckpt, if it is there: a file, or the folder of a sharded model. last.ckpt.old where a kill
        fell between the two renames that replace such a folder."""
        places = (self.path / "checkpoints" / name for name in ("last.ckpt", "last.ckpt.old"))
        return next((place for place in places if place.exists()), None)

    @property
    def validation_path(self) -> Path:
        """row_id, t, z, weight of the last validation."""
        return self.path / "validation.parquet"

    @property
    def samples_path(self) -> Path:
        """Prompts and generated responses."""
        return self.path / "samples.parquet"

    @property
    def results_path(self) -> Path:
        """Of a tabular study: runs by betas (spo/study.py)."""
        return self.path / "results.parquet"

    @property
    def frontier(self) -> list[Record]:
        """One object per beta: frontier.json."""
        return list(self.read_json("frontier.json", []))

    @property
    def data_report(self) -> Record:
        return dict(self.read_json("data_report.json", {}))

    def write_json(self, name: str, value: Any) -> None:
        """Write a whole file at once: a reader sees the old one or the new one. nan and inf become null."""
        self.path.mkdir(parents=True, exist_ok=True)
        _replace(self.path / name, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")

    def read_json(self, name: str, default: Any = None) -> Any:
        """Of a whole JSON file. ConfigError if it is damaged: ours are written at once, so something else wrote it."""
        path = self.path / name
        try:
            return json.loads(path.read_text()) if path.exists() else default
        except ValueError:
            raise ConfigError(
                f"{path} is damaged: it is no JSON. Remove the folder, and what made it does it anew"
            ) from None

    def _folder(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _append(self, name: str, record: Record) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / name).open("a") as file:
            file.write(_line(record))

    def _records(self, name: str) -> list[Record]:
        path = self.path / name
        return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []


def _whole_lines(path: Path) -> list[str]:
    """The lines that end in a newline: what follows the last one was torn by a kill."""
    return path.read_text().split("\n")[:-1]


def now() -> str:
    """The time as every status and table has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


_SHOWN = 5  # keys that a message names


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120)


def _leaves(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


def _line(record: Record) -> str:
    return json.dumps(_finite(record), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no nan."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _mapping(value: Any, path: Path) -> Record:
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path} is damaged: it holds no mapping of keys to values. Remove the folder, and compose the run again"
        )
    return value
