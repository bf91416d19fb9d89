"""A dataset of the Hugging Face hub, or a local copy of one."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from spo.data.sources.base import Place, Row, Source, folder_digest
from spo.data.sources.saved import choose_split, rows_from
from spo.errors import DataError
from spo.hashing import digest

_FORM = "hub:OWNER/NAME[/SUBSET][@SPLIT][:REVISION]"
_PARTS = re.compile(r"hub:(?P<name>[^@:]+)(?:@(?P<split>[^@:]+))?(?::(?P<revision>[^@:]+))?")


class Hub(Source):
    """hub:OWNER/NAME[/SUBSET][@SPLIT][:REVISION], or hub:FOLDER[@SPLIT]: data files as the hub holds them.

    SUBSET: a configuration that the dataset declares, else one of its folders. SPLIT: not needed where there is one.
    REVISION: commit, tag or branch; a commit keeps a run the same when the dataset changes. In memory the files are
    fetched once into the cache of `datasets`; streamed nothing is kept, and going on from a place opens the file that
    it lies in and passes over the rows before it.
    """

    written: ClassVar[tuple[str, ...]] = (_FORM,)

    @classmethod
    def opens(cls, path: str) -> bool:
        return path.startswith("hub:")

    def digest(self) -> str:
        """Of a hub dataset: the name under which `datasets` has it, which holds the commit and the split."""
        name, subset, split, _ = self._parts()
        if Path(name).is_dir():
            return digest([subset, split, folder_digest(Path(name))])
        return digest([self.path, self._load(streamed=False)._fingerprint])

    def rows(self, start: Place, *, streamed: bool) -> Iterator[tuple[Row, str, Place]]:
        dataset = self._load(streamed=streamed)
        if not streamed:
            yield from rows_from(dataset, self.path, start)
            return
        number = start.get("row", 0)
        if "dataset" in start:
            dataset.load_state_dict(start["dataset"])
        for row in dataset:
            number += 1
            yield row, f"{self.path}:{number}", {"row": number, "dataset": dataset.state_dict()}

    def _load(self, *, streamed: bool) -> Any:
        """A Dataset, or an IterableDataset. Whatever goes wrong on the way is one message."""
        import datasets

        name, subset, split, revision = self._parts()
        try:
            declared = datasets.get_dataset_config_names(name, revision=revision)
            where = {} if subset is None else {"name" if subset in declared else "data_dir": subset}
            folder = {k: v for k, v in where.items() if k == "data_dir"}
            splits = datasets.get_dataset_split_names(name, where.get("name"), revision=revision, **folder)
            chosen = choose_split(f"hub:{name}" + (f"/{subset}" if subset else ""), split, list(splits))
            return datasets.load_dataset(name, split=chosen, revision=revision, streaming=streamed, **where)
        except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: the dataset {name!r} cannot be loaded ({str(error).splitlines()[0]}). Check the name, "
                f"the subset, the network and whether it needs `hf auth login`; without network give a copy of its "
                f"files as hub:FOLDER, or a folder that save_to_disk wrote ({_FORM})"
            ) from error

    def _parts(self) -> tuple[str, str | None, str | None, str | None]:
        """(dataset, subset, split, revision)."""
        found = _PARTS.fullmatch(self.path)
        if found is None:
            raise DataError(f"{self.path!r} cannot be read: write {_FORM}")
        name, split, revision = found["name"], found["split"], found["revision"]
        if Path(name).is_dir():
            if revision is not None:
                raise DataError(f"{self.path}: {name} is a folder here, which has no revisions: leave :{revision} out")
            return name, None, split, None
        words = name.strip("/").split("/")
        if len(words) < 2:
            raise DataError(f"{self.path}: no folder {name!r} is here, and a hub dataset is written {_FORM}")
        return "/".join(words[:2]), "/".join(words[2:]) or None, split, revision
