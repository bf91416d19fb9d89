"""What the links made of binned kernel sums share: the sums, and leaving a row out of them.

Shapes: R leading replicate axes, N rows, G grid points.
"""

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.link.base import Link
from spo.link.binned import BinnedSmoother, without_own
from spo.types import IndexSample


class KernelSum(NamedTuple):
    """sum_i w_i u_i^power K(u_i), u_i = (t_i - t) / h; with z_i in each term where `of_labels`."""

    power: int
    of_labels: bool


class Smoothed(Link, ABC):
    """Psi is a function of a few kernel sums over the fitted sample, each kept as a buffer (*R, G).

    With `own`, the row's entry in the fitted sample (and its mirror where symmetric) is left out of every sum where it
    lay at the fit (MATH C6). Cost: O(n) for a fit, O(1) for a row.
    """

    is_fitted_from_data = True
    leaves_own_out = True
    sums: ClassVar[Mapping[str, KernelSum]]  # buffer -> what it holds

    def __init__(
        self, *, symmetric: bool, constant: float, pseudo_count: float, eps: float, cells: int, grid_size: int
    ) -> None:
        """constant: of the bandwidth; pseudo_count: rows; eps: the fit stays in [eps, 1 - eps]; cells: grid steps a
        bandwidth; grid_size: grid points (odd). Raises ConfigError outside the ranges."""
        super().__init__()
        if pseudo_count <= 0:
            raise ConfigError(f"link.pseudo_count is {pseudo_count}: give a positive number of rows")
        if not 0 < eps < 0.5:
            raise ConfigError(f"link.eps is {eps}: give a probability between 0 and 0.5, such as 0.001")
        self.symmetric = symmetric
        self.pseudo_count = pseudo_count
        self.eps = eps
        self.smoother = BinnedSmoother(symmetric=symmetric, constant=constant, cells=cells, grid_size=grid_size)
        self.allocate(())

    def allocate(self, replicates: tuple[int, ...]) -> Self:
        self.smoother.allocate(replicates)
        for name in self.sums:
            self.register_buffer(name, torch.zeros(*replicates, self.smoother.grid_size))
        return self

    def fit(self, t: Tensor, z: Tensor, weight: Tensor) -> Self:
        like = self.smoother.step
        t, z, weight = (x.detach().to(like.dtype) for x in (t, z, weight))
        if t.shape[:-1] != like.shape:
            self.allocate(t.shape[:-1]).to(t)
        self.smoother.place(t, weight)
        rows = self.smoother.bin(t, weight, weight)
        preferred = self.smoother.bin(t, weight * z, weight * (1 - z))
        for name, (power, of_labels) in self.sums.items():
            getattr(self, name).copy_(self.smoother.convolve(preferred if of_labels else rows, power))
        return self

    def sums_at(self, t: Tensor, own: IndexSample | None) -> dict[str, Tensor]:
        """The sums at t, each (*R, N), without the rows' own entries."""
        at = self.smoother.position(t)
        powers = {kernel_sum.power for kernel_sum in self.sums.values()}
        mass = {} if own is None else {power: self.smoother.own_mass(at, own.t, power) for power in powers}
        found = {}
        for name, (power, of_labels) in self.sums.items():
            total = self.smoother.interpolate(getattr(self, name), at)
            if own is not None:
                z, w = own.z, own.weight
                value, mirrored = (w * z, w * (1 - z)) if of_labels else (w, w)
                total = without_own(total, mass[power], value, mirrored)
            found[name] = total
        return found
