"""The losses of equation 1 (region proposal network) and of Fast R-CNN, as functions of dense, masked tensors."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Normalisation = Literal["paper", "sampled"]


def smooth_l1(x: Tensor, sigma: float = 1.0) -> Tensor:
    """Element-wise: 0.5 (sigma x)^2 where |x| < 1 / sigma^2, else |x| - 0.5 / sigma^2 (Fast R-CNN, eq. 3; sigma: its code)."""
    beta = 1.0 / sigma**2
    size = x.abs()
    return torch.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def objectness_nll(logits: Tensor, positive: Tensor) -> Tensor:
    """Log loss over object or not, element-wise.

    logits: (..., 1) for a logistic output or (..., 2) for a softmax over (background, object); positive: (...) bool.
    """
    if logits.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(logits[..., 0], positive.to(logits.dtype), reduction="none")
    # Two classes: the softmax of a pair is the logistic function of its difference.
    margin = logits[..., 1] - logits[..., 0]
    return F.softplus(torch.where(positive, -margin, margin))


def rpn_loss(
    logits: Tensor,
    deltas: Tensor,
    targets: Tensor,
    positive: Tensor,
    valid: Tensor,
    *,
    normalisation: Normalisation,
    sampled: int,
    locations: Tensor,
    weight: float,
    sigma: float,
) -> tuple[Tensor, Tensor]:
    """Objectness and regression loss of the sampled anchors, already weighted: (scalar, scalar).

    logits (B, S, 1 or 2), deltas and targets (B, S, 4), positive and valid (B, S) bool; locations (B,): anchor locations of each
    image. `paper`: equation 1, classification over N_cls = `sampled`, regression over N_reg = locations, times lambda =
    `weight`, averaged over images. `sampled`: py-faster-rcnn, both over the number of sampled anchors of the whole batch.
    """
    nll = objectness_nll(logits, positive) * valid
    distance = smooth_l1(deltas - targets, sigma).sum(-1) * (positive & valid)
    if normalisation == "paper":
        images = len(logits)
        return nll.sum() / (sampled * images), weight * (distance.sum(1) / locations).sum() / images
    count = valid.sum().clamp(min=1)
    return nll.sum() / count, weight * distance.sum() / count


def loss_of_each_region(
    logits: Tensor, deltas: Tensor, targets: Tensor, labels: Tensor, valid: Tensor, *, sigma: float
) -> tuple[Tensor, Tensor]:
    """Classification and box regression loss of every region, 0 where it is not valid: (N,) and (N,).

    logits (N, C + 1) with background first, deltas (N, C + 1, 4) per class, targets (N, 4), labels (N,) in 0..C, valid (N,) bool.
    Only the deltas of a region's own class are trained, and only for objects (Fast R-CNN, eq. 1).
    """
    nll = F.cross_entropy(logits, labels, reduction="none") * valid
    own = deltas.gather(1, labels.view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1)
    distance = smooth_l1(own - targets, sigma).sum(-1) * ((labels > 0) & valid)
    return nll, distance


def fast_rcnn_loss(
    logits: Tensor, deltas: Tensor, targets: Tensor, labels: Tensor, valid: Tensor, *, sigma: float
) -> tuple[Tensor, Tensor]:
    """Classification and box regression loss of the sampled regions: (scalar, scalar), both over the number of regions.

    Arguments as of `loss_of_each_region`.
    """
    count = valid.sum().clamp(min=1)
    nll, distance = loss_of_each_region(logits, deltas, targets, labels, valid, sigma=sigma)
    return nll.sum() / count, distance.sum() / count
