"""How the C library keeps memory that torch gives back on a CPU."""

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # of glibc's mallopt
_LARGE = 1 << 20  # bytes; what is smaller is cut from the heap


def return_large_blocks() -> None:
    """Freed blocks of a megabyte and more go back to the system at once.

    glibc would keep them in its heap once it has seen one freed, where activations of different sizes leave holes: a
    training step of a language model then takes up to twice the memory of what is alive (benchmarks/NOTES.md). The
    price is a page fault for every 4 KB. For the whole process; nothing where the C library is another one.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
