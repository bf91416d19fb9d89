"""Files of rows: JSON Lines and Parquet."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from spo.data.sources.base import Place, Row, Source
from spo.errors import DataError
from spo.hashing import file_digest


class JsonLines(Source):
    """One JSON object a line, plain or gzipped; blank lines are passed over.

    A place is a byte offset: going on from it costs one seek, in a gzipped file one decompression up to there.
    """

    written: ClassVar[tuple[str, ...]] = (".jsonl", ".jsonl.gz", ".ndjson")

    @classmethod
    def opens(cls, path: str) -> bool:
        return path.endswith(cls.written) and Path(path).is_file()

    def digest(self) -> str:
        return file_digest(Path(self.path))

    def rows(self, start: Place, *, streamed: bool) -> Iterator[tuple[Row, str, Place]]:
        line, byte = start.get("line", 0), start.get("byte", 0)
        open_file = gzip.open if self.path.endswith(".gz") else open
        try:
            with open_file(self.path, "rb") as file:
                file.seek(byte)
                for raw in file:
                    text = raw.decode("utf-8" if line else "utf-8-sig")
                    line, byte = line + 1, byte + len(raw)
                    if text.strip():
                        origin = f"{self.path}:{line}"
                        yield _json_object(text, origin), origin, {"line": line, "byte": byte}
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}: after line {line} the text is not UTF-8 ({error.reason}): save it as UTF-8"
            ) from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(
                f"{self.path}: the gzip stream breaks after line {line} ({error}): fetch the file again"
            ) from error


def _json_object(line: str, origin: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{origin}: not valid JSON ({error.msg}, column {error.colno} of {len(line.rstrip())}). "
            "Is the line cut off? Mend or remove it; each line must hold one whole JSON object"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{origin}: holds a JSON {type(value).__name__}, not an object: write one {{...}} a line")
    return value


class Parquet(Source):
    """One row of the table a row; read in chunks of `chunk` rows. Going on from a place costs reading its row group."""

    written: ClassVar[tuple[str, ...]] = (".parquet",)
    chunk = 1024

    @classmethod
    def opens(cls, path: str) -> bool:
        return path.endswith(cls.written) and Path(path).is_file()

    def digest(self) -> str:
        return file_digest(Path(self.path))

    def rows(self, start: Place, *, streamed: bool) -> Iterator[tuple[Row, str, Place]]:
        number = start.get("row", 0)
        try:
            with pq.ParquetFile(self.path) as file:
                groups, skip = _groups_from(file, number)
                for block in file.iter_batches(batch_size=self.chunk, row_groups=groups) if groups else ():
                    for row in block.slice(skip).to_pylist():
                        number += 1
                        yield row, f"{self.path}:{number}", {"row": number}
                    skip = max(0, skip - len(block))
        except pa.ArrowException as error:
            raise DataError(f"{self.path}: not a readable Parquet file ({error}): write or fetch it again") from error


def _groups_from(file: pq.ParquetFile, row: int) -> tuple[list[int], int]:
    """(the row groups that hold row number `row` and all after it, rows of the first of them before it)."""
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if row < size:
            return list(range(group, file.num_row_groups)), row
        row -= size
    return [], 0
