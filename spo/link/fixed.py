"""What the fixed links share: one known curve of scale · t."""

import math
from abc import ABC
from typing import Self

from torch import Tensor

from spo.errors import ConfigError
from spo.link.base import Link


class Fixed(Link, ABC):
    """Psi(t) = F(scale · t), F a known distribution function with F(-x) = 1 - F(x). Nothing is fitted."""

    symmetric = True
    is_fitted_from_data = False

    def __init__(self, scale: float) -> None:
        """scale: 1 / nats; raises ConfigError unless it is positive."""
        super().__init__()
        if not 0 < scale < math.inf:
            raise ConfigError(f"link.scale is {scale}: give a positive number, such as 0.1")
        self.scale = scale
        self.reward_scale = scale

    def fit(self, t: Tensor, z: Tensor, weight: Tensor) -> Self:
        return self
