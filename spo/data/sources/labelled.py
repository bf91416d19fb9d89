"""What `spo label` wrote: shards of rows, and a manifest that says who wrote them.

RUN/rows/00000.parquet, 00001.parquet, ...   each whole or not at all, never rewritten; rows are in their order
RUN/manifest.json                            written last: where it is, every row is
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from spo.data.sources.base import Place, Row, Source, folder_digest
from spo.data.sources.files import Parquet
from spo.errors import DataError
from spo.hashing import digest

ROWS, MANIFEST, VERSION = "rows", "manifest.json", 1


def shards_in(folder: Path) -> list[Path]:
    """In their order; other files are none of ours."""
    return sorted((path for path in folder.glob("*.parquet") if path.stem.isdigit()), key=lambda path: int(path.stem))


def rows_of(folder: Path) -> int:
    """Rows of all shards that can be read."""
    count = 0
    for path in shards_in(folder):
        with contextlib.suppress(pa.ArrowException, OSError):
            count += pq.read_metadata(path).num_rows
    return count


class Labelled(Source):
    """The run folder of `spo label`. A place is a shard and a row of it: going on costs opening that shard."""

    written: ClassVar[tuple[str, ...]] = ("a run folder of `spo label`",)

    @classmethod
    def opens(cls, path: str) -> bool:
        return (Path(path) / ROWS).is_dir()

    @property
    def manifest(self) -> dict[str, Any]:
        """DataError where labelling was interrupted, or where the file is not one of ours."""
        place = Path(self.path) / MANIFEST
        try:
            found = json.loads(place.read_text())
        except FileNotFoundError:
            done = len(shards_in(Path(self.path) / ROWS))
            raise DataError(
                f"{self.path}: `spo label` has not finished here ({done} shards are there, no {MANIFEST}): go on with "
                f"`spo execute {self.path}`"
            ) from None
        except ValueError as error:
            raise DataError(f"{place} is damaged: it is no JSON ({error}). Copy or label the set again") from error
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise DataError(
                f"{place} is not one that this version of spo reads (version {VERSION}): label the set again"
            )
        return found

    def digest(self) -> str:
        return digest([self.manifest, folder_digest(Path(self.path) / ROWS)])

    def rows(self, start: Place, *, streamed: bool) -> Iterator[tuple[Row, str, Place]]:
        shards = self._shards()
        first = start.get("shard", 0)
        for k, shard in enumerate(shards[first:], first):
            inside = {"row": start["row"]} if start and k == first else {}
            for row, origin, place in Parquet(str(shard)).rows(inside, streamed=streamed):
                yield row, origin, {"shard": k, **place}

    def _shards(self) -> list[Path]:
        """All of them: DataError where the manifest counts more rows, or fewer."""
        wanted = self.manifest["n_rows"]
        shards = shards_in(Path(self.path) / ROWS)
        try:
            there = sum(pq.read_metadata(shard).num_rows for shard in shards)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: a shard is not readable ({error}): copy or label the set again") from error
        if there != wanted:
            raise DataError(
                f"{self.path}: its {len(shards)} shards hold {there} rows, {MANIFEST} counts {wanted}: a shard is "
                "missing, or is of another set. Copy or label the set again"
            )
        return shards
