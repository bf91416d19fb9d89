"""What the runs of a tabular study found, as one table: what was estimated, under which conditions.

A condition is what the data and the budget were (truth, teacher, budget, ...); an estimator is what was done with them
(method, link, divergence, ...). Estimators are compared within a condition, at one n and one s, on the same seeds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from spo import study
from spo.errors import DataError
from spo.report.labels import BASELINE, REFERENCE, labelled
from spo.report.results import Result
from spo.report.statistics import paired, summary
from spo.run_folder import RunFolder

POINT = ["condition", "n", "s"]  # where estimators are compared
_LINE = ["estimator", *POINT]
_TOLD = [column for column in study.RUN if column not in ("seed", "s", "n")]  # what the labels stand for


@dataclass(frozen=True)
class Study:
    """table: a row a run and beta, with the labels `condition` and `estimator` (categories, in the order to show them)
    for the columns that tell runs apart. keys: these columns and the labels that stand for them, in the same order.
    twice: rows that stood in two files. asked: runs (data sets) that the folders with results were asked for.
    tidy: the table as it was read, with the columns of results.parquet."""

    table: pd.DataFrame
    keys: pd.DataFrame
    twice: int
    asked: int
    tidy: pd.DataFrame

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One of the keys for each pair of labels."""
        return self.keys.drop_duplicates(["condition", "estimator"])

    @cached_property
    def target(self) -> float | None:
        """KL at which estimators are compared, nats; None where no row is at one. DataError where there are several."""
        found = np.unique(self.table["kl_target"].dropna())
        if len(found) > 1:
            raise DataError(
                f"the runs were evaluated at several KLs ({', '.join(f'{kl:g}' for kl in found)} nats), which cannot "
                "be compared: report them apart, or evaluate them again with one evaluate.kl_target"
            )
        return float(found[0]) if len(found) else None

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row a run: that of the reference policy."""
        found: pd.DataFrame = self.table[np.isinf(self.table["beta"])]
        return found

    @cached_property
    def at_target(self) -> pd.DataFrame:
        """One row a run: that at the target KL, where there is one with a reward."""
        table = self.table[self.table["kl_target"].notna() & np.isfinite(self.table["reward"])]
        found: pd.DataFrame = table.assign(gap=-table["reward_minus_teacher"])
        return found

    @cached_property
    def free(self) -> pd.DataFrame:
        """The rows on the grid of betas."""
        found: pd.DataFrame = self.table[self.table["kl_target"].isna()]
        return found

    @cached_property
    def means(self) -> pd.DataFrame:
        """Reward at the target by estimator, condition, n and s."""
        return summary(self.at_target, _LINE, "reward")

    @cached_property
    def gaps(self) -> pd.DataFrame:
        """Reward of the teacher less that of the estimator, both at the target KL."""
        return summary(self.at_target, _LINE, "gap")

    @cached_property
    def teacher(self) -> pd.DataFrame:
        """The teacher's reward at the target KL by condition, n and s, over all seeds there."""
        return summary(self.at_target.drop_duplicates([*POINT, "seed"]), POINT, "reward_of_teacher")

    @cached_property
    def differences(self) -> pd.DataFrame:
        """Reward at the target less that of the estimator's baseline on the same seeds."""
        at, baselines = self.at_target, self.baselines
        parts = []
        for (condition, estimator), rows in at.groupby(["condition", "estimator"], observed=True):
            base = baselines.get((str(condition), str(estimator)))
            if base is not None:
                other = at[(at["condition"] == condition) & (at["estimator"] == base)]
                parts.append(paired(rows, other, ["n", "s", "seed"], "reward"))
        return summary(pd.concat(parts) if parts else at.iloc[:0], _LINE, "reward")

    @cached_property
    def baselines(self) -> dict[tuple[str, str], str]:
        """(condition, estimator) -> the estimator that it is compared with: DPO under the same condition and with the
        same divergence; of several the one with the same settings, else with the fewest. A baseline itself has none."""
        found: dict[tuple[str, str], str] = {}
        dpo = self.curves[self.curves["method"] == BASELINE]
        for key in self.curves.itertuples():
            same = dpo[(dpo["condition"] == key.condition) & (dpo["divergence"] == key.divergence)]
            if key.method == BASELINE or same.empty:
                continue
            alike = same[same["own_settings"] == key.own_settings]
            fewest = (alike if len(alike) else same).sort_values("own_settings", key=lambda c: c.str.len())
            found[str(key.condition), str(key.estimator)] = fewest["estimator"].iloc[0]
        return found

    def labels(self, column: str) -> list[str]:
        """Those that occur, in the order to show them."""
        return list(self.table[column].cat.categories)

    @cached_property
    def references(self) -> set[str]:
        """Estimators that know the true link."""
        return set(self.keys.loc[self.keys["method"] == REFERENCE, "estimator"])


def load_study(results: Sequence[Result]) -> Study:
    """From the results.parquet of these training runs and of their evaluations; at least one has one."""
    folders = [folder for result in results for folder in result.studied]
    paths = [folder.results_path for folder in folders]
    table = tidy = study.read(paths)
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    keys = labelled(table[_TOLD].drop_duplicates().reset_index(drop=True))
    table = table.merge(keys, on=_TOLD, how="left")
    orders = {"condition": sorted(set(keys["condition"])), "estimator": list(dict.fromkeys(keys["estimator"]))}
    for column, order in orders.items():
        table[column] = pd.Categorical(table[column], categories=order, ordered=True)
    table = table.drop(columns=_TOLD).drop_duplicates(["seed", *_LINE, "beta", "kl_target"], keep="last")
    asked = sum(_asked(result) for result in results if result.studied)
    return Study(table, keys, rows - len(table), asked, tidy)


def curve_of(study_: Study, folder: RunFolder) -> tuple[str, str, pd.Series] | None:
    """Condition, estimator and first row (replicate 0) of the run in a folder, from the head of its results."""
    head = pq.ParquetFile(folder.results_path).read_row_group(0, columns=study.RUN).slice(0, 1).to_pandas()
    if head.empty:
        return None
    found = head.merge(study_.keys, on=_TOLD).iloc[0]
    return str(found["condition"]), str(found["estimator"]), found


def _asked(result: Result) -> int:
    """Runs that a folder was asked for: its data sets."""
    report: Mapping[str, int] = result.run.data_report
    return int(report.get("replicates", 0)) // max(int(report.get("copies", 1)), 1)


def shown_shifts(values: Iterable[float], most: int) -> list[float]:
    """At most so many of them, evenly spread, the smallest and the largest among them; [nan] where there is none."""
    known = sorted({float(v) for v in values if math.isfinite(v)})
    if not known:
        return [math.nan]
    return [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int))]
