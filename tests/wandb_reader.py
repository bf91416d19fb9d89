"""Reads an offline W&B run back from its .wandb file: LevelDB's log framing around protobuf records (FACTS 4)."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4
PATIENCE_S = 60.0


def records(path: Path) -> Iterator[pb.Record]:
    """Every whole record of the file."""
    data = path.read_bytes()
    ident, magic, _ = struct.unpack("<4sHB", data[:7])
    assert (ident, magic) == (b":W&B", 0xBEE1)
    position, buffer = 7, b""
    while position < len(data):
        room = BLOCK - position % BLOCK
        if room < HEADER:
            position += room
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + HEADER])
        if kind == 0 or position + HEADER + size > len(data):
            return  # the rest is not written yet
        buffer += data[position + HEADER : position + HEADER + size]
        position += HEADER + size
        if kind in (FULL, LAST):
            record = pb.Record()
            record.ParseFromString(buffer)
            buffer = b""
            yield record


@dataclass
class OfflineRun:
    """What an offline run holds."""

    folder: Path
    id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    def values(self, name: str) -> list[tuple[int, Any]]:
        """(optimizer step, value) of one metric."""
        return [(row["trainer/global_step"], row[name]) for row in self.history if name in row]

    @property
    def charts(self) -> dict[str, dict[str, Any]]:
        """Name of a chart -> its panel_config: the preset (panelDefId), its fields and what it asks of a run."""
        shown = self.config.get("_wandb", {}).get("visualize", {})
        return {name: chart["panel_config"] for name, chart in shown.items()}

    def table(self, value: dict[str, Any]) -> dict[str, Any]:
        """The columns and the data of a logged table."""
        return json.loads((self.folder / "files" / value["path"]).read_text())


def read(folder: Path) -> OfflineRun:
    """folder: .../wandb/offline-run-<time>-<id>."""
    (path,) = folder.glob("*.wandb")
    run = OfflineRun(folder)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            r = record.run
            run.id, run.name, run.project = r.run_id, r.display_name, r.project
            run.group, run.job_type, run.tags = r.run_group, r.job_type, list(r.tags)
            _update(run.config, r.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "history":
            run.history.append(_items(record.history.item))
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def find(folder: Path) -> list[OfflineRun]:
    """All finished offline runs at any depth below `folder`, in the order in which they began."""
    return [_finished(path.parent) for path in sorted(folder.rglob("offline-run-*/*.wandb"))]


def _finished(folder: Path) -> OfflineRun:
    """W&B's writer is a process of its own: on a busy machine the end of the file comes after `finish` has returned."""
    until = time.monotonic() + PATIENCE_S
    while (run := read(folder)).exit_code is None and time.monotonic() < until:
        time.sleep(0.1)
    return run


def _items(items: Any) -> dict[str, Any]:
    """Items with a nested key (["index/hist", "bins"]) as nested dicts."""
    out: dict[str, Any] = {}
    _update(out, items)
    return out


def _update(values: dict[str, Any], items: Any) -> None:
    """Set the items in nested dicts, leaving what is beside them."""
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = values
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
