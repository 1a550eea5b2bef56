from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from paperbench.data.image_store import ImageStore, resize, resized_shape
from paperbench.errors import DataError
from tests.data.sets import in_memory, record

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (375, 500, (600, 800, 1.6)),
        (500, 375, (800, 600, 1.6)),
        (600, 1000, (600, 1000, 1.0)),
        (300, 1000, (300, 1000, 1.0)),  # the long side decides
        (1200, 4000, (300, 1000, 0.25)),
        (1, 1000, (1, 1000, 1.0)),
        (1, 4000, (1, 1000, 0.25)),  # never without a pixel
    ],
)
def test_the_papers_rule(height: int, width: int, expected: tuple[int, int, float]) -> None:
    assert resized_shape(height, width, short_side=600, max_side=1000) == expected


def test_resizing_agrees_with_pillow() -> None:
    """Pillow's bilinear filter widens when it shrinks, as ours must: an independent implementation."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    for height, width in ((20, 30), (100, 150), (64, 96)):
        ours = resize(image, height, width).permute(1, 2, 0).numpy().astype(int)
        theirs = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(ours - theirs).max() <= 2


def store(*records, cache_mb: int = 64, short_side: int = 8, max_side: int = 16):
    dataset, pixels = in_memory(*records)
    made = ImageStore(dataset, short_side=short_side, max_side=max_side, device=CPU, cache_mb=cache_mb)
    return made, pixels, dataset


def test_a_uniform_set_is_decoded_once_and_gathered() -> None:
    images, pixels, dataset = store(*(record(k, 8, 12) for k in range(5)))
    assert images.uniform
    assert images.size(3) == (8, 12)
    assert images.scale(3) == 1.0
    batch = images.stack(np.array([3, 1, 3]))
    assert batch.shape == (3, 3, 8, 12)
    assert batch.dtype == torch.uint8
    images.stack(np.array([1, 2, 3]))
    assert sorted(pixels.asked) == [1, 2, 3]
    for place, index in enumerate((3, 1, 3)):
        assert np.array_equal(batch[place].permute(1, 2, 0).numpy(), dataset.decode(index))


def test_a_gathered_batch_is_no_view_of_the_cache() -> None:
    images, _, _ = store(*(record(k, 8, 12) for k in range(3)))
    images.stack(np.array([0, 1])).zero_()
    assert images.stack(np.array([0, 1])).any()


@pytest.mark.parametrize("uniform", [True, False])
def test_without_room_everything_is_decoded_anew_with_the_same_result(uniform: bool) -> None:
    records = [record(k, 20, 24 if uniform else 24 + k) for k in range(4)]
    kept, _, _ = store(*records)
    anew, pixels, _ = store(*records, cache_mb=0)
    for _ in range(2):
        for ours, theirs in zip(anew.get_many([0, 3, 0]), kept.get_many([0, 3, 0]), strict=True):
            assert torch.equal(ours, theirs)
    assert sorted(pixels.asked) == [0, 0, 3, 3]
    if uniform:
        assert torch.equal(anew.stack(np.array([2, 0])), kept.stack(np.array([2, 0])))


def test_the_budget_is_kept_first_come() -> None:
    """One MiB holds one image of 512 x 600 and not two."""
    images, pixels, _ = store(record(0, 512, 600), record(1, 512, 601), short_side=512, max_side=700, cache_mb=1)
    for index in (1, 0, 1, 0):
        images.get(index)
    assert pixels.asked == [1, 0, 0]


def test_different_sizes_cannot_be_gathered() -> None:
    images, _, _ = store(record(0, 8, 12), record(1, 12, 8))
    assert not images.uniform
    with pytest.raises(ValueError, match="differ in size"):
        images.stack(np.array([0, 1]))
    assert [tuple(image.shape) for image in images.get_many([0, 1])] == [(3, 8, 12), (3, 12, 8)]


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_threads_may_ask_at_once(cache_mb: int) -> None:
    records = [record(k, 16, 16 + 4 * (k % 2)) for k in range(12)]
    images, _, _ = store(*records, cache_mb=cache_mb)
    expected = store(*records)[0].get_many(list(range(12)))
    orders = [np.random.default_rng(k).permutation(12).tolist() for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(images.get_many, orders), strict=True):
            assert all(torch.equal(image, expected[index]) for index, image in zip(order, found, strict=True))


def test_a_file_that_changed_its_size_is_named() -> None:
    dataset, _ = in_memory(record(0, 8, 12))
    changed = replace(dataset, decode=lambda index: np.zeros((8, 13, 3), np.uint8))
    images = ImageStore(changed, short_side=8, max_side=16, device=CPU, cache_mb=1)
    with pytest.raises(DataError, match="image 0: the image is 13 x 8 now and was 12 x 8"):
        images.get(0)


def test_an_empty_set_has_no_images() -> None:
    images, _, _ = store()
    assert len(images) == 0
    assert not images.uniform
