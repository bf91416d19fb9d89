"""A table of reference log-probabilities on disk: computed once, shared by a whole sweep.

    FOLDER/manifest.json          {"format": 1, "complete": true, "fingerprint": {model, rows, renderer}, "n_rows": ...}
    FOLDER/shard-00000.parquet    row_id int64, logp_0 float32, logp_1 float32 (nats, responses in the FILE's order)

The order in the file does not depend on the seed, so a table made under one seed serves every other.
Shards appear by an atomic rename: a killed job continues after the last whole one.
"""

import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spo.errors import ConfigError, DataError, SpoError

FORMAT = 1


@dataclass(frozen=True)
class ReferenceTable:
    """row_id (N,) int64, sorted and unique; logp (N, 2) float32, in the file's order."""

    row_id: np.ndarray
    logp: np.ndarray

    @classmethod
    def load(cls, folder: Path, fingerprint: dict[str, str]) -> "ReferenceTable":
        """Raises ConfigError where the table was made for another model, tokenizer, template or data set."""
        manifest = _manifest(folder)
        _refuse_mismatch(folder, manifest["fingerprint"], fingerprint)
        if not manifest["complete"]:
            raise ConfigError(f"{folder} is not complete: run the same `spo precompute` again, it continues")
        shards = read_shards(folder)
        order = np.argsort(shards["row_id"].to_numpy(), kind="stable")
        frame = shards.iloc[order]
        return cls(frame["row_id"].to_numpy(np.int64), frame[["logp_0", "logp_1"]].to_numpy(np.float32))

    def lookup(self, row_id: np.ndarray) -> np.ndarray:
        """(...,) int64 -> (..., 2) float32. Raises DataError for a row that the table does not have."""
        at = np.searchsorted(self.row_id, row_id).clip(max=len(self.row_id) - 1)
        unknown = self.row_id[at] != row_id
        if unknown.any():
            raise DataError(
                f"the reference table has no row {int(row_id[unknown][0])} ({int(unknown.sum())} rows of this batch "
                "are missing): run `spo precompute` on this data"
            )
        return np.asarray(self.logp[at])


class TableWriter:
    """Appends shards to a folder; knows which rows are already there."""

    def __init__(self, folder: Path, fingerprint: dict[str, str]) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "manifest.json").is_file():
            _refuse_mismatch(folder, _manifest(folder)["fingerprint"], fingerprint)
        self.done: set[int] = set(read_shards(folder)["row_id"].tolist())
        self._write_manifest(complete=False)

    def append(self, row_id: np.ndarray, logp: np.ndarray) -> None:
        """One shard: row_id (N,), logp (N, 2) in the file's order."""
        frame = pd.DataFrame(
            {
                "row_id": row_id.astype(np.int64),
                "logp_0": logp[:, 0].astype(np.float32),
                "logp_1": logp[:, 1].astype(np.float32),
            }
        )
        name = f"shard-{len(list(self.folder.glob('shard-*.parquet'))):05d}.parquet"
        part = self.folder / f".{name}.part"
        try:
            frame.to_parquet(part, index=False)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _disk_error(error, self.folder) from error
        part.rename(self.folder / name)
        self.done.update(row_id.tolist())

    def finish(self) -> None:
        self._write_manifest(complete=True)

    def _write_manifest(self, *, complete: bool) -> None:
        content = {
            "format": FORMAT,
            "complete": complete,
            "fingerprint": self.fingerprint,
            "n_rows": len(self.done),
            "unit": "nats per response",
        }
        part = self.folder / ".manifest.json.part"
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.rename(self.folder / "manifest.json")


def is_complete(folder: Path) -> bool:
    """Whether a table was written to its end here; False where there is none, or only the beginning of one."""
    return (folder / "manifest.json").is_file() and bool(_manifest(folder)["complete"])


def read_shards(folder: Path) -> pd.DataFrame:
    """All shards of a folder as one frame; no shards give an empty one."""
    columns = {"row_id": np.int64, "logp_0": np.float32, "logp_1": np.float32}
    empty = pd.DataFrame({name: np.empty(0, dtype) for name, dtype in columns.items()})
    frames = [pd.read_parquet(path) for path in sorted(folder.glob("shard-*.parquet"))]
    return pd.concat(frames, ignore_index=True).drop_duplicates("row_id") if frames else empty


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no manifest.json: give the folder that `spo precompute` wrote") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON ({error}): run `spo precompute` again into a new folder") from error


def _refuse_mismatch(folder: Path, stored: dict[str, str], wanted: dict[str, str]) -> None:
    meaning = {
        "model": "model (weights, config or dtype)",
        "renderer": "tokenizer, chat template or lengths",
        "rows": "data set",
    }
    wrong = [
        f"another {meaning.get(key, key)}: the table has {stored.get(key)}, this run has {value}"
        for key, value in wanted.items()
        if stored.get(key) != value
    ]
    if wrong:
        raise ConfigError(
            f"the reference table {folder} was made with " + "; ".join(wrong) + ". Run `spo precompute` again"
        )


def _disk_error(error: OSError, folder: Path) -> Exception:
    return SpoError(f"no space left in {folder}") if error.errno == errno.ENOSPC else error
