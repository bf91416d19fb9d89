"""Running out of memory: which part of a run it was, so that a message can say what to change. Imports no torch."""

import gc
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spo.errors import SpoError

if TYPE_CHECKING:
    from spo.types import PreferenceBatch

# of the machine, of a device, of cuBLAS; only the second has a class of its own in torch
_WORDS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Part:
    """Of a run. by_batch: True where it takes memory by the tokens of a micro-batch. keeps_activations: where it keeps
    them for a backward pass."""

    name: str
    by_batch: bool = False
    keeps_activations: bool = False


LOADING_POLICY, LOADING_REFERENCE = Part("loading the policy"), Part("loading the reference")
PREPARING_REFERENCE = Part("preparing the reference")
FORWARD, BACKWARD = Part("the policy's forward pass", True, True), Part("the backward pass", True, True)
REFERENCE = Part("the reference's forward pass", True)
OPTIMIZER = Part("the optimizer's step")
REFIT, VALIDATION, EVALUATION = Part("a refit of the link"), Part("a validation"), Part("the evaluation")
OUTSIDE = Part("what lies around the passes (reading rows, putting the model on its device)")


class OutOfMemory(SpoError):
    """parts: what was being done, innermost first. asked: how much more was wanted, "" where unknown. batch: the
    micro-batch at hand in words, tokens: in it, padding counted; "" and 0 where it was none or has none. kept: the
    optimizer step whose end last.ckpt now holds, None where nothing was written at this error."""

    def __init__(self, part: Part, error: BaseException, batch: "PreferenceBatch | None") -> None:
        found = re.search(r"tried to allocate [\d.]+ \w+", str(error), re.IGNORECASE)
        self.parts = [part]
        self.asked = found.group().lower().replace("gib", "GiB").replace("mib", "MiB") if found else ""
        self.batch, self.tokens = ("", 0) if batch is None else _size(batch)
        self.kept: int | None = None
        super().__init__(part.name)

    def __str__(self) -> str:
        batch = f", with a micro-batch of {self.batch}" if self.batch else ""
        where = ", in ".join(part.name for part in self.parts)
        return f"out of memory in {where}{batch}{f' ({self.asked})' if self.asked else ''}"


def is_out_of_memory(error: BaseException) -> bool:
    """Of the machine or of a device."""
    words = isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
    return isinstance(error, MemoryError) or words


@contextmanager
def at_work(part: Part, batch: "PreferenceBatch | None" = None) -> Iterator[None]:
    """An error of memory inside is an OutOfMemory of this part; that of an inner part is one in this part, too."""
    try:
        yield
    except OutOfMemory as error:
        error.parts.append(part)
        raise
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # what filled the memory hangs on them
        raise OutOfMemory(part, error, batch) from None


def release(error: BaseException) -> None:
    """Let go of what the frames that it went through still hold, so that there is memory for a checkpoint."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__
    gc.collect()


def _size(batch: "PreferenceBatch") -> tuple[str, int]:
    from spo.types import TokenPairs

    *replicates, rows = batch.z.shape
    if not isinstance(batch.pair, TokenPairs):
        return " x ".join([*map(str, replicates), f"{rows} rows"]), 0
    tokens = batch.pair.input_ids.numel()
    return f"{rows} pairs, 2 x {rows} x {batch.pair.input_ids.shape[-1]} = {tokens} tokens", tokens
