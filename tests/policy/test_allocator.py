"""What torch gives back on a CPU must reach the system."""

import subprocess
import sys

import pytest

HOLES = """
import sys
import torch
from spo.policy.allocator import return_large_blocks

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if sys.argv[1] == "returned":
    return_large_blocks()
torch.ones(4 << 20)  # glibc sees 16 MB freed and from then on keeps what is smaller
before = resident()
kept = []
blocks = []
for _ in range(40):
    blocks.append(torch.ones(1 << 20))  # 4 MB
    kept.append(torch.ones(1 << 12))  # 16 KB, which lies behind it
full = resident()
del blocks
print((full - resident()) / (full - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_blocks_reach_the_system() -> None:
    """160 MB between small tensors that stay: all of it is given back; glibc by itself keeps it."""
    share = {
        how: float(
            subprocess.run([sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("returned", "kept")
    }
    assert share["returned"] > 0.95
    assert share["kept"] < 0.5
