"""The Fast R-CNN detector on proposals: region sampling, targets, the head, its outputs (Faster R-CNN section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paperbench.detection import boxes as box_ops
from paperbench.detection.matching import POSITIVE, Matches, Sample, match, sample
from paperbench.detection.model_config import HeadConfig
from paperbench.detection.rpn import Proposals
from paperbench.engine.constants import constant


class Regions(NamedTuple):
    """Sampled regions of a batch: boxes (B, R, 4), labels (B, R) in 0..C, targets (B, R, 4) normalised, valid (B, R) bool."""

    boxes: Tensor
    labels: Tensor
    targets: Tensor
    valid: Tensor


@torch.no_grad()
def sample_regions(
    proposals: Proposals,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    config: HeadConfig,
    *,
    generator: torch.Generator | None = None,
) -> Regions:
    """Draw the regions of each image that the head is trained on, from its proposals and its ground truth.

    proposals: (B, P, .); gt_boxes (B, G, 4); gt_labels (B, G), 0 for padding. The ground truth is added to the proposals, as
    py-faster-rcnn does. At most `positive_fraction` of `batch_size_per_image` are objects (overlap at least `positive_iou`); the
    background is what overlaps less, and at least `negative_iou_low` (0.1 in plain Fast R-CNN).
    """
    boxes, matches = _matched(proposals, gt_boxes, gt_labels, config, negative_iou_low=config.negative_iou_low)
    drawn = sample(
        matches.labels,
        count=config.batch_size_per_image,
        positive_fraction=config.positive_fraction,
        generator=generator,
    )
    return _with_targets(boxes, matches, drawn, gt_boxes, gt_labels, config)


@torch.no_grad()
def every_region(proposals: Proposals, gt_boxes: Tensor, gt_labels: Tensor, config: HeadConfig) -> Regions:
    """Return all proposals and the ground truth, none drawn; R = P + G. Arguments as of `sample_regions`."""
    boxes, matches = _matched(proposals, gt_boxes, gt_labels, config, negative_iou_low=0.0)
    everything = torch.arange(boxes.shape[1], device=boxes.device).expand(len(boxes), -1)
    return _with_targets(boxes, matches, Sample(everything, matches.labels >= 0), gt_boxes, gt_labels, config)


def _matched(
    proposals: Proposals, gt_boxes: Tensor, gt_labels: Tensor, config: HeadConfig, *, negative_iou_low: float
) -> tuple[Tensor, Matches]:
    """Proposals with the ground truth behind them (B, P + G, 4), and what each is responsible for."""
    real = gt_labels > 0
    boxes = torch.cat([proposals.boxes, gt_boxes], dim=1)
    present = torch.cat([proposals.valid, real], dim=1)
    matches = match(
        box_ops.exact_iou(gt_boxes, boxes),
        real,
        positive=config.positive_iou,
        negative=config.positive_iou,
        negative_low=negative_iou_low,
        eligible=present,
    )
    return boxes, matches


def _with_targets(
    boxes: Tensor, matches: Matches, drawn: Sample, gt_boxes: Tensor, gt_labels: Tensor, config: HeadConfig
) -> Regions:
    chosen = boxes.gather(1, drawn.chosen[..., None].expand(-1, -1, 4))
    own = matches.matched.gather(1, drawn.chosen)
    positive = matches.labels.gather(1, drawn.chosen) == POSITIVE
    labels = torch.where(positive, gt_labels.gather(1, own), 0)
    target_boxes = gt_boxes.gather(1, own[..., None].expand(-1, -1, 4))
    reference = torch.where(positive[..., None], chosen, constant((0.0, 0.0, 1.0, 1.0), chosen))
    target_boxes = torch.where(positive[..., None], target_boxes, reference)
    return Regions(chosen, labels, box_ops.encode(reference, target_boxes, config.target_std), drawn.valid)


def two_layer_head(*, in_channels: int, pool_size: int, hidden: int, batch_norm: bool, dropout: float) -> nn.Sequential:
    """Two fully connected layers on pooled features: (N, F, size, size) -> (N, hidden)."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = in_channels * pool_size * pool_size
    for _ in range(2):
        layers.append(nn.Linear(width, hidden, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm1d(hidden))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = hidden
    return nn.Sequential(*layers)


def over_valid(layers: nn.Module, x: Tensor, valid: Tensor | None) -> Tensor:
    """Run `layers` on rows (N, ...) so that rows which are not `valid` (N,) take no part in statistics over the batch.

    Where a layer normalises over its batch in training, the valid rows alone are given to it, and the others' output is 0.
    One row has no variance and none has no mean: then the running statistics serve, as at test. Without such a layer all rows
    are computed, which asks the device for nothing.
    """
    norms = [module for module in layers.modules() if isinstance(module, _BatchNorm) and module.training]
    if valid is None or not norms:
        return layers(x)
    rows = valid.flatten().nonzero()[:, 0]
    enough = len(rows) > 1
    for norm in norms:
        norm.train(enough)
    found = layers(x[rows])
    for norm in norms:
        norm.train()
    return found.new_zeros(len(x), *found.shape[1:]).index_copy(0, rows, found)


class BoxPredictor(nn.Module):
    """Sibling outputs of the head: class scores with the background first, and a box for every class."""

    def __init__(self, *, in_channels: int, classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.scores = nn.Linear(in_channels, classes + 1)
        self.deltas = nn.Linear(in_channels, (classes + 1) * 4)
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        nn.init.zeros_(self.scores.bias)
        nn.init.zeros_(self.deltas.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, hidden) -> logits (N, C + 1) and deltas (N, C + 1, 4), float32."""
        return self.scores(x).float(), self.deltas(x).float().view(-1, self.classes + 1, 4)
