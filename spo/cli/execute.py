"""The execute half: a run folder in, an exit code out. Hydra is not imported here.

Reads only RUN/config.resolved.yaml, so that torchrun, Lightning's relaunch, a launcher and a resumed run all do the
same; where a run is to go on with other keys, they are written into it first. Exit codes: 0 ok, 1
crashed, 2 something a user can mend, 130 and 143 interrupted.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spo.cli.changes import changed
from spo.cli.instantiate import check_names, instantiate_children, locate
from spo.errors import CRASHED, MENDABLE, ConfigError, SpoError
from spo.lock import FolderLock
from spo.out_of_memory import is_out_of_memory
from spo.run_folder import RunFolder, now
from spo.signals import on_interrupt
from spo.submit import PARENT_VARIABLE

OK = 0
INTERRUPTED = 128 + signal.SIGTERM
_SPARE_BYTES = 1 << 20  # a disk with less than this is full, whatever the library called its error


def execute(path: str | Path, changes: Sequence[str] = ()) -> int:
    """Run what RUN/config.resolved.yaml describes. changes: `key=value` to be written into it first."""
    run = RunFolder(Path(path).resolve())
    try:
        config = changed(run.config, changes) if changes else run.config
        if changes and run.status.get("state") == "ok":
            raise ConfigError(f"{run.path} has finished already: nothing is left to run with {' '.join(changes)}")
    except SpoError as error:
        print(f"spo execute: {_listed(str(error))}", file=sys.stderr)
        return MENDABLE
    if not _settle(run):
        return INTERRUPTED
    leader = _rank() == 0
    name = str(config["_target_"]).rpartition(".")[2]
    with FolderLock(run.path) as lock:
        if leader and not lock.take():
            print(
                f"spo {name}: {run.path} is being run by process {lock.holder}: wait for it, or stop it",
                file=sys.stderr,
            )
            return MENDABLE
        if changes:
            run.go_on_with(config, changes, write=leader)
        return _locked(run, config, name, leader)


def execute_on(path: str | Path, processes: int, changes: Sequence[str] = ()) -> int:
    """The same by so many processes of this machine, under torchrun, which takes the place of this one."""
    run = RunFolder(Path(path).resolve())
    if not _settle(run):
        return INTERRUPTED
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # a killed torchrun takes its processes along, too
    os.execv(sys.executable, [sys.executable, *torchrun, "-m", "spo", "execute", str(run.path), *changes])


def _locked(run: RunFolder, config: Mapping[str, Any], name: str, leader: bool) -> int:
    """The folder is ours."""
    if leader:
        started = {"command": name, "state": "running", "previous_state": run.status.get("state")}
        _note(run, **started, exit_code=None, message="", pid=os.getpid(), started=now(), finished=None)
    with _signals() as received, contextlib.nullcontext() if leader else _unheard():
        code, message = _call(run, config, received)
    if message:
        where = "" if leader else f" [rank {_rank()}]"
        print(f"spo {name}{where}: {message}", file=sys.stderr)
    if leader:
        state = "ok" if code == OK else "interrupted" if code > 128 else "failed"
        _note(run, state=state, exit_code=code, message=message, finished=now())
    return code


def check(configs: list[Mapping[str, Any]]) -> list[str]:
    """What the constructors of these configs refuse, each message once: a multirun asks before its first job."""
    problems: dict[str, None] = {}
    for config in configs:
        try:
            instantiate_children(config)
        except ConfigError as error:
            problems.update(dict.fromkeys(str(error).splitlines()))
    return list(problems)


def check_stdin() -> int:
    """`spo execute --check`: a JSON list of configs on standard input, problems on standard output, one a line."""
    with contextlib.redirect_stdout(sys.stderr):  # what a constructor prints is no problem
        problems = check(json.load(sys.stdin))
    print("\n".join(problems), end="")
    return MENDABLE if problems else OK


def _call(run: RunFolder, config: Mapping[str, Any], received: list[int]) -> tuple[int, str]:
    """Exit code and message of the command function."""
    try:
        function = locate(config["_target_"])
        arguments = {"run": run, **instantiate_children(config)}
        check_names(function, arguments)
        code = function(**arguments) or OK
        return code, "interrupted" if code > 128 else ""
    except SpoError as error:
        return MENDABLE, _listed(str(error))
    except (KeyboardInterrupt, SystemExit) as error:
        if received or isinstance(error, KeyboardInterrupt):
            number = received[0] if received else signal.SIGINT
            return 128 + number, f"interrupted ({signal.Signals(number).name}); go on with `spo execute {run.path}`"
        code = error.code if isinstance(error.code, int) else CRASHED
        return code, "" if code == OK else f"stopped with exit code {code}"
    except Exception as error:
        if received:
            return 128 + received[0], f"interrupted; go on with `spo execute {run.path}`"
        if _is_disk_full(error, run.path):
            return MENDABLE, f"no space left on the disk of {run.path}: free some, then `spo execute {run.path}`"
        if is_out_of_memory(error):
            fewer = "fewer rows (data.max_rows; of a tabular study data.source.rows or seeds, or truth.shifts)"
            return MENDABLE, f"out of memory: give smaller batches, or {fewer}"
        return CRASHED, _keep_traceback(run, error)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, and the number is kept. A command may install its own handlers."""
    received: list[int] = []

    def handle(number: int) -> None:
        received.append(number)
        raise KeyboardInterrupt(number)

    with on_interrupt(handle):
        yield received


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What every rank prints is printed by rank 0 alone; warnings and errors of all go to standard error."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _settle(run: RunFolder) -> bool:
    """Make this process one that Lightning can start again, and that libraries do not stumble over.

    False where the process that waits for us is gone already: a killed one leaves no orphan."""
    sys.argv = [sys.argv[0], "execute", str(run.path)]
    for name in [n for n, value in os.environ.items() if n.startswith("WANDB_") and not value.strip()]:
        del os.environ[name]  # wandb takes an empty variable for a malformed setting and raises
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None or sys.platform != "linux":
        return True
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    return parent == str(os.getppid())


def _rank() -> int:
    """The global rank among the processes of one run."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, of Lightning's children, of the tasks of a Slurm job
    return int(next(filter(None, map(os.environ.get, names)), 0))


def _keep_traceback(run: RunFolder, error: Exception) -> str:
    place = run.path / ("error.txt" if _rank() == 0 else f"error.rank{_rank()}.txt")
    with contextlib.suppress(OSError):
        place.write_text("".join(traceback.format_exception(error)))
    last = traceback.format_exception_only(error)[-1].strip()
    return f"crashed: {last}\nThe traceback is in {place}"


def _is_disk_full(error: BaseException | None, place: Path) -> bool:
    """Whether this error, or one that led to it, says so, or a writer failed where nothing can be written."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, OSError | RuntimeError) and shutil.disk_usage(place).free < _SPARE_BYTES:
            return True
        error = error.__cause__ or error.__context__
    return False


def _note(run: RunFolder, **changes: Any) -> None:
    """Write the status; a full disk must not hide why the run ended."""
    try:
        run.update_status(**changes)
    except OSError as error:
        print(f"spo: {run.path / 'status.json'} could not be written: {error}", file=sys.stderr)


def _listed(message: str) -> str:
    lines = message.splitlines()
    return message if len(lines) < 2 else "".join(f"\n  - {line}" for line in lines)
