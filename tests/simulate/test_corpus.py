"""Shards of labelled rows: whole or not at all, and a summary in two passes that is the one over all rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spo.errors import DataError
from spo.simulate.corpus import RowShards, reward_summary


def row(i: int, rewards: tuple[float, float] = (0.0, 1.0), prompt: Any = "p") -> dict[str, Any]:
    both = {f"{name}_{j}": value for name, value in (("response", "r"), ("ended", True)) for j in (0, 1)}
    return {"id": str(i), "prompt": prompt, **both, "reward_0": rewards[0], "reward_1": rewards[1]}


def test_the_summary_of_shards_is_that_of_all_rows(tmp_path: Path) -> None:
    """A mean of 10^6 with an sd of 1, so that sums of squares would lose it; shards of unlike size; ties."""
    draw = np.random.default_rng(0)
    rewards = (1e6 + draw.normal(size=(57, 2))).round(1)
    rewards[::5, 1] = rewards[::5, 0]
    shards = RowShards(tmp_path, messages=False)
    for k, (start, stop) in enumerate([(0, 10), (10, 11), (11, 57)]):
        shards.write(k, [row(i, tuple(rewards[i])) for i in range(start, stop)], 0)
    found = reward_summary(RowShards(tmp_path, messages=False))
    difference = rewards[:, 1] - rewards[:, 0]
    counts, edges = np.histogram(rewards, bins=20)
    assert found == {
        "n_rows": 57,
        "mean": pytest.approx(rewards.mean(), rel=1e-14),
        "sd": pytest.approx(rewards.std(), rel=1e-9),
        "difference_sd": pytest.approx(np.sqrt((difference**2).mean())),
        "equal_share": float((difference == 0).mean()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }
    one = RowShards(tmp_path / "one", messages=False)
    one.write(0, [row(0, (2.0, 2.0))], 0)
    found = reward_summary(one)
    assert (found["sd"], found["equal_share"], sum(found["histogram"]["counts"])) == (0, 1, 2)


def test_a_shard_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Cut off while it is written, it leaves nothing; what is there is known again, a leftover of a kill is not."""
    shards = RowShards(tmp_path, messages=False)
    shards.write(0, [row(0)], 0)
    with pytest.raises(pa.ArrowException, match="got a 'int' object"):
        shards.write(1, [row(1, prompt=3)], 0)
    (tmp_path / ".00002.part").write_bytes(b"PAR1 cut off")
    assert [p.name for p in tmp_path.glob("*.parquet")] == ["00000.parquet"]
    assert RowShards(tmp_path, messages=False).done == {0}
    (tmp_path / "00001.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"00001.parquet is not readable .*remove it, and `spo execute`"):
        reward_summary(RowShards(tmp_path, messages=False))


def test_a_column_has_one_type(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    shards = RowShards(tmp_path, messages=True)
    shards.write(0, [row(0, prompt="a"), row(1, prompt=talk)], 0)
    assert pq.read_table(tmp_path / "00000.parquet")["prompt"].to_pylist() == [[{"role": "user", "content": "a"}], talk]


def test_a_shard_remembers_how_many_responses_are_read_as_other_tokens(tmp_path: Path) -> None:
    """Through a rescoring too; a shard of an older version does not know, and does not count."""
    assert RowShards(tmp_path, messages=False).retokenised_share() is None
    shards = RowShards(tmp_path, messages=False)
    shards.write(0, [row(i) for i in range(4)], 3)
    shards.write(1, [row(4)], 0)
    shards.write(2, [row(5)], None)
    assert shards.retokenised_share() == 3 / 10
    shards.rescore(lambda prompts, responses: [0.0] * len(responses))
    assert RowShards(tmp_path, messages=False).retokenised_share() == 3 / 10
