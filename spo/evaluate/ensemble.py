"""Which policy of a data set's runs is evaluated: the run on all its rows, or the average of all of them.

Shapes: D data sets, C runs on each (folds, then the one on all rows), m contexts, K actions.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from spo.divergence.base import Divergence
from spo.errors import ConfigError
from spo.evaluate.tilt import optimal_policy
from spo.link.base import Link


class Standing(NamedTuple):
    """The policy that stands for each data set: log pi (D, m, K), its orientation (D,), its link, None for none."""

    log_pi: Tensor
    orientation: Tensor
    link: Link | None


class Ensemble(ABC):
    """One option of the group `ensemble`."""

    def check(self, copies: int) -> None:  # noqa: B027  (most take any number)
        """ConfigError where so many runs on each data set will not do."""

    @abstractmethod
    def members(self, runs: Tensor) -> Tensor:
        """Of the runs on each data set, int64 (D, C), those that are asked, (D, C')."""

    @abstractmethod
    def __call__(
        self, divergence: Divergence, log_pi: Tensor, log_ref: Tensor, orientation: Tensor, link: Link | None
    ) -> Standing:
        """log_pi (D, C', m, K), log_ref (D, m, K), orientation (D, C'); link: that of the D runs on all rows."""


class OnAllRows(Ensemble):
    """The run on all rows; those of the folds have only chosen its epoch."""

    def members(self, runs: Tensor) -> Tensor:
        return runs[:, -1:]

    def __call__(
        self, divergence: Divergence, log_pi: Tensor, log_ref: Tensor, orientation: Tensor, link: Link | None
    ) -> Standing:
        return Standing(log_pi[:, -1], orientation[:, -1], link)


class MeanIndex(Ensemble):
    """f'(pi/ref) = mean_c zeta_c f'(pi_c/ref) / sd_c + lambda(x): the average of the indices, each at the same scale.

    sd_c: root mean square over contexts and actions of f'(pi_c/ref) less its mean over actions, so that every run
    counts alike whatever its scale, which a link leaves free; the average has the scale of the run on all rows. Runs of
    one data set start from weights of their own: what averages out is the noise of their training, and of the rows. An
    average of indices has no link of its own.
    Cost: none beyond the folds. Source: bagging (Breiman, 1996); MATH I2.
    """

    def check(self, copies: int) -> None:
        if copies == 1:
            raise ConfigError(
                "ensemble=mean_index averages the runs on one data set, and there is one: give "
                "held_out@data.held_out=folds (budget=selected has it), or ensemble@evaluate.ensemble=none"
            )

    def members(self, runs: Tensor) -> Tensor:
        return runs

    def __call__(
        self, divergence: Divergence, log_pi: Tensor, log_ref: Tensor, orientation: Tensor, link: Link | None
    ) -> Standing:
        term = divergence.index_term(log_pi - log_ref[:, None])
        term = orientation[..., None, None] * (term - term.mean(-1, keepdim=True))
        scale = term.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(torch.finfo(term.dtype).tiny)
        term = (term / scale).mean(1) * scale[:, -1]
        plus = torch.ones_like(orientation[:, -1])
        return Standing(optimal_policy(divergence, term, log_ref), plus, None)
