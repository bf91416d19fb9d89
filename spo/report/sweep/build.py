"""From a sweep's folder to its page."""

from pathlib import Path

from spo.report.sweep.page import document
from spo.report.sweep.payload import Sweep
from spo.sweep.store import SweepFolder


def build_sweep_page(folder: SweepFolder, output: Path, title: str) -> Path:
    """output/report.html."""
    sweep = Sweep(folder, output)
    path = output / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(title, sweep.data, []), encoding="utf-8")
    return path
