"""`spo COMMAND`: compose and check, write the run folder, execute it in a child; several of them under -m."""

import contextlib
import functools
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from spo import __version__
from spo.cli.child import check_in_child, run_child
from spo.cli.choices import group_page
from spo.cli.commands import Command
from spo.cli.compose import HYDRAS_OWN, Composition, compose_jobs, look, plain
from spo.cli.help import command_help, group_names
from spo.cli.hydra_app import (
    explain,
    flag_parser,
    hydra_app,
    hydra_main,
    launcher_words,
    option_folders,
    prepare,
    sweep_id,
)
from spo.cli.multirun import Multirun, SweepEnded, own_launcher
from spo.cli.schema import check_schema, nearest
from spo.cli.version import git_commit
from spo.errors import ConfigError
from spo.run_folder import RunFolder
from spo.submit import ThisMachine

# what `spo sweep resume` gives anew; the other options of a launcher are those of the cluster
_OF_A_START = ("hydra.sweep.dir=", *(f"hydra.launcher.{key}=" for key in ("fail_fast", "retries", "max_jobs")))
_QUIET = ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]  # our own output only


def launch(command: Command, arguments: list[str]) -> int:
    """`spo COMMAND ARGUMENTS`: check, write the run folder, execute it in a child. Returns the exit code."""
    try:
        flags = flag_parser(command).parse_intermixed_args(command.switched_on(arguments))
        prepare(flags.config_dir)
        if flags.help and (pages := [word for word in flags.overrides if word in group_names(command)]):
            print("\n\n".join(group_page(command, group, option_folders(command)) for group in pages))
            return 0
        words = [*_overrides(command, flags.overrides, asked=flags.help), *launcher_words(flags)]
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
        line = shlex.join(["spo", command.name, *arguments])
        try:
            if multirun:
                return _multirun(command, flags, words, line, jobs)
            return _run(command, words, functools.partial(_task, command, line))
        except (HydraException, OmegaConfBaseException) as error:
            return _refuse(command, [explain(error)])
        except ConfigError as error:
            return _refuse(command, str(error).splitlines())
        except BrokenPipeError:
            raise  # whoever read our output went away
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


def _multirun(command: Command, flags: Namespace, words: list[str], line: str, jobs: list[Composition]) -> int:
    """Every job through Hydra's sweeper and our launcher; 1 if any failed, the signal's code if interrupted."""
    known = all(job.number is not None for job in jobs)
    checked = f"{len(jobs)} jobs, all checked" if known else "a search; the ends of its space are checked"
    print(f"spo {command.name}: {checked}", flush=True)
    name = next((job.choices["sweeps"] for job in jobs if job.choices.get("sweeps") not in (None, "None")), None)
    multirun = Multirun(
        command=command,
        jobs=jobs,
        request={
            "command": command.name,
            "command_line": line,
            "words": [word for word in words if not word.startswith(_OF_A_START)],
            "config_dir": flags.config_dir and str(Path(flags.config_dir).resolve()),
            "folder": str(Path.cwd()),
            "git_commit": (commit := git_commit()),
        },
        hydras=[word for word in words if word.startswith(HYDRAS_OWN)],
        identity=sweep_id(name, command.name),
        name=name,
        invocation=lambda job: _invocation(command, line, job.overrides, job.choices) | {"git_commit": commit},
    )
    app = GlobalHydra.instance().hydra
    try:
        with contextlib.suppress(SweepEnded):
            app.multirun(command.name, multirun, [*_QUIET, *words, "hydra.mode=MULTIRUN"])  # type: ignore[union-attr]
        return multirun.finish()
    except OSError as error:
        multirun.abandon(error)
        if isinstance(error, BrokenPipeError):
            raise
        where = f"the sweep's folder {multirun.folder} cannot be written ({error})"
        return _refuse(command, [f"{where}: mend that, or give another with hydra.sweep.dir=FOLDER"])
    except BaseException as error:
        multirun.abandon(error)
        raise


def _task(command: Command, line: str, config: DictConfig) -> int:
    """A single run: its folder, then its process."""
    settings = HydraConfig.get()
    run = RunFolder(settings.runtime.output_dir)
    problems: list[str] = []
    resolved = plain(config, "", problems)
    problems += check_schema(resolved)
    choices = {str(k): str(v) for k, v in settings.runtime.choices.items() if not str(k).startswith("hydra")}
    try:
        if problems:
            raise ConfigError("\n".join(problems))
        run.create(resolved, _invocation(command, line, list(settings.overrides.task), choices))
        print(f"spo {command.name}: {_shown(run.path)}", flush=True)
        return run_child(own_launcher(resolved) or ThisMachine(), run.path)
    except ConfigError as error:
        return _refuse(command, str(error).splitlines())
    except OSError as error:
        return _refuse(command, [f"the run folder {run.path} cannot be written: {error.strerror}"])


def _invocation(command: Command, line: str, overrides: list[str], choices: Mapping[str, str]) -> dict[str, Any]:
    """What a run folder keeps of the command; `sweep`: of which it is a job."""
    return {
        "command": command.name,
        "overrides": overrides,
        "choices": dict(choices),
        "command_line": line,
        "sweep": None,
        "version": __version__,
        "git_commit": git_commit(),
    }


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _refuse(command: Command, problems: list[str]) -> int:
    text = problems[0] if len(problems) == 1 else "".join(f"\n  - {problem}" for problem in problems)
    print(f"spo {command.name}: {text}", file=sys.stderr)
    return 2
