"""`spo COMMAND`: compose and check, write the run folder, execute it in a child; several of them under -m."""

import contextlib
import functools
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from spo import __version__
from spo.cli.child import check_in_child, run_child
from spo.cli.choices import group_page
from spo.cli.commands import Command
from spo.cli.compose import compose_jobs, look, plain
from spo.cli.help import command_help, group_names
from spo.cli.hydra_app import explain, flag_parser, hydra_app, hydra_main, option_folders, prepare
from spo.cli.instantiate import instantiate
from spo.cli.schema import check_schema, nearest
from spo.errors import ConfigError
from spo.paths import PACKAGE
from spo.run_folder import RunFolder
from spo.submit import Launcher

_QUIET = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]  # our own output only


def launch(command: Command, arguments: list[str]) -> int:
    """`spo COMMAND ARGUMENTS`: check, write the run folder, execute it in a child. Returns the exit code."""
    try:
        flags = flag_parser(command).parse_intermixed_args(command.switched_on(arguments))
        prepare(flags.config_dir)
        if flags.help and (pages := [word for word in flags.overrides if word in group_names(command)]):
            print("\n\n".join(group_page(command, group, option_folders(command)) for group in pages))
            return 0
        words = _overrides(command, flags.overrides, asked=flags.help)
    except ValueError as error:
        return _refuse(command, [str(error)])
    if (flags.cfg or flags.info or flags.hydra_help) and not flags.help:
        return _inspect(command, arguments, words)
    with hydra_app(command):
        if flags.help:
            print(command_help(command, *look(command, words), option_folders(command)))
            return 0
        multirun, jobs, problems = compose_jobs(command, words, flags.multirun)
        if not problems and multirun:
            problems = check_in_child([job.config for job in jobs])
        if problems:
            return _refuse(command, problems)
        grid = _Grid(len(jobs)) if multirun else None
        task = functools.partial(_task, command, shlex.join(["spo", command.name, *arguments]), grid)
        try:
            return _run(command, words, task) if grid is None else _multirun(command, words, task, grid)
        except ConfigError as error:  # of a sweeper
            return _refuse(command, str(error).splitlines())
        except (HydraException, OmegaConfBaseException) as error:
            return _refuse(command, [explain(error)])
        except OSError as error:
            return _refuse(command, [f"the run folder cannot be made: {error}"])


def _overrides(command: Command, words: list[str], asked: bool) -> list[str]:
    """The words as overrides. asked: under --help, a word may also name a group. ValueError where it does neither."""
    try:
        return command.arguments(words)
    except ValueError as error:
        groups = group_names(command)
        other = next((word for word in words if "=" not in word), None)
        if not asked or other is None:
            raise
        like = nearest(other, groups)
        hint = f"did you mean {like}? " if like else ""
        raise ValueError(f"--help knows no group {other!r}: {hint}There are {', '.join(groups)}") from error


def complete(command: Command, arguments: list[str]) -> int:
    """Hydra's shell completion of the words after the command."""
    prepare(None)
    return hydra_main(command, arguments)


def _inspect(command: Command, arguments: list[str], words: list[str]) -> int:
    """--cfg, --info, --hydra-help: Hydra's own, on our overrides."""
    given = flag_parser(command).parse_intermixed_args(arguments).overrides
    left = list(given)
    flags = [a for a in arguments if not (a in left and (left.remove(a) or True))]  # type: ignore[func-returns-value]
    return hydra_main(command, [*words, *flags])


def _run(command: Command, words: list[str], task: Callable[[DictConfig], int]) -> int:
    done = GlobalHydra.instance().hydra.run(command.name, task, [*_QUIET, *words, "hydra.mode=RUN"])  # type: ignore[union-attr]
    return int(done.return_value)


def _multirun(command: Command, words: list[str], task: Callable[[DictConfig], int], grid: "_Grid") -> int:
    """Every job through Hydra's sweeper and launcher; 1 if any failed, the signal's code if interrupted."""
    print(f"spo {command.name}: {grid.jobs} jobs, all checked", flush=True)
    app = GlobalHydra.instance().hydra
    try:
        done = app.multirun(command.name, task, [*_QUIET, *words, "hydra.mode=MULTIRUN"])  # type: ignore[union-attr]
    except _Interrupted as error:
        print(
            f"spo {command.name}: interrupted; the jobs that were not begun are not run. The same command with "
            f"hydra.sweep.dir={error.folder} goes on",
            file=sys.stderr,
        )
        return error.code
    jobs = [job for batch in done or [] for job in batch]
    failed = [job for job in jobs if job.return_value]
    before = f", {grid.skipped} of them before" if grid.skipped else ""
    print(f"spo {command.name}: {len(jobs) - len(failed)} of {len(jobs)} jobs ok{before}", flush=True)
    for job in failed:
        folder = job.hydra_cfg.hydra.runtime.output_dir
        print(f"  exit code {job.return_value}: {' '.join(job.overrides)}  ({folder})", file=sys.stderr)
    return 1 if failed else 0


_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # a job that was killed harms no other


class _Interrupted(KeyboardInterrupt):
    """A job was interrupted: the sweep ends with it."""

    def __init__(self, code: int, folder: Path) -> None:
        super().__init__(code)
        self.code, self.folder = code, folder


@dataclass
class _Grid:
    """How far a multirun has come. Jobs of an earlier one in its folder are gone on with, finished ones are skipped."""

    jobs: int
    done: int = 0
    skipped: int = 0
    failed: int = 0

    def where(self, number: int) -> str:
        """number: of the job, from 0."""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"job {number + 1} of {max(self.jobs, number + 1)} ({self.done} done, {self.skipped} skipped{failed})"

    def run(self, job: Callable[[], int | None]) -> int:
        """The exit code of the job; None of one that was skipped."""
        code = job()
        self.skipped += code is None
        self.done += code == 0
        self.failed += bool(code)
        return code or 0


def _task(command: Command, line: str, grid: _Grid | None, config: DictConfig) -> int:
    """A run, or a job of a grid: its folder, then its process. Never raises but for an interrupt: other jobs go on."""
    if grid is None:
        return _job(command, line, config, may_be_begun=False) or 0
    number = int(HydraConfig.get().job.num)
    print(f"spo {command.name}: {grid.where(number)}", flush=True)
    return grid.run(lambda: _job(command, line, config, may_be_begun=True))


def _job(command: Command, line: str, config: DictConfig, *, may_be_begun: bool) -> int | None:
    """The exit code; None where there is nothing to do. may_be_begun: by an earlier multirun, with the same config."""
    settings = HydraConfig.get()
    run = RunFolder(settings.runtime.output_dir)
    problems: list[str] = []
    resolved = plain(config, "", problems)
    problems += check_schema(resolved)  # done before, except for values that a sweeper chose just now
    choices = {str(k): str(v) for k, v in settings.runtime.choices.items() if not str(k).startswith("hydra")}
    invocation = {
        "command": command.name,
        "overrides": list(settings.overrides.task),
        "choices": choices,
        "command_line": line,
        "sweep": str(settings.sweep.dir) if settings.mode == RunMode.MULTIRUN else None,
        "version": __version__,
        "git_commit": _git_commit(),
    }
    try:
        if problems:
            raise ConfigError("\n".join(problems))
        begun = may_be_begun and run.holds(resolved)
        if begun and (why := _nothing_to_do(run)):
            print(f"spo {command.name}: {_shown(run.path)} {why}: skipped", flush=True)
            return None
        if not begun:
            run.create(resolved, invocation)
    except ConfigError as error:
        return _refuse(command, str(error).splitlines())
    except OSError as error:
        return _refuse(command, [f"the run folder {run.path} cannot be written: {error.strerror}"])
    print(f"spo {command.name}: {_shown(run.path)}", flush=True)
    try:
        launcher = _launcher(resolved)
        code = run_child(run.path) if launcher is None else launcher.start(run.path)
    except ConfigError as error:
        return _refuse(command, str(error).splitlines())
    if code in _INTERRUPTED and settings.mode == RunMode.MULTIRUN:
        raise _Interrupted(code, _shown(Path(settings.sweep.dir)))
    return code


def _nothing_to_do(run: RunFolder) -> str | None:
    """Why a job that was begun before is not to be gone on with; None where it is."""
    if run.status.get("state") == "ok":
        return "is finished"
    pid = run.status.get("pid")
    with contextlib.suppress(OSError):  # no such process, or a system without /proc
        if run.status.get("state") == "running" and b"execute" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return f"is being run by process {pid}"
    return None


def _launcher(config: Mapping[str, Any]) -> Launcher | None:
    """What hardware.launcher asks to start the run elsewhere; None for a child of this process."""
    launcher: Launcher | None = instantiate((config.get("hardware") or {}).get("launcher"), "hardware.launcher")
    return launcher


def _git_commit() -> str | None:
    """The checkout's commit, with "+changes" where files differ from it; None for an installed wheel."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    with contextlib.suppress(OSError):
        return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
    return None


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _refuse(command: Command, problems: list[str]) -> int:
    text = problems[0] if len(problems) == 1 else "".join(f"\n  - {problem}" for problem in problems)
    print(f"spo {command.name}: {text}", file=sys.stderr)
    return 2
