"""True links of annotators who disagree, lean to one side, slip or cannot decide.

Whoever labels a row is drawn apart from its prompt and responses, so that all of them are functions of u alone: the
single index holds (MATH C33). Where it does not: spo.simulate.labels.ContextAnnotators.
"""

import math

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.simulate.truth.base import TrueLink, not_negative, positive, sigmoid_slope


class ShiftedMixture(TrueLink):
    """Psi(u) = 1/2 sigmoid((u - s)/tau) + 1/2 sigmoid((u + s)/tau): two kinds of annotator, each with its own bias.

    A staircase with a plateau at 1/2 of width about 2s; s = 0 is the logistic link (Kallus 2025, experiments).
    """

    def __init__(self, *, shift: float, temperature: float) -> None:
        self.shift = not_negative("shift", shift)
        self.temperature = positive("temperature", temperature)

    def value(self, u: Tensor) -> Tensor:
        low, high = self.arguments(u)
        return (torch.sigmoid(low) + torch.sigmoid(high)) / 2

    def derivative(self, u: Tensor) -> Tensor:
        low, high = self.arguments(u)
        return (sigmoid_slope(low) + sigmoid_slope(high)) / (2 * self.temperature)

    def arguments(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Of the two sigmoids."""
        return (u - self.shift) / self.temperature, (u + self.shift) / self.temperature


class PositionBias(TrueLink):
    """Psi(u) = sigmoid((u + bias)/temperature): whoever reads response 1 last likes it better by `bias`. Not symmetric:
    Psi(0) > 1/2 for a positive bias. It is seen only where rows keep the order in which they were shown (MATH C14)."""

    symmetric = False

    def __init__(self, *, bias: float, temperature: float) -> None:
        """bias: in sd of the reward difference; negative: response 0 is favoured."""
        if not math.isfinite(bias):
            raise ConfigError(f"bias is {bias}: give a number, in sd of the reward difference")
        self.bias = bias
        self.temperature = positive("temperature", temperature)

    def value(self, u: Tensor) -> Tensor:
        return torch.sigmoid((u + self.bias) / self.temperature)

    def derivative(self, u: Tensor) -> Tensor:
        return sigmoid_slope((u + self.bias) / self.temperature) / self.temperature


class LabelNoise(TrueLink):
    """Psi(u) = flipped + (1 - 2 flipped) Psi_0(u): labels of another link Psi_0, of which a share `flipped` is turned
    round by mistake, whatever the rewards. A tie stays one."""

    def __init__(self, *, link: TrueLink, flipped: float) -> None:
        """flipped: a probability in [0, 1/2)."""
        if not 0 <= flipped < 0.5:
            raise ConfigError(f"flipped is {flipped}: give a probability from 0 and below 0.5, such as 0.2")
        self.link, self.flipped = link, flipped
        self.shift, self.symmetric, self.has_ties = link.shift, link.symmetric, link.has_ties

    def value(self, u: Tensor) -> Tensor:
        return self.flipped + (1 - 2 * self.flipped) * self.link.value(u)

    def derivative(self, u: Tensor) -> Tensor:
        return (1 - 2 * self.flipped) * self.link.derivative(u)

    def tie(self, u: Tensor) -> Tensor:
        return self.link.tie(u)


class Heteroskedastic(TrueLink):
    """Psi(u) = mean_k sigmoid(u / tau_k): each label is of an annotator k drawn at random, careful or careless.

    The mixture is steeper at 0 and heavier in the tails than any logistic link (MATH C33).
    """

    def __init__(self, *, temperatures: list[float]) -> None:
        """temperatures: tau_k, one for each kind of annotator, equally many of each; one given twice counts twice."""
        if not temperatures:
            raise ConfigError("temperatures is []: give at least one, in sd of the reward difference")
        self.temperatures = [positive("temperatures", temperature) for temperature in temperatures]

    def value(self, u: Tensor) -> Tensor:
        return torch.stack([torch.sigmoid(u / tau) for tau in self.temperatures]).mean(0)

    def derivative(self, u: Tensor) -> Tensor:
        return torch.stack([sigmoid_slope(u / tau) / tau for tau in self.temperatures]).mean(0)


class Ties(TrueLink):
    """P(z = 1) = sigmoid((u - threshold)/tau), P(z = 0) = sigmoid((-u - threshold)/tau), else a tie, z = 1/2: a
    difference that looks smaller than the threshold is no preference.

    Psi(u) = E[z | u] = 1/2 sigmoid((u - threshold)/tau) + 1/2 sigmoid((u + threshold)/tau), the shifted mixture with
    s = threshold: its annotators toss a coin where these say that they cannot tell. Source: Rao and Kupper (1967), with
    theta = exp(threshold/tau).
    """

    has_ties = True

    def __init__(self, *, threshold: float, temperature: float) -> None:
        """threshold, temperature: in sd of the reward difference; threshold 0: no ties."""
        self._mean = ShiftedMixture(shift=not_negative("threshold", threshold), temperature=temperature)

    def value(self, u: Tensor) -> Tensor:
        return self._mean.value(u)

    def derivative(self, u: Tensor) -> Tensor:
        return self._mean.derivative(u)

    def tie(self, u: Tensor) -> Tensor:
        low, high = self._mean.arguments(u)
        return torch.sigmoid(high) - torch.sigmoid(low)
