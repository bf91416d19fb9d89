"""What to change where memory ran out, from the config of the run and the part that asked for more."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from spo import out_of_memory as memory
from spo.data.micro import MicroBatch
from spo.errors import SpoError
from spo.out_of_memory import OutOfMemory
from spo.run_folder import RunFolder


class Rows(Protocol):
    """The data module of a command."""

    @property
    def micro(self) -> MicroBatch: ...

    @property
    def longest_row(self) -> int:
        """Tokens of the longer side of the longest row that may come; 0 where rows have none, or none is known yet."""
        ...


@contextmanager
def advising(run: RunFolder, data: Rows, kept: str | None = None) -> Iterator[None]:
    """An OutOfMemory inside ends as one message: the part, what is kept, what to change. kept: where it is no training
    that is gone on with."""
    try:
        yield
    except OutOfMemory as error:
        raise SpoError(advice(error, run, data, kept)) from None
    except (MemoryError, RuntimeError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise SpoError(advice(OutOfMemory(memory.OUTSIDE, error, None), run, data, kept)) from None


def advice(error: OutOfMemory, run: RunFolder, data: Rows, kept: str | None) -> str:
    now = list(_less_now(error, run.config, data))
    lines = [str(error), kept or _kept(error, run)]
    if now:
        commands = ", or ".join(f"`spo execute {run.path} {words}`{note}" for words, note in now)
        lines.append(f"go on with less memory and the same results: {commands}")
    if anew := list(_less_anew(error, run.config)):
        lines.append(f"a new run may take less with {', or '.join(anew)}")
    return "\n".join(lines)


def _kept(error: OutOfMemory, run: RunFolder) -> str:
    if error.kept is not None:
        return (
            f"nothing is lost: {run.path}/checkpoints/last.ckpt holds the state before optimizer step {error.kept + 1}"
        )
    if (last := run.last_checkpoint) is not None:
        return f"{last} is as it was: `spo execute {run.path}` goes on from it"
    return f"there is no checkpoint yet: `spo execute {run.path}` begins anew"


def _less_now(error: OutOfMemory, config: dict[str, Any], data: Rows) -> Iterator[tuple[str, str]]:
    """(key=value ..., what is to be said of it) that `spo execute RUN` takes."""
    by_batch, longest = error.parts[0].by_batch, data.longest_row
    if by_batch:
        if (smaller := data.micro.smaller(longest)) is not None:
            words, now = smaller
            yield words, f" (now {now})"
        half = error.tokens // 2
        if config.get("micro_batch") is not None and half >= 2 * longest > 0:
            yield f"micro_batch=null micro_tokens={half}", ""
    trains = all(part.keeps_activations for part in error.parts)
    if trains and _of(config, "policy").get("gradient_checkpointing") is False:
        yield "policy.gradient_checkpointing=true", " (a third slower)"
    if memory.EVALUATION in error.parts and (size := _of(config, "evaluate").get("batch_size") or 0) > 1:
        yield f"evaluate.batch_size={size // 2}", f" (now {size})"


def _less_anew(error: OutOfMemory, config: dict[str, Any]) -> Iterator[str]:
    policy = _of(config, "policy")
    if "lora" in policy:  # a language model
        if policy["lora"] is None:
            yield "adapters instead of every weight (policy=causal_lm: no Adam moments of the base model)"
        elif policy.get("dtype") == "float32":
            yield "policy.dtype=bfloat16 (half the weights' memory)"
        if memory.REFERENCE in error.parts or memory.LOADING_REFERENCE in error.parts:
            yield "reference=shared_table (the reference is gone before the training begins)"
        if error.parts[0].by_batch:
            yield "a smaller data.max_length"
        if _of(config, "hardware").get("strategy") is None:
            yield "more devices (hardware=fsdp)"
    elif error.parts[0].by_batch or memory.REFIT in error.parts:
        yield "fewer rows or runs at once (data.source.rows, data.source.seeds, truth.shifts)"


def _of(config: dict[str, Any], name: str) -> dict[str, Any]:
    node = config.get(name)
    return node if isinstance(node, dict) else {}
