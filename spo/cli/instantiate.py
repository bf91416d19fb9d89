"""Objects from plain config nodes: `_target_` called with the other keys, `_partial_: true` kept for later.

Every ConfigError of a tree is gathered, so that a user mends all of them at once.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from spo.errors import ConfigError


def locate(target: str) -> Callable[..., Any]:
    """The object of a dotted name. ConfigError if there is none."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(f"{target} needs the module {error.name!r}, which is not installed") from error
            continue
        try:
            for attribute in parts[cut:]:
                found = getattr(found, attribute)
        except AttributeError as error:
            raise ConfigError(f"{target}: {error}") from error
        if not callable(found):
            raise ConfigError(f"{target} is a {type(found).__name__}: a `_target_` must be callable")
        return found  # type: ignore[no-any-return]
    raise ConfigError(f"there is no module for {target}: install it, or run where it lies")


def instantiate(node: Any, key: str = "") -> Any:
    """The object of a config node. ConfigError with every problem below it, one a line."""
    problems: list[str] = []
    built = _build(node, key, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return built


def instantiate_children(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the root target: every key but `_target_`, built."""
    problems: list[str] = []
    built = {key: _build(value, key, problems) for key, value in config.items() if key != "_target_"}
    if problems:
        raise ConfigError("\n".join(problems))
    return built


def _build(node: Any, key: str, problems: list[str]) -> Any:
    if isinstance(node, list):
        return [_build(item, f"{key}[{i}]", problems) for i, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    before = len(problems)
    arguments = {
        name: _build(value, f"{key}.{name}" if key else str(name), problems)
        for name, value in node.items()
        if name not in ("_target_", "_partial_")
    }
    if "_target_" not in node or len(problems) > before:
        return arguments
    try:
        target = locate(node["_target_"])
        if node.get("_partial_"):
            return functools.partial(target, **arguments)
        check_names(target, arguments)
        return target(**arguments)
    except ConfigError as error:
        problems.extend(_placed(line, key, arguments) for line in str(error).splitlines())
    return None


def check_names(target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """ConfigError where these are not the target's parameters: Hydra's composition knows, a folder may be of old."""
    try:
        inspect.signature(target).bind(**arguments)
    except ValueError:  # a builtin that has none to show
        return
    except TypeError as error:
        raise ConfigError(f"{error}: composed by another version of the code; compose it anew") from error


def _placed(message: str, key: str, arguments: Mapping[str, Any]) -> str:
    """`learning_rate is -1: ...` from the node `optim` becomes `optim.learning_rate is -1: ...`."""
    if not key or message.startswith(f"{key}."):
        return message
    first = message.split(" ", 1)[0]
    return f"{key}.{message}" if first in arguments else f"{key}: {message}"
