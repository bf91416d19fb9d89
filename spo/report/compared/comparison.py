"""Methods at one KL: reward, difference to DPO, win rates, each over seeds and prompts with a 90% interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from spo.report.compared.evaluated import Evaluated
from spo.report.compared.groups import Group, Member, baseline_of, grouped, keys_of
from spo.report.results import Result
from spo.report.statistics import Estimate, two_way
from spo.report.sweep.keys import Key

FINE = 40  # KLs of a drawn frontier


@dataclass(frozen=True)
class Cell:
    """What one group reached at the KL. reward: its level; difference: less DPO's, on the
    same seeds and prompts; win: rate against DPO's responses; win_reference: against the reference's. None where there
    is nothing to compare with, or the frontier ends before."""

    group: Group
    reward: Estimate | None
    difference: Estimate | None
    win: Estimate | None
    win_reference: Estimate | None


@dataclass(frozen=True)
class Band:
    """A frontier over seeds and prompts: KLs, one Estimate each, as far as every seed reaches."""

    kl: np.ndarray
    reward: list[Estimate]


class Comparison:
    """Of all runs with samples. kl: nats at which they are compared, None where nobody said one or the runs differ in
    it. evaluated: in the order of the runs, so that places are those of the report. groups: of the runs with samples;
    ranked: of those whose held-out rows were ranked, which needs none."""

    def __init__(
        self,
        results: Sequence[Result],
        kl: float | None,
        keys: tuple[Sequence[Key], Sequence[Sequence[int]]] | None = None,
    ) -> None:
        """keys: those of a sweep and each job's values; None: from the runs' own overrides."""
        self.evaluated = [Evaluated(result) for result in results]
        found, choices = keys_of(results) if keys is None else keys
        self.groups, self._said = grouped(self.evaluated, found, choices, lambda one: one.samples is not None)
        self.ranked, _ = grouped(self.evaluated, found, choices, lambda one: one.ranking is not None)
        self.targets = [kl] if kl is not None else sorted({t for one in self._members for t in _target(one)})
        self.kl = self.targets[0] if len(self.targets) == 1 else None

    @property
    def several(self) -> bool:
        """Whether there are runs to compare."""
        return len(self._members) > 1

    @property
    def _members(self) -> list[Evaluated]:
        return [member.evaluated for group in self.groups for member in group.members.values()]

    @cached_property
    def cells(self) -> list[Cell]:
        return [] if self.kl is None else [self._cell(group) for group in self.groups]

    @property
    def troubles(self) -> list[str]:
        """What could not be used or compared. After cells: they read the samples."""
        out = [*self._said, *(trouble for one in self.evaluated for trouble in one.troubles)]
        if len(self.targets) > 1:
            kls = ", ".join(f"{kl:g}" for kl in self.targets)
            out.append(f"The runs were evaluated at several target KLs ({kls} nats): compare them at one with kl=NATS.")
        if not self.targets and self.groups:
            out.append("No evaluation has a target KL: compare the runs at one with kl=NATS.")
        return [*out, *(self._short(kl) for kl in [self.kl] if kl is not None and self._ending(kl))]

    def _ending(self, kl: float) -> list[str]:
        members = [(group, member) for group in self.groups for member in group.members.values()]
        return [
            f"{group.name} seed {member.seed} (at {max(member.evaluated.kl.values()):.3g})"
            for group, member in members
            if member.evaluated.crossing(kl) is None
        ]

    def _short(self, kl: float) -> str:
        names = self._ending(kl)
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return f"The frontiers of {', '.join(names[:6])}{more} end before KL {kl:g}: they are left out at that KL."

    def pairs(self, group: Group) -> list[tuple[Member, Member]]:
        """The runs of a group, each with the DPO of its seed."""
        base = baseline_of(group, self.groups)
        if base is None or group.is_baseline:
            return []
        return [(member, base.members[seed]) for seed, member in group.members.items() if seed in base.members]

    def _cell(self, group: Group) -> Cell:
        kl, own = self.kl or math.nan, list(group.members.values())
        pairs = self.pairs(group)
        return Cell(
            group,
            estimate([member.evaluated.at_kl(kl) for member in own]),
            estimate([less(member.evaluated, base.evaluated, kl) for member, base in pairs]),
            _share(estimate([member.evaluated.wins(base.evaluated, kl) for member, base in pairs])),
            _share(estimate([member.evaluated.wins_of_reference(kl) for member in own])),
        )

    def band(self, group: Group) -> Band:
        """Each seed's frontier at the same KLs, root-spaced, from where the last seed begins (0, but for a truncated
        reference) up to where the first seed ends; empty where that is before."""
        own = [member.evaluated for member in group.members.values()]
        first, last = max(one.kl[math.inf] for one in own), min(max(one.kl.values()) for one in own)
        if first >= last:
            return Band(np.empty(0), [])
        grid = np.linspace(math.sqrt(first), math.sqrt(last), FINE) ** 2
        grid = grid.clip(first, last * (1 - 1e-12))  # squaring may put an end beyond the path
        values = stacked([one.along(grid) for one in own])
        return Band(grid, [two_way(values[:, :, i]) for i in range(len(grid))])


def estimate(series: Sequence[pd.Series | None]) -> Estimate | None:
    """Over the seeds that have values, and the prompts that all of these have."""
    known = [one for one in series if one is not None]
    return two_way(stacked(known)) if known and len(_common(known)) else None


def _share(found: Estimate | None) -> Estimate | None:
    """With an interval within [0, 1]."""
    return None if found is None else replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def stacked(parts: Sequence[pd.Series] | Sequence[pd.DataFrame]) -> np.ndarray:
    """(seeds, prompts, ...) over the prompts that all have, in one order."""
    common = _common(parts)
    return np.array([part.loc[common].to_numpy() for part in parts])


def _common(parts: Sequence[pd.Series] | Sequence[pd.DataFrame]) -> pd.Index:
    common = parts[0].index
    for part in parts[1:]:
        common = common.intersection(part.index)
    return common.sort_values()


def less(mine: Evaluated, other: Evaluated, kl: float) -> pd.Series | None:
    """One's reward at KL less the other's, of each prompt that both have."""
    a, b = mine.at_kl(kl), other.at_kl(kl)
    return None if a is None or b is None else (a - b).dropna()


def _target(one: Evaluated) -> list[float]:
    target = one.result.target
    return [] if target is None or target.get("kl") is None else [round(float(target["kl"]), 6)]
