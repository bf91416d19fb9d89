"""benchmarks/chaos.py with 24 jobs: trainings are killed at random, the sweep twice, and every result is there once."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
TIME_LIMIT = 600  # seconds


def test_24_jobs_under_fire(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--jobs", "24", "--folder", str(tmp_path / "chaos")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert done.returncode == 0, done.stdout + (tmp_path / "chaos.log").read_text()[-3000:]
    assert "24 of 24 jobs done" in done.stdout
    assert done.stdout.count("the sweep is killed, then resumed") == 2
    assert "every job once, every result once, every step once" in done.stdout
