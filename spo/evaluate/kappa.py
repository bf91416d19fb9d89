"""How the reward at one KL is read off the frontier of a tabular policy.

Shapes: R replicates, m contexts, K actions.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from spo.divergence.base import Divergence
from spo.errors import ConfigError
from spo.evaluate.tilt import beta_for_kl, kl, mean_value, tilt_by


@dataclass(frozen=True)
class Family:
    """The tilted policies of R replicates, float64: log pi and log pi_ref (R, m, K), the true reward (R, m, K) and the
    orientation (R,)."""

    divergence: Divergence
    log_pi: Tensor
    log_ref: Tensor
    reward: Tensor
    orientation: Tensor

    def at(self, beta: Tensor) -> Tensor:
        """log pi_beta (R, m, K); beta (R,)."""
        return tilt_by(self.divergence, self.log_pi, self.log_ref, self.orientation / beta)

    def point(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward and KL(pi_beta || ref), nats, each (R,); beta (R,)."""
        log_p = self.at(beta)
        return mean_value(log_p, self.reward), kl(log_p, self.log_ref)


@dataclass(frozen=True)
class AtKL:
    """What a rule found, each (R,)."""

    beta: Tensor  # nan where it is no one tilt
    reward: Tensor
    kl: Tensor
    reached: Tensor  # bool: False where the frontier ends before that KL


class KappaRule(ABC):
    """One option of the group `kappa_rule`."""

    @abstractmethod
    def __call__(self, family: Family, kappa: float) -> AtKL:
        """Reward at KL(pi_beta || ref) = kappa nats."""


class Exact(KappaRule):
    """The beta whose KL is kappa, by bisection for each replicate; nan where even the sharpest tilt has a smaller KL.

    Cost: 5 to 8 tilts for KL. Source: MATH C10.
    """

    def __call__(self, family: Family, kappa: float) -> AtKL:
        beta = beta_for_kl(family.divergence, family.log_pi, family.log_ref, kappa, family.orientation)
        reached = torch.isfinite(beta)
        reward, nats = family.point(beta)
        return AtKL(beta, torch.where(reached, reward, math.nan), torch.where(reached, nats, math.nan), reached)


class Paper(KappaRule):
    """Linear in KL between neighbours on a grid of betas, as the paper's figure: its bias depends on the scale of the
    index (MATH C10), so it is for comparison with the paper's table only.

    Outside the grid's KLs the reward of its end is taken, as the paper's code does in silence; here `reached` is False
    there, and `kl` is the end's.
    Cost: as many tilts as betas.
    """

    def __init__(self, *, betas: list[float]) -> None:
        if len(betas) < 2 or min(betas) <= 0 or len(set(betas)) < len(betas):
            raise ConfigError(f"evaluate.kappa_rule.betas is {betas}: give at least two, each > 0 and each once")
        self.betas = sorted(betas, reverse=True)

    def __call__(self, family: Family, kappa: float) -> AtKL:
        path = [family.point(torch.full_like(family.orientation, beta)) for beta in self.betas]
        reward, nats = (torch.stack(values, -1) for values in zip(*path, strict=True))  # nats rising, (R, betas)
        above = torch.searchsorted(nats, torch.full_like(nats[:, :1], kappa)).clamp(1, len(self.betas) - 1)
        low, high = nats.gather(-1, above - 1), nats.gather(-1, above)
        share = ((kappa - low) / (high - low).clamp_min(torch.finfo(low.dtype).tiny)).clamp(0, 1)
        found, ended = (x.gather(-1, above - 1).lerp(x.gather(-1, above), share)[:, 0] for x in (reward, nats))
        reached = (nats[:, 0] <= kappa) & (kappa <= nats[:, -1])
        return AtKL(torch.full_like(found, math.nan), found, ended, reached)
