"""Tokenised rows on disk, memory-mapped: read, checked and tokenised once, by the first run that needs them.

    FOLDER/<hash of the paths>/<hash of the key>/*.npy         the arrays of a TokenTable
    FOLDER/<hash of the paths>/<hash of the key>/entry.json    the key, the rest of the Corpus, a hash of each file

An entry appears whole, by one rename; every later run, job of a sweep, rank and resumed run maps the same pages. What
depends on the seed, on the truth or on the split is not in it. Nothing is ever removed: who wants the room back removes
the folder, or one of those in it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers

from spo import hashing, types
from spo.cache import appearing
from spo.data.load import Corpus
from spo.data.table import TokenTable
from spo.errors import ConfigError, SpoError
from spo.hashing import digest, file_digest
from spo.lock import exclusive

Key = Mapping[str, Any]  # what a corpus depends on, by names that a message can say; plain values
_ENTRY = "entry.json"
_SHOWN = 40  # characters of a value in a message
_MEND = "give another folder as data.cache, or null: nothing is kept then"


class TokenCache:
    """get(paths, key, read) -> the corpus of that key: mapped from FOLDER, after `read` and one writing if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, paths: list[str], key: Key, read: Callable[[], Corpus]) -> Corpus:
        """paths: the files that are read; entries of the same ones are compared where one has to be made anew."""
        key = {**key, "version of spo": code_digest(), "tokenizers": tokenizers.__version__}
        key["transformers"] = transformers.__version__
        place = self.folder / digest(paths)[:16] / digest(key)[:16]
        if (found := _mapped(place)) is not None:
            return found
        lock = place.with_suffix(".lock")
        with _writing(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
            lock.touch()
        with exclusive(lock, f"{paths[0]} is being tokenised by another process: waiting for it"):
            return _mapped(place) or _made(place, key, read)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = error.strerror or f"{error}: is the disk full?"
        raise ConfigError(f"data.cache: {folder} cannot be written ({said}): {_MEND}") from error


@cache
def code_digest() -> str:
    """Hash of the code that turns files into ids, so that nobody has to think of a version."""
    sources = [*Path(__file__).parent.rglob("*.py"), *(Path(str(m.__file__)) for m in (hashing, types))]
    return digest(sorted(file_digest(path) for path in sources))


def _made(place: Path, key: Key, read: Callable[[], Corpus]) -> Corpus:
    why = _why_anew(place, key)
    corpus = read()
    with _writing(place.parent), appearing(place) as part:
        _write(part, key, corpus)
    print(f"tokens           {why}kept in {place}", file=sys.stderr, flush=True)
    found = _mapped(place)
    if found is None:
        raise SpoError(f"{place} is not what was just written there: {_MEND}")
    return found


def _why_anew(place: Path, key: Key) -> str:
    """In what the newest entry of the same files differs from this key; empty where there is none."""
    if place.is_dir():
        return "made anew, for the stored ones are damaged; "
    entries = [path for path in place.parent.glob(f"*/{_ENTRY}") if not path.parent.name.startswith(".")]
    try:
        then = json.loads(max(entries, key=lambda path: path.stat().st_mtime).read_text())["key"]
    except (OSError, ValueError, KeyError):  # none, or none that can be read
        return ""
    now = json.loads(json.dumps(key))
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    said = ", ".join(_change(name, then.get(name), now.get(name)) for name in changed)
    return f"made anew, for those stored are of other options or rows ({said}); "


def _change(name: str, then: Any, now: Any) -> str:
    values = f"{name} was {json.dumps(then)}, is {json.dumps(now)}"
    return values if len(values) <= _SHOWN + len(name) else f"another {name}"


def _write(folder: Path, key: Key, corpus: Corpus) -> None:
    hashes = {}
    for field in fields(TokenTable):
        path = folder / f"{field.name}.npy"
        np.save(path, getattr(corpus.table, field.name), allow_pickle=False)
        hashes[path.name] = file_digest(path)
    rest = {field.name: getattr(corpus, field.name) for field in fields(Corpus) if field.name != "table"}
    (folder / _ENTRY).write_text(json.dumps({"key": key, "files": hashes, "corpus": rest}, indent=1))


def _mapped(place: Path) -> Corpus | None:
    """The corpus of an entry; None where there is none, or where it is damaged."""
    try:
        entry = json.loads((place / _ENTRY).read_text())
        if any(file_digest(place / name) != there for name, there in entry["files"].items()):
            return None
        names = [field.name for field in fields(TokenTable)]
        arrays = {name: np.asarray(np.load(place / f"{name}.npy", mmap_mode="r")) for name in names}
        return Corpus(table=TokenTable(**arrays), **entry["corpus"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
