"""The tidy table of a study."""

import math
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spo import study
from spo.errors import DataError

CHOICES = {"method": "pspo", "link": "isotonic", "budget": "paper", "objective": "profile", "divergence": "kl"}


def samples(seeds: list[int], reward: float = 0.5) -> pd.DataFrame:
    one = {"s": 1.5, "n": 1000, "kl": 0.2, "reached": True, "reward": reward, "reward_minus_reference": reward}
    one |= {"reward_of_teacher": 0.7, "reward_minus_teacher": reward - 0.7, "divergence": 0.2, "direction_error": 0.1}
    one |= {"link_error": 0.01, "calibration_error": 0.02, "kept_step": 7}
    return pd.DataFrame(
        [{**one, "seed": seed, "beta": b, "kl_target": t} for seed in seeds for b, t in ((2.0, math.nan), (2.5, 0.2))]
    )


def test_a_run_in_two_files_counts_once(tmp_path: Path) -> None:
    """As the later file has it; another budget is another run; s = nan is a value too."""
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    study.save(files[0], samples([0, 1]).assign(s=math.nan), CHOICES, [])
    study.save(files[1], samples([1, 2], 0.9).assign(s=math.nan), CHOICES, [])
    study.save(files[2], samples([1]), {**CHOICES, "budget": "selected"}, [])
    table = study.read(files)
    assert list(table.columns) == study.COLUMNS
    at_target = table[table["kl_target"] == 0.2]
    found = at_target[["seed", "budget", "reward"]].to_numpy().tolist()
    assert sorted(found) == [[0, "paper", 0.5], [1, "paper", 0.9], [1, "selected", 0.5], [2, "paper", 0.9]]
    assert set(table["seed_scheme"]) == {"none"}
    assert study.read([]).empty


@pytest.mark.parametrize(
    ("overrides", "settings"),
    [
        ("data.source.seeds=0-7 link=kernel refit.every=7 link.constant=2.0", "link.constant=2.0 refit.every=7"),
        ("sweeps=misspecification method=dpo data.source.rows=250 truth.shifts=[0.0] budget=paper", ""),
        ("experiment=synthetic seed_scheme@data.source.seed_scheme=author hydra.sweep.dir=a hydra/launcher=b", ""),
        ("experiment=tabular seed=1 logger=csv hardware.threads=2 run_folder=dated", "experiment=tabular seed=1"),
        ("epochs=3 ++epochs=4 +optim.learning_rate=0.1", "epochs=4 optim.learning_rate=0.1"),
        ("link@link.inner=spline ~method", "link@link.inner=spline ~method"),
        ("", ""),
    ],
)
def test_settings_are_what_no_column_tells(overrides: str, settings: str) -> None:
    assert study.settings_of(overrides.split()) == settings
    assert study.settings_of(reversed(settings.split())) == settings


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"seed": [1]}), path)
    with pytest.raises(DataError, match="another schema"):
        study.read([path])
    path.write_text("seed,reward")
    with pytest.raises(DataError, match="cannot be read"):
        study.read([path])
