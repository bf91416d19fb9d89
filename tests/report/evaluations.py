"""What `spo evaluate` leaves of a language model, made from formulas: samples, frontier, target, further files."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from spo.evaluate.frontier import frontier, reward_at_kl
from spo.run_folder import RunFolder

BETAS = (4.0, 2.0, 1.0, 0.5)
KAPPA = 0.5


def samples(
    gain: float, seed: int, *, prompts: int = 40, draws: int = 2, betas: Sequence[float] = BETAS
) -> pd.DataFrame:
    """Reward of the reference + gain · sqrt(KL), KL = 0.5/beta on average; a prompt's level is common to all runs."""
    level = np.random.default_rng(7).normal(0.3, 0.3, prompts)
    rng = np.random.default_rng([seed, round(1000 * gain)])
    rows: list[dict[str, Any]] = []
    for beta in (math.inf, *betas):
        for i in range(prompts):
            for k in range(draws):
                kl = 0.0 if math.isinf(beta) else 0.5 / beta * rng.gamma(8.0, 1 / 8)
                reward = float(np.tanh(level[i] + gain * math.sqrt(kl) + rng.normal(0, 0.15)).round(2))
                rows.append({"beta": beta, "prompt_id": i, "sample": k, "prompt": f"Say {i}", "response": f"a b {k}",
                             "reward": reward, "kl": kl, "kl_mc": kl, "length": 9, "ended": True})  # fmt: skip
    return pd.DataFrame(rows)


def write_samples(run: RunFolder, table: pd.DataFrame, kl: float | None = KAPPA) -> None:
    """As Frontier.save, with the win rates of contract 3."""
    points = frontier(table)
    for point in points:
        beta = math.inf if point["beta"] is None else point["beta"]
        own, other = (table[table["beta"] == b]["reward"].to_numpy() for b in (beta, math.inf))
        point["win_rate"], point["win_rate_se"] = float(((np.sign(own - other) + 1) / 2).mean()), 0.05
    run.write_json("frontier.json", points)
    if kl is not None:
        run.write_json("target.json", reward_at_kl(table, kl))
    table.to_parquet(run.samples_path, index=False)


def write_evaluated(
    path: Path,
    method: str,
    seed: int,
    gain: float,
    *,
    shift: float | None = None,
    kl: float | None = KAPPA,
    **sizes: Any,
) -> RunFolder:
    """A trained and evaluated run, without histories."""
    run = RunFolder(path)
    run.create({"seed": seed}, {"command": "train", "choices": {"method": method}})
    run.update_status(command="train", state="ok", exit_code=0)
    invocation, config = run.invocation, run.config
    invocation["overrides"] = [f"method={method}", f"seed={seed}"]
    if shift is not None:
        invocation["overrides"].append(f"truth.link.shift={shift}")
        config = config | {"truth": {"link": {"shift": shift}}}
    run.write_json("invocation.json", invocation)
    (path / "config.resolved.yaml").write_text(yaml.safe_dump(config))
    found = RunFolder(path)
    write_samples(found, samples(gain, seed, **sizes), kl)
    return found


def write_more(run: RunFolder, gain: float) -> None:
    """sequence_tilt.json, best_of_n.json, ranking.json."""
    kls = [0.02, 0.08, 0.2, 0.45]
    tilt = [{"beta": 2 / (i + 1), "reward": 0.28 + 1.1 * gain * math.sqrt(kl), "reward_se": 0.03, "kl": kl,
             "kl_se": 0.1 * kl, "ess_median": 14 - 3 * i, "m": 16} for i, kl in enumerate(kls)]  # fmt: skip
    run.write_json("sequence_tilt.json", {"points": tilt, "left_out": [0.1]})
    bound = {n: math.log(n) - (n - 1) / n for n in (1, 2, 4, 8, 16)}
    run.write_json(
        "best_of_n.json",
        [
            {"n": n, "kl_bound": kl, "reward_true": 0.28 + 0.4 * math.sqrt(kl), "reward_true_se": 0.02,
             "reward_index": 0.28 + gain * math.sqrt(kl), "reward_index_se": 0.03}
            for n, kl in bound.items()
        ],
    )  # fmt: skip
    edges = [-40, -20, -10, -3, 3, 10, 20, 40]
    bins = [
        {
            "low": a,
            "high": b,
            "n": 20 + 5 * i,
            "prompts": 10 + i,
            "policy_se": 1e-4 if i == 0 else 0.1,
            "index_se": 0.0 if i == 0 else 0.05,
            "policy": 1 / (1 + math.exp(-0.2 * (a + b) / 2)),
            "index": 0.6 + gain / 3,
        }
        for i, (a, b) in enumerate(pairwise(edges))
    ]
    ideal = [{"beta": b, "value": 0.5 + 0.45 / (1 + b)} for b in (0.03, 0.1, 0.3, 1.0, 3.0)]
    run.write_json(
        "ranking.json",
        {"n_rows": 240, "accuracy_policy": {"value": 0.56, "se": 0.032}, "accuracy_index": {"value": 0.61, "se": 0.031},
         "accuracy_reference": 0.53, "ideal_index_labels": 0.83, "ideal_policy": ideal, "by_reference_error": bins,
         "index_reward_correlation": 0.3, "index_length_correlation": -0.1},
    )  # fmt: skip
