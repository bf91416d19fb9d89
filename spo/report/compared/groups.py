"""Which runs are the same but for their seed, and which of them is the DPO that others are compared with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spo.overrides import split
from spo.report.compared.evaluated import Evaluated
from spo.report.labels import BASELINE, method_name
from spo.report.results import Result, flatten
from spo.report.sweep.keys import ALL, CONDITION, ESTIMATOR, SEED, SHIFT, Key, differing_words, estimators
from spo.run_folder import RunFolder

_OF_METHOD = ("method", "objective", "link", "refit", "index_scale")  # what a method is made of: DPO has its own
_SHIFT_KEY = "truth.link.shift"


@dataclass(frozen=True)
class Member:
    """One run. place: in the report's list of runs (a sweep's jobs)."""

    place: int
    evaluated: Evaluated
    seed: str


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone. e: number of the estimator, label: its name. condition: what drew the
    labels, as words. s: the shift of the true link, nan where there is none. order: to sort groups by; own: the values
    of the estimator's keys that are no part of a method."""

    e: int
    label: str
    condition: str
    s: float
    order: tuple[int, ...]
    own: tuple[int, ...]
    is_baseline: bool
    members: dict[str, Member]

    @property
    def name(self) -> str:
        return f"{self.label} ({self.condition})" if self.condition else self.label


def grouped(
    evaluated: Sequence[Evaluated],
    keys: Sequence[Key],
    choices: Sequence[Sequence[int]],
    has: Callable[[Evaluated], bool],
) -> tuple[list[Group], list[str]]:
    """The groups of the runs that have what is grouped, conditions first, then estimators; and what there is to say."""
    labels, told = estimators(keys, choices)
    seeds, conditions = _places(keys, SEED), _places(keys, CONDITION, SHIFT)
    own = [i for i in _places(keys, ESTIMATOR) if keys[i].name.partition("@")[0].split(".")[0] not in _OF_METHOD]
    found: dict[tuple[tuple[int, ...], int], Group] = {}
    additions: dict[tuple[tuple[int, ...], int], int] = {}  # of the groups whose method is DPO
    repeated = 0
    for place, (one, choice, e) in enumerate(zip(evaluated, choices, told, strict=True)):
        if not has(one):
            continue
        run, at = one.result.run, tuple(choice[i] for i in conditions)
        method = str(run.choices.get("method") or "")
        if (at, e) not in found:
            words = ", ".join(keys[i].names[choice[i]] for i in conditions)
            label = (method_name(method) if method else one.result.label) if labels[e] == ALL else labels[e]
            rest = tuple(choice[i] for i in own)
            found[at, e] = Group(e, label, words, _shift(run), at, rest, False, {})
            if method == BASELINE:
                additions[at, e] = _additions(run)
        seed = " ".join(keys[i].values[choice[i]] for i in seeds) or str(run.config.get("seed", 0))
        repeated += seed in found[at, e].members
        found[at, e].members[seed] = Member(place, one, seed)
    said = [f"{repeated} runs have the settings and the seed of another: the last of them counts."] if repeated else []
    for here, count in additions.items():
        same = (found[here].order, found[here].own)
        least = min(n for other, n in additions.items() if (found[other].order, found[other].own) == same)
        found[here] = replace(found[here], is_baseline=count == least)
    return [found[at] for at in sorted(found)], said


def keys_of(results: Sequence[Result]) -> tuple[list[Key], list[list[int]]]:
    """In which keys runs that no sweep made differ, as spo.report.sweep.keys.differing says it of jobs."""
    words, looked_up = [], []
    for result in results:
        other = result.evaluation.path != result.run.path
        words.append([*result.run.overrides, *(result.evaluation.overrides if other else [])])
        looked_up.append([result.evaluation, result.run] if other else [result.run])
    return differing_words(words, looked_up)


def _additions(run: RunFolder) -> int:
    """How many words of the command line change what its method is made of: DPO with a kernel link is not the DPO that
    others are compared with, where there is one without."""
    given = [split(word)[0].partition("@")[0].split(".")[0] for word in run.overrides]
    return sum(word in _OF_METHOD[1:] for word in given)


def baseline_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """DPO under the same condition and with the same other settings, but for those that a method is made of; of several
    the first."""
    return next((b for b in groups if b.is_baseline and (b.order, b.own) == (group.order, group.own)), None)


def _places(keys: Sequence[Key], *parts: str) -> list[int]:
    return [i for i, key in enumerate(keys) if key.part in parts]


def _shift(run: RunFolder) -> float:
    value = flatten(run.config).get(_SHIFT_KEY) if run.config_path.is_file() else None
    return float(value) if isinstance(value, int | float) else math.nan
