"""The dimensions of a search: what one parameter may be, as words of a command line and as Optuna's distribution."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spo.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Dimension(ABC):
    """The values of one parameter. A value is written as the right-hand side of an override."""

    @property
    @abstractmethod
    def probes(self) -> list[str]:
        """Values that show whether all are accepted: both ends first (low, high), then every other choice."""

    @abstractmethod
    def distribution(self) -> "BaseDistribution":
        """Optuna's, whose values `text` writes."""

    def text(self, value: Any) -> str:
        """A value drawn from the distribution, as an override has it."""
        return value if isinstance(value, str) else repr(value)


@dataclass(frozen=True)
class Choice(Dimension):
    """One of several words, without an order."""

    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("has no values: give choice(a,b)")

    @property
    def probes(self) -> list[str]:
        return [self.values[0], self.values[-1], *self.values[1:-1]]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


@dataclass(frozen=True)
class Whole(Dimension):
    """low, low + step, ..., high; log: small numbers are told apart more finely (step 1 only)."""

    low: int
    high: int
    step: int
    log: bool

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ConfigError(f"has a logarithmic scale and step {self.step}: give one of them")

    @property
    def probes(self) -> list[str]:
        return [self.text(self.low), self.text(self.high)]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Real(Dimension):
    """low <= x <= high, in steps of `step` where it is given; log: uniform in log x."""

    low: float
    high: float
    step: float | None
    log: bool

    def __post_init__(self) -> None:
        _check_ends(self.low, self.high, self.log)
        if self.log and self.step is not None:
            raise ConfigError(f"has a logarithmic scale and step {self.step}: give one of them")

    @property
    def probes(self) -> list[str]:
        return [self.text(self.low), self.text(self.high)]

    def distribution(self) -> "BaseDistribution":
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def _check_ends(low: float, high: float, log: bool) -> None:
    if not low < high:
        raise ConfigError(f"goes from {low} to {high}: give the smaller end first, and another one second")
    if log and not low > 0:
        raise ConfigError(f"has a logarithmic scale and begins at {low}: give a low end > 0")
