"""A folder that `datasets` saved with save_to_disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from spo.data.sources.base import Place, Row, Source, folder_digest
from spo.errors import DataError
from spo.hashing import digest

_ONE, _SEVERAL = "state.json", "dataset_dict.json"  # what save_to_disk writes beside a Dataset, a DatasetDict


class Saved(Source):
    """FOLDER, or FOLDER@SPLIT where a DatasetDict was saved. Rows stay on disk (memory-mapped); a place is free."""

    written: ClassVar[tuple[str, ...]] = ("a save_to_disk FOLDER[@SPLIT]",)

    @classmethod
    def opens(cls, path: str) -> bool:
        folder, _ = _folder_and_split(path)
        return any((folder / name).is_file() for name in (_ONE, _SEVERAL))

    def digest(self) -> str:
        folder, split = _folder_and_split(self.path)
        return digest([split, folder_digest(folder)])

    def rows(self, start: Place, *, streamed: bool) -> Iterator[tuple[Row, str, Place]]:
        from datasets import Dataset, load_from_disk

        folder, split = _folder_and_split(self.path)
        several = (folder / _SEVERAL).is_file()
        if split is not None and not several:
            raise DataError(f"{folder} holds one dataset without splits: give it without @{split}")
        try:
            found = load_from_disk(str(folder))
        except Exception as error:  # whatever Arrow or JSON say about a file that is cut off or gone
            raise DataError(f"{folder}: not a readable saved dataset ({error}): save or copy it again") from error
        dataset = found if isinstance(found, Dataset) else found[choose_split(str(folder), split, list(found))]
        yield from rows_from(dataset, self.path, start)


def rows_from(dataset: Any, path: str, start: Place) -> Iterator[tuple[Row, str, Place]]:
    """The rows of a `datasets.Dataset` after a place, in plain Python values."""
    number = start.get("row", 0)
    if number >= len(dataset):  # select does not take an empty range at the end
        return
    for row in dataset.with_format(None).select(range(number, len(dataset))):
        number += 1
        yield row, f"{path}:{number}", {"row": number}


def _folder_and_split(path: str) -> tuple[Path, str | None]:
    if Path(path).exists():
        return Path(path), None
    folder, at, split = path.rpartition("@")
    return (Path(folder), split) if at and folder else (Path(path), None)


def choose_split(name: str, split: str | None, there: list[str]) -> str:
    """The split asked for, or the only one. DataError names those there."""
    if split is None and len(there) == 1:
        return there[0]
    if split is None:
        raise DataError(f"{name} has the splits {', '.join(there)}: give one of them, as in {name}@{there[0]}")
    if split not in there:
        raise DataError(f"{name} has no split {split!r}: it has {', '.join(there)}")
    return split
