"""What every true link is: P(response 1 preferred) as a function of u = (reward_1 - reward_0) / sd of that difference.

u: any shape, Tensor or ndarray; the result has its kind and shape. Shifts, temperatures, biases and thresholds are in
units of sd(u), so that a temperature says how noisy the labels are whatever the reward's own unit (MATH C31).
"""

import math
from abc import ABC, abstractmethod
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from spo.errors import ConfigError

Array = TypeVar("Array", Tensor, np.ndarray)


class TrueLink(ABC):
    """Psi(u) = E[z | u], in [0, 1] and never falling in u.

    z is 1 or 0 and Psi(u) = P(z = 1 | u), but where `has_ties`: then z is also 1/2, with probability `tie(u)`, and
    P(z = 1 | u) = Psi(u) - tie(u)/2. Psi and ties are functions of u alone: the single index holds.
    """

    shift: float = math.nan  # s, by which results are told apart; nan for a link without one
    symmetric: bool = True  # True where Psi(-u) = 1 - Psi(u), and so Psi(0) = 1/2
    has_ties: bool = False  # True where some labels are 1/2

    def __call__(self, u: Array) -> Array:
        if isinstance(u, np.ndarray):
            return self.value(torch.from_numpy(u)).numpy()
        return self.value(u)

    @abstractmethod
    def value(self, u: Tensor) -> Tensor:
        """Psi(u)."""

    @abstractmethod
    def derivative(self, u: Tensor) -> Tensor:
        """Psi'(u)."""

    def tie(self, u: Tensor) -> Tensor:
        """P(z = 1/2 | u), shape of u."""
        return torch.zeros_like(u)


def positive(name: str, value: float) -> float:
    """value; ConfigError unless it is positive and finite."""
    if not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}: give a value > 0, in sd of the reward difference")
    return value


def not_negative(name: str, value: float) -> float:
    """value; ConfigError unless it is finite and not negative."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name} is {value}: give a value >= 0, in sd of the reward difference")
    return value


def sigmoid_slope(x: Tensor) -> Tensor:
    """sigmoid'(x) = sigmoid(x) sigmoid(-x), without cancellation."""
    return torch.sigmoid(x) * torch.sigmoid(-x)
