"""One process at a time in a folder. The system lets go of the lock however its holder ends."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

NAME = ".lock"


class FolderLock:
    """FOLDER/.lock, held from `take` to `release` (or to the end of the process); the file itself stays."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def take(self) -> bool:
        """Whether it was free; never waits. OSError where the folder cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)  # closed in a child: no descendant holds it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def held(self) -> bool:
        """By any process."""
        if not self.path.exists():
            return False
        if self._file is not None:
            return True
        free = self.take()
        self.release()
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
