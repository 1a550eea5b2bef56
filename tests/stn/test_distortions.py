"""The distortions have the paper's ranges, and an input is a function of key, sample and epoch."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from paperbench.data import labelled
from paperbench.data.image_sets import DigitsData, ImageSet
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import EpochOrder
from paperbench.stn import distortions
from paperbench.stn.data import evaluation_digits, training_digits
from paperbench.stn.distortions import SIDE, TranslationClutter, make_distortion, quadrilateral_to_square
from paperbench.stn.grids import Projective

NAMES = ("none", "r", "rts", "p", "e", "tc")
CANVAS = {"none": 28, "r": 28, "rts": 42, "p": 28, "e": 28, "tc": 60}
CPU = torch.device("cpu")


def draws(distortion: distortions.Distortion, count: int = 4000) -> Tensor:
    return uniform(0, torch.arange(count), torch.zeros(count, dtype=torch.int64), distortion.draws)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_in_range_and_on_their_canvas(digits: ImageSet, name: str) -> None:
    distortion = make_distortion(name)
    assert distortion.canvas == CANVAS[name]
    inputs = training_digits(digits, distortion, 0, CPU)
    images, labels = inputs(torch.arange(40), torch.zeros(40, dtype=torch.int64))
    assert images.shape == (40, 1, CANVAS[name], CANVAS[name])
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert torch.equal(labels, digits.labels)
    assert (images.flatten(1).sum(1) > 5).all()  # no digit vanishes


@pytest.mark.parametrize("name", NAMES)
def test_an_input_depends_on_key_sample_and_epoch_alone(digits: ImageSet, name: str) -> None:
    inputs = training_digits(digits, make_distortion(name), 5, CPU)
    samples, epochs = torch.tensor([3, 17, 3]), torch.tensor([0, 1, 2])
    together, _ = inputs(samples, epochs)
    for number in range(3):
        alone, _ = inputs(samples[number : number + 1], epochs[number : number + 1])
        torch.testing.assert_close(alone[0], together[number], atol=1e-4, rtol=0)  # the order of the sums differs
    again, _ = training_digits(digits, make_distortion(name), 5, CPU)(samples, epochs)
    assert torch.equal(again, together)
    if name != "none":
        assert not torch.equal(together[0], together[2])
        other, _ = training_digits(digits, make_distortion(name), 6, CPU)(samples, epochs)
        assert not torch.equal(other, together)
        test, _ = evaluation_digits(digits, make_distortion(name), 5, CPU)(samples, epochs)
        assert not torch.equal(test, together)


def test_ranks_share_a_batch_without_changing_it(digits: ImageSet) -> None:
    inputs = training_digits(digits, make_distortion("e"), 0, CPU)
    whole, _ = inputs.fetch(EpochOrder(40, 8, 0).batch(3))
    parts = [inputs.fetch(EpochOrder(40, 8, 0, rank, 2).batch(3))[0] for rank in (0, 1)]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-4, rtol=0)


def test_the_test_set_is_fixed_and_complete(digits: ImageSet) -> None:
    inputs = evaluation_digits(digits, make_distortion("rts"), 0, CPU)
    once = [torch.cat(parts) for parts in zip(*inputs.batches(7), strict=True)]
    again = [torch.cat(parts) for parts in zip(*inputs.batches(40), strict=True)]
    torch.testing.assert_close(once[0], again[0], atol=1e-4, rtol=0)
    assert torch.equal(once[1], digits.labels)
    shares = [list(inputs.batches(7, share=slice(rank, None, 2))) for rank in (0, 1)]
    assert sum(len(labels) for part in shares for _, labels in part) == 40


def test_rotations_cover_180_degrees() -> None:
    distortion = distortions.Rotation()
    theta = distortion.parameters(draws(distortion))
    angles = torch.rad2deg(torch.atan2(theta[:, 1], theta[:, 0]))
    assert -90 <= angles.min() < -85
    assert 85 < angles.max() <= 90
    assert theta[:, [2, 5]].abs().max() == 0
    torch.testing.assert_close(theta[:, 0] ** 2 + theta[:, 1] ** 2, torch.ones(len(theta)))


def test_rts_stays_within_its_ranges() -> None:
    distortion = distortions.RotationScaleTranslation()
    theta = distortion.parameters(draws(distortion)).view(-1, 2, 3)
    scale = 42 / SIDE / theta[:, 0, :2].norm(dim=1)
    assert 0.7 <= scale.min() < 0.71
    assert 1.19 < scale.max() <= 1.2001
    angles = torch.rad2deg(torch.atan2(theta[:, 0, 1], theta[:, 0, 0]))
    assert -45.001 <= angles.min() < -43
    assert 43 < angles.max() <= 45.001
    centre = -torch.linalg.solve(theta[:, :, :2], theta[:, :, 2:])[..., 0] * 21  # pixels from the middle of the canvas
    room = (42 - SIDE * scale) / 2
    assert (centre.abs() <= room[:, None] + 1e-3).all()
    assert (centre.abs() / room[:, None]).max() > 0.95


def test_rts_in_the_middle_is_the_digit(digits: ImageSet) -> None:
    """Without rotation, at scale 1 and in the middle, RTS is the digit with a black border."""
    distortion = distortions.RotationScaleTranslation()
    still = torch.tensor([[0.5, 0.6, 0.5, 0.5]])
    image = distortion(digits.images, torch.tensor([4]), still)[0, 0]
    torch.testing.assert_close(image[7:35, 7:35], digits.images[4] / 255, atol=1e-3, rtol=0)
    assert image[:7].max() < 1e-3


def test_perspective_sends_corners_to_the_digits_corners() -> None:
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    moved = 0.8 * square + 0.1 * torch.randn(50, 4, 2, generator=torch.Generator().manual_seed(0))
    theta = quadrilateral_to_square(moved)
    grid = Projective((2, 2))
    for number in range(50):
        found = grid.map_points(theta[number : number + 1].double(), moved[number].double())
        torch.testing.assert_close(found[0], square.double(), atol=1e-3, rtol=0)


def test_perspective_never_folds_the_digit_over() -> None:
    distortion = distortions.Perspective()
    middle = torch.tensor([-0.6, -0.7, 0.6, 0.7])
    corners = distortion.corners(draws(distortion), middle.expand(4000, 4))
    after = corners.roll(-1, 1) - corners
    before = corners - corners.roll(1, 1)
    turns = before[..., 0] * after[..., 1] - before[..., 1] * after[..., 0]
    assert (turns > 0.5 * 4 * 0.75**2 - 1e-5).all()
    moved = (corners - corners.sign() * 0.875).flatten(1) * SIDE / 2
    assert 4.0 < float(moved.std()) < 5.0  # folded squares have the largest shifts
    extreme = draws(distortion, 3)
    extreme[:, 1:] = 1 - 2**-24  # the same long way for all corners, every time
    assert torch.isfinite(distortion.parameters(extreme, middle.expand(3, 4))).all()


def test_perspective_keeps_the_digit_whole() -> None:
    """By OpenCV's own perspective: of the ink on a canvas without end, what is on the digit's."""
    images = labelled.load(DigitsData(), "train").images
    small = torch.zeros_like(images)
    small[:, 4:24, 4:24] = images[:, ::7, ::7].repeat_interleave(5, 1).repeat_interleave(5, 2)  # 20x20, as MNIST's are
    for digits, share in ((small, 0.998), (images, 0.995)):
        chosen = distortions.ink_boxes(digits[:, None].float())
        distortion = distortions.Perspective()
        corners = distortion.corners(draws(distortion, len(digits)), chosen).numpy() * 14 + 14
        kept = [_ink_on_canvas(image, moved) for image, moved in zip(digits.numpy(), corners, strict=True)]
        assert np.mean(np.array(kept) > 0.95) > share
        assert np.min(kept) > 0.5


def _ink_on_canvas(image: Any, corners: Any, *, around: int = 40) -> float:
    square = np.array([[0, 0], [28, 0], [28, 28], [0, 28]], np.float32)
    # Positions are edges of pixels here, and centres in OpenCV.
    matrix = cv2.getPerspectiveTransform(square - 0.5, (corners + around - 0.5).astype(np.float32))
    whole = cv2.warpPerspective(image.astype(np.float32), matrix, (28 + 2 * around, 28 + 2 * around))
    return float(whole[around:-around, around:-around].sum() / whole.sum())


def test_the_warp_of_perspective_is_opencvs(digits: ImageSet) -> None:
    distortion = distortions.Perspective()
    noise, samples = draws(distortion, 40), torch.arange(40)
    warped = distortion(digits.images, samples, noise)
    boxes = distortions.ink_boxes(digits.images[:, None].float())
    corners = distortion.corners(noise, boxes).numpy() * 14 + 14
    for number in range(40):
        square = np.array([[0, 0], [28, 0], [28, 28], [0, 28]], np.float32)
        matrix = cv2.getPerspectiveTransform(square - 0.5, (corners[number] - 0.5).astype(np.float32))
        theirs = cv2.warpPerspective(digits.images[number].numpy().astype(np.float32) / 255, matrix, (28, 28))
        assert np.abs(warped[number, 0].numpy() - theirs).mean() < 0.02


def test_ink_boxes_are_the_smallest() -> None:
    images = torch.zeros(3, 1, 28, 28)
    images[0, 0, 3, 5] = images[0, 0, 20, 9] = 0.1
    images[1] = 1
    expected = torch.tensor([[5, 3, 10, 21], [0, 0, 28, 28], [0, 0, 28, 28]]) / 14 - 1
    torch.testing.assert_close(distortions.ink_boxes(images), expected)


def test_of_corners_that_all_push_a_digit_out_those_that_reach_out_least_are_taken() -> None:
    """A digit of the whole square fits into no moved one of a drawn size above 1."""
    distortion = distortions.Perspective()
    noise = draws(distortion, 400)
    noise[:, 0] = 1 - 2**-24  # scale 1
    whole = torch.tensor([-1.0, -1.0, 1.0, 1.0]).expand(400, 4)
    found = distortion.corners(noise, whole).abs().amax((1, 2))
    first = [_first_attempt(noise, attempt, whole) for attempt in range(distortion.ATTEMPTS)]
    least = torch.stack(first).amin(0)
    assert (least < math.inf).all()
    torch.testing.assert_close(found, least)


def _first_attempt(noise: Tensor, attempt: int, boxes: Tensor) -> Tensor:
    """Return how far out the corners of one draw alone are; infinitely where they are too flat and not moved for it."""
    single = distortions.Perspective()
    single.ATTEMPTS = 1
    corners = single.corners(torch.cat([noise[:, :1], noise[:, 1 + 8 * attempt : 9 + 8 * attempt]], dim=1), boxes)
    unmoved = (corners.abs() == 1 - 2**-24 * 0.25).flatten(1).all(1) | (corners.abs() == 1).flatten(1).all(1)
    return corners.abs().amax((1, 2)).masked_fill(unmoved, math.inf)


def test_displacements_have_the_papers_deviations() -> None:
    spline = distortions.Elastic()
    noise = draws(spline)
    noise[:, 0] = 1 - 2**-24  # scale 1
    moved = (spline.parameters(noise) - spline.grid.identity()) * SIDE / 2
    assert float(moved.std()) == pytest.approx(1.5, rel=0.02)
    assert float(moved.mean()) == pytest.approx(0, abs=0.02)
    unmoved = torch.full((1, 33), 0.5)
    unmoved[0, 1:17] = 0  # radius 0
    targets = spline.parameters(unmoved)
    torch.testing.assert_close(targets[0], spline.grid.identity() / 0.875)


def test_clutter_is_a_digit_and_patches_of_other_images(digits: ImageSet) -> None:
    clear, cluttered = TranslationClutter(60, patches=0), TranslationClutter(60)
    noise = draws(cluttered, 40)
    samples = torch.arange(40)
    digit = clear(digits.images, samples, noise[:, :2])
    both = cluttered(digits.images, samples, noise)
    assert (both >= digit).all()
    assert (both > digit).flatten(1).sum(1).max() <= 6 * 36
    corners = clear.corners(noise)
    for number in range(40):
        x, y = corners[number].tolist()
        torch.testing.assert_close(digit[number, 0, y : y + 28, x : x + 28], digits.images[number] / 255)
    boxes = clear.boxes(noise)
    torch.testing.assert_close((boxes[:, :2] + 1) * 30, corners.float())
    torch.testing.assert_close((boxes[:, 2:] - boxes[:, :2]) * 30, torch.full((40, 2), 28.0))


def test_overlapping_patches_stop_at_white() -> None:
    white = ImageSet(
        images=torch.full((3, 28, 28), 255, dtype=torch.uint8),
        labels=torch.zeros(3).long(),
        classes=("0",),
        name="white",
    )
    distortion = TranslationClutter(34, patches=12)
    assert distortion(white.images, torch.tensor([0]), draws(distortion, 1)).max() == 1


def test_pairs_are_two_channels_and_their_sum(digits: ImageSet) -> None:
    inputs = training_digits(digits, make_distortion("none"), 0, CPU, digits=2)
    assert inputs.classes == 19
    samples = torch.arange(40)
    images, sums = inputs(samples, torch.zeros(40, dtype=torch.int64))
    assert images.shape == (40, 2, 28, 28)
    pixels = digits.images.float() / 255
    assert torch.equal(images[:, 0], pixels)
    partners = torch.stack([(pixels == image).flatten(1).all(1).nonzero()[0, 0] for image in images[:, 1]])
    assert torch.equal(sums, digits.labels + digits.labels[partners])
    again, other = inputs(samples, torch.ones(40, dtype=torch.int64))
    assert not torch.equal(other, sums)
    assert torch.equal(again[:, 0], images[:, 0])


def test_both_digits_of_a_pair_are_distorted_for_themselves(digits: ImageSet) -> None:
    same = ImageSet(images=digits.images[:1], labels=digits.labels[:1], classes=digits.classes, name="one")
    images, _ = training_digits(same, make_distortion("r"), 0, CPU, digits=2)(torch.tensor([0]), torch.tensor([0]))
    assert not torch.equal(images[:, 0], images[:, 1])


def test_angles_differ_between_samples() -> None:
    distortion = distortions.Rotation()
    theta = distortion.parameters(draws(distortion, 100))
    assert len(np.unique(theta[:, 0].numpy())) == 100
    assert math.isfinite(float(theta.sum()))
