"""Hard negatives: what is mined is what a fit to all negatives would rest on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from paperbench.detection.rcnn_config import SvmConfig
from paperbench.detection.training.linear import EASY, fit_svms
from tests.data.sets import in_memory, record

Array = NDArray[np.float32]
OBJECT = (10.0, 10.0, 50.0, 50.0)
FAR, NEAR = (60.0, 60.0, 90.0, 90.0), (12.0, 12.0, 50.0, 50.0)
CONFIG = SvmConfig(c=1.0, feature_norm=0.0, start_images=1, refit_every=1)


def fitted(proposals: list[Array], rows: list[Array], config: SvmConfig) -> tuple[Array, float]:
    """The hyperplane of the first class, of images with one object of it each; `rows` end with the object's features."""
    dataset, _ = in_memory(*(record(k, 96, 96, [OBJECT]) for k in range(len(rows))))
    weights, biases, scale = fit_svms(
        dataset, proposals, lambda image: rows[image], config=config, order=np.arange(len(rows))
    )
    assert scale == 1
    return weights[0], float(biases[0])


def test_background_is_what_overlaps_no_object() -> None:
    far, near, thing = np.eye(3, dtype=np.float32)
    proposals = [np.array([FAR, NEAR], np.float32)] * 3
    weight, bias = fitted(proposals, [np.stack([far, near, thing])] * 3, CONFIG)
    assert weight @ far + bias < -0.9
    assert weight @ thing + bias > 0.9
    assert abs(weight @ near) < 1e-6, "what overlaps the object is neither"


def test_mined_negatives_give_the_plane_of_all_negatives() -> None:
    rng = np.random.default_rng(0)
    images = 12
    proposals = [np.array([FAR] * 20, np.float32)] * images
    rows = [
        np.concatenate([rng.normal(0, 1, (20, 4)), rng.normal(2.5, 0.5, (1, 4))]).astype(np.float32)
        for _ in range(images)
    ]
    mined = fitted(proposals, rows, CONFIG)
    whole = fitted(proposals, rows, replace(CONFIG, start_images=images))
    np.testing.assert_allclose([*mined[0], mined[1]], [*whole[0], whole[1]], atol=0.02)
    margins = np.concatenate([own[:-1] for own in rows]) @ mined[0] + mined[1]
    assert (margins > EASY).any(), "some are hard"
    assert (margins < EASY).any(), "and some are easy"
