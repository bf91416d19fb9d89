"""One process at a time. The system lets go of a lock however its holder ends."""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from spo.errors import SpoError

NAME = ".lock"
_A_LOOK_S = 0.02  # more than `held` takes


@contextmanager
def exclusive(path: Path, waiting: str = "") -> Iterator[None]:
    """The lock of the file `path`, waited for. waiting: said where another one holds it."""
    with path.open("w") as file:
        if not _lock(file.fileno(), path):
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a data worker that was forked meanwhile holds the file open too


class FolderLock:
    """FOLDER/.lock, held from `take` to `release` (or to the end of the process); the file itself stays."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def take(self) -> bool:
        """Whether it was free; waits no longer than for one who looks. OSError where the folder cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)  # closed in a child: no descendant holds it
        if not _lock(file, self.path):
            time.sleep(_A_LOOK_S)
            if not _lock(file, self.path):  # nor was it held by one who only looked whether it is
                os.close(file)
                return False
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = None

    @property
    def held(self) -> bool:
        """By any process."""
        if self._file is not None or not self.path.exists():
            return self._file is not None
        with self.path.open("r") as file:
            free = _lock(file.fileno(), self.path, fcntl.LOCK_SH)  # NFS gives no other for a file that is only read
        return not free

    @property
    def holder(self) -> str:
        """The number of the process that took it last."""
        return self.path.read_text() if self.path.exists() else ""

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(file: int, path: Path, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether it was free. SpoError where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise SpoError(f"{path.parent} is on a file system without locks ({error.strerror}): give another") from error
