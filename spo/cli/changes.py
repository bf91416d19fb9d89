"""`spo execute RUN key=value`: go on with a run with other keys, of those that change no result but its rounding."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from spo.cli.schema import check_schema
from spo.errors import ConfigError

ALLOWED = (
    "micro_batch",
    "micro_tokens",
    "batch_size",
    "evaluate.batch_size",
    "policy.gradient_checkpointing",
    "policy.head_chunk",
)


def changed(config: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The config with these `key=value`. ConfigError, with everything that is wrong, where one cannot be."""
    new = copy.deepcopy(dict(config))
    there = [key for key in ALLOWED if _node(new, key) is not None]
    problems = []
    for word in words:
        key, _, text = word.partition("=")
        node = _node(new, key)
        if key not in ALLOWED or node is None:
            problems.append(
                f"{key} cannot be changed in a run that was composed. What changes no result but its rounding can be: "
                f"{', '.join(there) or 'no key of this one'}. Else start another run"
            )
            continue
        try:
            node[key.rpartition(".")[2]] = yaml.safe_load(text)
        except yaml.YAMLError:
            problems.append(f"{word} cannot be read: give {key}=VALUE")
    problems = problems or check_schema(new)
    if problems:
        raise ConfigError("\n".join(problems))
    return new


def _node(config: Any, key: str) -> dict[str, Any] | None:
    """The mapping that holds the last part of a dotted key; None where there is no such key."""
    *above, name = key.split(".")
    for part in above:
        config = config.get(part) if isinstance(config, dict) else None
    return config if isinstance(config, dict) and name in config else None
