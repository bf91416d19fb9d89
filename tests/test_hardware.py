"""The hardware group hands plain arguments to Lightning."""

import pytest

from spo.errors import ConfigError
from spo.hardware import DDP, FSDP, Hardware


def make(**changes) -> Hardware:
    return Hardware(
        **{"accelerator": "cpu", "devices": 1, "nodes": 1, "strategy": None, "precision": "32-true", "threads": None}
        | {"launcher": None}
        | changes
    )


def test_one_device():
    common = {"accelerator": "cpu", "devices": 1, "num_nodes": 1}
    assert make().trainer_kwargs() == {**common, "strategy": "auto", "precision": "32-true"}


def test_threads_are_shared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    ddp = DDP(process_group_backend="gloo", find_unused_parameters=False, broadcast_buffers=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert make().threads_per_process == 8
    assert make(devices=2, strategy=ddp).threads_per_process == 4
    assert make(threads=3).threads_per_process == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as a launcher does that shares the cores among jobs
    assert make().threads_per_process == 2
    assert make(threads=3).threads_per_process == 3


def test_ddp_broadcasts_no_buffers():
    """FACTS 10: the default overwrites rank-local buffers with rank 0's at every forward."""
    ddp = DDP(process_group_backend="gloo", find_unused_parameters=False, broadcast_buffers=False)
    strategy = make(devices=2, strategy=ddp).trainer_kwargs()["strategy"]
    assert strategy._ddp_kwargs["broadcast_buffers"] is False
    assert strategy.process_group_backend == "gloo"


@pytest.mark.parametrize(("devices", "nodes"), [(1, 1), (4, 1), (4, 2)])
def test_fsdp_does_data_parallelism_over_every_process(devices: int, nodes: int):
    """USERS 18: Lightning's defaults take the number of nodes for the data-parallel size: 1 on one machine."""
    fsdp = FSDP(process_group_backend="gloo")
    hardware = make(devices=devices, nodes=nodes, strategy=fsdp)
    strategy = hardware.trainer_kwargs()["strategy"]
    assert (strategy._data_parallel_size, strategy._tensor_parallel_size) == (devices * nodes, 1)
    assert hardware.shards
    assert not make().shards


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    """One message, not Lightning's exception. A machine that only submits a job to another is not asked."""
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for there, wanted, mend in ((0, 1, "hardware=cpu"), (0, "auto", "hardware=cpu"), (2, 4, "hardware.devices=2")):
        monkeypatch.setattr("torch.cuda.device_count", lambda n=there: n)
        strategy = FSDP(process_group_backend=None)
        with pytest.raises(ConfigError, match=mend):
            make(accelerator="gpu", devices=wanted, strategy=strategy).check()
        make(accelerator="auto", devices=wanted, strategy=strategy).check()
    make(accelerator="gpu", devices="auto", strategy=strategy).check()
    make(accelerator="gpu", devices=2, strategy=strategy).check()


def test_refusals():
    with pytest.raises(ConfigError, match="nodes is 0"):
        make(nodes=0)
    with pytest.raises(ConfigError, match="nodes is 2 without a strategy"):
        make(nodes=2)
    with pytest.raises(ConfigError, match="devices is 0"):
        make(devices=0)
    with pytest.raises(ConfigError, match="give hardware=ddp"):
        make(devices=2)
    with pytest.raises(ConfigError, match="threads is 0"):
        make(threads=0)
