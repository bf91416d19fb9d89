"""What may follow a training run, and what it finds: points of a reward/KL frontier."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from spo import study
from spo.divergence.base import Divergence
from spo.link.base import Link
from spo.policy.base import Policy
from spo.run_folder import RunFolder


@dataclass(frozen=True)
class Learned:
    """What a training run kept. divergence: of the index that was trained; link: None where the objective used none;
    orientation: +1 or -1 of the index, (*R,); alive: bool (*R,), the replicates that count; kept_step: optimizer step
    of the kept weights, int64 (*R,); first_refit: the one after which the link was fitted first, None for never."""

    policy: Policy
    divergence: Divergence
    link: Link | None
    orientation: Tensor
    alive: Tensor
    kept_step: Tensor
    first_refit: int | None


@dataclass(frozen=True)
class Frontier:
    """points: one dict a beta, the reference (beta None) first; means, each with `_se`. target: reward at the target
    KL, None if not asked for. samples: the values that were averaged, a row each. shown: heading -> key of a point,
    what `lines` prints. of_a_study: samples are runs, and stand in results.parquet too."""

    points: list[dict[str, Any]]
    target: dict[str, Any] | None
    samples: pd.DataFrame
    shown: Mapping[str, str]
    of_a_study: bool = False

    def save(self, run: RunFolder, choices: Mapping[str, str], overrides: Sequence[str]) -> None:
        """frontier.json, target.json, samples.parquet, and results.parquet. choices: Hydra's of the training and of the
        evaluation, group -> option; overrides: of the training."""
        run.write_json("frontier.json", self.points)
        if self.target is not None:
            run.write_json("target.json", self.target)
        if self.of_a_study:
            study.save(run.results_path, self.samples, choices, overrides)
        self.samples.to_parquet(run.samples_path, index=False)

    def metrics(self) -> dict[str, float]:
        """Scalars for a logger: eval/reference/reward, eval/beta_2/kl, eval/target/reward_minus_reference, ..."""
        named = {_point_name(point["beta"]): point for point in self.points}
        if self.target is not None:
            named["target"] = self.target
        return {
            f"eval/{name}/{key}": float(value)
            for name, point in named.items()
            for key, value in point.items()
            if key != "beta" and isinstance(value, int | float) and math.isfinite(value)
        }

    def lines(self) -> list[str]:
        """One line a point, for the terminal: means and their standard errors."""
        out = [" ".join([f"{'':>12}", *(f"{heading:>15}" for heading in self.shown)])]
        for point in self.points:
            cells = [f"{_cell(point, key):>15}" for key in self.shown.values()]
            out.append(" ".join([f"{_point_name(point['beta']):>12}", *cells]))
        if self.target is not None:
            reward, gain = self.target["reward"], self.target["reward_minus_reference"]
            if math.isfinite(gain):
                found = f"reward {_pm(reward, self.target['reward_se'])}, - reference {_pm(gain, self.target['se'])}"
                out.append(f"at KL {self.target['kl']:g}: {found}")
            if self.target["note"]:
                out.append(self.target["note"])
        return out


class Evaluation(ABC):
    """What follows a training run."""

    samples: bool  # True where it asks the trained policy, and tilts it against the model that it started from

    @abstractmethod
    def check(self, divergence: Divergence, policy: Policy) -> None:
        """Raise ConfigError where this evaluation cannot follow a training of `policy` with `divergence`; before it
        starts."""

    def check_data(self, data: Any) -> None:  # noqa: B027  (most take any)
        """Raise ConfigError where it cannot follow a training on these, a data module that need not be loaded; before
        it starts."""

    @abstractmethod
    def run(self, learned: Learned, data: Any) -> Frontier | None:
        """Evaluate the policy as it is. data: the loaded data module that it was trained on, which says what is
        fresh."""


class NoEvaluation(Evaluation):
    """Nothing is evaluated."""

    samples = False

    def check(self, divergence: Divergence, policy: Policy) -> None:
        return

    def run(self, learned: Learned, data: Any) -> None:
        return None


def _point_name(beta: float | None) -> str:
    return "reference" if beta is None else f"beta_{beta:g}"


def _cell(point: Mapping[str, Any], key: str) -> str:
    return _pm(point[key], point.get(f"{key}_se"))


def _pm(value: float, se: float | None) -> str:
    return f"{value:.3f}" if se is None else f"{value:.3f} ± {se:.3f}"
