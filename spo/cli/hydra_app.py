"""Hydra's surroundings: where it searches, its flags, its own commands, its complaints in one message."""

import argparse
import contextlib
import functools
import io
import itertools
import random
import re
import string
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spo.cli.commands import Command
from spo.errors import SpoError
from spo.overrides import split
from spo.paths import asset_dir


class SpoSearchPath(SearchPathPlugin):
    """--config-dir before our conf/; after it the parent of sweeps/, so that `sweeps=NAME` finds flat files, and the
    user's own ./conf and ./sweeps."""

    config_dir: ClassVar[str | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.config_dir:
            search_path.prepend("command-line", f"file://{Path(self.config_dir).resolve()}")
        with contextlib.suppress(FileNotFoundError):
            search_path.append("spo-sweeps", f"file://{asset_dir('sweeps').parent}")
        for name, place in (("local-conf", Path("conf")), ("local-sweeps", Path("sweeps"))):
            if place.is_dir() and place.resolve() != asset_dir(place.name).resolve():
                search_path.append(name, f"file://{(place if place.name == 'conf' else place.parent).resolve()}")


def prepare(config_dir: str | None) -> None:
    """What must be known before Hydra searches or resolves anything."""
    SpoSearchPath.config_dir = config_dir
    if SpoSearchPath not in Plugins.instance().discover(SearchPathPlugin):
        Plugins.instance().register(SpoSearchPath)
    _store_pairs()
    OmegaConf.register_new_resolver("short", short_name, replace=True)
    OmegaConf.register_new_resolver("steps_of", steps_of, replace=True)
    OmegaConf.register_new_resolver("decay_over", decay_over, replace=True)
    OmegaConf.register_new_resolver("chosen", chosen, replace=True)
    _stamp.cache_clear()  # a command, a sweep
    OmegaConf.register_new_resolver("sweep_id", sweep_id, replace=True)


def _store_pairs() -> None:
    """`method=pair/OBJECTIVE-LINK` for every objective and every link, the user's own included.

    Without a file for each, so that a grid may hold any list of pairs. `Objective.check` says which go together."""
    folders = [SpoSearchPath.config_dir, asset_dir("conf"), "conf"]
    objective, link = (
        sorted({path.stem for folder in folders if folder for path in Path(folder, group).glob("*.yaml")})
        for group in ("objective", "link")
    )
    for first, second in itertools.product(objective, link):
        node = {"defaults": [{"override /objective": first}, {"override /link": second}]}
        ConfigStore.instance().store(f"{first}-{second}", node, group="method/pair", package="_global_", provider="spo")


def option_folders(command: Command) -> list[Path]:
    """Where the options of a command lie, as the search path has it; the first found counts. After `prepare`."""
    given = [Path(SpoSearchPath.config_dir)] if SpoSearchPath.config_dir else []
    local = [folder for folder, sign in ((Path("conf"), "conf"), (Path(), "sweeps")) if Path(sign).is_dir()]
    return [*given, command.path.parent, asset_dir("sweeps").parent, *local]


def hydra_app(command: Command) -> AbstractContextManager[None]:
    """Hydra, ready to compose this command."""
    return hydra.initialize_config_dir(str(command.path.parent), job_name=command.name, version_base="1.3")


def short_name(overrides: list[str], value_limit: int = 24, limit: int = 120) -> str:
    """Overrides as the end of a folder's name: "_link-kernel_seed-1"; "" for none. Safe on every file system.

    `data.train_path='/a/b c.jsonl'` becomes `_train_path-b_c.jsonl`. Limits in characters, of a value and of all.
    """
    parts = []
    for override in overrides:
        key, value = split(override)
        value = re.sub(r"[^\w.+-]+", "_", value.rstrip("/").rpartition("/")[2]).strip("_")
        parts.append(f"_{key.rpartition('.')[2].replace('/', '_')}-{value[-value_limit:]}")
    return "".join(parts)[:limit].rstrip("_.-")


def steps_of(passes: int, rows: int, batch: int) -> int:
    """passes · ceil(rows / batch): optimizer steps of passes over all rows, the last batch of a pass a part of one.

    So that a budget written in passes gives intervals in optimizer steps at every number of rows. What is no number
    of rows or of a batch gives 1: what takes it as such refuses it."""
    if not (isinstance(rows, int) and isinstance(batch, int) and rows > 0 and batch > 0):
        return 1
    return passes * -(-rows // batch)


def decay_over(passes: int, rows: int, batch: int) -> float:
    """1 - 1 / steps: the decay a step of an exponential average that reaches back so many passes over all rows."""
    return 1.0 - 1.0 / max(2, steps_of(passes, rows, batch))


def chosen(group: str, *, _root_: DictConfig) -> str:
    """In a defaults list, the option chosen in a group that the list of the command has further down; "None" for none.

    `${group}` by itself is Hydra's for that, and fails where the option is null."""
    return str(_root_.get(group))


def sweep_id(name: str | None, command: str) -> str:
    """`link_ablation_2026-11-22_17-15-23_k3f9`: what it is, when it began, and letters that no other one has."""
    return f"{name or command}_{_stamp()}"


@functools.cache
def _stamp() -> str:
    letters = "".join(random.SystemRandom().choices(string.ascii_lowercase + string.digits, k=4))
    return f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{letters}"


def launcher_words(flags: argparse.Namespace) -> list[str]:
    """--fail-fast, --retries N and --max-jobs N as overrides."""
    fast = ["hydra.launcher.fail_fast=true"] if flags.fail_fast else []
    retries = [] if flags.retries is None else [f"hydra.launcher.retries={flags.retries}"]
    jobs = [] if flags.max_jobs is None else [f"hydra.launcher.max_jobs={flags.max_jobs}"]
    return [*fast, *retries, *jobs]


def flag_parser(command: Command) -> argparse.ArgumentParser:
    parser = get_args_parser()
    parser.prog = f"spo {command.name}"
    parser.usage = f"{command.usage} [-m] [--help] [--cfg job] [--config-dir DIR]"
    return with_launcher_flags(parser)


def with_launcher_flags(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Of a multirun: short for the keys of hydra.launcher."""
    parser.add_argument("--fail-fast", action="store_true", help="of -m: the first job that fails ends the sweep")
    parser.add_argument("--retries", type=int, help="of -m: further attempts of a job that crashed or was killed")
    parser.add_argument("--max-jobs", type=int, help="of -m: jobs at a time")
    return parser


def hydra_main(command: Command, arguments: list[str]) -> int:
    """What Hydra does by itself (--cfg, --info, completion); its complaint in one message, without a traceback."""
    old = list(sys.argv)
    sys.argv = [f"spo {command.name}", *arguments]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            hydra.main(version_base="1.3", config_path=str(command.path.parent), config_name=command.name)(_nothing)()
        return 0
    except SystemExit as error:
        lines = [line for line in complaint.getvalue().splitlines() if line and "HYDRA_FULL_ERROR" not in line]
        if error.code and lines:
            print(
                f"spo {command.name}: {lines[-1] if lines[0].startswith('Traceback') else ' '.join(lines)}",
                file=sys.stderr,
            )
        return 2 if error.code else 0
    except ValueError as error:  # of flags that exclude each other
        print(f"spo {command.name}: {error}", file=sys.stderr)
        return 2
    finally:
        sys.argv = old


def _nothing(config: DictConfig) -> None:
    """The task of a command that only shows something."""


def explain(error: Exception) -> str:
    """Hydra's or OmegaConf's complaint in one clear message."""
    if isinstance(error.__cause__, SpoError):  # of a constructor that Hydra called
        return str(error.__cause__)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    text = str(error).split("\nSee https://hydra.cc")[0].strip()
    if cause is not None:
        key = getattr(cause, "full_key", None)
        return f"{key}: {first_line(cause)}" if key else f"{text.splitlines()[0]}: {first_line(cause)}"
    if "mismatched input" in text or "extraneous input" in text or "LexerNoViableAlt" in text or "no viable" in text:
        first = f"cannot read the override {getattr(error, 'override', '')}: {text.splitlines()[0]}"
        return f"{first}\nWrite key=value, and quote a value with special characters twice: \"key='a=b, c'\""
    return text


def first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
