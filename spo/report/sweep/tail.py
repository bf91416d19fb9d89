"""The last lines that a job wrote."""

import re
from pathlib import Path

LINES, WIDTH = 15, 300  # lines that are shown, letters of each
_READ = 32_768  # bytes, from the end
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def tail(folder: Path) -> str:
    """Of log.txt, or of error.txt where there is none; "" for neither. Colours go, of a progress bar its last state."""
    path = next((p for p in (folder / "log.txt", folder / "error.txt") if p.is_file()), None)
    if path is None:
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _READ, 0))
        text = _ESCAPE.sub("", file.read().decode(errors="replace"))
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join(line[:WIDTH] for line in [line for line in lines if line][-LINES:])
