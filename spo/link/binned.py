"""Kernel sums over a sample in O(n): bin linearly onto a grid, convolve, interpolate linearly.

Shapes: R leading replicate axes, N rows of a sample, Q queries, G grid points.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spo.errors import ConfigError
from spo.link.bandwidth import bandwidth

_REACH = 6  # bandwidths after which the kernel (1.5e-8) is cut off


class Position(NamedTuple):
    """A place on the grid: its left grid point (int64) and the fraction of a step beyond it, both (*R, Q)."""

    cell: Tensor
    fraction: Tensor


class BinnedSmoother(nn.Module):
    """S_p(t) = sum_i v_i u_i^p K(u_i), u_i = (t_i - t) / h, K(u) = exp(-u^2/2).

    h = constant · n^(-1/5) · min(sd, IQR/1.349) of t_i. `power` p: 0 for kernel sums, 1 and 2 for local lines.
    The grid's step is h / cells, so that one convolution serves every replicate; the error of binning shrinks as
    1 / cells^2. Rows and queries beyond the grid, ± grid_size / (2 cells) bandwidths, count at its ends.
    """

    center: Tensor
    step: Tensor

    def __init__(self, *, symmetric: bool, constant: float, cells: int, grid_size: int) -> None:
        super().__init__()
        for name, value in (("constant", constant), ("cells", cells)):
            if value <= 0:
                raise ConfigError(f"{name} is {value}: give a positive number")
        if grid_size % 2 == 0 or grid_size < 8 * cells:
            raise ConfigError(f"grid_size is {grid_size}: give an odd number of at least 8 cells ({8 * cells})")
        self.symmetric = symmetric
        self.constant = constant
        self.cells = cells
        self.grid_size = grid_size
        self.allocate(())

    def allocate(self, replicates: tuple[int, ...]) -> None:
        self.register_buffer("center", torch.zeros(replicates))
        self.register_buffer("step", torch.ones(replicates))

    @property
    def bandwidth(self) -> Tensor:
        """h, in units of t, (*R,)."""
        return self.step * self.cells

    def place(self, t: Tensor, weight: Tensor) -> None:
        """Choose h and the grid for a sample (*R, N). Where symmetric the grid is centred at 0."""
        self.step.copy_(self.constant * bandwidth(t, weight, self.symmetric) / self.cells)
        if not self.symmetric:
            there = weight > 0
            low, high = torch.where(there, t, torch.inf).amin(-1), torch.where(there, t, -torch.inf).amax(-1)
            self.center.copy_(torch.where(there.any(-1), (low + high) / 2, 0.0))

    def position(self, t: Tensor) -> Position:
        """Where t (*R, Q) lies; differentiable in t through the fraction."""
        x = (t - self.center[..., None]) / self.step[..., None] + (self.grid_size - 1) / 2
        x = x.clamp(0.0, float(self.grid_size - 1))
        cell = x.detach().floor().clamp_max(self.grid_size - 2)
        return Position(cell.long(), x - cell)

    def bin(self, t: Tensor, values: Tensor, mirrored: Tensor) -> Tensor:
        """values (*R, N) at t and, where symmetric, `mirrored` at -t, shared out to the grid's points: (*R, G)."""
        cell, fraction = self.position(t)

        def binned(v: Tensor) -> Tensor:
            grid = torch.zeros(*t.shape[:-1], self.grid_size, dtype=v.dtype, device=v.device)
            grid.scatter_add_(-1, cell, v * (1 - fraction))
            return grid.scatter_add_(-1, cell + 1, v * fraction)

        grid = binned(values)
        # the grid's points are symmetric: reflect the bins, not the rows
        return grid + binned(mirrored).flip(-1) if self.symmetric else grid

    def convolve(self, bins: Tensor, power: int = 0) -> Tensor:
        """S_p on the grid (*R, G), of binned values."""
        reach = _REACH * self.cells
        taps = self._kernel(torch.arange(-reach, reach + 1, device=bins.device), power).to(bins.dtype)
        return F.conv1d(bins.reshape(-1, 1, self.grid_size), taps[None, None], padding=reach).reshape(bins.shape)

    def smooth(self, t: Tensor, values: Tensor, mirrored: Tensor) -> Tensor:
        """S_0 on the grid (*R, G), of values (*R, N) at t and, where symmetric, of `mirrored` at -t."""
        return self.convolve(self.bin(t, values, mirrored))

    @staticmethod
    def interpolate(grid: Tensor, at: Position) -> Tensor:
        """The grid's value (*R, G) at a position (*R, Q)."""
        return grid.gather(-1, at.cell) * (1 - at.fraction) + grid.gather(-1, at.cell + 1) * at.fraction

    def mass(self, at: Position, own: Position, power: int = 0) -> Tensor:
        """What one row of value 1 at `own` adds to S_p at `at`, exactly as binned: (*R, Q)."""
        offset = own.cell - at.cell
        same, after, before = (self._kernel(offset + k, power) for k in (0, 1, -1))
        at_cell = same * (1 - own.fraction) + after * own.fraction
        at_next = before * (1 - own.fraction) + same * own.fraction
        return at_cell * (1 - at.fraction) + at_next * at.fraction

    def own_mass(self, at: Position, t_own: Tensor, power: int = 0) -> tuple[Tensor, Tensor | None]:
        """What the row's own entry, where it lay at the fit, adds to S_p at `at` if its value is 1, and its mirror."""
        mirror = self.mass(at, self.position(-t_own), power) if self.symmetric else None
        return self.mass(at, self.position(t_own), power), mirror

    def _kernel(self, offset: Tensor, power: int) -> Tensor:
        """u^p K(u) at a whole number of grid steps, cut off where the convolution cuts it off."""
        u = offset / self.cells
        return torch.where(offset.abs() <= _REACH * self.cells, u**power * torch.exp(-0.5 * u.square()), 0.0)


def without_own(total: Tensor, mass: tuple[Tensor, Tensor | None], value: Tensor, mirrored: Tensor) -> Tensor:
    """S_p less what the row's own entry put into it, and its mirror with the value `mirrored`; mass: of `own_mass`."""
    total = total - value * mass[0]
    return total if mass[1] is None else total - mirrored * mass[1]
