"""A sweep's folder as a launcher would leave it, made from formulas."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tests.report.synthetic import write_run

COMMIT = "fedcba9876543210"
LINES = "step 1 of 8\nRuntimeError: the loss is not finite </script> at step 3\n"


def job(number: int, folder: str, overrides: Sequence[str], status: str = "ok", **changes: Any) -> dict[str, Any]:
    """A row of jobs.parquet."""
    row: dict[str, Any] = {
        "job": number,
        "folder": folder,
        "overrides": list(overrides),
        "config_hash": f"{number:08x}",
    }
    row |= {"status": status, "exit_code": {"ok": 0, "failed": 1}.get(status), "attempts": 1, "started": None}
    return row | {"finished": None, "seconds": 10.0 - number, "run_id": None, "message": "", **changes}


def write_sweep(path: Path, rows: Sequence[dict[str, Any]], state: str = "ok") -> Path:
    """sweep.json and jobs.parquet."""
    path.mkdir(parents=True, exist_ok=True)
    record = {"version": 1, "id": "2026-11-22_links", "name": "links", "command": "train", "words": ["seed=0,1,2"]}
    record |= {"command_line": "spo sweep links seed=0,1,2", "created": "2026-11-22T08:00:00+00:00", "host": "box"}
    record |= {"spo_version": "0.1.0", "git_commit": COMMIT, "state": state, "finished": None}
    (path / "sweep.json").write_text(json.dumps(record))
    table = pd.DataFrame(list(rows)).astype({"exit_code": "Int64"})
    table.to_parquet(path / "jobs.parquet")
    return path


def reward(method: str, seed: int) -> float:
    """At the target KL, by the formula of synthetic.write_run: DPO 0.53, PSPO 0.55, and 0.01 more a seed."""
    return 0.47 + 0.02 * len(method) + 0.01 * seed


def language_models(path: Path, seeds: int = 3) -> Path:
    """DPO and PSPO by seeds, all evaluated, with histories; one more job failed, one is queued."""
    rows = []
    for method, link in (("dpo", "logistic"), ("pspo", "isotonic")):
        for seed in range(seeds):
            number = len(rows)
            write_run(path / str(number), method, link, seed)
            found = {"metrics/target/reward": reward(method, seed), "metrics/target/reward_se": 0.035}
            rows.append(job(number, str(number), [f"method={method}", f"seed={seed}"], **found))
    rows.append(job(len(rows), "bad", ["method=pspo", "seed=9"], "failed", message="the loss is not finite"))
    rows.append(job(len(rows), "later", ["method=dpo", "seed=9"], "queued", attempts=0))
    write_sweep(path, rows, "failed")
    (path / "bad").mkdir()
    (path / "bad" / "log.txt").write_text("\x1b[31m10%\r50%\r100%\x1b[0m\n" + LINES)
    return path
