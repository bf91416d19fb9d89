"""Every YAML under conf/ and sweeps/: composed, checked against its `_target_`, commented, built (HABITS 5, 16).

That every key is read is tests/test_dead_keys.py; that every experiment runs, tests/end_to_end/test_experiments.py.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from spo.cli.commands import find_commands
from spo.cli.compose import Composition, compose_jobs
from spo.cli.help import head_comment, key_comments
from spo.cli.hydra_app import hydra_app, prepare
from spo.cli.instantiate import instantiate, instantiate_children
from spo.cli.signature import read_signature
from spo.errors import ConfigError
from spo.paths import asset_dir

CONF, SWEEPS = asset_dir("conf"), asset_dir("sweeps")
COMMANDS = find_commands(CONF)
FILES = sorted(CONF.rglob("*.yaml"))
OPTIONS = [path for path in FILES if path.parent != CONF]
RESERVED = {"_target_", "_partial_", "defaults"}


def name(path: Path) -> str:
    return str(path.relative_to(CONF.parent))


def is_global(path: Path) -> bool:
    """Changes keys that other files declare (methods, experiments, sweeps)."""
    return "# @package _global_" in path.read_text()


def load(path: Path) -> dict[str, Any]:
    text = path.read_text()
    return yaml.safe_load(text) or {}


def nodes(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, with its dotted key."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for inner, value in node.items():
            yield from nodes(value, f"{key}.{inner}" if key else str(inner))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from nodes(value, f"{key}[{i}]")


def leaves(node: dict[str, Any], key: str = "") -> Iterator[str]:
    for inner, value in node.items():
        full = f"{key}.{inner}" if key else str(inner)
        if inner in RESERVED:
            continue
        if isinstance(value, dict) and value:
            yield from leaves(value, full)
        else:
            yield full


def above(key: str) -> list[str]:
    """The key and the mappings it lies in: one comment may speak for a mapping of free keys."""
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def compose(command: str, *words: str) -> tuple[list[Composition], list[str]]:
    """Jobs and problems; a value that only a user can give is no problem."""
    prepare(None)
    with hydra_app(COMMANDS[command]):
        _, jobs, problems = compose_jobs(COMMANDS[command], list(words), multirun=False)
    return jobs, [problem for problem in problems if " is not set: give " not in problem]


def groups(command: str) -> list[str]:
    """The groups in a command's defaults list."""
    entries = [entry for entry in load(COMMANDS[command].path)["defaults"] if isinstance(entry, dict)]
    return [str(next(iter(entry))).removeprefix("optional ") for entry in entries]


def package(group: str) -> list[str]:
    """Where a group's node lies: `policy/lora` in policy.lora, `prompts@fresh` in fresh."""
    return group.rpartition("@")[2].replace("/", ".").split(".")


def options(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group.partition("@")[0]).glob("*.yaml")) if not is_global(path)]


def inner_groups(group: str, option: str) -> list[str]:
    """Groups inside an option: `prompts@evaluate.prompts` in evaluate=tilt."""
    entries = load(CONF / group / f"{option}.yaml").get("defaults", [])
    names = [str(next(iter(entry))).lstrip("/").partition("@") for entry in entries if isinstance(entry, dict)]
    return [f"{inner}@{group}.{place or inner}" for inner, _, place in names]


CHOICES = [
    (command, [f"{group}={option}"], group)
    for command in COMMANDS
    for group in groups(command)
    for option in options(group)
]
CHOICES += [
    (command, [f"{group}={option}", f"{inner}={choice}"], inner)
    for command in COMMANDS
    for group in groups(command)
    for option in options(group)
    for inner in inner_groups(group, option)
    for choice in options(inner)
]
Build = Callable[[Any, str], Any]


@pytest.fixture
def build(tiny_llama_dir: Path) -> Build:
    """The object of a node: what only a user can give is given, a partial one is completed as its command would."""
    late: dict[str, Any] = {"seed": 0, "global_batch": 8, "micro_batch": 4, "micro_tokens": None}
    late |= {"labels": lambda row_id, difference: row_id}
    late |= {"max_length": 64, "max_prompt_length": None, "truncation": "drop"}

    def complete(made: Any) -> Any:
        if not isinstance(made, functools.partial):
            return made
        signature = inspect.signature(made.func).parameters
        missing = {n: p for n, p in signature.items() if p.default is p.empty and n not in made.keywords}
        text = {"tokenizer": AutoTokenizer.from_pretrained(tiny_llama_dir)}
        return made(**{n: None if p.annotation is None else (late | text)[n] for n, p in missing.items()})

    return lambda node, key: complete(instantiate(given(node, tiny_llama_dir), key))


def given(node: Any, path: Path) -> Any:
    """The node with a path in every place that only a user can fill; constructors look no further than its name."""
    if isinstance(node, dict):
        if node.get("_target_") == "spo.simulate.rewards.ImportedReward":  # its path is a dotted name
            return {**node, "path": "operator.add"}
        return {key: given(value, path) for key, value in node.items()}
    if isinstance(node, list):
        return [given(value, path) for value in node]
    return str(path) if node == "???" else node


@pytest.mark.parametrize("path", [*FILES, *sorted(SWEEPS.glob("*.yaml"))], ids=name)
def test_it_says_what_it_is(path: Path):
    assert head_comment(path), "the first line is a comment that says what this is"


@pytest.mark.parametrize("path", [path for path in FILES if not is_global(path)], ids=name)
def test_every_key_has_a_comment(path: Path):
    comments = key_comments(path)
    assert not [key for key in leaves(load(path)) if not any(comments.get(place) for place in above(key))]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_keys_equal_the_parameters_of_its_function(command: str):
    (job,), problems = compose(command)
    assert not problems
    signature = read_signature(job.config["_target_"])
    assert signature is not None
    assert set(job.config) - {"_target_"} == set(signature.parameters) - {"run"}


@pytest.mark.parametrize(("command", "words", "group"), CHOICES, ids=lambda v: " ".join(v) if type(v) is list else v)
def test_every_option_composes_and_is_built(command: str, words: list[str], group: str, build: Build):
    """The YAML is the schema: its keys are the parameters of its `_target_`, none more and none fewer."""
    (job,), problems = compose(command, *words)
    assert not problems
    node: Any = job.config
    for part in package(group):
        node = node[part]
    assert "_target_" in node
    for key, inner in nodes(node):
        signature = read_signature(inner["_target_"])
        if signature is None or signature.open:
            continue
        keys, parameters = set(inner) - RESERVED, set(signature.parameters)
        assert keys <= parameters if inner.get("_partial_") else keys == parameters, key
    build(node, group)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_part_of_a_command_is_built(command: str, build: Build):
    """Also what belongs to no group, such as the renderer of `spo label`."""
    (job,), _ = compose(command)
    for key, node in job.config.items():
        if isinstance(node, dict) and "_target_" in node:
            build(node, key)


PLUGINS = [
    path for path in OPTIONS if path.is_relative_to(CONF / "hydra") and "_target_: hydra_plugins" in path.read_text()
]


@pytest.mark.parametrize("path", PLUGINS, ids=name)
def test_the_keys_of_a_plugin_are_its_parameters(path: Path):
    """And hydra/sweeper=NAME composes: Hydra's options come by no defaults list of ours."""
    _, problems = compose("train", f"{path.parent.relative_to(CONF)}={path.stem}")
    assert not problems
    node = load(path)
    signature = read_signature(node["_target_"])
    assert signature is not None
    inner = {str(next(iter(entry))) for entry in node.get("defaults", []) if isinstance(entry, dict)}
    assert {*node, *inner} - RESERVED - {"_recursive_"} == set(signature.parameters)


@pytest.mark.parametrize("path", OPTIONS, ids=name)
def test_no_option_is_out_of_reach(path: Path):
    group = str(path.parent.relative_to(CONF))
    if group.startswith("hydra/"):  # Hydra's own groups: every command has them
        return
    nested = {
        entry_path(entry, other.parent)
        for other in OPTIONS
        for entry in load(other).get("defaults", [])
        if isinstance(entry, dict)
    }
    used = {g.partition("@")[0] for command in COMMANDS for g in groups(command)}
    assert group in used | nested, f"no command has the group {group}"


def entry_path(entry: dict[str, Any], folder: Path) -> str:
    group = str(next(iter(entry))).removeprefix("override ").removeprefix("optional ").partition("@")[0]
    return group.lstrip("/") if group.startswith("/") else str((folder / group).relative_to(CONF))


@pytest.mark.parametrize("path", [path for path in OPTIONS if is_global(path)], ids=name)
def test_every_global_file_composes_for_a_command(path: Path):
    """Methods, budgets and experiments; an experiment is written for one command or for several."""
    group, option = str(path.parent.relative_to(CONF)), path.stem
    words = [f"{group}={option}"]
    if "/" in group:  # budget/paper/pspo: the part of budget=paper that belongs to method=pspo
        group, _, whole = group.partition("/")
        words = [f"{group}={whole}", f"method={option}"]
    if group == "budget":
        words.append("experiment=synthetic")
    tried = {command: compose(command, *words)[1] for command in COMMANDS if group in groups(command)}
    assert any(not problems for problems in tried.values()), tried


def sweeps(searched: bool) -> list[Path]:
    """Files of grids, or of searches."""
    return [
        path for path in sorted(SWEEPS.glob("*.yaml")) if ("override /hydra/sweeper" in path.read_text()) == searched
    ]


@pytest.mark.parametrize("path", sweeps(searched=False), ids=name)
def test_every_value_of_a_sweep_composes_and_builds(path: Path, tiny_llama_dir: Path):
    """Each beside the first of the others: to compose the whole grid takes minutes, and its groups are independent."""
    content = load(path)
    assert content["hydra"]["mode"] == "MULTIRUN"
    params = {key: simple_split(values) for key, values in content["hydra"]["sweeper"]["params"].items()}
    swept = {key.partition("@")[0].partition(".")[0] for key in params}
    fits = [c for c in COMMANDS if swept <= {*load(COMMANDS[c].path), *(g.partition("@")[0] for g in groups(c))}]
    command = "train" if "train" in fits else fits[0]
    first = {key: values[0] for key, values in params.items()}
    crosses = [first, *(first | {key: value} for key, values in params.items() for value in values[1:])]
    assert len(crosses) > 1
    for cross in crosses:
        words = [f"{key}={value}" for key, value in cross.items()]
        (job,), problems = compose(command, f"sweeps={path.stem}", "hydra.mode=RUN", *words)
        assert not problems
        parts = instantiate_children(given(job.config, tiny_llama_dir))
        parts["objective"].check(parts["link"])


@pytest.mark.parametrize("path", sweeps(searched=True), ids=name)
def test_the_ends_and_every_choice_of_a_search_compose_and_build(path: Path, tiny_llama_dir: Path):
    assert load(path)["hydra"]["mode"] == "MULTIRUN"
    jobs, problems = compose("train", f"sweeps={path.stem}")
    assert not problems
    assert len(jobs) > 1
    for job in jobs:
        parts = instantiate_children(given(job.config, tiny_llama_dir))
        parts["objective"].check(parts["link"])


def test_the_pairs_of_an_ablation_are_those_that_go_together():
    """Each objective with each link that it accepts, and once with a link that it does not use."""
    methods = simple_split(load(SWEEPS / "objective_link.yaml")["hydra"]["sweeper"]["params"]["method"])
    assert len(methods) == len(set(methods))
    jobs = [compose("train", "sweeps=objective_link", "hydra.mode=RUN", f"method={m}")[0][0] for m in methods]
    listed = [(job.choices["objective"], job.choices["link"]) for job in jobs]
    made = {group: {option: part(group, option) for option in options(group)} for group in ("objective", "link")}
    expected = {
        (objective, link)
        for objective, loss in made["objective"].items()
        for link, curve in made["link"].items()
        if link != "shifted_mixture" and accepts(loss, curve) and (loss.needs_link or link == "logistic")
    }
    assert set(listed) == expected
    assert len(listed) == len(expected)


def part(group: str, option: str) -> Any:
    (job,), _ = compose("train", f"{group}={option}")
    return instantiate(job.config[group], group)


def accepts(objective: Any, link: Any) -> bool:
    try:
        objective.check(link)
    except ConfigError:
        return False
    return True


def simple_split(values: Any) -> list[str]:
    """The values of a sweep: `a,b`, or `[0.0],[0.5]`."""
    return re.findall(r"\[[^]]*\]|[^,\s]+", str(values))
