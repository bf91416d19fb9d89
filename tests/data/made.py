"""Tokenised rows from ids that a test gives."""

import numpy as np

from spo.data.collate import TokenisedRows
from spo.data.rows import ParsedRow
from spo.data.table import TokenTable
from spo.data.tokens import Rendered
from spo.types import PreferencePair


def rows_of(rendered: list[Rendered], swapped: list[bool] | None = None) -> TokenisedRows:
    n = len(rendered)
    pairs = [
        PreferencePair(100 + i, i, "p", "a", "b", i / max(n - 1, 1) if n > 1 else 1.0, 1.0 + i, 0.0, float(i), f"r:{i}")
        for i in range(n)
    ]
    table = TokenTable.build([ParsedRow(pair, True) for pair in pairs], rendered)
    return table.oriented(np.arange(n), np.zeros(n, dtype=bool) if swapped is None else np.array(swapped))
