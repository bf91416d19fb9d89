"""The comparison as plain values for the page of a sweep, which works it out anew for the jobs that are chosen."""

import math
from collections.abc import Iterable

import pandas as pd

from spo.evaluate import DETERMINED
from spo.report.compared.comparison import Comparison
from spo.report.compared.evaluated import Evaluated
from spo.report.compared.groups import Member
from spo.report.compared.panels import ranking_panels, sampling_panels
from spo.run_folder import Record

MOST_NUMBERS = 1_000_000  # rewards of single prompts; of more jobs and prompts the page has the frontiers without bands


def payload(found: Comparison) -> Record:
    """kl; determined: the |z-score| from which an orientation counts; troubles; ranking and sampling: the panels of a
    job; jobs: of each with samples

    at, win_reference: of each prompt the reward at kl and the win rate against the reference; base: the job of DPO that
    it is compared with, on the same seed, and win: against it; kl, rewards: of each beta, the reference first;
    undetermined: the z-score of an index whose direction nobody knows. Prompts are in one order, null where a job has
    not sampled one.
    """
    members = [(group, member) for group in found.groups for member in group.members.values()]
    prompts = sorted({prompt for _, member in members for prompt in member.evaluated.by_prompt.index})
    numbers = sum(len(prompts) * len(member.evaluated.kl) for _, member in members)
    bases = {member.place: base for group in found.groups for member, base in found.pairs(group)}
    jobs = {}
    for group, member in members:
        jobs[member.place] = _job(found, member, bases.get(member.place), prompts) | {
            "baseline": group.is_baseline,
            "undetermined": member.evaluated.result.undetermined,
        }
        if numbers <= MOST_NUMBERS:
            jobs[member.place] |= _path(member.evaluated, prompts)
    panels = {
        name: {i: [panel.record for panel in made] for i, one in enumerate(found.evaluated) if (made := of(one))}
        for name, of in (("ranking", ranking_panels), ("sampling", sampling_panels))
    }
    return {"kl": found.kl, "determined": DETERMINED, "jobs": jobs, **panels, "troubles": found.troubles}


def _job(found: Comparison, member: Member, base: Member | None, prompts: list[str]) -> Record:
    kl, one = found.kl, member.evaluated
    if kl is None:
        return {"at": None, "win_reference": None, "base": None, "win": None}
    return {
        "at": _column(one.at_kl(kl), prompts),
        "win_reference": _column(one.wins_of_reference(kl), prompts),
        "base": None if base is None else base.place,
        "win": None if base is None else _column(one.wins(base.evaluated, kl), prompts),
    }


def _path(one: Evaluated, prompts: list[str]) -> Record:
    betas = sorted(one.kl, reverse=True)
    rewards = [_column(one.by_prompt[beta], prompts) for beta in betas]
    return {"kl": [one.kl[beta] for beta in betas], "rewards": rewards}


def _column(values: pd.Series | None, prompts: list[str]) -> list[float | None] | None:
    return None if values is None else _short(values.reindex(prompts))


def _short(values: Iterable[float]) -> list[float | None]:
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]
