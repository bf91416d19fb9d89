"""The compose half of `spo COMMAND`: Hydra, every check, then config.resolved.yaml in the run folder.

The convention for a command `NAME` (what `spo`, `spo --help` and `spo NAME --help` read):

    conf/NAME.yaml
        # spo NAME TRAIN_RUN [key=value ...]       <- first line: makes the file a command. An upper-case word is
        #                                             the positional: `spo NAME x` means `spo NAME train_run=x`;
        #                                             PATH=data.train_path is shown as PATH and means that key.
        # One sentence: what it does.              <- shown by `spo --help`
        # More, as long as it helps.               <- shown by `spo NAME --help`
        defaults:
          - data: preferences                      <- a group: conf/data/preferences.yaml
          - ...
          - run_folder: dated                      <- hydra.run.dir and friends; every command has it
          - _self_
          - experiment: null                       <- after _self_, or its values are overwritten
          - optional sweeps: null                  <- `sweeps=FILE` switches multirun on

        _target_: spo.cli.NAME.NAME                <- the function that runs
        seed: 0 # what it means, and its UNIT      <- every key has a comment
        train_run: ??? # must be given: the mend is named when it is not
        html: false    # what is off by itself may also be switched on by --html

    spo/cli/NAME.py
        def NAME(*, run: RunFolder, data: ..., seed: int, train_run: str) -> int | None

The function's parameters, all but `run`, are exactly the keys of the composed file (groups and scalars). `execute`
gives `run` (so no key may be called `run`), after it has made an object of every `_target_` below; what is
`_partial_: true` arrives as a functools.partial. An exit code may be returned (130: interrupted at a step boundary).

Types are read from the annotations of the `_target_`: int, float, bool, str, Path, None, Any, X | Y, Literal, list,
tuple, dict, Sequence, Mapping; anything else stands for an object, i.e. a node with its own `_target_`.
A key called `every` or `..._every` is an interval in optimizer steps; one longer than the top-level `steps` is refused.
"""

import copy
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from spo.cli.commands import Command
from spo.cli.help import group_names
from spo.cli.hydra_app import explain, first_line
from spo.cli.schema import MISSING, check_schema, nearest
from spo.cli.space import read_space
from spo.errors import ConfigError

HYDRAS_OWN = ("hydra.", "hydra/")  # overrides that say how a command runs, not what


@dataclass(frozen=True)
class Composition:
    """One job, composed: its overrides as typed, without Hydra's own; its plain config; Hydra's choices; its number, as
    Hydra counts in a multirun (None of one that only shows whether others can be composed); its folder there, relative
    to the sweep's."""

    overrides: list[str]
    config: dict[str, Any]
    choices: dict[str, str]
    number: int | None
    folder: str


def compose_jobs(command: Command, words: list[str], multirun: bool) -> tuple[bool, list[Composition], list[str]]:
    """(several jobs?, every job, every problem of every job). `words` are overrides; nothing is written or run."""
    try:
        overrides = _parse(words)
        fixed, problems = _sift([o for o in overrides if not o.is_sweep_override()])
        master = _compose(command, fixed)
        multirun = multirun or master.hydra.mode == RunMode.MULTIRUN
        several = next((o for o in overrides if o.is_sweep_override()), None)
        if not multirun:
            if several is not None:
                problems.append(f"{several.input_line} has several values: add -m to run a job for each")
            lists = [_lines([o for o in overrides if not o.is_sweep_override()])]
        elif master.hydra.runtime.choices["hydra/sweeper"] in _GRIDS:
            params = master.hydra.sweeper.get("params") or {}
            swept = _parse([f"{key}={value}" for key, value in params.items()])
            lists = BasicSweeper.split_arguments([*swept, *overrides], None)[0]
            if not lists:
                problems.append(_empty([*swept, *overrides]))
        else:  # values are chosen while it runs: the ends of the space are checked now, each job when it starts
            params = master.hydra.sweeper.get("params") or {}
            probes = read_space(params, _lines(overrides), _loader()).probes()
            jobs, more = _compose_all(command, probes)
            probed = [dataclasses.replace(job, number=None) for job in jobs]
            return multirun, probed, list(dict.fromkeys([*problems, *more]))
        jobs, more = _compose_all(command, lists)
        return multirun, jobs, list(dict.fromkeys([*problems, *more]))
    except ConfigError as error:
        return multirun, [], str(error).splitlines()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # Hydra raises plain ValueErrors too
        return multirun, [], [explain(error)]


_GRIDS = ("basic", "grid")  # sweepers that know all their jobs before the first


def compose_job(command: Command, words: list[str], number: int) -> tuple[Composition, list[str]]:
    """(one job of a multirun, every problem of it). number: as Hydra counts."""
    overrides, problems = _sift(_parse(words))
    job, more = _compose_one(command, overrides, number=number)
    return job, [*problems, *more]


def _empty(overrides: list[Override]) -> str:
    none = [str(o.input_line) for o in overrides if o.is_sweep_override() and not list(o.sweep_string_iterator())]
    return f"the grid is empty: {', '.join(none)} has no value. Give at least one"


def _compose_all(command: Command, lists: list[list[str]]) -> tuple[list[Composition], list[str]]:
    jobs: list[Composition] = []
    found: dict[str, int] = {}  # problem -> number of jobs that have it
    composed: _Composed = {}
    for number, words in enumerate(lists):
        overrides, problems = _sift(_parse(words))
        job, more = _compose_one(command, overrides, composed, number)
        jobs.append(job)
        for problem in [*problems, *more]:
            found[problem] = found.get(problem, 0) + 1
    return jobs, [p if n == len(lists) else f"{p} (in {n} of {len(lists)} jobs)" for p, n in found.items()]


def _compose_one(
    command: Command, overrides: list[Override], composed: "_Composed | None" = None, number: int = 0
) -> tuple[Composition, list[str]]:
    config = _compose(command, overrides, composed)
    with read_write(config.hydra.job), open_dict(config.hydra.job):
        config.hydra.job.num = number
    choices = {str(k): str(v) for k, v in config.hydra.runtime.choices.items() if not str(k).startswith("hydra")}
    problems: list[str] = []
    resolved = plain(config, "", problems)
    del resolved["hydra"]
    told = {problem.split(" ", 1)[0] for problem in problems}
    found = [problem for problem in check_schema(resolved) if problem.split(" ", 1)[0] not in told]
    problems += [_with_origin(problem, overrides) for problem in found]
    words = [line for line in _lines(overrides) if not line.startswith(HYDRAS_OWN)]
    folder = "" if problems else str(config.hydra.sweep.subdir)  # which may name a value that cannot be resolved
    return Composition(words, resolved, choices, number, folder), problems


def _with_origin(problem: str, overrides: list[Override]) -> str:
    """An unknown key that nobody typed comes from a preset, which was written for another option of the group."""
    key = problem.removeprefix("unknown key ").partition(":")[0]
    typed = {override.key_or_group for override in overrides}
    if not problem.startswith("unknown key ") or key in typed:
        return problem
    presets = [str(o.input_line) for o in overrides if o.key_or_group in ("experiment", "sweeps")]
    by = f" ({', '.join(presets)} sets it, for another option)" if presets else ""
    return f"{problem}{by}. To leave it out: ~{key}"


_Composed = dict[tuple[str, ...], DictConfig]  # the overrides that choose options -> what they compose to


def _compose(command: Command, overrides: list[Override], composed: _Composed | None = None) -> DictConfig:
    """Like Hydra, but an unknown key is kept, so that the schema check names all of them at once.

    Hydra takes half a second. Jobs that choose the same options share a composition, kept in `composed`, and set their
    values in a copy of it; not where a key is added or deleted, which is done in the order of the command line."""
    values = [override for override in overrides if _sets_a_value(override)]
    others = [override for override in overrides if not _sets_a_value(override)]
    if any(override.type.name != "CHANGE" for override in others):
        words = [f"++{o.input_line}" if _sets_a_value(o) else str(o.input_line) for o in overrides]
        config = hydra.compose(command.name, overrides=words, return_hydra_config=True)
    else:
        composed = {} if composed is None else composed
        key = tuple(_lines(others))
        if key not in composed:
            composed[key] = hydra.compose(command.name, overrides=list(key), return_hydra_config=True)
        config = _with_values(composed[key], values, _lines(overrides))
    HydraConfig.instance().set_config(config)  # for ${hydra:...}
    return config


def _with_values(config: DictConfig, values: list[Override], lines: list[str]) -> DictConfig:
    """A copy with values set, as Hydra sets those with ++."""
    config = copy.deepcopy(config)
    for override in values:
        try:
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
        except OmegaConfBaseException as error:
            raise HydraException(f"Error merging override ++{override.input_line}") from error
    with read_write(config.hydra.overrides), open_dict(config.hydra.overrides):
        config.hydra.overrides.task = [line for line in lines if not line.startswith(HYDRAS_OWN)]
    return config


def _sets_a_value(override: Override) -> bool:
    key = override.key_or_group
    return override.type.name == "CHANGE" and not key.startswith("hydra") and not _options(key)


def _options(group: str) -> tuple[str, ...]:
    return _options_of(_loader(), group)


@functools.lru_cache
def _options_of(loader: ConfigLoader, group: str) -> tuple[str, ...]:
    """Read from the disk once: every override of every job is asked about."""
    return tuple(loader.get_group_options(group))


_SHOWN = 24  # options that a message names


def _beside(group: str, choice: str) -> tuple[str, ...]:
    """The options of the group that lie where a choice does: `pair/profile-kernel` has those below pair/ beside it."""
    folder = choice.rpartition("/")[0]
    inside = tuple(f"{folder}/{option}" for option in _options(f"{group}/{folder}")) if folder else ()
    return inside or _options(group)


def _sift(overrides: list[Override]) -> tuple[list[Override], list[str]]:
    """(overrides without those that choose an option that is not there, a message for each of them)."""
    kept, problems = [], []
    for override in overrides:
        group, options = override.key_or_group, _options(override.key_or_group)
        if not options or override.is_sweep_override() or override.is_delete():
            kept.append(override)
            continue
        value = override.value()
        chosen = [] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        wrong = ["null" if c is None else str(c) for c in chosen if str(c) not in _beside(group, str(c))]
        for choice in wrong:
            there = _beside(group, choice)
            like = nearest(choice, there)
            hint = f"did you mean {group}={like}? " if like else ""
            names = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
            problems.append(f"{group}={choice} is no option of {group}: {hint}There are {names}")
        if not wrong:
            kept.append(override)
    return kept, problems


def plain(node: DictConfig, key: str, problems: list[str]) -> dict[str, Any]:
    """The node as plain dicts and lists, interpolations resolved; MISSING is kept, for its own message."""
    out: dict[str, Any] = {}
    for name in node:
        full = f"{key}.{name!s}" if key else str(name)
        try:
            value = MISSING if OmegaConf.is_missing(node, name) else node[name]
            if isinstance(value, DictConfig):
                out[str(name)] = {} if full == "hydra" else plain(value, full, problems)
            else:
                out[str(name)] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except InterpolationToMissingValueError:
            out[str(name)] = MISSING
        except OmegaConfBaseException as error:
            problems.append(f"{full} cannot be resolved: {first_line(error)}")
            out[str(name)] = None
    return out


def _parse(words: list[str]) -> list[Override]:
    return OverridesParser.create(config_loader=_loader()).parse_overrides(words)


def _lines(overrides: list[Override]) -> list[str]:
    """The overrides as they were typed."""
    return [str(override.input_line) for override in overrides]


def _loader() -> ConfigLoader:
    return GlobalHydra.instance().config_loader()


def look(command: Command, words: list[str]) -> tuple[dict[str, Any], dict[str, str], dict[str, list[str]]]:
    """For --help: the composed values, the choices and the options of every group."""
    try:
        job, _ = _compose_one(command, _parse([w for w in words if not _parse([w])[0].is_sweep_override()]))
    except (HydraException, OmegaConfBaseException):
        job, _ = _compose_one(command, [])
    found = {group: list(_options(group)) for group in dict.fromkeys([*group_names(command), *job.choices])}
    return job.config, job.choices, {group: options for group, options in found.items() if options}
