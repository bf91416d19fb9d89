"""What a logger may take besides scalars: histograms, tables, pictures and charts of a table."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Rows = list[list[float | str | None]]


@dataclass(frozen=True)
class Chart:
    """A table and how it is drawn by one of W&B's built-in presets, which nobody has to store on a server.

    preset: "wandb/lineseries/v0", ...; fields: field of the preset -> column; strings: its constants, such as title.
    """

    preset: str
    columns: list[str]
    rows: Rows
    fields: Mapping[str, str | None]
    strings: Mapping[str, str]


class MediaLogger(ABC):
    """A logger that takes more than scalars. `step`: optimizer steps done."""

    @abstractmethod
    def log_histogram(self, name: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        """counts (bins,), edges (bins + 1,)."""

    @abstractmethod
    def log_table(self, name: str, columns: list[str], rows: list[list[float | None]], step: int) -> None: ...

    @abstractmethod
    def log_picture(self, name: str, image: np.ndarray, step: int) -> None:
        """image: uint8 (height, width, 3 or 4)."""

    @abstractmethod
    def log_chart(self, name: str, chart: Chart, step: int) -> None:
        """The chart's table goes under `name`_table."""

    @abstractmethod
    def set_summary(self, values: Mapping[str, float]) -> None:
        """What stands for the run as a whole, beside the last value of each metric."""
