"""What happens at Ctrl-C and SIGTERM while something is under way."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_interrupt(handle: Callable[[int], None]) -> Iterator[None]:
    """handle(number) is called for each while inside; afterwards all is as it was."""
    old = {number: signal.signal(number, lambda n, frame: handle(n)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
