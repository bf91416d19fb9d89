"""One process at a time: what several jobs would make at once is made by the first, and found by the others."""

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spo.errors import SpoError


@contextmanager
def exclusive(path: Path, waiting: str = "") -> Iterator[None]:
    """An exclusive file lock; the system frees it when its holder dies. waiting: said where another one holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise SpoError(
                f"{path.parent} is on a file system without locks ({error.strerror}): give another"
            ) from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a data worker that was forked meanwhile holds the file open too
