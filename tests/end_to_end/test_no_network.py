"""No network is touched unless W&B or a hub id is asked for: every process of a multirun, with sockets watched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spo.run_folder import RunFolder

from .conftest import ROOT, finish, process

# What every Python process of the command runs first: it notes, and refuses, each connection (but those to a socket
# that is a file) and each question for the address of a name.
WATCH = """
import os, socket, sys

def refuse(what, *told):
    with open(os.environ["NOTED"], "a") as file:
        file.write(f"{what} {told} by {sys.argv}\\n")
    raise OSError(f"the network is closed: {what} {told}")

class Watched(socket.socket):
    def connect(self, address):
        return super().connect(address) if self.family == socket.AF_UNIX else refuse("connect", address)

    def connect_ex(self, address):
        return super().connect_ex(address) if self.family == socket.AF_UNIX else refuse("connect_ex", address)

    def sendto(self, *given):
        return super().sendto(*given) if self.family == socket.AF_UNIX else refuse("sendto", given[-1])

socket.socket = Watched
socket.getaddrinfo = lambda *given, **_: refuse("getaddrinfo", *given)
with open(os.environ["NOTED"] + ".started", "a") as file:
    file.write("x")
"""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "WANDB_MODE", "HF_HUB_DISABLE_TELEMETRY")


def test_no_process_of_a_multirun_asks_the_network(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language model from a folder, rows from a file, two jobs; and no variable that would forbid it to them."""
    watch = tmp_path / "watch"
    watch.mkdir()
    (watch / "sitecustomize.py").write_text(WATCH)
    noted = tmp_path / "noted"
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOTED", str(noted))
    monkeypatch.setattr(f"{__package__}.conftest.ROOT", os.pathsep.join([str(watch), str(ROOT)]))
    asks = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    watched = os.environ | {"PYTHONPATH": str(watch)}
    assert subprocess.run([sys.executable, "-c", asks], env=watched, capture_output=True).returncode == 1
    assert "127.0.0.1" in noted.read_text(), "the watch sees what there is to be seen"
    noted.unlink()
    words = ["steps=1", "micro_batch=8", "logger=none", "diagnosis=none", "seed=0,1", "hydra.sweep.dir=all"]
    code, out = finish(process("train", "-m", *tiny, *words))
    assert code == 0, out[-3000:]
    jobs = [RunFolder(path.parent) for path in Path("all").glob("*/config.resolved.yaml")]
    assert [job.status["state"] for job in jobs] == ["ok", "ok"]
    assert len(Path(f"{noted}.started").read_text()) >= 3, "the command and each job were watched"
    assert not noted.exists(), noted.read_text()
