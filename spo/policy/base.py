"""What training and evaluation may ask of a policy.

Shapes: R any number of leading replicate axes (none for a language model), B rows; the axis of length 2 is
(response 0, response 1). Every log-probability is of a whole response, float32, in nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from spo.errors import SpoError
from spo.types import ActionPairs, TokenPairs


class Policy(nn.Module, ABC):
    """pi(y | x). A constructor takes plain values and loads nothing; `build` makes the weights."""

    replicates: tuple[int, ...] = ()  # R; a policy with replicate axes sets its own
    tokens_computed: int = 0  # by passes with a gradient, padding included, shared prefixes once; of a token model
    lists_responses: bool = False  # True where all responses of a context can be listed with their probabilities

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """The transformers tokenizer of the text that it reads, known without loading weights; None where it reads
        no text."""

    def meet(self, data: Any) -> None:
        """Take from the loaded data what the policy must have in common with them; before `build`."""

    @abstractmethod
    def build(self) -> None:
        """Load or initialise the weights; called from configure_model, does nothing the second time."""

    def forward(self, pair: TokenPairs | ActionPairs) -> Tensor:
        """`log_prob`, as a module's call: the way that a trainer takes, for a sharded policy is whole only inside."""
        return self.log_prob(pair)

    @abstractmethod
    def log_prob(self, pair: TokenPairs | ActionPairs) -> Tensor:
        """log pi(y_j | x): float32 (*R, B, 2), with a gradient."""

    @abstractmethod
    def reference_log_prob(self, pair: TokenPairs | ActionPairs) -> Tensor:
        """The same under the policy without its adapters: float32 (*R, B, 2), without a gradient."""

    @property
    @abstractmethod
    def has_adapter_reference(self) -> bool:
        """True where switching adapters off gives the reference policy."""

    @property
    @abstractmethod
    def starts_at_reference(self) -> bool:
        """True where the freshly built policy equals what its adapters sit on, so that every index is 0."""

    @abstractmethod
    def check_training(self, precision: str) -> None:
        """ConfigError where training this policy at a precision of spo.hardware would go wrong; before weights load."""

    @abstractmethod
    def shard(self, mesh: DeviceMesh) -> None:
        """Spread the built weights over the processes of `mesh` (FSDP2). Afterwards it must be called as a module."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of the base model, known without loading weights: what a stored reference must agree with."""

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """The tensors that training changes, by parameter name; detached, not copied."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def load_trainable_state_dict(self, state: dict[str, Tensor]) -> None:
        """Copy `state` into the parameters. Names and shapes must be exactly those of `trainable_state_dict`."""
        own = self.trainable_state_dict()
        missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unexpected:
            raise SpoError(
                f"the saved weights do not fit this policy: missing {_some(missing)}, unexpected {_some(unexpected)}. "
                "Give the model and lora options of the run that saved them"
            )
        shapes = [
            f"{k} {tuple(state[k].shape)} (here {tuple(own[k].shape)})" for k in own if own[k].shape != state[k].shape
        ]
        if shapes:
            raise SpoError(f"the saved weights have other shapes: {_some(shapes)}. Was lora.r another?")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(placed_like(state[name], tensor))


def placed_like(value: Tensor, example: Tensor) -> Tensor:
    """A whole tensor, sharded as `example` is; every process must have it. Others as they are."""
    if isinstance(example, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(example.device), example.device_mesh, example.placements, src_data_rank=None)
    return value


def _some(names: list[str], shown: int = 3) -> str:
    """none | a, b, c and 4 more"""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) + more) or "none"


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """eval mode inside; afterwards every submodule has the mode it had."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
