"""A softmax MLP over K actions: the small policy on which everything can be computed exactly.

Shapes: R leading replicate axes (independent policies trained at once), B rows, d context features, K actions.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from spo.errors import ConfigError
from spo.hashing import digest
from spo.policy.base import Policy
from spo.policy.reference import Reference, RowKeeper
from spo.types import ActionPairs, PreferenceBatch, TokenPairs

_CACHED = 32  # replicates that pass through the network at one time on a CPU: a layer's values stay in its cache
Layers = list[tuple[Tensor, Tensor]]  # weight (in, out) and bias (out,) of each layer


class Replicated(Protocol):
    """Data of R replicates: their seeds, and the weights that a policy of some widths starts with, None for its own."""

    seeds: list[int]

    def start(self, layers: list[int]) -> list[Layers] | None: ...


class Tabular(Policy):
    """pi(y | x) = softmax(W_L relu(... relu(W_1 x + b_1)) + b_L)[y]; its reference is uniform over the K actions."""

    has_adapter_reference = False
    starts_at_reference = False
    lists_responses = True
    tokenizer = None

    def __init__(self, *, features: int, hidden: list[int], actions: int, seeds: list[int] | None) -> None:
        """One replicate for each seed; a replicate's start depends on its own seed alone. seeds of length R; None: as
        many replicates as the data have, each with the seed, or the start, of its data set (`meet`)."""
        super().__init__()
        if features < 1 or actions < 2 or seeds == [] or min(hidden, default=1) < 1:
            raise ConfigError(
                f"features is {features}, hidden {hidden}, actions {actions}, seeds {seeds}: give at least 1 feature, "
                "widths >= 1, 2 actions and one seed"
            )
        self.sizes = [features, *hidden, actions]
        self.actions = actions
        self.seeds = seeds or []
        self.replicates = (len(self.seeds),)
        self._start: list[Layers] | None = None

    def meet(self, data: "Replicated") -> None:
        """Take replicates, seeds and, where the data have them, initial weights from the data."""
        if not self.seeds:
            self.seeds = data.seeds
            self.replicates = (len(self.seeds),)
            self._start = data.start(self.sizes)

    def build(self) -> None:
        if hasattr(self, "layer_0_weight"):
            return
        for k, pair in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            start = self._start
            layers = [
                _linear_start(seed, k, *pair) if start is None else start[r][k] for r, seed in enumerate(self.seeds)
            ]
            weights, biases = zip(*layers, strict=True)
            self.register_parameter(f"layer_{k}_weight", nn.Parameter(torch.stack(weights).mT.contiguous()))
            self.register_parameter(f"layer_{k}_bias", nn.Parameter(torch.stack(biases)))
        self._start = None

    def log_probs(self, context: Tensor, replicates: Tensor | None = None) -> Tensor:
        """log pi(. | x) of contexts (R, B, d): (R, B, K); replicates: those that the contexts are for, None for all."""
        layers = self._layers()
        if replicates is not None:
            layers = [layer[replicates] for layer in layers]
        return self._network(context, layers).mT

    def log_prob(self, pair: TokenPairs | ActionPairs) -> Tensor:
        if not isinstance(pair, ActionPairs):
            raise TypeError("a tabular policy scores ActionPairs")
        size = _CACHED if pair.context.device.type == "cpu" else len(pair.context)
        parts = zip(*(torch.split(x, size) for x in (pair.context, pair.action, *self._layers())), strict=True)
        found = [self._network(context, layers).gather(-2, action.mT) for context, action, *layers in parts]
        return torch.cat(found).mT

    def _layers(self) -> list[Tensor]:
        """Weight (R, out, in) and bias (R, out) of each layer, in turn."""
        names = (f"layer_{k}_{part}" for k in range(len(self.sizes) - 1) for part in ("weight", "bias"))
        return [getattr(self, name) for name in names]

    @staticmethod
    def _network(context: Tensor, layers: Sequence[Tensor]) -> Tensor:
        """log pi, actions before contexts: (R, K, B), in which both products and sums over few actions are fast."""
        x = context.mT
        for k in range(0, len(layers), 2):
            x = torch.baddbmm(layers[k + 1][..., None], layers[k], x if k == 0 else x.relu())
        return x.log_softmax(-2)

    def reference_log_prob(self, pair: TokenPairs | ActionPairs) -> Tensor:
        if not isinstance(pair, ActionPairs):
            raise TypeError("a tabular policy scores ActionPairs")
        return torch.full(pair.action.shape, -math.log(self.actions), device=pair.context.device)

    def check_training(self, precision: str) -> None:
        return

    def shard(self, mesh: DeviceMesh) -> None:
        raise ConfigError("hardware=fsdp is for language models: a tabular policy is small, give hardware=cpu")

    def fingerprint(self) -> str:
        return digest(["tabular", self.sizes, self.seeds])

    @property
    def fits(self) -> str:
        """What the data must have, in the words of their fingerprint."""
        return f"{len(self.seeds)} replicates, {self.sizes[0]} features, {self.actions} actions"


class Uniform(Reference):
    """pi_ref(y | x) = 1 / K: the reference of a tabular policy."""

    equals_initial_policy = False
    network = None
    remembered = None

    def prepare(self, policy: Policy, data: RowKeeper) -> None:
        if not isinstance(policy, Tabular):
            raise ConfigError(
                "reference=uniform is for tabular policies: give reference=adapter_off with a language model"
            )
        if (sizes := data.fingerprint()["sizes"]) != policy.fits:
            raise ConfigError(
                f"the policy has {policy.fits}, the data {sizes}: give policy.features and actions as in "
                "data.source, and policy.seeds=null"
            )

    def is_start_of(self, policy: Policy) -> bool:
        return True  # what a tabular policy is tilted against

    def build(self) -> None:
        return

    def log_prob(self, batch: PreferenceBatch, policy: Policy) -> Tensor:
        return policy.reference_log_prob(batch.pair)


def _linear_start(seed: int, layer: int, fan_in: int, fan_out: int) -> tuple[Tensor, Tensor]:
    """torch.nn.Linear's default start: uniform on ± 1/sqrt(fan_in). Weight (fan_in, fan_out), bias (fan_out,)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + layer)
    bound = 1 / math.sqrt(fan_in)
    weight = torch.empty(fan_in, fan_out).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(fan_out).uniform_(-bound, bound, generator=generator)
