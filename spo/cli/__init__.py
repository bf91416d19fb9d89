"""The command `spo`. This file imports nothing heavy: `spo --help` answers at once."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spo import __version__
from spo.paths import asset_dir

if TYPE_CHECKING:
    from spo.cli.commands import Command


INTERRUPTED = 130  # 128 + SIGINT
OUTPUT_CLOSED = 141  # 128 + SIGPIPE: whoever read our output went away, as in `spo train --help | head`


def main(arguments: list[str] | None = None, conf: Path | None = None) -> int:
    """`spo ARGUMENTS` with the configuration in `conf`; returns the exit code."""
    try:
        code = _main(sys.argv[1:] if arguments is None else arguments, conf)
        sys.stdout.flush()  # here, where a reader that is gone can still be told from a fault
        return code
    except KeyboardInterrupt:  # before the first job or after the last; in between it is passed on to them
        print("spo: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return OUTPUT_CLOSED


def _main(words: list[str], conf: Path | None) -> int:
    from spo.cli.commands import find_commands

    if not any(Path(place or ".").resolve() == Path.cwd() for place in sys.path):
        sys.path.append(str(Path.cwd()))  # `_target_` may name a module of the user's, beside the data
    first, rest = (words[0], words[1:]) if words else ("", [])
    if first == "--version":
        print(f"spo {__version__}")
        return 0
    if first == "execute":
        return _execute(rest)
    commands = find_commands(conf or asset_dir("conf"))
    if first in ("", "-h", "--help", "help"):
        print(_overview([(c.usage.removeprefix("spo "), c.summary) for c in commands.values()]))
        return 0 if first else 2
    if first == "sweep":
        from spo.cli.sweep import sweep

        return sweep(rest, commands)
    if first in ("-sc", "--shell-completion"):
        return _complete(rest, commands)
    if first not in commands:
        from spo.cli.schema import nearest

        like = nearest(first, [*commands, "execute", "sweep"])
        hint = f"did you mean `spo {like}`? " if like else ""
        print(f"spo: there is no command {first!r}: {hint}`spo --help` lists them", file=sys.stderr)
        return 2
    from spo.cli.launch import launch

    return launch(commands[first], rest)


def _execute(words: list[str]) -> int:
    """`spo execute RUN [key=value ...]`; what Lightning's relaunch adds after it (`hydra.run.dir=...`) is ignored."""
    if "--check" in words:
        from spo.cli.execute import check_stdin

        return check_stdin()
    processes = 1
    if words[:1] == ["--processes"] and len(words) > 1 and words[1].isdigit():
        processes, words = int(words[1]), words[2:]
    changes = [word for word in words if "=" in word and not word.startswith(("-", "hydra."))]
    folders = [word for word in words if not word.startswith("-") and "=" not in word]
    if "--help" in words or "-h" in words or not folders:
        from spo.cli.changes import ALLOWED

        print(
            "usage: spo execute [--processes N] RUN [key=value ...]\n\n"
            "Runs, or goes on with, what RUN/config.resolved.yaml describes; with N processes under torchrun.\n"
            "Keys that change no result but its rounding may be given anew, after a run that ran out of memory:\n"
            f"{', '.join(ALLOWED)}."
        )
        return 0 if folders or len(words) else 2
    from spo.cli.execute import execute, execute_on

    return execute(folders[0], changes) if processes == 1 else execute_on(folders[0], processes, changes)


def _overview(rows: list[tuple[str, str]]) -> str:
    rows = [*rows, ("sweep NAME", "Run a file under sweeps/; `spo sweep status` and `spo sweep resume ID` follow it.")]
    rows = [*rows, ("execute RUN", "Run a folder that was composed before, or go on with one that was interrupted.")]
    lines = "\n".join(f"  spo {usage}\n      {summary}" for usage, summary in rows)
    return (
        f"spo {__version__}: align language models from preferences whose link is unknown.\n\n"
        f"{lines}\n\n"
        "In the order of the work: label, data (to look at rows), precompute (if wanted), train, evaluate, report.\n"
        "`spo COMMAND --help` shows its options and keys with their units; -m runs a job for every combination.\n"
        f"Docs: README.md; every option is a YAML file under {asset_dir('conf')}.\n"
        'Completion: eval "$(spo -sc install=bash)"'
    )


def _complete(words: list[str], commands: "dict[str, Command]") -> int:
    """Hydra's completion script asks `spo -sc query=bash` with the line typed so far in COMP_LINE."""
    from spo.cli.launch import complete

    line = os.environ.get("COMP_LINE", "").split(" ")
    if not any(word.startswith("query=") for word in words):
        return complete(next(iter(commands.values())), ["-sc", *words])
    if len(line) <= 2:
        print(*(name for name in [*commands, "execute", "sweep"] if name.startswith(line[-1] if line[1:] else "")))
        return 0
    if line[1] not in commands:
        return 0
    os.environ["COMP_LINE"] = " ".join([line[0], *line[2:]])
    os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
    return complete(commands[line[1]], ["-sc", *words])
