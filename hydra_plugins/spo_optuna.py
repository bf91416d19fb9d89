"""hydra/sweeper=optuna. Hydra makes sweepers only of classes below hydra_plugins; what it does is spo/sweep/search.py.

Hydra imports this file whenever it starts: nothing heavy here, Optuna least of all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from spo.errors import ConfigError


class OptunaSweeper(Sweeper):
    """Jobs proposed by Optuna, in batches. The keys are those of spo.sweep.search.Search."""

    def __init__(
        self,
        *,
        params: Mapping[str, Any] | None,
        metric: str,
        direction: Literal["maximize", "minimize"],
        n_trials: int,
        jobs_at_once: int,
        seed: int,
        study_name: str | None,
        storage: str,
        sampler: Mapping[str, Any],
    ) -> None:
        # checked by Search, in sweep(): Hydra would wrap what is raised here
        self.params, self.sampler = _plain(params or {}), _plain(sampler)
        self.options: dict[str, Any] = {
            "metric": metric,
            "direction": direction,
            "n_trials": n_trials,
            "jobs_at_once": jobs_at_once,
            "seed": seed,
            "study_name": study_name,
            "storage": storage,
        }
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

        assert self.hydra_context is not None, "setup() comes first"
        assert self.config is not None
        check_installed()
        space = read_space(self.params, arguments, self.hydra_context.config_loader)
        search = Search(
            folder=Path(self.config.hydra.sweep.dir),
            space=space.space,
            fixed=list(space.fixed.values()),
            sampler=instantiate(self.sampler, "hydra.sweeper.sampler"),
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


def _plain(node: Mapping[str, Any]) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)  # type: ignore[return-value]
