"""Region proposal network, section 3.1: a small net slid over the feature map, its loss, and its proposals (3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.detection import boxes as box_ops
from paperbench.detection.losses import rpn_loss
from paperbench.detection.matching import POSITIVE, match, sample
from paperbench.detection.model_config import RpnConfig
from paperbench.detection.nms import batched_nms


class RPNHead(nn.Module):
    """A 3x3 convolution, then two sibling 1x1 convolutions: objectness and box regression for K anchors a location.

    With VGG-16's 512 channels, 9 anchors and a two-way softmax it has the paper's 2.4e6 weights.
    """

    def __init__(self, *, in_channels: int, channels: int, anchors: int, softmax: bool = True) -> None:
        super().__init__()
        self.outputs = 2 if softmax else 1
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors * self.outputs, 1)
        self.deltas = nn.Conv2d(channels, anchors * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, H, W) -> logits (B, A, 1 or 2) and deltas (B, A, 4) in float32, A = H * W * K in the order of `AnchorGrid`."""
        hidden = F.relu(self.conv(features), inplace=True)
        batch = len(features)
        logits = self.objectness(hidden).permute(0, 2, 3, 1).reshape(batch, -1, self.outputs)
        deltas = self.deltas(hidden).permute(0, 2, 3, 1).reshape(batch, -1, 4)
        return logits.float(), deltas.float()


def objectness_score(logits: Tensor) -> Tensor:
    """Ranking score of an anchor, the log-odds of an object: (B, A, 1 or 2) -> (B, A)."""
    return logits[..., 0] if logits.shape[-1] == 1 else logits[..., 1] - logits[..., 0]


def finite_scores(scores: Tensor, boxes: Tensor) -> Tensor:
    """Return the scores (B, A), -inf where the score or one of the numbers of its box (B, A, 4) is not finite.

    A net that diverges, or whose sums overflow in a short type, has infinite logits: a rank above every other, that means nothing.
    """
    return scores.masked_fill(~(scores.isfinite() & boxes.isfinite().all(-1)), float("-inf"))


class RPNLoss(nn.Module):
    """Assigns anchors to objects, samples a minibatch an image, and computes equation 1; the whole batch at once."""

    def __init__(self, config: RpnConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        *,
        sizes: Tensor,
        gt_boxes: Tensor,
        gt_labels: Tensor,
        stride: Sequence[int],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Objectness and regression loss: logits (B, A, .), deltas (B, A, 4), anchors (A, 4), sizes (B, 2) as (height, width),
        gt_boxes (B, G, 4), gt_labels (B, G) with 0 for padding, stride of each map that has anchors -> (scalar, scalar)."""
        with torch.no_grad():
            eligible = box_ops.inside(anchors, sizes) if self.config.ignore_cross_boundary else None
            overlaps = box_ops.exact_iou(gt_boxes, anchors[None])
            matches = match(
                overlaps,
                gt_labels > 0,
                positive=self.config.positive_iou,
                negative=self.config.negative_iou,
                best_for_each=True,
                eligible=eligible,
            )
            drawn = sample(
                matches.labels,
                count=self.config.batch_size_per_image,
                positive_fraction=self.config.positive_fraction,
                generator=generator,
            )
            positive = matches.labels.gather(1, drawn.chosen) == POSITIVE
            own = matches.matched.gather(1, drawn.chosen)
            reference = anchors[drawn.chosen]
            target_boxes = gt_boxes.gather(1, own[..., None].expand(-1, -1, 4))
            # Only positives are regressed; the others get their own anchor as target, which keeps padding free of log(0).
            target_boxes = torch.where(positive[..., None], target_boxes, reference)
            targets = box_ops.encode(reference, target_boxes)
            # Sides rounded up to whole cells, in integers: exact, and a GPU may have no float64.
            per_map = [torch.div(sizes + (step - 1), step, rounding_mode="floor").prod(1) for step in stride]
            locations = torch.stack(per_map).sum(0).to(deltas.dtype)
        return rpn_loss(
            logits.gather(1, drawn.chosen[..., None].expand(-1, -1, logits.shape[-1])),
            deltas.gather(1, drawn.chosen[..., None].expand(-1, -1, 4)),
            targets,
            positive,
            drawn.valid,
            normalisation=self.config.normalisation,
            sampled=self.config.batch_size_per_image,
            locations=locations,
            weight=self.config.loss_weight,
            sigma=self.config.sigma,
        )


class Proposals(NamedTuple):
    """Dense over the batch: boxes (B, P, 4) clipped to their image, scores (B, P) decreasing, valid (B, P) bool."""

    boxes: Tensor
    scores: Tensor
    valid: Tensor


@torch.no_grad()
def propose(
    scores: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    sizes: Tensor,
    scales: Tensor,
    config: RpnConfig,
    *,
    training: bool,
) -> Proposals:
    """Return the best boxes of each image: scores (B, A), deltas (B, A, 4), anchors (A, 4), sizes (B, 2) as (height, width).

    `pre_nms_topk` boxes are ranked and decoded, cut off at the border, and dropped when a side is below `min_size` pixels of the
    original image, which was resized by `scales` (B,); up to `post_nms_topk` survive the suppression, of training or of test.
    Gradients do not flow through the coordinates: that is what "approximate" joint training means.
    P = min(pre_nms_topk, post_nms_topk, A).
    """
    pre_nms, post_nms = config.topk(training=training)
    ranked = rank(scores, deltas, anchors, sizes, count=pre_nms, min_size=config.min_size * scales)
    return suppress(ranked, count=post_nms, nms_iou=config.nms_iou)


@torch.no_grad()
def rank(
    scores: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    sizes: Tensor,
    *,
    count: int,
    min_size: Tensor,
) -> Proposals:
    """Return the `count` boxes with the highest scores, decoded and cut off: the first half of `propose`.

    Those with a side below `min_size` (B,), in pixels of the resized images, are not valid, nor are those whose score or place
    is not finite; these come after all others.
    """
    best, index = finite_scores(scores, deltas).topk(min(count, scores.shape[1]), dim=1)
    chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
    decoded = box_ops.decode(anchors[index], chosen)
    best = finite_scores(best, decoded)
    decoded = box_ops.clip(decoded.masked_fill((best == float("-inf"))[..., None], 0.0), sizes)
    side = decoded[..., 2:] - decoded[..., :2]
    best = best.masked_fill((side < min_size.view(-1, 1, 1)).any(-1), float("-inf"))
    # Candidates that are not there go last, so that each row stays in order of score.
    best, order = best.sort(dim=1, descending=True, stable=True)
    decoded = decoded.gather(1, order[..., None].expand(-1, -1, 4))
    return Proposals(decoded, best, best > float("-inf"))


@torch.no_grad()
def suppress(ranked: Proposals, *, count: int, nms_iou: float) -> Proposals:
    """Return up to `count` of the ranked boxes, none of which overlaps a better one by more: the second half of `propose`."""
    kept, valid = batched_nms(ranked.boxes, ranked.scores, iou=nms_iou, keep=count)
    return Proposals(ranked.boxes.gather(1, kept[..., None].expand(-1, -1, 4)), ranked.scores.gather(1, kept), valid)
