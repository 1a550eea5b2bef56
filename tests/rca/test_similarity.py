"""Correlation of whole images and of neighbourhoods, against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from paperbench.rca.similarity import NOISE, LocalTarget, Target


def tensors(*shape: int, count: int, seed: int = 0) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [torch.rand(2, 1, *shape, dtype=torch.float64, generator=stream) for _ in range(count)]


def test_dissimilarity_is_one_less_the_weighted_correlation() -> None:
    rng = np.random.default_rng(0)
    a, b, weights = rng.random((3, 40))
    wanted = np.cov(a, b, aweights=weights, ddof=0)
    target = Target(torch.from_numpy(b)[None, None], torch.from_numpy(weights)[None, None])
    found = target(torch.from_numpy(a)[None, None])
    assert found.item() == pytest.approx(1 - wanted[0, 1] / np.sqrt(wanted[0, 0] * wanted[1, 1]), abs=1e-6)


@pytest.mark.parametrize("shape", [(30, 24), (20, 18, 22)])
def test_local_correlation_is_that_of_gaussian_filters(shape: tuple[int, ...]) -> None:
    a, b, weights = tensors(*shape, count=3)
    # Voxels near the border have another neighbourhood with SciPy: they do not count here.
    weights[(slice(None), slice(None), *[slice(0, 8)] * len(shape))] = 0
    inner = torch.zeros_like(weights)
    inner[(slice(None), slice(None), *[slice(8, -8)] * len(shape))] = 1
    weights = weights * inner + 1e-12 * inner
    found = LocalTarget(b, weights, window=1.5)(a)
    for k in range(2):
        x, y, share = (
            part[k, 0].numpy()
            for part in (a, b, weights / weights[:, 0].flatten(1).sum(1).view(2, 1, *[1] * len(shape)))
        )

        def around(values: np.ndarray) -> np.ndarray:
            return gaussian_filter(values, 1.5, truncate=5)

        mean_x, mean_y = around(x), around(y)
        variances = [around(v**2) - m**2 + NOISE for v, m in ((x, mean_x), (y, mean_y))]
        correlation = (around(x * y) - mean_x * mean_y) / np.sqrt(variances[0] * variances[1])
        assert found[k].item() == pytest.approx(1 - (correlation * share).sum(), abs=1e-5)


@pytest.mark.parametrize("window", [0.0, 2.0])
def test_alike_is_nought_opposite_is_two_and_constant_is_one(window: float) -> None:
    (image,) = tensors(12, 13, 14, count=1)
    weights = torch.ones_like(image)
    target = LocalTarget(image, weights, window=window) if window else Target(image, weights)
    for scaled, wanted in ((3 * image + 2, 0.0), (5 - 2 * image, 2.0), (torch.full_like(image, 0.4), 1.0)):
        torch.testing.assert_close(target(scaled), torch.full((2,), wanted).double(), atol=5e-3, rtol=0)


def test_shading_from_place_to_place_does_not_matter_to_local_correlation() -> None:
    (image,) = tensors(40, 40, count=1)
    weights = torch.ones_like(image)
    shaded = image * torch.linspace(1, 3, 40).double() + torch.linspace(0, 4, 40).double()[:, None]
    assert LocalTarget(image, weights, window=2.0)(shaded).max() < 0.2
    assert Target(image, weights)(shaded).min() > 0.5


def test_pairs_are_compared_for_themselves_and_gradients_are_right() -> None:
    a, b, weights = tensors(7, 8, count=3)
    both = LocalTarget(b, weights, window=1.5)(a)
    alone = torch.cat([LocalTarget(b[k : k + 1], weights[k : k + 1], window=1.5)(a[k : k + 1]) for k in range(2)])
    torch.testing.assert_close(both, alone, atol=1e-14, rtol=0)
    assert torch.autograd.gradcheck(LocalTarget(b, weights, window=1.5), a.requires_grad_(True))
