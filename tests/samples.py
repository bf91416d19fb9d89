"""Rows that the tests of more than one link are fitted to."""

import torch

from spo.types import IndexSample

N = 60


def sample(seed: int = 0) -> IndexSample:
    """N rows of a logistic link of slope 2, with ties in t, tied labels and weights of 1 to 3."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.randn(N, generator=generator)
    t[5:9] = t[4]  # ties
    z = (torch.rand(N, generator=generator) < torch.sigmoid(2 * t)).float()
    z[::9] = 0.5
    weight = torch.randint(1, 4, (N,), generator=generator).float()
    return IndexSample(t, z, weight, torch.arange(N))
