"""Hydra's override grammar as a search space: `choice(a,b)`, `a,b`, `range(1,5)`, `interval(1e-5,1e-3)`, and tags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from spo.errors import ConfigError
from spo.sweep.space import Choice, Dimension, Real, Whole

LOG = "log"  # tag(log, interval(1e-5,1e-3)): on a logarithmic scale


@dataclass(frozen=True)
class Space:
    """space: key -> what it may be; fixed: key -> the override, the same in every job. Keys as an override has them."""

    space: dict[str, Dimension]
    fixed: dict[str, str]

    def probes(self) -> list[list[str]]:
        """Overrides of the jobs that are checked up front: all low ends, all high ends, and each other choice once."""
        every = {key: dimension.probes for key, dimension in self.space.items()}
        low, high = ({key: values[i] for key, values in every.items()} for i in (0, 1))
        others = [low | {key: value} for key, values in every.items() for value in values[2:]]
        return [[*self.fixed.values(), *(f"{k}={v}" for k, v in job.items())] for job in [low, high, *others]]


def read_space(params: Mapping[str, Any], arguments: list[str], loader: ConfigLoader) -> Space:
    """The space of hydra.sweeper.params and of a command line, which goes first where both have a key.

    ConfigError, one a line, for what is no space, and where nothing is left to search.
    """
    words = [*(f"{key}={value}" for key, value in params.items()), *arguments]
    found: dict[str, Override] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(words):
        found[override.get_key_element()] = override
    space: dict[str, Dimension] = {}
    problems = []
    for key, override in found.items():
        if override.is_sweep_override():
            try:
                space[key] = _dimension(override)
            except ConfigError as error:
                problems.append(f"{override.input_line} {error}")
    if not space and not problems:
        problems.append(
            "there is nothing to search: give a key several values, such as "
            "'optim.learning_rate=tag(log,interval(1e-5,1e-3))' or link=isotonic,kernel, or hydra.sweeper.params"
        )
    if problems:
        raise ConfigError("\n".join(problems))
    return Space(space, {key: str(o.input_line) for key, o in found.items() if not o.is_sweep_override()})


def _dimension(override: Override) -> Dimension:
    sweep: Any = override.value()
    if isinstance(sweep, IntervalSweep):
        low, high, log = sweep.start, sweep.end, LOG in sweep.tags
        if isinstance(low, int) and isinstance(high, int):
            return Whole(low, high, 1, log)
        return Real(float(low), float(high), None, log)  # type: ignore[arg-type]
    if isinstance(sweep, RangeSweep):  # the end is left out, as in Python and by Hydra's basic sweeper
        values = sorted(sweep.range())
        if len(values) < 2:
            raise ConfigError(f"has {len(values)} value(s) (its end is left out): give at least two")
        low, high, step = values[0], values[-1], abs(sweep.step)
        if all(isinstance(value, int) for value in values):
            return Whole(int(low), int(high), int(step), LOG in sweep.tags)
        return Real(low, high, float(step), LOG in sweep.tags)
    return Choice(tuple(dict.fromkeys(override.sweep_string_iterator())))
