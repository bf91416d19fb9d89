"""Folders of a tabular study as a training and its evaluation would leave them, made from formulas."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spo import study
from spo.run_folder import RunFolder

BETAS = (math.inf, 30.0, 10.0, 3.0, 1.0, 0.5)
KAPPA = 0.2
CHOSEN = {
    "truth": "shifts",
    "method": "pspo",
    "objective": "profile",
    "link": "isotonic",
    "divergence": "kl",
    "teacher_divergence": "kl",
    "budget": "paper",
    "seed_scheme": "spo",
    "kappa_rule": "exact",
    "ensemble": "none",
    "settings": "",
}


def gap(method: str, s: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Reward of the teacher less that of the method, without noise: falls as the root of n; DPO's has a part in s that
    does not fall."""
    known = {"dpo": (0.08, 0.05), "pspo": (0.11, 0.01), "ospo": (0.08, 0.012), "rspo": (0.08, 0.045)}
    variance, bias = known.get(method, (0.07, 0.0))
    return variance * np.sqrt(1000.0 / n) + bias * np.nan_to_num(s)


def rows(
    seeds: Sequence[int], shifts: Sequence[float], n: int = 1000, kappa: float | None = KAPPA, **chosen: str
) -> pd.DataFrame:
    """A table by the documented columns. The teacher's reward at KL k is (1.5 + a seed's part) · sqrt(k)."""
    told = CHOSEN | chosen
    grid = pd.MultiIndex.from_product([seeds, shifts, range(len(BETAS) + 1)], names=["seed", "s", "_b"])
    table = grid.to_frame(index=False)
    at = table.pop("_b").to_numpy()
    table["beta"] = np.append(BETAS, 1.7)[at]
    table["kl_target"] = np.where(at == len(BETAS), KAPPA if kappa is None else kappa, np.nan)
    if kappa is None:
        table = table[at < len(BETAS)].reset_index(drop=True)
    of_seed = np.random.default_rng(5).standard_normal(10_000)[table["seed"]]
    key = [*told["method"].encode(), *told["budget"].encode(), n]
    noise = np.random.default_rng(key).standard_normal((10_000, 20))
    noise = noise[table["seed"], (table["s"].fillna(0) * 4).round().astype(int)]
    table["kl"] = np.where(table["kl_target"].notna(), table["kl_target"], 0.9 / table["beta"] ** 1.2)
    best = (1.5 + 0.2 * of_seed) * np.sqrt(table["kl"])
    lost = (gap(told["method"], table["s"].to_numpy(), np.full(len(table), n)) + 0.01 * noise) / math.sqrt(KAPPA)
    table["reward_of_teacher"] = best
    table["reward"] = best - lost * np.sqrt(table["kl"])
    table["reward_minus_teacher"] = table["reward"] - best
    table["reward_minus_reference"] = table["reward"]
    table["reached"] = True
    table["spent"] = table["kl"]
    table["direction_error"] = 0.2 * (1000 / n) * (1 + 0.1 * np.abs(noise))
    table["link_error"] = 0.01 * (1000 / n) ** 0.8 * (1 + 0.1 * np.abs(noise)) if told["method"] != "rspo" else np.nan
    table["calibration_error"] = table["link_error"]
    table["kept_step"] = 70
    return table.assign(n=n, **told)[study.COLUMNS]


def write(
    path: Path, table: pd.DataFrame | None, *, state: str = "ok", replicates: int | None = None, history: bool = False
) -> RunFolder:
    """A run folder; table None: one that has no results yet. replicates: runs asked for, where some of them died."""
    run = RunFolder(path)
    chosen = {} if table is None else table.iloc[0]
    choices = {name: str(chosen[name]) for name in ("method", "link", "truth") if len(chosen)}
    config: dict[str, Any] = {
        "data": {"source": {"seeds": "0-3", "rows": 1000}},
        "evaluate": {"kl_target": KAPPA},
    }
    run.create(config, {"command": "train", "choices": choices, "command_line": f"spo train method=... {path.name}"})
    run.update_status(command="train", state=state)
    if table is None:
        return run
    found = table.drop_duplicates(["seed", "s"])
    run.write_json("data_report.json", {"replicates": replicates or len(found), "copies": 1})
    save(run.results_path, table)
    if history:
        _history(run, str(chosen["method"]))
    return run


def save(path: Path, table: pd.DataFrame) -> None:
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(arrow.replace_schema_metadata({b"spo.study": study.VERSION.encode()}), path)


def _history(run: RunFolder, method: str) -> None:
    t = np.linspace(-4, 4, 101)
    counts, edges = np.histogram(np.random.default_rng(0).standard_normal(300) * 1.5, bins=40, range=(-4, 4))
    drawn = {"t": t.tolist(), "edges": edges.tolist(), "counts": counts.tolist()}
    p = 1 / (1 + np.exp(-t))
    record = {"step": 7, "kind": "refit", "link": method, "orientation": 1, "p": p.tolist(), "logistic_p": p.tolist()}
    run.append_link(record | drawn | {"true_p": (0.5 + 0.45 * np.tanh(2 * t)).tolist(), "true_scale": 1.6})
    run.append_index({"step": 7, "edges": edges.tolist(), "counts": counts.tolist()})
