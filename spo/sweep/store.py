"""Reading a sweep's folder: sweep.json says what was asked for, jobs.parquet how each job went."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from spo.errors import ConfigError
from spo.run_folder import Record, RunFolder

VERSION = 1
RECORD, TABLE = "sweep.json", "jobs.parquet"
_METRIC = "metrics/"


@dataclass(frozen=True)
class Job:
    """One row of jobs.parquet; folder is relative to the sweep's, seconds nan and exit_code None where not known."""

    job: int
    folder: str
    overrides: list[str]
    config_hash: str
    status: str
    exit_code: int | None
    attempts: int
    started: str | None
    finished: str | None
    seconds: float
    run_id: str | None
    message: str
    metrics: dict[str, float]


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def record(self) -> Record:
        """The content of sweep.json. ConfigError where there is none, or one of another version."""
        path = self.path / RECORD
        if not path.is_file():
            raise ConfigError(f"{self.path} is no sweep: it has no {RECORD}")
        record: Record = json.loads(path.read_text())
        if record.get("version") != VERSION:
            raise ConfigError(f"{path} is of version {record.get('version')}, and this spo reads version {VERSION}")
        return record

    @property
    def id(self) -> str:
        return str(self.record["id"])

    def jobs(self) -> list[Job]:
        """In order of their numbers; none before the sweep has written its table."""
        path = self.path / TABLE
        return [_job(row) for row in pq.read_table(path).to_pylist()] if path.is_file() else []

    def run(self, job: Job) -> RunFolder:
        return RunFolder(self.path / job.folder)


def _job(row: dict[str, Any]) -> Job:
    metrics = {
        name.removeprefix(_METRIC): float(value)
        for name, value in row.items()
        if name.startswith(_METRIC) and value is not None and math.isfinite(value)
    }
    fields = {name: value for name, value in row.items() if not name.startswith(_METRIC)}
    fields["seconds"] = math.nan if fields["seconds"] is None else float(fields["seconds"])
    return Job(**fields, metrics=metrics)
