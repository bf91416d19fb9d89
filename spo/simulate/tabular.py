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

from spo.divergence.base import Divergence
from spo.errors import ConfigError
from spo.simulate.labels import TrueLinkLabels
from spo.simulate.seeds import Layers, SeedScheme, Sizes
from spo.simulate.truth import TrueLink
from spo.types import ActionRows

_ROWS_OF_A_SEED = 2**32  # row ids are seed · this + number of the row, so that no two seeds share one


class OneTruth(Protocol):
    """Labels of one true link. Where annotators know the context, `given` says what they make of it."""

    @property
    def link(self) -> TrueLink: ...

    def given(self, context: Tensor) -> TrueLinkLabels: ...


class TrueLinks(Protocol):
    """One true link, or one for each shift of a study."""

    @property
    def each(self) -> Sequence[OneTruth]: ...


class Teachers:
    """One data set for each seed and true link: x ~ N(0, I_d), y_0 and y_1 uniform on the K actions (they may be
    equal), and the reward

        r(x, y) = nu_f · (f'(pi_teacher(y | x) / (1/K)) - f'(1)),

    pi_teacher a softmax MLP with torch's default start: it is the best policy for r under a budget of the divergence
    f, at beta = nu_f. For KL f' is the log-ratio and nu_f = reward_scale. For another f nu_f gives reward differences
    the sd that they have for KL with the same teacher (over all pairs of actions, on the fresh contexts), so that a
    shift and a temperature of a true link mean the same under each. Labels are drawn at r(x, y_1) - r(x, y_0); true
    links share everything else, the uniforms of the labels too, so that differences between shifts are paired.
    """

    def __init__(
        self,
        *,
        seeds: list[int] | str,
        features: int,
        hidden: list[int],
        actions: int,
        reward_scale: float,
        divergence: Divergence,
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
        self.divergence = divergence
        self.sizes = Sizes([features, *hidden, actions], rows, fresh_contexts)

    def __call__(self, labels: TrueLinks) -> ActionRows:
        """Every seed under every true link, R = (seeds · links,), the links of a seed side by side."""
        return ActionRows.stack([rows for seed in self.seeds for rows in self._replicates(seed, labels.each)])

    def student(self, seed: int, layers: list[int]) -> Layers | None:
        """The start of a policy of these widths; None where it draws its own."""
        return self.seed_scheme.student(seed, self.sizes, layers)

    def _replicates(self, seed: int, links: Sequence[OneTruth]) -> list[ActionRows]:
        """One data set a link, without a replicate axis."""
        teacher = self.seed_scheme.teacher(seed, self.sizes)
        context, fresh, action = self.seed_scheme.draw(seed, self.sizes)
        scale = self._scale(teacher, fresh)
        chosen = (scale * self._term(teacher, context)).gather(-1, action)
        difference = chosen[:, 1] - chosen[:, 0]
        row_id = seed * _ROWS_OF_A_SEED + torch.arange(self.sizes.rows)
        fresh_reward = scale * self._term(teacher, fresh)
        found = []
        for truth in links:
            labels = truth.given(context)
            z = self.seed_scheme.labels(seed, self.sizes, labels, row_id, difference)
            assert labels.sd is not None
            found.append(
                ActionRows(
                    seed=torch.tensor(seed),
                    shift=torch.tensor(truth.link.shift, dtype=torch.float64),
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

    def _log_ratio(self, teacher: Layers, context: Tensor) -> Tensor:
        """log pi_teacher - log 1/K of contexts (n, d): (n, K), nats."""
        x = context
        for k, (weight, bias) in enumerate(teacher):
            x = torch.addmm(bias, x if k == 0 else x.relu(), weight)
        return x.log_softmax(-1) + math.log(self.sizes.layers[-1])

    def _term(self, teacher: Layers, context: Tensor) -> Tensor:
        """f'(pi_teacher / (1/K)) - f'(1) of contexts (n, d): (n, K)."""
        log_ratio = self._log_ratio(teacher, context)
        return self.divergence.index_term(log_ratio) - self.divergence.index_term(torch.zeros(()))

    def _scale(self, teacher: Layers, fresh: Tensor) -> float:
        """nu_f; for KL two equal spreads are divided, and it is reward_scale to the bit."""
        of_kl, of_f = (_spread(x) for x in (self._log_ratio(teacher, fresh), self._term(teacher, fresh)))
        return self.reward_scale * (of_kl / of_f)


def _spread(term: Tensor) -> float:
    """sd of a difference between two actions, up to sqrt 2: the root of the mean over contexts of the variance over
    actions. (m, K)."""
    return math.sqrt(float(term.double().var(-1, correction=0).mean()))


def seeds_of(text: str) -> list[int]:
    """ "3-6" -> [3, 4, 5, 6]."""
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ConfigError(f'seeds is {text!r}: give a list such as [0,1,2], or "first-last" such as 0-63')
    return list(range(int(found[1]), int(found[2]) + 1))
