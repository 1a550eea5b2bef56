"""Fixtures of the package's tests."""

from __future__ import annotations

import pytest
import torch

from paperbench.data.image_sets import ImageSet


@pytest.fixture
def digits() -> ImageSet:
    """Forty synthetic digits of 28x28: a bright stroke each, whose position depends on the label."""
    images = torch.zeros(40, 28, 28, dtype=torch.uint8)
    labels = torch.arange(40) % 10
    for number, label in enumerate(labels.tolist()):
        images[number, 6:22, 5 + 2 * label : 8 + 2 * label - 1] = 255
        images[number, 6 + label, 6:22] = 128
    return ImageSet(images=images, labels=labels, classes=tuple("0123456789"), name="synthetic")
