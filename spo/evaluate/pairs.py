"""The held-out pairs of a training, scored by the policy and by the model that it started from.

Shapes: n pairs; the axis of length 2 is (response 0, response 1).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spo.data.collate import Batches, every_row_once
from spo.data.micro import OfPairs
from spo.data.text import TextDataModule
from spo.errors import ConfigError
from spo.evaluate.base import Learned
from spo.index import index
from spo.policy.base import evaluating
from spo.policy.causal_lm import CausalLM

_MEND = "raise data.val_fraction, or give data.val_path"


@dataclass(frozen=True)
class Pairs:
    """Every field is response 1 less response 0 where it is of two. float64 (n,), nan where unknown."""

    t: np.ndarray  # the oriented index
    policy: np.ndarray  # log pi(y1|x) - log pi(y0|x), nats
    reference: np.ndarray  # the same of the reference
    z: np.ndarray  # the label
    weight: np.ndarray
    row_id: np.ndarray  # int64
    group: np.ndarray  # int64, a hash of the prompt
    u: np.ndarray  # the true reward, in sd of its difference
    p: np.ndarray  # E[z] by the true link
    length: np.ndarray  # tokens, end of turn included
    reward_sd: float | None  # by which u was divided, in the reward's unit

    def __len__(self) -> int:
        return len(self.t)


def check_held_out(data: Any) -> None:
    """ConfigError where these data, which need not be loaded, hold out no pairs of text."""
    if not isinstance(data, TextDataModule):
        raise ConfigError("ranking asks held-out pairs of text: give data=preferences, or evaluate=tabular_tilt")
    if data.val_path is None and not data.val_fraction:
        raise ConfigError(f"ranking needs held-out rows, and data.val_fraction is {data.val_fraction}: {_MEND}")


@torch.no_grad()
def score_pairs(learned: Learned, data: TextDataModule, batch_size: int) -> Pairs:
    """batch_size: pairs a forward pass. Dropout is off, whatever it was in training."""
    rows, policy = data.val, learned.policy
    assert isinstance(policy, CausalLM)
    if not len(rows):
        raise ConfigError(f"ranking needs held-out rows, and there are none: {_MEND}")
    policy.build()
    plan = every_row_once(rows, OfPairs(batch_size))
    indices, own, others = [], [], []
    with evaluating(policy):
        for batch in Batches(rows, plan, data.renderer.pad_token_id):
            pair = batch.to(policy.device).pair
            log_pi, log_ref = policy(pair), policy.reference_log_prob(pair)
            indices.append(index(learned.divergence, log_pi, log_ref))
            own.append(log_pi[:, 1] - log_pi[:, 0])
            others.append(log_ref[:, 1] - log_ref[:, 0])
    at = np.concatenate(plan)
    t, of_policy, of_reference = (torch.cat(parts).double().cpu().numpy() for parts in (indices, own, others))
    u = rows.reward_difference[at] / (data.report.reward_sd or np.nan)
    lengths = rows.response_lengths[at].astype(float)
    return Pairs(
        t=float(learned.orientation) * t,
        policy=of_policy,
        reference=of_reference,
        z=rows.z[at].astype(float),
        weight=rows.weight[at].astype(float),
        row_id=rows.row_id[at],
        group=rows.group[at],
        u=u,
        p=_probability(data, u, rows.swapped[at]),
        length=lengths[:, 1] - lengths[:, 0],
        reward_sd=data.report.reward_sd,
    )


def _probability(data: TextDataModule, u: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """The true link was asked about rows in the file's order."""
    if data.labels is None:
        return np.full(len(u), np.nan)
    p = data.labels.link(np.where(swapped, -u, u))
    found: np.ndarray = np.where(swapped, 1 - p, p)
    return found
