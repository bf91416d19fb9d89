"""What is computed once and kept on disk: where, and how a folder of it comes to be whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """$SPO_CACHE, else $XDG_CACHE_HOME/spo, else ~/.cache/spo."""
    if own := os.environ.get("SPO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spo"


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A new folder that becomes `target` when the block ends well, in the place of what is there. Under a lock."""
    part = target.with_name(f".part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)  # of one that was killed
    part.mkdir()
    try:
        yield part
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)  # atomic: a killed process leaves nothing half-written under that name
    finally:
        shutil.rmtree(part, ignore_errors=True)
