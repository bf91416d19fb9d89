"""Rows as their files hold them, parsed and tokenised: no seed, truth or split has touched them yet."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np

from spo.data.collate import TokenisedRows
from spo.data.rows import ParsedRow
from spo.data.tokens import Rendered
from spo.errors import DataError
from spo.hashing import uniform


class Labels(Protocol):
    """Draws labels from rewards: a function of (row id, the truth's seed)."""

    @property
    def sd(self) -> float | None:
        """sd of the reward difference, by which the true link's argument is divided; known after a call."""

    @property
    def link(self) -> Callable[[np.ndarray], np.ndarray]:
        """E[z | u], u the reward difference in that sd."""

    def __call__(self, row_id: np.ndarray, reward_difference: np.ndarray) -> np.ndarray:
        """row_id int64 (n,), reward_difference float64 (n,) = reward 1 - reward 0, raw units -> z float64 (n,)."""


@dataclass(frozen=True)
class TokenTable:
    """n rows in the order of their files. Ids lie end to end, three stretches a row: prompt, response 0, response 1."""

    ids: np.ndarray  # int32, all ids
    ends: np.ndarray  # int64 (n, 3), where each stretch ends in `ids`
    kept: np.ndarray  # bool (n,), False of a row that is left out (not rendered, or beyond max_rows): it has no ids
    row_id: np.ndarray  # int64 (n,)
    group: np.ndarray  # int64 (n,), a hash of the prompt
    z: np.ndarray  # float64 (n,), P(response 1 preferred), nan where labels are drawn later
    weight: np.ndarray  # float64 (n,), > 0
    reward_difference: np.ndarray  # float64 (n,), reward 1 - reward 0, raw units, nan where one is unknown
    ordered: np.ndarray  # bool (n,), the order of the responses was given
    from_val: np.ndarray  # bool (n,), from val_path

    @classmethod
    def build(
        cls, parsed: Sequence[ParsedRow], rendered: Sequence[Rendered | None], *, from_val: np.ndarray | None = None
    ) -> Self:
        """rendered: of each parsed row, None where it is left out. from_val: bool (n,); None: none is."""
        pairs = [row.pair for row in parsed]
        flat, ends = array("i"), array("q")
        for row in rendered:
            for stretch in ((), (), ()) if row is None else (row.prompt, *row.responses):
                flat.extend(stretch)
                ends.append(len(flat))
        rewards = ((pair.reward_1, pair.reward_0) for pair in pairs)
        return cls(
            ids=np.array(flat, dtype=np.int32),
            ends=np.array(ends, dtype=np.int64).reshape(-1, 3),
            kept=np.array([row is not None for row in rendered], dtype=bool),
            row_id=np.array([pair.row_id for pair in pairs], dtype=np.int64),
            group=np.array([pair.group for pair in pairs], dtype=np.int64),
            z=np.array([np.nan if pair.z is None else pair.z for pair in pairs], dtype=np.float64),
            weight=np.array([pair.weight for pair in pairs], dtype=np.float64),
            reward_difference=np.array([np.nan if a is None or b is None else a - b for a, b in rewards], np.float64),
            ordered=np.array([row.ordered for row in parsed], dtype=bool),
            from_val=np.zeros(len(pairs), dtype=bool) if from_val is None else from_val,
        )

    def __len__(self) -> int:
        return len(self.z)

    def labelled(self, labels: Labels) -> Self:
        """With z of every row drawn; that of a row depends on others only through labels.sd."""
        z = np.asarray(labels(self.row_id, self.reward_difference), dtype=np.float64)
        if z.shape != (len(self),) or not ((z >= 0) & (z <= 1)).all():
            raise DataError(
                f"labels gave {z.shape} values from {z.min():g} to {z.max():g}: {len(self)} in [0, 1] are needed"
            )
        return replace(self, z=z)

    def refuse_constant_draws(self) -> None:
        if np.ptp(self.z) == 0:
            raise DataError(
                f"every label drawn from the rewards is {self.z[0]:g}: no link can be fitted to a constant. "
                "Check the rewards of the file (are they all equal?) and the true link's shift and temperature"
            )

    def swapped(self, seed: int, *, hashed: bool) -> np.ndarray:
        """bool (n,): rows whose responses are to be swapped; u(row id, seed) < 1/2 where the order is drawn (DESIGN 2).

        hashed: it is drawn in every row, also where one is given.
        """
        drawn = np.ones(len(self), dtype=bool) if hashed else ~self.ordered
        return drawn & (uniform(self.row_id, seed, "orientation") < 0.5)

    def oriented(self, at: np.ndarray, swapped: np.ndarray) -> TokenisedRows:
        """The rows at positions `at`, turned round where `swapped` (n,) says so; their ids stay where they are."""
        ends, swapped = self.ends[at], swapped[at]
        starts = np.stack([np.where(at > 0, self.ends[at - 1, 2], 0), ends[:, 0], ends[:, 1]], axis=1)
        order = np.where(swapped[:, None], [0, 2, 1], [0, 1, 2])
        difference = self.reward_difference[at]
        return TokenisedRows(
            ids=self.ids,
            starts=np.take_along_axis(starts, order, axis=1),
            ends=np.take_along_axis(ends, order, axis=1),
            z=np.where(swapped, 1 - self.z[at], self.z[at]).astype(np.float32),
            weight=self.weight[at].astype(np.float32),
            row_id=self.row_id[at],
            group=self.group[at],
            reward_difference=np.where(swapped, -difference, difference),
            swapped=swapped,
        )


def refuse_constant_labels(
    path: str, z: np.ndarray, ordered: np.ndarray, columns: dict[str, str], *, hashed: bool
) -> None:
    """Labels of a file that say nothing. Rows whose order is drawn may share one z, as long as it is no tie."""
    if np.ptp(z) > 0 or ((hashed or not ordered.all()) and z[0] != 0.5):
        return
    first, second = columns.get("response_0", "response_0"), columns.get("response_1", "response_1")
    chosen, rejected = (second, first) if z[0] > 0.5 else (first, second)
    mend = (
        f"If {chosen!r} is always the preferred one, say so: data.columns={{chosen: {chosen}, "
        f"rejected: {rejected}}} (the order is then drawn by a hash)"
        if z[0] != 0.5
        else "Give rows with a preference"
    )
    raise DataError(f"{path}: z is {z[0]:g} in all {len(z)} usable rows: no link can be fitted to a constant. {mend}")
