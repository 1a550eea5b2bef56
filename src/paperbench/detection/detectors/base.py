"""The interface of every detector to trainer, evaluation and drawings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from paperbench.detection.backbones import IMAGENET_MEAN, IMAGENET_STD
from paperbench.detection.batches import Batch, side_multiple
from paperbench.detection.nms import DetectionBatch
from paperbench.detection.rpn import Proposals
from paperbench.errors import CheckpointError


class Detector(nn.Module):
    """Called with a batch in training it gives named losses; `detect` gives detections in pixels of the resized images.

    A subclass has its feature extractor in `backbone`: parameters below that name take the backbone's learning rate. `stride` is
    the coarsest it works at: batches are padded to whole cells of it. `side` is not 0 for nets that take images on a
    canvas of one size only. `masks` says that it draws masks, and so is trained with them.
    """

    masks = False

    mean: Tensor
    std: Tensor
    backbone: nn.Module

    def __init__(self, *, classes: Sequence[str], stride: int = 1, side: int = 0) -> None:
        super().__init__()
        self.class_names = tuple(classes)
        self.side = side
        self.multiple = side or side_multiple(stride)
        """What the sides of a batch are padded up to a multiple of."""
        self.square = side > 0
        """Whether both sides are padded to exactly that."""
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch, scalars whose sum is minimised; `generator` decides everything that is drawn."""
        raise NotImplementedError

    def detect(self, batch: Batch) -> tuple[DetectionBatch, Proposals | None]:
        """Detections, and the proposals they came from where there are any, in pixels of the resized images."""
        raise NotImplementedError

    # --- shared -------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Training or test mode; frozen layers keep their batch statistics either way."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """The names of the classes travel with the weights, so that a checkpoint alone can name what it finds."""
        return {"classes": list(self.class_names)}

    def set_extra_state(self, state: Any) -> None:
        """Refuse weights of another label set: they would fit and mean something else."""
        names = tuple(state["classes"])
        if self.class_names and names != self.class_names:
            raise CheckpointError(
                f"the weights are for the classes {', '.join(names)}, the data have {', '.join(self.class_names)}; "
                "give the data set (and data.classes) that the model was trained on"
            )
        self.class_names = names

    def normalise(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float32 with ImageNet's mean and deviation taken out; padding becomes 0, the mean colour.

        The result is channels-last in memory, as the weights are: convolutions and pooling are faster that way on CPUs and GPUs,
        and the pooling of regions reads whole pixels.
        """
        height, width = images.shape[-2:]
        x = (images.contiguous(memory_format=torch.channels_last) - self.mean) / self.std
        rows = torch.arange(height, device=images.device) < sizes[:, :1]
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]
        return x * (rows[:, None, :, None] & columns[:, None, None, :])
