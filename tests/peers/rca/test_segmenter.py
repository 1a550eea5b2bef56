"""The U-Net that segments: its losses against MONAI, its augmentation against SciPy, and one step against a plain one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from paperbench.config.schema import OptimConfig
from paperbench.engine.counter_rng import uniform
from paperbench.engine.seeding import hashed
from paperbench.rca.segmenters.config import UnetModel
from paperbench.rca.segmenters.unet import (
    AUGMENTATION,
    GAIN,
    MAX_WEIGHT,
    ROTATION,
    SCALE,
    SHIFT,
    Examples,
    SegmentationLoss,
    UnetSegmenter,
    augmented,
    dice_loss,
    with_positions,
)
from tests.peers.cases import grid
from tests.peers.packages import peer
from tests.peers.steps import Weights, hold_against, opened, take_step

monai = peer("monai.losses")

SHAPES = {"square": (8, 8), "wide": (8, 16), "cube": (8, 8, 8)}


def batch(shape: str, classes: int, seed: int, *, present: int | None = None) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, classes, *SHAPES[shape], generator=draws, dtype=torch.float64) * 3
    targets = torch.randint(0, present or classes, (3, *SHAPES[shape]), generator=draws)
    return logits, targets


@pytest.mark.parametrize(("shape", "classes", "seed"), grid(SHAPES, (2, 3, 6), range(3)))
def test_the_dice_loss_is_monais(shape: str, classes: int, seed: int) -> None:
    logits, targets = batch(shape, classes, seed)
    logits.requires_grad_()
    theirs = monai.DiceLoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0
    )(logits, targets[:, None])
    found = dice_loss(logits, targets)
    torch.testing.assert_close(found, theirs, rtol=1e-6, atol=1e-6)
    ours, others = (torch.autograd.grad(loss, logits)[0] for loss in (found, theirs))
    torch.testing.assert_close(ours, others, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("shape", "present", "seed"), grid(SHAPES, (1, 2, 4), range(2)))
def test_the_dice_loss_leaves_out_classes_that_are_not_there(shape: str, present: int, seed: int) -> None:
    logits, targets = batch(shape, 5, seed, present=present)
    p = torch.softmax(logits, 1)
    scores = []
    for number in range(1, 5):
        truth = (targets == number).double()
        if truth.any():
            scores.append((2 * (p[:, number] * truth).sum() + 1) / (p[:, number].sum() + truth.sum() + 1))
    expected = 1 - sum(scores) / max(1, len(scores))
    assert float(dice_loss(logits, targets)) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize(("kind", "seed"), grid(("balanced", "rare", "absent", "one class"), range(3)))
def test_weights_of_classes_are_roots_of_inverse_frequencies(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = {"balanced": [1, 1, 1], "rare": [1e5, 10, 1], "absent": [5, 5, 0], "one class": [1, 0, 0]}[kind]
    targets = rng.choice(3, (2, 30, 30), p=np.array(shares) / sum(shares))
    examples = Examples(torch.zeros(2, 1, 30, 30), torch.from_numpy(targets), torch.arange(3))
    counts = [max(1, int((targets == k).sum())) for k in range(3)]
    raw = [min(MAX_WEIGHT, math.sqrt(sum(counts) / count)) for count in counts]
    np.testing.assert_allclose(examples.weights().numpy(), np.array(raw) / np.mean(raw), rtol=1e-5)


def moved_by_hand(image: np.ndarray, draws: np.ndarray, order: int) -> np.ndarray:
    """Return an image resampled by SciPy: rotated in the plane of the last two axes, resized and shifted about its centre."""
    dims = image.ndim
    spread = 2 * draws - 1
    angle, size = spread[0] * ROTATION, 1 + spread[1] * SCALE
    matrix = np.eye(dims)
    matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    lines = [(2 * np.arange(n) + 1) / n - 1 for n in image.shape]
    own = np.stack(np.meshgrid(*lines, indexing="ij")[::-1], axis=-1)
    places = own @ (size * matrix).T + spread[4 : 4 + dims] * SHIFT
    voxels = [((places[..., dims - 1 - k] + 1) * n - 1) / 2 for k, n in enumerate(image.shape)]
    return np.asarray(ndimage.map_coordinates(image, voxels, order=order, mode="grid-constant", cval=0))


@pytest.mark.parametrize(("shape", "seed"), grid(SHAPES, range(5)))
def test_augmented_images_and_masks_are_scipys(shape: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = SHAPES[shape]
    images, targets = rng.random((2, *size)), rng.integers(0, 4, (2, *size))
    draws = rng.random((2, 4 + len(size)))
    found, labels = augmented(torch.from_numpy(images)[:, None], torch.from_numpy(targets), torch.from_numpy(draws))
    for number in range(2):
        gain, offset = (2 * draws[number, 2:4] - 1) * GAIN
        expected = moved_by_hand(images[number], draws[number], 1) * (1 + gain) + offset
        np.testing.assert_allclose(found[number, 0].numpy(), expected, atol=1e-9)
        np.testing.assert_array_equal(labels[number].numpy(), moved_by_hand(targets[number], draws[number], 0))


@pytest.mark.parametrize("shape", SHAPES)
def test_positions_run_from_end_to_end(shape: str) -> None:
    found = with_positions(torch.zeros(2, 1, *SHAPES[shape], dtype=torch.float64)).numpy()
    lines = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPES[shape]], indexing="ij")
    for number in range(2):
        np.testing.assert_allclose(found[number, 1:], np.stack(lines))


# --- one step ---------------------------------------------------------------------------------------------------------


def block(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Two convolutions of 3 voxels a side, each with group normalisation in four groups and a ReLU."""
    convolve = F.conv2d if x.dim() == 4 else F.conv3d
    for part in (0, 3):
        x = convolve(x, weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"], padding=1)
        groups = x.reshape(len(x), 4, -1)
        spread = groups.var(2, unbiased=False, keepdim=True)
        x = ((groups - groups.mean(2, keepdim=True)) / (spread + 1e-5).sqrt()).reshape(x.shape)
        ones = [1] * (x.dim() - 2)
        gain, shift = (weights[f"{name}.{part + 1}.{kind}"].view(1, -1, *ones) for kind in ("weight", "bias"))
        x = torch.relu(x * gain + shift)
    return x


def doubled(x: Tensor) -> Tensor:
    for axis in range(2, x.dim()):
        x = x.repeat_interleave(2, axis)
    return x


def unet(weights: Weights, x: Tensor) -> Tensor:
    """Return the logits: two reductions by maxima, two enlargements, each joined with what it had on the way down."""
    pool = F.max_pool2d if x.dim() == 4 else F.max_pool3d
    first = block(weights, "net.down.0", x)
    second = block(weights, "net.down.1", pool(first, 2))
    third = block(weights, "net.down.2", pool(second, 2))
    up = block(weights, "net.up.0", torch.cat([doubled(third), second], 1))
    up = block(weights, "net.up.1", torch.cat([doubled(up), first], 1))
    return torch.einsum("bc...,kc->bk...", up, weights["net.head.weight"].flatten(1)) + weights["net.head.bias"].view(
        1, -1, *[1] * (x.dim() - 2)
    )


def examples(shape: Sequence[int], seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    targets = np.zeros((4, *shape), np.int64)
    for own in targets:
        corner = rng.integers(0, 3, len(shape))
        own[tuple(slice(int(c), int(c) + 4) for c in corner)] = 1
        own[tuple(slice(int(c) + 2, int(c) + 5) for c in corner)] = 2
    images = rng.random((4, 1, *shape)) * 0.3 + targets[:, None] * 0.3
    return Examples(torch.from_numpy(images).float(), torch.from_numpy(targets), torch.arange(3))


@pytest.mark.parametrize(("shape", "seed"), grid(SHAPES, (0, 1)))
def test_a_step_of_the_segmenter_is_the_plain_one(shape: str, seed: int, tmp_path: Path) -> None:
    size = SHAPES[shape]
    with opened(tmp_path / "run", "vae", f"seed={seed}") as (_, run):  # any run: the segmenter brings its own settings
        known = examples(size, seed)
        torch.manual_seed(seed)
        module = SegmentationLoss(dims=len(size), weights=known.weights(), width=4)
        model = UnetModel(epochs=(1,), width=4, batch_size=4, lr=0.01)
        trainer = UnetSegmenter(model)._trainer(module, known, run)
        key = trainer.order.batch(0)
        step = take_step(trainer, run.directory.metrics_file)
    draws = uniform(
        hashed(seed, AUGMENTATION), torch.from_numpy(key.indices), torch.from_numpy(key.epochs), 4 + len(size)
    )
    spread = 2 * draws.double().numpy() - 1
    images, targets = [], []
    for number, own in zip(key.indices, draws.double().numpy(), strict=True):
        gain, offset = spread[len(images), 2:4] * GAIN
        images.append(moved_by_hand(known.images[number, 0].double().numpy(), own, 1) * (1 + gain) + offset)
        targets.append(moved_by_hand(known.targets[number].numpy(), own, 0))
    lines = np.meshgrid(*[np.linspace(-1, 1, n) for n in size], indexing="ij")
    x = torch.from_numpy(np.stack([np.stack([image, *lines]) for image in images]))
    y = torch.from_numpy(np.stack(targets))
    class_weights = known.weights().double()

    def losses(weights: Weights) -> dict[str, Tensor]:
        logits = unet(weights, x)
        logs = torch.log_softmax(logits, 1).gather(1, y[:, None])[:, 0]
        own = class_weights[y]
        dice = monai.DiceLoss(
            include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1.0, smooth_dr=1.0
        )
        return {"loss_cross_entropy": -(own * logs).sum() / own.sum(), "loss_dice": dice(logits, y[:, None])}

    # A training of one step has no warm-up: the rate is the whole one on its last step.
    optim = OptimConfig(name="adamw", lr=0.01, weight_decay=0.0)
    hold_against(step, losses, optim=optim, clip_norm=1.0)
