"""Targets of the toy configuration: a command, two links, an optimizer."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spo.errors import ConfigError, DataError
from spo.run_folder import RunFolder

Mode = Literal[
    "ok", "argument", "mendable", "crash", "full", "memory", "wait", "code", "killed", "leak", "only_seed_1_fails"
]
LEAKED: list[int] = []


class Link:
    """Nothing but a type."""


class Isotonic(Link):
    def __init__(self, *, knots: int, symmetric: bool) -> None:
        if knots < 1:
            raise ConfigError(f"knots is {knots}: give at least 1")
        self.knots, self.symmetric = knots, symmetric


@dataclass
class Kernel(Link):
    bandwidth: float | None
    rule: Literal["silverman", "fixed"]


class Optim:
    def __init__(self, learning_rate: float, betas: list[float], columns: dict[str, str] | None, every: int) -> None:
        problems = [f"learning_rate is {learning_rate}: give a value > 0"] if learning_rate <= 0 else []
        problems += ["betas has not two values: give two"] if len(betas) != 2 else []
        if problems:
            raise ConfigError("\n".join(problems))
        self.learning_rate = learning_rate


def fit(
    *,
    run: RunFolder,
    link: Link,
    optim: Callable[..., Optim],
    mode: Mode,
    seed: int,
    steps: int,
    source_run: str | list[str] | None,
    data_path: str,
) -> int | None:
    assert not isinstance(optim, dict)
    print(f"argv {sys.argv[1:]} link {type(link).__name__} silent {os.environ.get('WANDB_SILENT')}")
    LEAKED.append(seed)
    run.write_json("ran.json", {"seed": seed, "argv": sys.argv, "leaked": LEAKED, "pid": os.getpid()})
    return {
        "ok": lambda: None,
        "leak": lambda: None,
        "argument": lambda: None,
        "code": lambda: 130,
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "mendable": _mendable,
        "crash": _crash,
        "full": _full,
        "memory": _memory,
        "wait": _wait,
        "only_seed_1_fails": _crash if seed == 1 else lambda: None,
    }[mode]()


def _mendable() -> None:
    raise DataError("rows.jsonl:3 has no column 'prompt': give data.columns.prompt=NAME")


def _crash() -> None:
    raise ZeroDivisionError("in the middle")


def _memory() -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 240000000000 bytes")


def _full() -> None:
    Path("/dev/full").write_text("x")


def _wait() -> None:
    print("waiting", flush=True)
    time.sleep(60)
