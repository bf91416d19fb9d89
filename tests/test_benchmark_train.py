"""benchmarks/train.py on a tiny model of a shape: the script that a GPU would run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_steps_of_spo_alone(tmp_path: Path, kind: str) -> None:
    """Rows of exactly the lengths of the case, so the rate times the time of a step is 8 pairs of 2 x 256 tokens."""
    words = [
        "long",
        "--alone",
        "--model",
        "qwen3-0.6b",
        "--tiny",
        "--steps",
        "2",
        "--threads",
        "1",
        "--peak-tflops",
        "1",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/train.py"), *words, *(["--full"] if kind == "full" else [])],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])["spo"]
    assert said["tokens_per_s"] * said["step_s"] == pytest.approx(8 * 2 * 256, rel=1e-3)
    assert 0.1 < said["peak_gb"] < 20
    assert "of 1 TFLOP/s" in done.stdout
