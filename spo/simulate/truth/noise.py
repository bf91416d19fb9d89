"""True links of one annotator: z = 1(u + temperature · noise > 0), the noise of one distribution; and a mere step."""

import math

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.simulate.truth.base import TrueLink, positive, sigmoid_slope


class LogisticTruth(TrueLink):
    """Psi(u) = sigmoid(u / temperature): Bradley-Terry, the link that DPO assumes. Slope 1/(4 temperature) at 0."""

    shift = 0.0  # as the shifted mixture's

    def __init__(self, *, temperature: float) -> None:
        self.temperature = positive("temperature", temperature)

    def value(self, u: Tensor) -> Tensor:
        return torch.sigmoid(u / self.temperature)

    def derivative(self, u: Tensor) -> Tensor:
        return sigmoid_slope(u / self.temperature) / self.temperature


class ProbitTruth(TrueLink):
    """Psi(u) = Phi(u / temperature): normal noise, light tails. Slope 0.399 / temperature at 0. Source: Thurstone
    (1927), case V."""

    def __init__(self, *, temperature: float) -> None:
        self.temperature = positive("temperature", temperature)

    def value(self, u: Tensor) -> Tensor:
        p: Tensor = torch.special.ndtr(u / self.temperature)
        return p

    def derivative(self, u: Tensor) -> Tensor:
        x = u / self.temperature
        return torch.exp(-x.square() / 2) / (math.sqrt(2 * math.pi) * self.temperature)


class CauchitTruth(TrueLink):
    """Psi(u) = 1/2 + arctan(u / temperature) / pi: heavy tails, now and then a plainly better response loses. Slope
    1/(pi temperature) at 0. Source: Koenker and Yoon (2009)."""

    def __init__(self, *, temperature: float) -> None:
        self.temperature = positive("temperature", temperature)

    def value(self, u: Tensor) -> Tensor:
        return 0.5 + torch.atan(u / self.temperature) / math.pi

    def derivative(self, u: Tensor) -> Tensor:
        x = u / self.temperature
        return 1 / (math.pi * self.temperature * (1 + x.square()))


class StepTruth(TrueLink):
    """Psi(u) = 1 - accuracy + (2 accuracy - 1) sigmoid(u / temperature), the temperature small: the better response
    wins with probability `accuracy`, by however little it is better. By how much leaves no trace in the labels."""

    def __init__(self, *, accuracy: float, temperature: float) -> None:
        """accuracy: a probability in (1/2, 1]; temperature: in sd of the reward difference."""
        if not 0.5 < accuracy <= 1:
            raise ConfigError(f"accuracy is {accuracy}: give a probability above 0.5 and up to 1, such as 0.9")
        self.accuracy = accuracy
        self.temperature = positive("temperature", temperature)

    def value(self, u: Tensor) -> Tensor:
        return 1 - self.accuracy + (2 * self.accuracy - 1) * torch.sigmoid(u / self.temperature)

    def derivative(self, u: Tensor) -> Tensor:
        return (2 * self.accuracy - 1) * sigmoid_slope(u / self.temperature) / self.temperature
