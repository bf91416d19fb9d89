"""The errors that a user can mend. `spo` prints their message alone and exits with code 2."""

import signal

CRASHED, MENDABLE = 1, 2  # exit codes; 128 + the signal's number is an interrupt


class SpoError(Exception):
    """Something a user gave cannot be used. The message names the thing and the mend."""


class ConfigError(SpoError):
    """An option, or a combination of options, that cannot be run."""


class DataError(SpoError):
    """A file, row or column that cannot be used."""


def exit_code_of(error: BaseException) -> int:
    """What a process ends with that this error ends. A KeyboardInterrupt may carry the number of its signal."""
    if isinstance(error, SpoError):
        return MENDABLE
    if isinstance(error, KeyboardInterrupt):
        return 128 + int(error.args[0] if error.args else signal.SIGINT)
    return CRASHED
