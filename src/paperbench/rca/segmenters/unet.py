"""A small U-Net at several stages of its training: after each number of epochs it segments every image.

Shapes: B images, C classes, `...` the axes of one common grid. Classes are the numbers that occur in the training masks, so that
overlapping organs (`bits`) are learnt as the sums that they make. The net is that of the reverse classifier; this one learns from
all training images, turned, scaled, shifted and stretched in intensity as (seed, epoch, image) say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.errors import CheckpointError
from paperbench.rca.cases import Picture, normalised
from paperbench.rca.cnn import UNet
from paperbench.rca.segmenters.config import UnetModel
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.shares import Shares

VARIED: Final = 125
TURN, SCALE, SHIFT, GAIN = 0.15, 0.1, 0.06, 0.2
"""Largest turn (radians), change of size, shift (of the half side) and change of intensity of a training image."""
RAREST: Final = 20.0
"""Largest weight of a class beside the commonest one's of about 1: organs that overlap by a few voxels count no more."""
REDUCTIONS: Final = 4
"""Lengths of the grid are multiples of it: the net halves them twice."""


@dataclass(frozen=True)
class Examples:
    """The training images on the common grid: `images` (N, 1, ...) in [0, 1], `targets` (N, ...) classes, `values` (C,) the number
    in the masks of each class."""

    images: Tensor
    targets: Tensor
    values: Tensor

    def weights(self) -> Tensor:
        """(C,): what a voxel of each class counts, of mean 1. By the root of how rare it is, so that small organs are met early and
        large ones are not drowned."""
        counts = torch.bincount(self.targets.flatten(), minlength=len(self.values)).float().clamp(min=1)
        weights = (counts.sum() / counts).sqrt().clamp(max=RAREST)
        return weights / weights.mean()


class Learner(nn.Module):
    """The net with its losses. `steps` counts the training steps that it has taken, checkpoints included."""

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
        images, targets = varied(images, targets, draws)
        logits = self.net(with_places(images)).float()
        return {
            "loss_cross_entropy": F.cross_entropy(logits, targets, self.weights),
            "loss_dice": dice_loss(logits, targets),
        }


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """1 - soft Dice of the batch, the mean over the classes beside the first (the background) that it holds.

    logits (B, C, ...), targets (B, ...) in 0..C-1.
    """
    axes = [0, *range(2, logits.dim())]
    found = logits.softmax(1)
    truth = F.one_hot(targets, logits.shape[1]).movedim(-1, 1).to(found)
    sizes = truth.sum(axes)
    score = (2 * (found * truth).sum(axes) + 1) / (found.sum(axes) + sizes + 1)
    present = (sizes > 0)[1:].to(score)
    return 1 - (score[1:] * present).sum() / present.sum().clamp(min=1)


def varied(images: Tensor, targets: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, 1, ...) and targets (B, ...), turned in the plane of the last two axes, scaled, shifted; intensities stretched.

    draws (B, 4 + d), in [0, 1): turn, size, gain, offset, and a shift along each axis.
    """
    dims = images.dim() - 2
    spread = draws * 2 - 1
    angle, size = spread[:, 0] * TURN, 1 + spread[:, 1] * SCALE
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


def with_places(images: Tensor) -> Tensor:
    """(B, 1, ...) -> (B, 1 + d, ...): beside the intensity, where a voxel lies, from -1 to 1 along each axis."""
    lines = [torch.linspace(-1, 1, length, device=images.device, dtype=images.dtype) for length in images.shape[2:]]
    places = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    return torch.cat([images, places.expand(len(images), *places.shape)], dim=1)


def grid_of(pictures: Sequence[Picture], side: int) -> tuple[int, ...]:
    """The common grid: the median length of each axis, at most `side`, a multiple of `REDUCTIONS`."""
    lengths = np.median([picture.image.shape for picture in pictures], axis=0)
    return tuple(math.ceil(min(side, float(length)) / REDUCTIONS) * REDUCTIONS for length in lengths)


def laid(image: np.ndarray, grid: Sequence[int]) -> Tensor:
    """An image (...) in [0, 1] on the common grid, (1, 1, ...): means where it shrinks, linear where it grows."""
    tensor = torch.from_numpy(image).float()[None, None]
    if tensor.shape[2:] == torch.Size(grid):
        return tensor
    if all(new <= old for new, old in zip(grid, image.shape, strict=True)):
        return F.interpolate(tensor, tuple(grid), mode="area")
    return F.interpolate(tensor, tuple(grid), mode=linear(image.ndim), align_corners=False)


def linear(dims: int) -> str:
    """What torch calls linear interpolation in so many dimensions."""
    return {2: "bilinear", 3: "trilinear"}[dims]


def examples(pictures: Sequence[Picture], grid: Sequence[int], device: torch.device) -> Examples:
    """The training images with their true masks, on the common grid and on the device."""
    truths = [picture.truth for picture in pictures if picture.truth is not None]
    values = np.unique(np.concatenate([np.unique(truth) for truth in truths]))
    if values[0] != 0:
        values = np.concatenate([[0], values])  # the first class is the background, met or not
    targets = []
    for truth in truths:
        classes = torch.from_numpy(np.searchsorted(values, truth))[None, None]
        targets.append(F.interpolate(classes.double(), tuple(grid), mode="nearest-exact")[:, 0].long())
    return Examples(
        images=torch.cat([laid(normalised(picture.image), grid) for picture in pictures]).to(device),
        targets=torch.cat(targets).to(device),
        values=torch.from_numpy(values).to(device),
    )


def ends_of(model: UnetModel, images: int) -> tuple[int, ...]:
    """The training step after which each stage is reached."""
    return tuple(math.ceil(epochs * images / model.batch_size) for epochs in model.epochs)


class UnetSegmenter:
    """Trains and segments; see `making.Segmenter`."""

    def __init__(self, model: UnetModel) -> None:
        self.model = model
        self.stages = tuple(f"unet-{epochs}" for epochs in model.epochs)

    def segment(self, shares: Shares, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Trains, keeps the weights of every stage, then writes the masks that are not there yet; metrics of the training. Goes on
        from the run's last checkpoint, and with the next mask."""
        pictures = [shares.read(number) for number in shares.training]
        grid = grid_of(pictures, self.model.side)
        taught = examples(pictures, grid, run.device)
        del pictures
        seed_everything(run.seed, MODEL_INIT)
        learner = Learner(dims=len(grid), weights=taught.weights(), width=self.model.width).to(run.device)
        learnt = self._trainer(learner, taught, run).fit()
        learner.eval()
        for stage in self.stages:
            todo = masks.missing(stage)
            if run.ranks.any(bool(todo)):
                learner.net.load_state_dict(weights_of(stage, run))
                self._segment(stage, todo, learner, taught.values, grid, shares, masks, run)
        return learnt

    def _trainer(self, learner: Learner, taught: Examples, run: Run) -> Trainer:
        order = EpochOrder(len(taught.images), self.model.batch_size, run.seed, run.ranks.rank, run.ranks.world)
        ends = dict(zip(ends_of(self.model, order.length), self.stages, strict=True))

        def fetch(key: BatchKey) -> tuple[Tensor, Tensor, Tensor]:
            indices, epochs = (torch.from_numpy(part).to(run.device) for part in (key.indices, key.epochs))
            draws = uniform(hashed(run.seed, VARIED), indices, epochs, 4 + taught.targets.dim() - 1)
            return taught.images[indices], taught.targets[indices], draws

        def keep() -> dict[str, float]:
            step = int(learner.steps)
            if step in ends:
                run.ranks.on_main(
                    lambda: _store(ends[step], run).save({"weights": learner.net.state_dict()}, step=step)
                )
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
            run, learner, optim=optim, loop=loop, order=order, fetch=fetch, evaluate=keep, evaluate_at=list(ends)
        )

    @torch.no_grad()
    def _segment(
        self,
        stage: str,
        todo: Sequence[int],
        learner: Learner,
        values: Tensor,
        grid: Sequence[int],
        shares: Shares,
        masks: MaskFolder,
        run: Run,
    ) -> None:
        """Images of these numbers, each rank its share, decided at full size."""
        share = todo[run.ranks.rank :: run.ranks.world]
        longest = -(-len(todo) // run.ranks.world)
        for position in range(longest):
            run.raise_if_stopped()
            run.reporter.progress(f"segmenting, {stage}", position, longest, {})
            if position < len(share):
                image = shares.read(share[position]).image
                with run.autocast():
                    logits = learner.net(with_places(laid(normalised(image), grid).to(run.device))).float()
                full = F.interpolate(logits, image.shape, mode=linear(image.ndim), align_corners=False)
                masks.write(stage, share[position], values[full.argmax(1)[0]].cpu().numpy())


def _store(stage: str, run: Run) -> CheckpointStore:
    return CheckpointStore(run.checkpoints.directory / stage, run.reporter, sweep=run.ranks.is_main)


def weights_of(stage: str, run: Run) -> dict[str, Tensor]:
    """The net's weights at a stage. Raises CheckpointError where they are gone."""
    store = _store(stage, run)
    loaded = run.ranks.on_main(store.load)
    if loaded is None:
        raise CheckpointError(
            f"{store.directory} holds no weights; take {run.checkpoints.directory} away to train anew"
        )
    return loaded[0]["weights"]
