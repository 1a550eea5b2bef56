"""A small U-Net at several stages of its training: after each number of epochs it segments every image.

Shapes: B images, C classes, `...` the axes of one common grid. Classes are the numbers that occur in the training masks, so that
overlapping organs (`bits`) are learned as the sums of their values. The architecture is that of the reverse classifier; this net
learns from all training images, rotated, scaled, shifted and changed in intensity as a function of (seed, epoch, image).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.engine.checkpoints import CheckpointStore, load_for_evaluation
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.engine.transfer import to_device
from paperbench.errors import CheckpointError
from paperbench.rca.cases import Image, normalised
from paperbench.rca.cnn import UNet
from paperbench.rca.segmenters.config import UnetModel
from paperbench.rca.segmenters.splits import MaskFolder, Splits

AUGMENTATION: Final = 125
ROTATION, SCALE, SHIFT, GAIN = 0.15, 0.1, 0.06, 0.2
"""Largest rotation (radians), change of size, shift (of the half side) and change of intensity of a training image."""
MAX_WEIGHT: Final = 20.0
"""Largest weight of a class, that of the most frequent one being about 1: limits organs that overlap by a few voxels."""
REDUCTIONS: Final = 4
"""Lengths of the grid are multiples of it: the net halves them twice."""


@dataclass(frozen=True)
class Examples:
    """The training images on the common grid: `images` (N, 1, ...) in [0, 1], `targets` (N, ...) classes, `values` (C,) the label
    value of each class."""

    images: Tensor
    targets: Tensor
    values: Tensor

    def weights(self) -> Tensor:
        """Return (C,), the weight of a voxel of each class, with mean 1: the square root of the inverse frequency."""
        counts = torch.bincount(self.targets.flatten(), minlength=len(self.values)).float().clamp(min=1)
        weights = (counts.sum() / counts).sqrt().clamp(max=MAX_WEIGHT)
        return weights / weights.mean()


class SegmentationLoss(nn.Module):
    """The net with its losses. `steps` counts its training steps and is part of the checkpoints."""

    steps: Tensor
    weights: Tensor

    def __init__(self, *, dims: int, weights: Tensor, width: int) -> None:
        super().__init__()
        self.net = UNet(dims, 1 + dims, len(weights), (width, 2 * width, 4 * width))
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        images, targets, draws = batch
        self.steps += 1
        images, targets = augmented(images, targets, draws)
        logits = self.net(with_positions(images)).float()
        return {
            "loss_cross_entropy": F.cross_entropy(logits, targets, self.weights),
            "loss_dice": dice_loss(logits, targets),
        }


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - soft Dice of the batch, the mean over its classes without the first (background).

    logits (B, C, ...), targets (B, ...) in 0..C-1.
    """
    axes = [0, *range(2, logits.dim())]
    probabilities = logits.softmax(1)
    truth = F.one_hot(targets, logits.shape[1]).movedim(-1, 1).to(probabilities)
    sizes = truth.sum(axes)
    score = (2 * (probabilities * truth).sum(axes) + 1) / (probabilities.sum(axes) + sizes + 1)
    present = (sizes > 0)[1:].to(score)
    return 1 - (score[1:] * present).sum() / present.sum().clamp(min=1)


def augmented(images: Tensor, targets: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, 1, ...) and targets (B, ...), rotated in the plane of the last two axes, scaled, shifted, intensities
    changed.

    draws (B, 4 + d), in [0, 1): rotation, size, gain, offset, and a shift along each axis.
    """
    dims = images.dim() - 2
    spread = draws * 2 - 1
    angle, size = spread[:, 0] * ROTATION, 1 + spread[:, 1] * SCALE
    theta = torch.eye(dims, dims + 1, dtype=images.dtype, device=images.device).repeat(len(images), 1, 1)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos(), -angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin(), angle.cos()
    theta[:, :, :dims] *= size.view(-1, 1, 1)
    theta[:, :, dims] = spread[:, 4 : 4 + dims] * SHIFT
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)
    labels = F.grid_sample(targets[:, None].to(images), grid, mode="nearest", align_corners=False)[:, 0].round().long()
    gain, offset = (spread[:, k].view(-1, *[1] * (dims + 1)) * GAIN for k in (2, 3))
    return moved * (1 + gain) + offset, labels


def with_positions(images: Tensor) -> Tensor:
    """Return (B, 1 + d, ...): the intensity (B, 1, ...) and the position of each voxel, from -1 to 1 along each axis."""
    lines = [torch.linspace(-1, 1, length, device=images.device, dtype=images.dtype) for length in images.shape[2:]]
    positions = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    return torch.cat([images, positions.expand(len(images), *positions.shape)], dim=1)


def grid_of(images: Sequence[Image], side: int) -> tuple[int, ...]:
    """Return the common grid: the median length of each axis, at most `side`, a multiple of `REDUCTIONS`."""
    lengths = np.median([image.intensities.shape for image in images], axis=0)
    return tuple(math.ceil(min(side, float(length)) / REDUCTIONS) * REDUCTIONS for length in lengths)


def resample(image: np.ndarray, grid: Sequence[int]) -> Tensor:
    """Resample an image (...) in [0, 1] to the common grid, (1, 1, ...): by area where it shrinks, linearly where it grows."""
    tensor = torch.from_numpy(image).float()[None, None]
    if tensor.shape[2:] == torch.Size(grid):
        return tensor
    if all(new <= old for new, old in zip(grid, image.shape, strict=True)):
        return F.interpolate(tensor, tuple(grid), mode="area")
    return F.interpolate(tensor, tuple(grid), mode=linear_mode(image.ndim), align_corners=False)


def linear_mode(dims: int) -> str:
    """Return torch's name of linear interpolation in `dims` dimensions."""
    return {2: "bilinear", 3: "trilinear"}[dims]


def load_examples(images: Sequence[Image], grid: Sequence[int], device: torch.device) -> Examples:
    """Return the training images with their true masks, on the common grid and on the device."""
    truths = [image.truth for image in images if image.truth is not None]
    values = np.unique(np.concatenate([np.unique(truth) for truth in truths]))
    if values[0] != 0:
        values = np.concatenate([[0], values])  # the first class is the background, present or not
    targets = []
    for truth in truths:
        classes = torch.from_numpy(np.searchsorted(values, truth))[None, None]
        targets.append(F.interpolate(classes.double(), tuple(grid), mode="nearest-exact")[:, 0].long())
    return Examples(
        images=torch.cat([resample(normalised(image.intensities), grid) for image in images]).to(device),
        targets=torch.cat(targets).to(device),
        values=torch.from_numpy(values).to(device),
    )


def stage_steps(model: UnetModel, images: int) -> tuple[int, ...]:
    """Return the training step after which each stage is reached."""
    return tuple(math.ceil(epochs * images / model.batch_size) for epochs in model.epochs)


class UnetSegmenter:
    """Trains and segments; see `factory.Segmenter`."""

    def __init__(self, model: UnetModel) -> None:
        self.model = model
        self.stages = tuple(f"unet-{epochs}" for epochs in model.epochs)

    def segment(self, splits: Splits, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Train, store the weights of every stage, then write the missing masks; return metrics of the training. A resumed run
        continues from its last checkpoint, and with the next mask."""
        images = [splits.read(number) for number in splits.training]
        grid = grid_of(images, self.model.side)
        examples = load_examples(images, grid, run.device)
        del images
        seed_everything(run.seed, MODEL_INIT)
        module = SegmentationLoss(dims=len(grid), weights=examples.weights(), width=self.model.width).to(run.device)
        metrics = self._trainer(module, examples, run).fit()
        module.eval()
        for stage in self.stages:
            todo = masks.missing(stage)
            if run.ranks.any(bool(todo)):
                module.net.load_state_dict(weights_of(stage, run))
                self._segment(stage, todo, module, examples.values, grid, splits, masks, run)
        return metrics

    def _trainer(self, module: SegmentationLoss, examples: Examples, run: Run) -> Trainer:
        order = EpochOrder(len(examples.images), self.model.batch_size, run.seed, run.ranks.rank, run.ranks.world)
        ends = dict(zip(stage_steps(self.model, order.length), self.stages, strict=True))

        def fetch(key: BatchKey) -> tuple[Tensor, Tensor, Tensor]:
            indices, epochs = (to_device(part, run.device) for part in (key.indices, key.epochs))
            draws = uniform(hashed(run.seed, AUGMENTATION), indices, epochs, 4 + examples.targets.dim() - 1)
            return examples.images[indices], examples.targets[indices], draws

        def store_weights() -> dict[str, float]:
            step = int(module.steps)
            if step in ends:
                run.ranks.on_main(lambda: _store(ends[step], run).save({"weights": module.net.state_dict()}, step=step))
            return {}

        optim = OptimConfig(name="adamw", lr=self.model.lr, schedule="constant", warmup_steps=10)
        per_epoch = max(1, order.length // order.batch_size)
        loop = LoopConfig(
            samples=max(ends) * order.batch_size,
            batch_size=order.batch_size,
            clip_norm=1.0,
            log_every=per_epoch,
            checkpoint_every=per_epoch,
        )
        return build_trainer(
            run,
            module,
            optim=optim,
            loop=loop,
            order=order,
            fetch=fetch,
            evaluate=store_weights,
            evaluate_at=list(ends),
            cast_together=True,
        )

    @torch.no_grad()
    def _segment(
        self,
        stage: str,
        todo: Sequence[int],
        module: SegmentationLoss,
        values: Tensor,
        grid: Sequence[int],
        splits: Splits,
        masks: MaskFolder,
        run: Run,
    ) -> None:
        """Segment images of these numbers, each rank its part, at full size."""
        own = todo[run.ranks.rank :: run.ranks.world]
        longest = -(-len(todo) // run.ranks.world)
        for position in range(longest):
            run.raise_if_stopped()
            run.reporter.progress(f"segmenting, {stage}", position, longest, {})
            if position < len(own):
                image = splits.read(own[position]).intensities
                with run.autocast():
                    logits = module.net(with_positions(resample(normalised(image), grid).to(run.device))).float()
                full = F.interpolate(logits, image.shape, mode=linear_mode(image.ndim), align_corners=False)
                masks.write(stage, own[position], values[full.argmax(1)[0]].cpu().numpy())


def _store(stage: str, run: Run) -> CheckpointStore:
    return CheckpointStore(run.checkpoints.directory / stage, run.reporter, sweep=run.ranks.is_main)


def weights_of(stage: str, run: Run) -> dict[str, Tensor]:
    """Return the weights of the net at a stage. Raises CheckpointError where they are missing."""
    store = _store(stage, run)
    loaded = run.ranks.on_main(store.load)
    if loaded is None:
        raise CheckpointError(f"{store.directory} holds no weights; delete {run.checkpoints.directory} to train again")
    return loaded[0]["weights"]


def load_unet(model: UnetModel, run_dir: Path) -> UNet:
    """Return the net of the last stage of a run on the CPU, in evaluation mode."""
    state, *_ = load_for_evaluation(run_dir / "checkpoints" / f"unet-{model.epochs[-1]}", which="last")
    weights = state["weights"]
    first, classes = weights["down.0.0.weight"], len(weights["head.bias"])
    net = UNet(first.dim() - 2, first.shape[1], classes, (model.width, 2 * model.width, 4 * model.width))
    net.load_state_dict(weights)
    return net.eval()
