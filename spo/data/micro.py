"""How many rows one forward pass takes: so many pairs, or as many as a budget of tokens allows.

m rows on each of W ranks, by length: column r of an int array (m, W) holds rank r's rows.
"""

from abc import ABC, abstractmethod

import numpy as np

from spo.errors import ConfigError, DataError

SIDES = 2  # of a pair: both are padded to the longest of the micro-batch


class MicroBatch(ABC):
    """cut: the numbers of rows of consecutive micro-batches, the same on every rank, since collectives wait for all."""

    @abstractmethod
    def cut(self, longest: np.ndarray) -> list[int]:
        """longest: int (m,), ascending: tokens of the longer side of the longest of the rows that ranks take together.
        Returns rows a micro-batch, in that order; their sum is m."""

    @abstractmethod
    def check(self, global_batch: int, world: int) -> None:
        """ConfigError where `world` processes cannot have equal shares of a global batch."""

    @abstractmethod
    def check_row(self, tokens: int, whose: str) -> None:
        """DataError where a row whose longer side has so many tokens is too much for one forward pass."""

    @abstractmethod
    def smaller(self, tokens: int) -> tuple[str, int] | None:
        """`key=value` of about half as much memory, and the value now; None where rows of so many tokens leave no
        room for less."""

    def split(self, columns: np.ndarray, longest: np.ndarray, rank: int) -> list[np.ndarray]:
        """Rank's part of the columns, cut."""
        return np.split(columns[:, rank], np.cumsum(self.cut(longest))[:-1])


class OfPairs(MicroBatch):
    """`pairs` rows each, the last of an uneven number fewer."""

    def __init__(self, pairs: int) -> None:
        self.pairs = pairs

    def cut(self, longest: np.ndarray) -> list[int]:
        whole, rest = divmod(len(longest), self.pairs)
        return [self.pairs] * whole + [rest] * (rest > 0)

    def check(self, global_batch: int, world: int) -> None:
        pairs = world * self.pairs
        if global_batch % pairs:
            raise ConfigError(
                f"global_batch {global_batch} is not a multiple of {world} processes x micro_batch {self.pairs} = "
                f"{pairs} pairs: change one of them, or give micro_batch=null micro_tokens=TOKENS"
            )

    def check_row(self, tokens: int, whose: str) -> None:
        return

    def smaller(self, tokens: int) -> tuple[str, int] | None:
        divisors = [n for n in range(1, self.pairs) if self.pairs % n == 0]  # so that global_batch stays a multiple
        fewer = max(divisors, default=None)
        return None if fewer is None else (f"micro_batch={fewer}", self.pairs)


class OfTokens(MicroBatch):
    """As few as possible of at most `tokens` tokens each, padding counted: 2 x rows x the longest side.

    Filled up from the longest row down. No other division needs fewer: the micro-batch of the longest row has room for
    no more rows than are given to it, and those given are the longest that are left.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def cut(self, longest: np.ndarray) -> list[int]:
        sizes: list[int] = []
        left = len(longest)
        while left:
            rows = min(left, max(1, self.tokens // (SIDES * int(longest[left - 1]))))
            sizes.append(rows)
            left -= rows
        return sizes[::-1]

    def check(self, global_batch: int, world: int) -> None:
        if global_batch % world:
            raise ConfigError(f"global_batch {global_batch} is not a multiple of {world} processes: change one of them")

    def check_row(self, tokens: int, whose: str) -> None:
        need = SIDES * tokens
        if need > self.tokens:
            raise DataError(
                f"micro_tokens is {self.tokens}, but {whose} takes {SIDES} x {tokens} = {need} tokens (both responses, "
                f"each with its prompt, padded to the longer): give micro_tokens={need} or more, or a data.max_length "
                f"of {self.tokens // SIDES} or less"
            )

    def smaller(self, tokens: int) -> tuple[str, int] | None:
        fewer = max(self.tokens // 2, SIDES * tokens)
        return None if fewer >= self.tokens else (f"micro_tokens={fewer}", self.tokens)


def micro_batches(micro_batch: int | None, micro_tokens: int | None) -> MicroBatch:
    """Of the two keys, of which one is given."""
    if micro_tokens is not None:
        return OfTokens(micro_tokens)
    assert micro_batch is not None
    return OfPairs(micro_batch)


def problems(micro_batch: int | None, micro_tokens: int | None) -> list[tuple[bool, str]]:
    """(wrong?, message) of the two keys."""
    both = (micro_batch is None) == (micro_tokens is None)
    given = f"micro_batch is {_shown(micro_batch)} and micro_tokens {_shown(micro_tokens)}"
    return [
        (both, f"{given}: give one of them, pairs or tokens a forward pass, and null for the other"),
        (micro_batch is not None and micro_batch < 1, f"micro_batch is {micro_batch}: give pairs >= 1"),
        (micro_tokens is not None and micro_tokens < 1, f"micro_tokens is {micro_tokens}: give tokens >= 1"),
    ]


def _shown(value: int | None) -> str:
    return "null" if value is None else str(value)
