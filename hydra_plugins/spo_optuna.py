"""hydra/sweeper=optuna. Hydra makes sweepers only of classes below hydra_plugins; what it does is spo/sweep/search.py.

Hydra imports this file whenever it starts: nothing heavy here, Optuna least of all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from spo.errors import ConfigError


class OptunaSweeper(Sweeper):
    """Jobs proposed by Optuna, in batches. The keys are those of spo.sweep.search.Search."""

    def __init__(self, *, params: Mapping[str, Any] | None, sampler: DictConfig, **options: Any) -> None:
        self.params: dict[str, Any] = {} if params is None else OmegaConf.to_container(params, resolve=True)  # type: ignore[assignment]
        self.sampler = sampler
        self.options = options
        self.hydra_context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.returned: list[Any] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Every JobReturn, batch by batch, as the basic sweeper has it. ConfigError where the search cannot be."""
        from spo.cli.instantiate import instantiate
        from spo.cli.space import read_space
        from spo.sweep.search import Search, check_installed

        assert self.hydra_context is not None and self.config is not None, "setup() comes first"
        check_installed()
        space = read_space(self.params, arguments, self.hydra_context.config_loader)
        search = Search(
            folder=Path(self.config.hydra.sweep.dir),
            space=space.space,
            fixed=list(space.fixed.values()),
            sampler=instantiate(OmegaConf.to_container(self.sampler, resolve=True), "hydra.sweeper.sampler"),
            **self.options,
        )
        search.run(self._launch)
        return self.returned

    def _launch(self, jobs: list[list[str]], first: int) -> list[Mapping[str, Any]]:
        assert self.launcher is not None
        returned = list(self.launcher.launch(jobs, initial_job_idx=first))
        outcomes = [job.return_value for job in returned]
        if not all(isinstance(outcome, Mapping) for outcome in outcomes):
            raise ConfigError(
                "hydra/sweeper=optuna needs a launcher that tells how a job ended and its metrics: give "
                "hydra/launcher=local"
            )
        self.returned.append(returned)
        return outcomes
