"""The tabular study: teachers whose rewards are known exactly, and preferences between their actions.

Everything about a replicate is a function of its own seed (and of the true link): alone or among many it is the same,
bit for bit. Shapes: n rows, m fresh contexts, d features, K actions.
"""

import math
import re
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.simulate.labels import TrueLinkLabels
from spo.simulate.seeds import Layers, SeedScheme, Sizes
from spo.types import ActionRows

_ROWS_OF_A_SEED = 2**32  # row ids are seed · this + number of the row, so that no two seeds share one


class TrueLinks(Protocol):
    """One true link, or one for each shift of a study."""

    @property
    def each(self) -> tuple[TrueLinkLabels, ...]: ...


class Teachers:
    """One data set for each seed and true link: x ~ N(0, I_d), y_0 and y_1 uniform on the K actions (they may be
    equal), and the reward

        r(x, y) = reward_scale · (log pi_teacher(y | x) - log 1/K),

    pi_teacher a softmax MLP with torch's default start. Labels are drawn at r(x, y_1) - r(x, y_0); true links share
    everything else, the uniforms of the labels too, so that differences between shifts are paired.
    """

    def __init__(
        self,
        *,
        seeds: list[int] | str,
        features: int,
        hidden: list[int],
        actions: int,
        reward_scale: float,
        rows: int,
        fresh_contexts: int,
        seed_scheme: SeedScheme,
    ) -> None:
        """seeds: a list, or "first-last". rows: preferences of a data set; fresh_contexts: contexts of one, for its
        evaluation."""
        seeds = seeds_of(seeds) if isinstance(seeds, str) else seeds
        problems = [
            (not seeds or min(seeds, default=0) < 0 or max(seeds, default=0) >= 2**31, f"seeds is {seeds}: give >= 0"),
            (len(set(seeds)) < len(seeds), f"seeds is {seeds}: give each once"),
            (features < 1, f"features is {features}: give at least 1"),
            (any(width < 1 for width in hidden), f"hidden is {hidden}: give widths >= 1"),
            (actions < 2, f"actions is {actions}: give at least 2"),
            (not reward_scale > 0, f"reward_scale is {reward_scale}: give a positive number"),
            (not 2 <= rows < _ROWS_OF_A_SEED, f"rows is {rows}: give at least 2"),
            (fresh_contexts < 1, f"fresh_contexts is {fresh_contexts}: give at least 1"),
        ]
        if wrong := [message for bad, message in problems if bad]:
            raise ConfigError("\n".join(wrong))
        self.seeds, self.reward_scale, self.seed_scheme = seeds, reward_scale, seed_scheme
        self.sizes = Sizes([features, *hidden, actions], rows, fresh_contexts)

    def __call__(self, labels: TrueLinks) -> ActionRows:
        """Every seed under every true link, R = (seeds · links,), the links of a seed side by side."""
        return ActionRows.stack([rows for seed in self.seeds for rows in self._replicates(seed, labels.each)])

    def student(self, seed: int, layers: list[int]) -> Layers | None:
        """The start of a policy of these widths; None where it draws its own."""
        return self.seed_scheme.student(seed, self.sizes, layers)

    def _replicates(self, seed: int, links: Sequence[TrueLinkLabels]) -> list[ActionRows]:
        """One data set a link, without a replicate axis."""
        teacher = self.seed_scheme.teacher(seed, self.sizes)
        context, fresh, action = self.seed_scheme.draw(seed, self.sizes)
        chosen = self._reward(teacher, context).gather(-1, action)
        difference = chosen[:, 1] - chosen[:, 0]
        row_id = seed * _ROWS_OF_A_SEED + torch.arange(self.sizes.rows)
        fresh_reward = self._reward(teacher, fresh)
        found = []
        for labels in links:
            z = self.seed_scheme.labels(seed, self.sizes, labels, row_id, difference)
            assert labels.sd is not None
            found.append(
                ActionRows(
                    seed=torch.tensor(seed),
                    shift=torch.tensor(labels.link.shift, dtype=torch.float64),
                    context=context,
                    action=action,
                    z=z,
                    row_id=row_id,
                    difference=difference / labels.sd,
                    reward_unit=torch.tensor(labels.sd, dtype=torch.float64),
                    fresh_context=fresh,
                    fresh_reward=fresh_reward,
                )
            )
        return found

    def _reward(self, teacher: Layers, context: Tensor) -> Tensor:
        """r(x, .) of contexts (n, d): (n, K)."""
        x = context
        for k, (weight, bias) in enumerate(teacher):
            x = torch.addmm(bias, x if k == 0 else x.relu(), weight)
        return self.reward_scale * (x.log_softmax(-1) + math.log(self.sizes.layers[-1]))


def seeds_of(text: str) -> list[int]:
    """ "3-6" -> [3, 4, 5, 6]."""
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ConfigError(f'seeds is {text!r}: give a list such as [0,1,2], or "first-last" such as 0-63')
    return list(range(int(found[1]), int(found[2]) + 1))
