"""Where numbers, curves and pictures go while a command runs: W&B (offline by itself), CSV, nowhere."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from spo.errors import ConfigError
from spo.reach import why_offline
from spo.run_folder import RunFolder

if TYPE_CHECKING:
    import wandb


class LoggerChoice(ABC):
    """One option of the group `logger`: builds a Lightning logger at the run's start and closes it at its end."""

    @abstractmethod
    def build(
        self,
        *,
        run: RunFolder,
        config: Mapping[str, Any],
        choices: Mapping[str, str],
        job_type: str,
        resume_id: str | None = None,
    ) -> Logger | None:
        """config: the whole resolved config; choices: Hydra's, group -> option; resume_id: of the run to go on with."""

    @abstractmethod
    def finish(self, exit_code: int) -> None:
        """Call it in a `finally`: a run that is left open swallows the next one of this process."""


class NoLogger(LoggerChoice):
    """The run folder's own metrics.csv is all there is."""

    def build(self, **_: Any) -> None:
        return None

    def finish(self, exit_code: int) -> None:
        """Nothing to close."""


class Csv(LoggerChoice):
    """Lightning's CSVLogger: RUN/csv/version_0/metrics.csv, a wide table; a resumed run writes version_1."""

    def build(self, *, run: RunFolder, **_: Any) -> Logger:
        return CSVLogger(save_dir=run.path, name="csv")

    def finish(self, exit_code: int) -> None:
        """Nothing to close: the trainer saves at its end."""


@dataclass
class Wandb(LoggerChoice):
    """Weights & Biases. Without a key or without network it writes offline, says so once and never asks.

    A resumed run goes on under its id. WANDB_MODE, WANDB_API_KEY and WANDB_BASE_URL are respected.
    """

    project: str
    entity: str | None
    name: str | None
    group: str | None
    tags: Sequence[str]
    tag_groups: Sequence[str]
    mode: Literal["auto", "online", "offline"]
    _experiment: "wandb.Run | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ConfigError(f"logger.mode is {self.mode!r}: give auto, online or offline")
        if not self.project:
            raise ConfigError("logger.project is empty: give the name of a W&B project, for example spo")

    def build(
        self,
        *,
        run: RunFolder,
        config: Mapping[str, Any],
        choices: Mapping[str, str],
        job_type: str,
        resume_id: str | None = None,
    ) -> Logger:
        if getattr(rank_zero_only, "rank", 0) != 0:
            return DummyLogger()
        import wandb

        from spo.wandb_logger import WandbLogger

        tags = [*self.tags, *(choices[g] for g in self.tag_groups if choices.get(g))]
        run.path.mkdir(parents=True, exist_ok=True)
        self._experiment = wandb.init(
            project=self.project,
            entity=self.entity,
            name=self.name or run.name,
            group=self.group or group_of(run),
            tags=list(dict.fromkeys(tags)),
            job_type=job_type,
            config={**config, "choices": dict(choices)},
            id=resume_id,
            resume="allow" if resume_id else None,
            dir=str(run.path),
            mode=self._decide(run),
            settings=wandb.Settings(silent=True, init_timeout=60),
        )
        run.update_status(wandb_run_id=self._experiment.id)
        return WandbLogger(self._experiment)

    def finish(self, exit_code: int) -> None:
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None

    def _decide(self, run: RunFolder) -> Literal["online", "offline", "disabled", "shared"]:
        """The mode of this run; the reason is said where nobody asked for offline."""
        asked = os.environ.get("WANDB_MODE") or self.mode
        if asked in ("offline", "disabled", "dryrun"):
            return "disabled" if asked == "disabled" else "offline"
        reason = why_offline()
        if reason is None:
            return "online"
        if asked != "auto":
            raise ConfigError(
                f"W&B is asked to be {asked}, but {reason}: log in with `wandb login`, or give logger.mode=auto"
            )
        later = f"upload it later with `wandb sync {run.path / 'wandb'}/offline-run-*`"
        print(f"W&B: offline, because {reason}; {later}", file=sys.stderr)
        return "offline"


def group_of(run: RunFolder) -> str:
    """The id of the sweep that the run is a job of, else the run's own name."""
    sweep = run.invocation.get("sweep")
    return str(sweep["id"]) if isinstance(sweep, Mapping) else run.name
