"""Parts of segmenters: losses, augmentation, votes, trees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from paperbench.engine.ranks import Ranks
from paperbench.rca.cases import normalised
from paperbench.rca.forest import boxes, features
from paperbench.rca.labels import Labels
from paperbench.rca.segmenters import unet
from paperbench.rca.segmenters.config import UnetModel
from paperbench.rca.segmenters.forest import predict_stages, sample_weights
from paperbench.rca.segmenters.splits import MaskFolder
from paperbench.rca.segmenters.unet import (
    Examples,
    SegmentationLoss,
    augmented,
    dice_loss,
    grid_of,
    load_examples,
    resample,
    with_positions,
)
from tests.rca.made import make_image
from tests.rca.segmenters.made import phantoms

TWO = Labels("values", (1, 2), ("one", "two"))


# --- U-Net ------------------------------------------------------------------------------------------------------------


def test_dice_loss_is_none_for_certainty_and_one_for_a_miss() -> None:
    targets = torch.zeros(1, 8, 8, dtype=torch.int64)
    targets[:, :4] = 1
    right = torch.stack([targets == 0, targets == 1], dim=1).float() * 100
    assert float(dice_loss(right, targets)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(right.flip(1), targets)) > 0.95


def test_dice_loss_leaves_out_classes_that_the_batch_does_not_hold() -> None:
    targets = torch.zeros(1, 8, 8, dtype=torch.int64)
    targets[:, :4] = 1
    right = torch.stack([targets == 0, targets == 1, targets == 2], dim=1).float() * 100
    assert float(dice_loss(right, targets)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(16, 20), (12, 14, 16)])
def test_the_middle_of_all_draws_changes_nothing(shape: tuple[int, ...]) -> None:
    images = torch.rand(2, 1, *shape)
    targets = torch.randint(0, 3, (2, *shape))
    moved, labels = augmented(images, targets, torch.full((2, 4 + len(shape)), 0.5))
    assert torch.allclose(moved, images, atol=1e-5)
    assert torch.equal(labels, targets)


def test_labels_move_with_their_image() -> None:
    targets = torch.zeros(1, 32, 32, dtype=torch.int64)
    targets[:, 10:22, 8:20] = 1
    draws = torch.tensor([[0.9, 0.2, 0.5, 0.5, 0.8, 0.1]])
    moved, labels = augmented(targets[:, None].float(), 3 * targets, draws)
    assert not torch.equal(labels, 3 * targets)
    assert ((moved[:, 0] > 0.5) == (labels == 3)).float().mean() > 0.98
    assert labels.unique().tolist() == [0, 3], "no class lies between two"


def test_intensities_alone_are_stretched_by_gain_and_offset() -> None:
    images, targets = torch.rand(1, 1, 8, 8), torch.randint(0, 2, (1, 8, 8))
    moved, labels = augmented(images, targets, torch.tensor([[0.5, 0.5, 1.0, 0.0, 0.5, 0.5]]))
    assert torch.allclose(moved, images * 1.2 - 0.2, atol=1e-5)
    assert torch.equal(labels, targets)


def test_the_grid_is_the_median_shape_cut_and_rounded_up() -> None:
    images = [make_image(k, shape=shape) for k, shape in enumerate([(30, 41), (34, 43), (90, 45)])]
    assert grid_of(images, 128) == (36, 44)
    assert grid_of(images, 32) == (32, 32)


def test_images_are_resampled_to_larger_and_smaller_grids() -> None:
    image = np.linspace(0, 1, 24 * 24).reshape(24, 24)
    assert resample(image, (12, 12)).shape == (1, 1, 12, 12)
    assert resample(image, (12, 12)).mean() == pytest.approx(image.mean())
    assert resample(image, (48, 12)).shape == (1, 1, 48, 12)
    assert torch.equal(resample(image, (24, 24))[0, 0], torch.from_numpy(image).float())


def test_positions_go_from_one_border_to_the_other() -> None:
    out = with_positions(torch.zeros(2, 1, 5, 3))
    assert out.shape == (2, 3, 5, 3)
    assert out[1, 1, :, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert out[0, 2, 0].tolist() == [-1, 0, 1]


def test_classes_are_the_numbers_that_occur_and_the_background_is_the_first() -> None:
    first = make_image(0, shape=(32, 32))
    assert first.truth is not None
    first.truth[:] = np.where(first.truth == 1, 9, 4)  # nothing is background
    examples = load_examples([first], (32, 32), torch.device("cpu"))
    assert examples.values.tolist() == [0, 4, 9]
    assert torch.equal(examples.values[examples.targets[0]], torch.from_numpy(first.truth))


def test_rare_classes_weigh_more_up_to_a_limit() -> None:
    targets = torch.zeros(1, 100, 100, dtype=torch.int64)
    targets[0, :10, :10] = 1
    targets[0, 50, 50] = 2
    weights = Examples(images=targets[:, None].float(), targets=targets, values=torch.arange(3)).weights()
    assert weights.mean() == pytest.approx(1)
    assert float(weights[1] / weights[0]) == pytest.approx(((10_000 - 101) / 100) ** 0.5, rel=1e-4)
    assert float(weights[2] / weights[0]) == pytest.approx(20, rel=0.02)


def test_a_learner_counts_its_steps_and_keeps_the_count_in_its_state() -> None:
    torch.manual_seed(0)
    module = SegmentationLoss(dims=2, weights=torch.ones(3), width=4)
    batch = torch.rand(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16)), torch.full((2, 6), 0.5)
    losses = module(batch, torch.Generator())
    assert set(losses) == {"loss_cross_entropy", "loss_dice"}
    assert int(module.state_dict()["steps"]) == 1


def test_each_stage_is_segmented_with_its_own_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(unet, "weights_of", lambda stage, run: f"weights of {stage}")
    monkeypatch.setattr(unet.UNet, "load_state_dict", lambda self, weights: seen.append(weights))
    monkeypatch.setattr(unet.UnetSegmenter, "_trainer", lambda *_: SimpleNamespace(fit=dict))
    monkeypatch.setattr(unet.UnetSegmenter, "_segment", lambda self, stage, *_: seen.append(stage))
    share, run = phantoms(), SimpleNamespace(device=torch.device("cpu"), seed=0, ranks=Ranks())
    made = unet.UnetSegmenter(UnetModel(epochs=(1, 3), width=4))
    made.segment(share, MaskFolder(tmp_path, share), run)  # pyright: ignore[reportArgumentType]
    assert seen == ["weights of unet-1", "unet-1", "weights of unet-3", "unet-3"]


# --- forest -----------------------------------------------------------------------------------------------------------


def test_sampled_voxels_stand_for_all_of_their_label() -> None:
    whole = np.array([0] * 90 + [5] * 10)
    weights = sample_weights(whole, np.array([0, 0, 0, 5, 5]))
    assert weights.tolist() == [30, 30, 30, 5, 5]


def test_the_first_trees_of_a_forest_are_a_smaller_forest() -> None:
    from sklearn.ensemble import RandomForestClassifier

    first = make_image(0, shape=(24, 24))
    assert first.truth is not None
    seen = features(normalised(first.intensities), boxes(2, seed=0))
    forest = RandomForestClassifier(n_estimators=4, random_state=0).fit(seen[::3], first.truth.ravel()[::3])
    one, four = predict_stages(forest, seen, (1, 4))
    assert np.array_equal(four, forest.predict(seen))
    assert np.array_equal(one, forest.classes_[forest.estimators_[0].predict(seen).astype(int)])
