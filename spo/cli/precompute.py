"""`spo precompute`: the reference's log-probabilities of every row, computed once, for `reference=table`."""

from collections.abc import Callable
from typing import Literal

from spo.cli.advice import advising
from spo.data.text import TextDataModule
from spo.errors import ConfigError
from spo.out_of_memory import REFERENCE, at_work
from spo.policy.base import evaluating
from spo.policy.causal_lm import CausalLM, pick_device
from spo.policy.fill import fill_table
from spo.policy.table import TableWriter
from spo.quiet import quieten
from spo.run_folder import RunFolder
from spo.simulate.labels import TrueLinkLabels


def precompute(
    *,
    run: RunFolder,
    policy: CausalLM,
    data: Callable[..., TextDataModule],
    truth: TrueLinkLabels | None,
    micro_batch: int | None,
    micro_tokens: int | None,
    shard_rows: int,
    device: Literal["auto", "cpu", "cuda"],
    seed: int,
) -> None:
    """Writes the table into RUN/reference; a killed job continues after its last whole shard.

    The table does not depend on `seed`: rows are stored in the file's order, whatever their orientation.
    """
    quieten()
    if shard_rows < 1:
        raise ConfigError(f"shard_rows is {shard_rows}: give at least 1")
    module = data(
        tokenizer=policy.tokenizer,
        labels=truth,
        seed=seed,
        global_batch=micro_batch or 1,  # there are no optimizer steps; a stream's buffer is a multiple of it
        micro_batch=micro_batch,
        micro_tokens=micro_tokens,
    )
    module.load()
    print("\n".join(module.report.lines()))
    policy.meet(module)
    writer = TableWriter(run.path / "reference", {"model": policy.fingerprint(), **module.fingerprint()})
    policy.build()
    policy.to(pick_device(device))
    goes_on = f"what is in {writer.folder} stays: `spo execute {run.path}` goes on after it"
    with evaluating(policy), advising(run, module, goes_on), at_work(REFERENCE):
        fill_table(writer, module, policy.reference_log_prob, device=policy.device, shard_rows=shard_rows)
    print(f"{len(writer.done)} rows in {writer.folder}\nuse it with: reference=table reference.path={writer.folder}")
