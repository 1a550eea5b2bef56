"""Phantoms are the same for ever, and masks get worse the harder they are degraded."""

from __future__ import annotations

import numpy as np
import pytest

from paperbench.data.phantoms import NAMES, degraded, phantom


@pytest.mark.parametrize("shape", [(48, 40), (32, 30, 28)])
def test_every_phantom_has_all_organs(shape: tuple[int, ...]) -> None:
    for number in range(3):
        image, labels = phantom(number, shape=shape)
        assert image.shape == labels.shape == shape
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert set(np.unique(labels)) == set(range(len(NAMES) + 1))


def test_a_phantom_is_a_function_of_its_number_and_the_data_seed() -> None:
    first, again = phantom(3, shape=(32, 32)), phantom(3, shape=(32, 32))
    np.testing.assert_array_equal(first[0], again[0])
    assert (phantom(4, shape=(32, 32))[1] != first[1]).any()
    assert (phantom(3, shape=(32, 32), data_seed=1)[1] != first[1]).any()


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_quality_falls_with_severity_and_reaches_from_perfect_to_poor() -> None:
    _, labels = phantom(0, shape=(64, 64))
    planes = np.stack([labels == k for k in range(1, 6)])
    means = []
    for severity in (0.0, 0.25, 0.5, 1.0):
        drawn = [degraded(planes, severity, np.random.default_rng(k)) for k in range(12)]
        means.append(np.mean([dsc(worse[k], planes[k]) for worse in drawn for k in range(5)]))
    assert means[0] == 1
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.55


def test_organs_are_lost_only_in_bad_masks_and_seldom() -> None:
    _, labels = phantom(1, shape=(64, 64))
    planes = np.stack([labels == k for k in range(1, 6)])
    lost = {
        s: np.mean([(~degraded(planes, s, np.random.default_rng(k)).any((1, 2))).any() for k in range(40)])
        for s in (0.5, 0.7)
    }
    assert lost[0.5] == 0
    assert 0.05 < lost[0.7] < 0.5


def test_degrading_leaves_its_input_alone_and_takes_empty_masks() -> None:
    planes = np.zeros((2, 20, 20), bool)
    planes[0, 5:15, 5:15] = True
    before = planes.copy()
    assert not degraded(planes, 0.5, np.random.default_rng(0))[1].any()
    np.testing.assert_array_equal(planes, before)
    with pytest.raises(ValueError, match="between 0 and 1"):
        degraded(planes, 1.5, np.random.default_rng(0))
