"""What every source of rows can do, and which one a path means."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from spo.errors import DataError
from spo.hashing import digest, file_digest

Row = dict[str, Any]
Place = dict[str, Any]  # how far a source was read; plain containers, for a checkpoint. {} is the beginning


class Source(ABC):
    """Rows of one path, in an order that never changes."""

    written: ClassVar[tuple[str, ...]]  # how such a path is written, for messages

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What is known of how the rows were made; None where nothing is."""
        return None

    @classmethod
    @abstractmethod
    def opens(cls, path: str) -> bool:
        """Is this path, of something that is there, one of mine?"""

    @abstractmethod
    def digest(self) -> str:
        """Hash of what the rows are read from: as long as it is the same, so are they."""

    @abstractmethod
    def rows(self, start: Place, *, streamed: bool) -> Iterator[tuple[Row, str, Place]]:
        """Each row after `start` with its origin ("path:row", counting from 1) and the place after it.

        streamed: False where every row is wanted, so that all may be fetched first; True where not even the disk need
        hold them.
        """


def folder_digest(folder: Path) -> str:
    """Hash of the names and contents of a folder's files, but for hidden ones and what `datasets` computed."""
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    mine = [path for path in inside if not any(part.startswith((".", "cache-")) for part in path.parts)]
    return digest([[path.as_posix(), file_digest(folder / path)] for path in mine])


def open_source(path: str | Path) -> Source:
    """The source of a path. DataError for a path that is missing or that nothing here can read."""
    path = str(path)
    for form in Source.__subclasses__():
        if form.opens(path):
            return form(path)
    raise _unreadable(Path(path))


def read_rows(path: str | Path) -> Iterator[tuple[Row, str]]:
    """(row, "path:row") for every row of a path, whatever it is.

    Raises DataError for what is missing, empty, of an unknown form or broken, before the first row where that can be
    known.
    """
    rows = open_source(path).rows({}, streamed=False)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} holds no rows: give a file with one preference pair a row")
    yield first[:2]
    yield from (row[:2] for row in rows)


def _unreadable(path: Path) -> DataError:
    known = ", ".join(word for form in Source.__subclasses__() for word in form.written)
    here = path if path.is_dir() else path.parent
    there = sorted(p.name for p in here.glob("*") if any(form.opens(str(p)) for form in Source.__subclasses__()))
    hint = f"that folder holds {', '.join(there[:8])}" if there else "no rows that can be read are in that folder"
    if path.is_dir():
        return DataError(
            f"{path} is a folder, and neither a run of `spo label` nor a dataset saved by save_to_disk: {hint}. Give "
            f"one of them, or hub:{path} where it is a copy of a hub dataset (known forms: {known})"
        )
    if not path.exists():
        return DataError(f"{path} does not exist: {hint}. Known forms: {known}")
    return DataError(f"{path}: unknown form of file; known are {known}. Convert it, or rename it if it is one of these")
