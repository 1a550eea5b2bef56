"""Similarity of a warped image and a reference: weighted correlation of whole images, or of the neighbourhood of every voxel.

Shapes: B pairs, `...` the image axes. Both kinds of target are prepared once for a level of the pyramid and called with
the warped image, (B, 1, ...) -> (B,): 0 where the images are equal up to scale and shift, 1 where they are uncorrelated. Every pair
is compared independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

TINY: Final = 1e-9
NOISE: Final = 1e-4
"""Variance, of intensities in 0..1, that is added to the local one: noise of constant regions then correlates with nothing."""


class Target:
    """1 - weighted normalised correlation of the whole images; 1 where either is constant.

    values: (B, 1, ...) of the references. weights: (B, 1, ...) >= 0, of the voxels.
    """

    def __init__(self, values: Tensor, weights: Tensor) -> None:
        self.share = _shares(weights)
        values = values.flatten(1)
        values = values - (values * self.share).sum(1, keepdim=True)
        self.product = values * self.share
        self.deviation = (values * self.product).sum(1).sqrt()

    def __call__(self, image: Tensor) -> Tensor:
        """Return the dissimilarity (B,) of the warped image (B, 1, ...)."""
        image = image.flatten(1)
        weighted = image * self.share
        mean = weighted.sum(1)
        variance = ((image * weighted).sum(1) - mean**2).clamp(min=0)
        return 1 - (image * self.product).sum(1) / ((variance + TINY).sqrt() * self.deviation + TINY)


class LocalTarget:
    """1 - weighted mean over all voxels of the correlation around each, in a Gaussian window.

    Brightness and contrast may then vary over the image, as they do in magnetic resonance. After the local correlation of
    Avants et al. 2008 (Medical Image Analysis 12(1)), there in a cube and squared. window: standard deviation in voxels.
    """

    def __init__(self, values: Tensor, weights: Tensor, *, window: float) -> None:
        self.values = values
        self.share = _shares(weights)
        self.windows = [gaussian_matrix(length, window, like=values) for length in values.shape[2:]]
        self.mean, square = blurred(torch.cat([values, values**2], dim=1), self.windows).chunk(2, dim=1)
        self.variance = (square - self.mean**2).clamp(min=0) + NOISE

    def __call__(self, image: Tensor) -> Tensor:
        """Return the dissimilarity (B,) of the warped image (B, 1, ...)."""
        moments = blurred(torch.cat([image, image**2, image * self.values], dim=1), self.windows)
        mean, square, product = moments.chunk(3, dim=1)
        variance = (square - mean**2).clamp(min=0) + NOISE
        correlation = (product - mean * self.mean) / (variance * self.variance).sqrt()
        return 1 - (correlation.flatten(1) * self.share).sum(1)


def gaussian_matrix(size: int, deviation: float, *, like: Tensor) -> Tensor:
    """Return (size, size): row i is a Gaussian average around voxel i, normalised at the border, so that every row sums to 1."""
    places = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2)
    return (weights / weights.sum(1, keepdim=True)).to(like)


def blurred(images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Return images (B, C, ...) averaged along each axis by its matrix."""
    for axis, matrix in enumerate(matrices, start=2):
        images = (images.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return images


def _shares(weights: Tensor) -> Tensor:
    """Return weights (B, N) that sum to 1, of (B, 1, ...)."""
    flat = weights.flatten(1)
    return flat / flat.sum(1, keepdim=True).clamp(min=1e-12)
