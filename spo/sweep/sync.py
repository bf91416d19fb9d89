"""How the offline W&B runs of a whole sweep are uploaded: by one command. Imports no wandb."""

import shlex
from pathlib import Path

_RUN = "offline-run-*"  # how W&B calls the folder of an offline run
_UPLOADED = "*.wandb.synced"  # what it leaves there once that is uploaded


def sync_command(sweep_folder: Path) -> str | None:
    """`wandb sync SWEEP/*/wandb/offline-run-*`; None where no offline run waits there.

    One pattern for each depth at which jobs lie. wandb takes several folders, passes over those that were uploaded
    before, and uploads the parts of a resumed run in the order in which they were begun.
    """
    waiting = [run for run in sweep_folder.rglob(f"wandb/{_RUN}") if run.is_dir() and not any(run.glob(_UPLOADED))]
    depths = sorted({len(run.relative_to(sweep_folder).parts) - 2 for run in waiting})
    if not depths:
        return None
    patterns = ("/".join([shlex.quote(str(sweep_folder)), *["*"] * depth, "wandb", _RUN]) for depth in depths)
    return f"wandb sync {' '.join(patterns)}"
