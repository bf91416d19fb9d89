"""The tables of a study; all cells are text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from spo.report.study import POINT, Study, shown_shifts
from spo.report.table import plus_minus

HEAD = ["estimator", "condition", "n", "s", "reward", "seeds", "less DPO's", "seeds of both", "gap to the teacher"]
_SETTINGS = HEAD[1:4]  # left out where all rows are alike
MOST_SHIFTS = 3  # of one truth in the table over truths
_POINT = ["estimator", *POINT]


class Table(NamedTuple):
    """rows: of cells. title: what the rows have in common, "" for nothing to say."""

    title: str
    head: list[str]
    rows: list[list[str]]


def main_table(study: Study) -> Table:
    """A row an estimator, condition, n and s: mean ± standard error of reward, of its difference and its gap."""
    found = [_row(row) for row in _means(study).sort_values(_POINT).to_dict("records")]
    return Table("", *without_constant(HEAD, found, _SETTINGS))


def without_constant(
    head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Head and rows without those of `columns` in which all rows are alike."""
    told = [i for i, name in enumerate(head) if name not in columns or len({row[i] for row in rows}) > 1]
    return [head[i] for i in told], [[row[i] for i in told] for row in rows]


def truth_tables(study: Study) -> list[Table]:
    """Where truths differ: a row an estimator, a column a truth and shift, one table for the rest of the condition and
    each n; in a cell the reward and, in brackets, its difference to DPO's."""
    if study.curves["world"].nunique() < 2:
        return []
    table = _means(study).merge(study.curves, on=["condition", "estimator"])
    few = table.groupby("world")["s"].transform(lambda s: s.isna() | s.isin(shown_shifts(s, MOST_SHIFTS)))
    table = table[few.astype(bool)].copy()
    table["column"] = [_told(world, s) for world, s in zip(table["world"], table["s"], strict=True)]
    table["cell"] = [_reward_and_difference(row) for row in table.to_dict("records")]
    return list(_pivots(study, table, ["teacher", "rest", "n"], "estimator"))


def divergence_tables(study: Study) -> list[Table]:
    """Where divergences differ: a row the teacher's, a column the one learned under; a table a kind of estimator, rest
    of the condition, n and s. A dot marks the matched ones."""
    if max(study.curves["teacher_divergence"].nunique(), study.curves["divergence"].nunique()) < 2:
        return []
    table = _means(study).merge(study.curves, on=["condition", "estimator"])
    table["column"] = table["divergence"]
    matched = np.where(table["teacher_divergence"] == table["divergence"], " •", "")
    table["cell"] = [plus_minus(*pair) for pair in zip(table["mean"], table["se"], strict=True)] + matched
    table["estimator"] = table["teacher_divergence"]
    return list(_pivots(study, table, ["kind", "world", "rest", "n", "s"], "teacher, then learned under"))


def _pivots(study: Study, table: pd.DataFrame, apart: list[str], corner: str) -> Iterator[Table]:
    """Cells by estimator and column, a table for each value of `apart`."""
    several_n, several_s = study.means["n"].nunique() > 1, study.means["s"].nunique() > 1
    for keys, rows in table.groupby(apart, dropna=False, sort=True):
        told = dict(zip(apart, keys, strict=True))
        parts = [str(told[name]) for name in apart if name not in ("n", "s") and told[name]]
        parts += [f"n = {told['n']:,}"] if several_n else []
        parts += [f"s = {told['s']:g}"] if several_s and told.get("s") == told.get("s") and "s" in told else []
        columns = list(dict.fromkeys(rows["column"]))
        cells = rows.set_index(["estimator", "column"])["cell"].to_dict()
        names = list(dict.fromkeys(rows["estimator"]))
        body = [[name, *(cells.get((name, column), "-") for column in columns)] for name in names]
        yield Table(", ".join(parts), [corner, *columns], body)


def _means(study: Study) -> pd.DataFrame:
    table = study.means.merge(study.gaps, on=_POINT, suffixes=("", "_gap"))
    return table.merge(study.differences, on=_POINT, how="left", suffixes=("", "_diff"))


def _row(row: Mapping[Any, Any]) -> list[str]:
    both = row["seeds_diff"]
    return [
        str(row["estimator"]),
        str(row["condition"]) or "-",
        f"{int(row['n']):,}",
        "-" if np.isnan(row["s"]) else f"{row['s']:g}",
        plus_minus(row["mean"], row["se"]),
        f"{int(row['seeds']):,}",
        signed(row["mean_diff"], row["se_diff"]),
        "-" if np.isnan(both) else f"{int(both):,}",
        plus_minus(row["mean_gap"], row["se_gap"]),
    ]


def _reward_and_difference(row: Mapping[Any, Any]) -> str:
    reward, difference = plus_minus(row["mean"], row["se"]), signed(row["mean_diff"], row["se_diff"])
    return reward if difference == "-" else f"{reward} ({difference})"


def _told(world: str, s: float) -> str:
    return world if np.isnan(s) else f"{world}, s = {s:g}"


def signed(value: float, se: float) -> str:
    """`+0.012 ± 0.003`; a dash for what is not there."""
    text = plus_minus(value, se)
    return text if text.startswith("-") else f"+{text}"
