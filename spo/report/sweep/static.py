"""The figures of a sweep as files, for a paper: what the page draws of all jobs, as PNG and PDF.

A sweep of a tabular study has the figures of a study (spo/report/study_page.py) and of these the curves and the
reliability; every other sweep has all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spo.report import drawing
from spo.report.drawing import COLOURS, GREY, LOGISTIC, MARKERS, STYLE
from spo.report.statistics import half_width, paired, summary
from spo.report.study_figures import KNOWN, grid_of, label_columns, label_rows, legend, spread
from spo.report.sweep.keys import ALL, CONDITION, SHIFT
from spo.report.sweep.outcomes import POINT, REWARD
from spo.report.sweep.records import FEWEST_ROWS, SHARES
from spo.run_folder import Record

MOST_PANELS, MOST_LINES, METRICS = 12, 12, 4  # of one figure; of one panel; in the figure of curves
CROWD = 6  # lines of a panel; of more the bands would hide one another
FEW_SEEDS = 5  # as on the page: below it a band is the least and the largest seed
_DASHES = ("-", "--", ":", "-.")


class Group(NamedTuple):
    """The jobs that share estimator and condition."""

    estimator: int
    condition: str
    jobs: list[int]


class Static:
    """Draws from the page's data."""

    def __init__(self, data: Record) -> None:
        self.data, self.labels = data, data["estimators"]
        condition = [i for i, key in enumerate(data["keys"]) if key["part"] in (CONDITION, SHIFT)]
        self.plain = [i for i in condition if data["keys"][i]["part"] == CONDITION]
        self.conditions = [self._named(job, condition) for job in data["jobs"]]
        found: dict[tuple[str, int], list[int]] = {}
        for i, job in enumerate(data["jobs"]):
            found.setdefault((self.conditions[i], job["e"]), []).append(i)
        self.groups = [Group(e, condition, jobs) for (condition, e), jobs in sorted(found.items())]

    def save(self, figures: Path) -> list[Path]:
        """Those that have something to show."""
        own: list[tuple[str, Callable[[], Figure | None]]] = [
            ("curves", self.curves),
            ("reliability", self.reliability),
        ]
        if not self.data["study"]:
            own += [("fitted_links", self.links), ("index", self.indices), ("frontier", self.frontiers)]
            own += [("reached", self.reached), ("paired", self.paired)]
        drawn = [(name, figure) for name, draw in own if (figure := draw()) is not None]
        return [drawing.save(figure, figures / f"{name}.png") for name, figure in drawn]

    def curves(self) -> Figure | None:
        """The first metrics; under several conditions the held-out AUC alone."""
        names = self.data["curves"]["names"]
        own = {int(job): found for job, found in self.data["curves"]["jobs"].items()}
        conditions = self._conditions(own)
        if not conditions:
            return None
        shown = names[:METRICS] if len(conditions) == 1 else [n for n in names if n == "val/auc"] or names[:1]
        panels = [(name, condition) for name in shown for condition in conditions][:MOST_PANELS]
        with rc_context(STYLE):
            figure = Figure(figsize=(10.4, 2.9 * -(-len(panels) // 2)) if len(panels) > 1 else (6.4, 3.6))
            grid = list(figure.subplots(-(-len(panels) // 2), min(len(panels), 2), squeeze=False).flat)
            for axes, (name, condition) in zip(grid, panels, strict=False):
                lines = list(self._lines(condition, own))
                for group in lines:
                    self._curve(axes, group, names.index(name), own, banded=len(lines) <= CROWD)
                axes.set(title=", ".join(filter(None, [name, condition])), xlabel="optimizer step")
            for empty in grid[len(panels) :]:
                empty.remove()
            legend(figure)
        return figure

    def _curve(self, axes: Axes, group: Group, metric: int, own: dict[int, Any], *, banded: bool) -> None:
        """Mean over jobs; band as the page's caption has it."""
        rows = []
        for job in group.jobs:
            if metric in own.get(job, {}):
                number, *columns = own[job][metric]
                values = [np.array(column, dtype=float) for column in columns]
                steps = self.data["curves"]["steps"][number]
                rows.append(pd.DataFrame(dict(zip(("value", "low", "high"), values, strict=False)), index=steps))
        if not rows:
            return
        by_step = pd.concat(rows).groupby(level=0)
        mean, count = by_step["value"].mean(), by_step["value"].count()
        if "low" in rows[0]:
            low, high = by_step["low"].mean(), by_step["high"].mean()
        elif len(rows) >= FEW_SEEDS:
            reach = half_width((by_step["value"].std() / np.sqrt(count)).to_numpy(), count.to_numpy())
            low, high = mean - reach, mean + reach
        else:
            low, high = by_step["value"].min(), by_step["value"].max()
        drawn = self._drawing(group.estimator) | {"marker": ""}
        axes.plot(mean.index, mean, label=self.labels[group.estimator], **drawn)
        if banded:
            axes.fill_between(mean.index, low, high, color=drawn["color"], alpha=0.14, lw=0)

    def links(self) -> Figure | None:
        """The last fit of each group's first job."""
        return self._histories("links", self._link, "P(response 1 preferred)")

    def _link(self, axes: Axes, record: Record, drawn: dict[str, Any]) -> None:
        t = np.linspace(-record["reach"], record["reach"], len(record["p"]))
        u = t / (record["scale"] or 1.0)
        axes.plot(u, 1 / (1 + np.exp(-record["slope"] * t)), color=LOGISTIC, ls=":", lw=1.5, label="best logistic")
        if record["true"]:
            axes.plot(u, record["true"], color=KNOWN, ls="--", lw=1.8, label="true link")
        axes.plot(u, record["p"], color=drawn["color"], lw=2.2)
        axes.set(ylim=(0, 1), xlabel="u = t / c (reward difference)" if record["scale"] else "index t (nats)")

    def indices(self) -> Figure | None:
        """The last histogram of each group's first job."""
        return self._histories("indices", self._index, "density")

    def _index(self, axes: Axes, record: Record, drawn: dict[str, Any]) -> None:
        edges, counts = (
            np.linspace(record["low"], record["high"], len(record["counts"]) + 1),
            np.array(record["counts"]),
        )
        axes.stairs(
            counts / max(counts.sum(), 1e-300) / np.diff(edges), edges, fill=True, color=drawn["color"], alpha=0.85
        )
        axes.set_xlabel("index t (nats)")

    def _histories(self, name: str, draw: Callable[[Axes, Record, dict[str, Any]], None], label: str) -> Figure | None:
        own = self.data[name]
        shown = spread([group for group in self.groups if any(job in own for job in group.jobs)], MOST_PANELS)
        if not shown:
            return None
        with rc_context(STYLE):
            columns = min(len(shown), 4)
            rows = -(-len(shown) // columns)
            figure = Figure(figsize=(max(2.75 * columns, 4.6), 2.6 * rows + 0.3))
            grid = list(figure.subplots(rows, columns, squeeze=False).flat)
            for axes, group in zip(grid, shown, strict=False):
                record = next(own[job] for job in group.jobs if job in own)[-1]
                draw(axes, record, self._drawing(group.estimator))
                named = [one for one in (self.labels[group.estimator], group.condition) if one and one != ALL]
                axes.set_title("\n".join([*named, f"step {record['step']}"]), fontsize=9)
            for empty in grid[len(shown) :]:
                empty.remove()
            label_rows(grid[: len(shown)], label)
            named_lines = {k: h for axes in figure.axes for h, k in zip(*axes.get_legend_handles_labels(), strict=True)}
            if named_lines:
                figure.legend(named_lines.values(), named_lines.keys(), loc="outside lower center", ncols=3)
        return figure

    def reliability(self) -> Figure | None:
        """Observed share against predicted probability, the rows of all seeds together."""
        own = self.data["reliability"]

        def panel(axes: Axes, condition: str) -> None:
            axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
            for group in self._lines(condition, own):
                sums = np.sum([own[job] for job in group.jobs if job in own], axis=0).reshape(SHARES, 3)
                w, p, z = sums[sums[:, 0] >= FEWEST_ROWS].T
                axes.plot(p / w, z / w, label=self.labels[group.estimator], **self._drawing(group.estimator))

        return self._panels(own, panel, "predicted P(response 1 preferred)", "observed share")

    def frontiers(self) -> Figure | None:
        """Reward against KL, a line a group: means over its jobs, bars over seeds or, of one, over prompts."""
        own = {one["job"]: one for one in self.data["frontiers"]}

        def panel(axes: Axes, condition: str) -> None:
            for group in self._lines(condition, own):
                found = [own[job] for job in group.jobs if job in own]
                n = min(len(one["kl"]) for one in found)
                kl, reward = (np.array([one[name][:n] for one in found], dtype=float) for name in ("kl", "reward"))
                se = (
                    reward.std(0, ddof=1) / np.sqrt(len(found))
                    if len(found) > 1
                    else np.array(found[0]["reward_se"][:n], float)
                )
                drawn = self._drawing(group.estimator)
                label = self.labels[group.estimator]
                axes.errorbar(
                    kl.mean(0), reward.mean(0), yerr=np.nan_to_num(se), capsize=2, elinewidth=1, label=label, **drawn
                )
            for target in self.data["target"]:
                axes.axvline(target, color=GREY, lw=1, ls=":", zorder=0)

        return self._panels(own, panel, "KL to the reference (nats)", "reward, ± 1 standard error")

    def reached(self) -> Figure | None:
        """The reward, without one the held-out AUC, against the shift; of one shift side by side."""
        rows = self._rows()
        return None if rows is None else self._compared(rows, self._words())

    def paired(self) -> Figure | None:
        """The same less that of the first estimator, which is DPO where there is one, on the same seed and shift."""
        rows = self._rows()
        if rows is None or rows["e"].nunique() < 2:
            return None
        first = min(rows["e"])
        same = [name for name in ("panel", "s", "n", "seed") if name in rows]
        base = rows[rows["e"] == first].drop_duplicates(same)
        found = paired(rows[rows["e"] != first], base, same, "value")
        if found.empty:
            return None
        return self._compared(found, f"{self._words()}, less that of {self.labels[first]}", zero=True)

    def _compared(self, rows: pd.DataFrame, words: str, *, zero: bool = False) -> Figure:
        """rows: e, panel, s, value."""
        over = rows["s"].nunique() > 1
        names = sorted(set(rows["panel"]))[:MOST_PANELS]
        order = sorted(set(rows["e"]))[:MOST_LINES]
        with rc_context(STYLE):
            figure, grid = grid_of(len(names), height=3.4 if over else 0.9 + 0.26 * len(order), alone=6.4)
            for axes, name in zip(grid, names, strict=True):
                means = summary(rows[rows["panel"] == name], ["e", "s"], "value")
                for e in order:
                    own, drawn = means[means["e"] == e], self._drawing(e)
                    middle, half = own["mean"], (own["high"] - own["mean"]).fillna(0.0)
                    if over:
                        axes.errorbar(
                            own["s"], middle, yerr=half, capsize=2, elinewidth=1, label=self.labels[e], **drawn
                        )
                    else:
                        place = [len(order) - 1 - order.index(e)] * len(own)
                        axes.errorbar(middle, place, xerr=half, elinewidth=2, **(drawn | {"ls": "none"}))
                if zero:
                    (axes.axhline if over else axes.axvline)(0.0, color=KNOWN, lw=1)
                if not over:
                    axes.set_yticks(range(len(order)), [self.labels[e] for e in reversed(order)])
                axes.set_title(name)
            label_columns(grid, "shift s of the true link" if over else words)
            if over:
                label_rows(grid, words)
                legend(figure)
        return figure

    def _rows(self) -> pd.DataFrame | None:
        """A row a run: e, panel (its condition but the shift), value, and what pairs it."""
        of = self.data["rows"]
        name = next((name for name in (REWARD, "val/auc") if name in of["columns"]), None)
        if name is None:
            return None
        table = pd.DataFrame({key: of[key] for key in POINT} | {"value": of["columns"][name]}).astype({"value": float})
        table["s"] = table["s"].astype(float).fillna(0.0)
        table["e"] = [self.data["jobs"][job]["e"] for job in table["job"]]
        table["panel"] = [self._named(self.data["jobs"][job], self.plain) for job in table["job"]]
        return table

    def _words(self) -> str:
        if REWARD not in self.data["rows"]["columns"]:
            return "held-out AUC"
        target = self.data["target"]
        return f"reward at KL {target[0]:g}" if len(target) == 1 else "reward at the target KL"

    def _panels(
        self, own: dict[int, Any], draw: Callable[[Axes, str], None], xlabel: str, ylabel: str
    ) -> Figure | None:
        """A panel a condition."""
        conditions = self._conditions(own)
        if not conditions:
            return None
        with rc_context(STYLE):
            figure, grid = grid_of(len(conditions), height=3.4, alone=6.4)
            for axes, condition in zip(grid, conditions, strict=True):
                draw(axes, condition)
                axes.set_title(condition)
            label_columns(grid, xlabel)
            label_rows(grid, ylabel)
            legend(figure)
        return figure

    def _conditions(self, own: dict[int, Any]) -> list[str]:
        return spread(sorted({self.conditions[job] for job in own}), MOST_PANELS)

    def _lines(self, condition: str, own: dict[int, Any]) -> Iterator[Group]:
        found = [g for g in self.groups if g.condition == condition and any(job in own for job in g.jobs)]
        yield from found[:MOST_LINES]

    def _drawing(self, e: int) -> dict[str, Any]:
        if e in self.data["references"]:
            return {"color": KNOWN, "marker": "", "ls": "--", "lw": 1.7}
        colours = [colour for colour in COLOURS if colour != KNOWN]
        style = {"color": colours[e % len(colours)], "marker": MARKERS[e % len(MARKERS)]}
        return style | {"ls": _DASHES[e // len(colours) % len(_DASHES)], "ms": 4.5, "lw": 1.7}

    def _named(self, job: Record, keys: Sequence[int]) -> str:
        return ", ".join(self.data["keys"][i]["names"][job["k"][i]] for i in keys)
