"""What every link is: a function from the index to the probability that response 1 is preferred."""

import copy
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from spo.types import IndexSample


class Link(nn.Module, ABC):
    """Psi: t -> P(z = 1).

    A link that is fitted keeps what it fitted in buffers of fixed shape (*R, ...), so that a checkpoint
    holds it and a batch of replicates is one call. It sees (t, z, weight) and nothing else.
    """

    symmetric: bool  # True where Psi(-t) = 1 - Psi(t) holds
    leaves_own_out: bool = False  # True where `own` is taken out of the fit at a row's own t
    reward_scale: float = 1.0  # beta of the logged rewards beta · (log pi - log pi_ref); 1 where it is not identified

    @property
    @abstractmethod
    def is_fitted_from_data(self) -> bool:
        """True where `fit` learns the shape; a fixed link returns itself unchanged."""

    @abstractmethod
    def forward(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        """Psi(t), shape of t (*R, N), differentiable in t.

        own: each row's own entry in the fitted sample (its t at the fit, z, weight; weight 0 where it was
        not there). A leave-one-out link takes it out where it lay then; others ignore it.
        """

    @abstractmethod
    def fit(self, t: Tensor, z: Tensor, weight: Tensor) -> Self:
        """Fit on rows (*R, N); rows of weight 0 are not there. Returns self."""

    def allocate(self, replicates: tuple[int, ...]) -> Self:
        """Make the buffers for these leading axes; before that, and before the first fit, Psi = 1/2."""
        return self

    def of(self, replicates: Tensor) -> Self:
        """The same link of some replicates, int64 (r,): a copy, whose buffers have these along the first axis."""
        some = copy.deepcopy(self)
        for module in some.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer[replicates.to(buffer.device)])
        return some

    def logit(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        """log Psi(t) - log(1 - Psi(t))."""
        p = self(t, own)
        return torch.log(p) - torch.log1p(-p)

    def derivative(self, t: Tensor, own: IndexSample | None = None) -> Tensor:
        """Psi'(t), without a graph."""
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            return torch.autograd.grad(self(t, own).sum(), t)[0]
