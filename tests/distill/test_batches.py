"""Images on the device, and their shifts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paperbench.data.image_sets import ImageSet
from paperbench.distill.batches import Images, JitteredBatches
from paperbench.engine.order import BatchKey


@pytest.fixture
def images() -> Images:
    pixels = torch.randint(1, 256, (6, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    return Images.of(ImageSet(images=pixels, labels=labels, classes=("a", "b", "c"), name="six"), torch.device("cpu"))


def _pixels(images: Images) -> torch.Tensor:
    assert isinstance(images.pixels, torch.Tensor)
    return images.pixels


def _key(indices: list[int], epochs: list[int]) -> BatchKey:
    return BatchKey(0, np.array(indices), np.array(epochs))


def test_without_jitter_a_batch_is_the_images_in_0_to_1(images: Images) -> None:
    inputs, labels, rows = JitteredBatches(images, reach=0, seed=0)(_key([4, 1], [0, 0]))
    torch.testing.assert_close(inputs, _pixels(images)[[4, 1]].flatten(1) / 255)
    assert labels.tolist() == [1, 1]
    assert rows.tolist() == [4, 1]


def test_every_shift_up_to_the_reach_occurs_and_brings_in_black(images: Images) -> None:
    batches = JitteredBatches(images, reach=2, seed=3)
    seen = set()
    for epoch in range(120):
        inputs, _, _ = batches(_key([0], [epoch]))
        shifted = (inputs[0] * 255).round().to(torch.uint8).view(5, 7)
        seen.add(_shift_of(shifted, _pixels(images)[0, 0], reach=2))
    assert seen == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def _shift_of(shifted: torch.Tensor, original: torch.Tensor, *, reach: int) -> tuple[int, int]:
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            expected = torch.zeros_like(original)
            height, width = original.shape
            rows, columns = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
            source = slice(max(0, -down), height + min(0, -down)), slice(max(0, -right), width + min(0, -right))
            expected[rows, columns] = original[source]
            if torch.equal(expected, shifted):
                return down, right
    raise AssertionError("not a shift of the image")


def test_a_shift_belongs_to_image_epoch_and_seed_and_not_to_the_batch(images: Images) -> None:
    batches = JitteredBatches(images, reach=2, seed=3)
    together, _, _ = batches(_key([0, 1, 2, 3], [5, 5, 6, 7]))
    alone = torch.cat([batches(_key([i], [e]))[0] for i, e in [(0, 5), (1, 5), (2, 6), (3, 7)]])
    assert torch.equal(together, alone)
    indices, epochs = list(range(6)) * 8, [e for e in range(8) for _ in range(6)]
    other_seed, _, _ = JitteredBatches(images, reach=2, seed=4)(_key(indices, epochs))
    assert not torch.equal(batches(_key(indices, epochs))[0], other_seed)


def test_chosen_images_keep_the_shifts_that_they_have_among_all(images: Images) -> None:
    chosen = torch.tensor([1, 4, 5])
    some = JitteredBatches(images, reach=2, seed=3, rows=chosen)
    assert len(some) == 3
    inputs, labels, rows = some(_key([2, 0], [9, 9]))
    expected, _, _ = JitteredBatches(images, reach=2, seed=3)(_key([5, 1], [9, 9]))
    assert torch.equal(inputs, expected)
    assert rows.tolist() == [5, 1]
    assert labels.tolist() == [2, 1]


def test_fingerprints_tell_pixels_labels_and_classes_apart(images: Images) -> None:
    changed = _pixels(images).clone()
    changed[0, 0, 0, 0] ^= 1
    others = [
        Images(changed, images.labels, images.classes, "x"),
        Images(images.pixels, images.labels.flip(0), images.classes, "x"),
        Images(images.pixels, images.labels, ("a", "b", "d"), "x"),
    ]
    assert len({images.fingerprint, *(other.fingerprint for other in others)}) == 4
    same = Images(_pixels(images).clone(), images.labels.clone(), images.classes, "another name")
    assert same.fingerprint == images.fingerprint


def test_colour_images_are_laid_out_flat() -> None:
    pixels = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
    images = Images.of(
        ImageSet(images=pixels, labels=torch.tensor([0, 1]), classes=("a", "b"), name="two"), torch.device("cpu")
    )
    assert images.size == (3, 4, 4)
    assert images.inputs == 48
    assert [batch.shape for batch in images.batches(1)] == [(1, 48), (1, 48)]
