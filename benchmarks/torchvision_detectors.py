"""torchvision's `FasterRCNN`, `MaskRCNN` and `SSD` in a plain loop, on the images and with the settings of our configurations.

What a configuration says holds for both sides: backbone and its first weights, anchors, numbers of anchors, regions and proposals,
thresholds, optimizer, schedule, batch. Where it says nothing, torchvision's own defaults do: how anchors are centred and rounded,
the first weights of new layers, how losses are weighted and averaged, how images are resized. Of our code the loop shares the
readers of data, the backbones, the pyramid's further stages and the box head; batches, flips, targets, losses, optimizer and
schedule are torchvision's, PyTorch's or written here.

`PAPER` names what torchvision's detectors of two stages do by other rules than the papers; each can be turned into the paper's
rule, as our configuration has it, to find which of them a difference comes from.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection import roi_heads
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign

from paperbench.data.detection import DetectionSet
from paperbench.detection import boxes as box_ops
from paperbench.detection.anchors import generate_anchors
from paperbench.detection.backbones import make_backbone
from paperbench.detection.config import DetectTrain
from paperbench.detection.feature_pyramid import BottomUp, Deeper, PyramidNeck
from paperbench.detection.losses import fast_rcnn_loss
from paperbench.detection.model_config import FasterRCNNModel, MaskRCNNModel, SSDModel
from paperbench.detection.roi_head import two_layer_head
from paperbench.engine.seeding import MODEL_INIT, seed_everything

PAPER = ("anchors", "boundary", "init", "min-size", "smooth-l1")
"""Rules of the papers that torchvision has others for: anchors centred on cells and not rounded; anchors across the border take no
part in training; the head's first weights of s.d. .01 and .001; the smallest proposal; smooth L1 of the head."""

HALF = 0.5
"""torchvision leaves it to the caller where to cut its soft masks; its documents cut them here."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Detections of one image in its own pixels: boxes (N, 4) xyxy, scores (N,), labels (N,) in 1..C, masks (N, H, W) or None."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None


# --- models -----------------------------------------------------------------------------------------------------------


class Maps(nn.Module):
    """A backbone as torchvision's detectors take it: `body` has pretrained weights, `neck` is new; gives maps by name."""

    def __init__(self, body: nn.Module, neck: nn.Module, out_channels: int | list[int]) -> None:
        super().__init__()
        self.body, self.neck, self.out_channels = body, neck, out_channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(B, 3, H, W) -> its maps, finest first, named 0, 1, ..."""
        maps = self.neck(self.body(x))
        return OrderedDict((str(level), one) for level, one in enumerate([maps] if isinstance(maps, Tensor) else maps))


def build(config: DetectTrain, classes: int, seed: int, rules: Sequence[str] = ()) -> nn.Module:
    """Return torchvision's detector for a configuration of ours, changed to `rules` of `PAPER`.

    The backbone begins with the weights of our run of that seed.
    """
    seed_everything(seed, MODEL_INIT)
    match config.model:
        case MaskRCNNModel():
            detector = _mask_rcnn(config, config.model, classes)
            strides = [
                config.model.pyramid.finest_stride * 2**level for level in range(len(config.model.anchors.sizes))
            ]
            follow_paper(detector, config.model, rules, strides)
            return detector
        case FasterRCNNModel(name="faster-rcnn"):
            detector = _faster_rcnn(config, config.model, classes)
            follow_paper(detector, config.model, rules, [make_backbone(config.model, pretrained=False).stride])
            return detector
        case SSDModel():
            if rules:
                raise SystemExit(f"SSD has none of {', '.join(rules)}")
            return _ssd(config.model, classes)
        case other:
            raise SystemExit(f"torchvision has no {other.name} that could be compared")


def _faster_rcnn(config: DetectTrain, model: FasterRCNNModel, classes: int) -> nn.Module:
    backbone = make_backbone(model, pretrained=True)
    channels, neck = backbone.channels, nn.Identity()
    if model.projection:
        channels, neck = (
            model.projection,
            nn.Sequential(nn.Conv2d(channels, model.projection, 1), nn.ReLU(inplace=True)),
        )
    pool = model.head.pool_size or backbone.pool_size
    return TorchvisionFasterRCNN(
        Maps(backbone.features, neck, channels),
        rpn_anchor_generator=AnchorGenerator((model.anchors.sizes,), (model.anchors.ratios,)),
        box_roi_pool=MultiScaleRoIAlign(["0"], pool, 2),
        **_two_stages(config, model, channels=channels, pool=pool, classes=classes),
    )


def _mask_rcnn(config: DetectTrain, model: MaskRCNNModel, classes: int) -> nn.Module:
    pyramid, mask = model.pyramid, model.mask
    bottom_up = BottomUp(make_backbone(model, pretrained=True), finest=pyramid.finest_stride)
    neck = PyramidNeck(
        bottom_up.channels, channels=pyramid.channels, deeper=pyramid.extra_stages, pooled=pyramid.pooled_levels
    )
    names = [str(level) for level in range(len(bottom_up.channels) + pyramid.extra_stages)]
    sizes = tuple((size,) for size in model.anchors.sizes)

    def pooling(size: int) -> MultiScaleRoIAlign:
        return MultiScaleRoIAlign(names, size, 2, canonical_scale=round(pyramid.canonical_size), canonical_level=4)

    pool = model.head.pool_size or 7
    return TorchvisionMaskRCNN(
        Maps(bottom_up, neck, pyramid.channels),
        rpn_anchor_generator=AnchorGenerator(sizes, (model.anchors.ratios,) * len(sizes)),
        box_roi_pool=pooling(pool),
        mask_roi_pool=pooling(mask.pool_size),
        mask_head=MaskRCNNHeads(pyramid.channels, (mask.channels,) * mask.convolutions, 1),
        mask_predictor=MaskRCNNPredictor(mask.channels, mask.channels, classes + 1),
        **_two_stages(config, model, channels=pyramid.channels, pool=pool, classes=classes),
    )


def _two_stages(
    config: DetectTrain, model: FasterRCNNModel, *, channels: int, pool: int, classes: int
) -> dict[str, Any]:
    rpn, head = model.rpn, model.head
    return {
        "min_size": config.data.short_side,
        "max_size": config.data.max_side,
        "rpn_pre_nms_top_n_train": rpn.pre_nms_topk_train,
        "rpn_pre_nms_top_n_test": rpn.pre_nms_topk_test,
        "rpn_post_nms_top_n_train": rpn.post_nms_topk_train,
        "rpn_post_nms_top_n_test": rpn.post_nms_topk_test,
        "rpn_nms_thresh": rpn.nms_iou,
        "rpn_fg_iou_thresh": rpn.positive_iou,
        "rpn_bg_iou_thresh": rpn.negative_iou,
        "rpn_batch_size_per_image": rpn.batch_size_per_image,
        "rpn_positive_fraction": rpn.positive_fraction,
        "box_head": two_layer_head(
            in_channels=channels,
            pool_size=pool,
            hidden=head.hidden,
            batch_norm=head.batch_norm,
            dropout=head.dropout,
        ),
        "box_predictor": FastRCNNPredictor(head.hidden, classes + 1),
        "box_score_thresh": head.score_threshold,
        "box_nms_thresh": head.nms_iou,
        "box_detections_per_img": head.detections_per_image,
        "box_batch_size_per_image": head.batch_size_per_image,
        "box_positive_fraction": head.positive_fraction,
    }


def _ssd(model: SSDModel, classes: int) -> nn.Module:
    body = BottomUp(make_backbone(model, pretrained=True), finest=model.finest_stride, key="model.finest_stride")
    count = len(model.boxes.ratios) - len(body.channels)
    neck = Deeper(body.channels[-1], channels=model.extra_channels, count=count)
    ratios = [[int(ratio) if ratio == int(ratio) else ratio for ratio in own] for own in model.boxes.ratios]
    return torchvision_ssd.SSD(
        Maps(body, neck, [*body.channels, *[model.extra_channels] * count]),
        DefaultBoxGenerator(ratios, scales=[size / model.side for size in model.boxes.sizes]),  # pyright: ignore[reportArgumentType]
        (model.side, model.side),
        classes + 1,
        score_thresh=model.score_threshold,
        nms_thresh=model.nms_iou,
        detections_per_img=model.detections_per_image,
        iou_thresh=model.positive_iou,
        positive_fraction=1 / (1 + model.negatives_per_positive),
    )


# --- rules of the papers ----------------------------------------------------------------------------------------------


class InsideOnly(RegionProposalNetwork):
    """torchvision's network, trained on the anchors that lie within their image alone (Faster R-CNN, section 3.1.3)."""

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As torchvision's."""
        self.limits = torch.tensor(images.image_sizes)
        return super().forward(images, features, targets)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's, of the anchors inside; the others are neither object nor background."""
        inside = [box_ops.inside(own, limit[None])[0] for own, limit in zip(anchors, self.limits, strict=True)]
        some = [own[keep] for own, keep in zip(anchors, inside, strict=True)]
        labels, matched = super().assign_targets_to_anchors(some, targets)
        all_labels = [own.new_full((len(own),), -1.0) for own in anchors]
        all_matched = [own.clone() for own in anchors]
        for number, keep in enumerate(inside):
            all_labels[number][keep] = labels[number]
            all_matched[number][keep] = matched[number]
        return all_labels, all_matched


def follow_paper(detector: Any, model: FasterRCNNModel, rules: Sequence[str], strides: Sequence[int]) -> None:
    """Change torchvision's detector of two stages to some of `PAPER`; `smooth-l1` is for `losses_of`. strides: of its maps."""
    if "anchors" in rules:
        sizes = [(size,) for size in model.anchors.sizes] if len(strides) > 1 else [model.anchors.sizes]
        detector.rpn.anchor_generator.cell_anchors = [
            generate_anchors(own, model.anchors.ratios, stride=stride)
            for own, stride in zip(sizes, strides, strict=True)
        ]
    if "boundary" in rules:
        detector.rpn.__class__ = InsideOnly  # the same parts and thresholds, with two methods replaced
    if "min-size" in rules:
        detector.rpn.min_size = model.rpn.min_size
    if "init" in rules:
        predictor = detector.roi_heads.box_predictor
        nn.init.normal_(predictor.cls_score.weight, std=0.01)
        nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
        nn.init.zeros_(predictor.cls_score.bias)
        nn.init.zeros_(predictor.bbox_pred.bias)


def losses_of(config: DetectTrain, rules: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which torchvision's head has the configured smooth L1, where `rules` ask for it."""
    if "smooth-l1" not in rules:
        return contextlib.nullcontext()
    assert isinstance(config.model, FasterRCNNModel)
    sigma = config.model.head.sigma

    def loss(logits: Tensor, deltas: Tensor, labels: list[Tensor], targets: list[Tensor]) -> tuple[Tensor, Tensor]:
        every = torch.cat(labels)
        # Background in an image without objects has targets of log 0.
        wanted = torch.cat(targets).masked_fill((every == 0)[:, None], 0.0)
        counted = torch.ones_like(every, dtype=torch.bool)
        return fast_rcnn_loss(logits, deltas.view(len(every), -1, 4), wanted, every, counted, sigma=sigma)

    return mock.patch.object(roi_heads, "fastrcnn_loss", loss)


# --- the loop ---------------------------------------------------------------------------------------------------------


def _example(dataset: DetectionSet, index: int, *, masks: bool, mirror: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """An image (3, H, W) in 0..1 and its objects, as torchvision takes them; `difficult` ones and crowds are left out."""
    record = dataset.records[index]
    keep = ~(record.difficult | record.crowd)
    image = torch.from_numpy(np.ascontiguousarray(dataset.decode(index).transpose(2, 0, 1))).float() / 255
    boxes = torch.from_numpy(record.boxes[keep])
    target = {"boxes": boxes, "labels": torch.from_numpy(record.labels[keep])}
    if masks:
        assert dataset.masks is not None
        target["masks"] = torch.from_numpy(dataset.masks(index)[keep].astype(np.uint8))
    if mirror:
        image = image.flip(-1)
        target["boxes"] = torch.stack(
            [record.width - boxes[:, 2], boxes[:, 1], record.width - boxes[:, 0], boxes[:, 3]], 1
        )
        if masks:
            target["masks"] = target["masks"].flip(-1)
    return image, target


def _order(count: int, samples: int, seed: int) -> Iterator[tuple[int, bool]]:
    """Indices of `samples` images, epoch after epoch in random order, and whether each is mirrored."""
    generator = np.random.default_rng(seed)
    done = 0
    while done < samples:
        for index in generator.permutation(count)[: samples - done].tolist():
            yield index, bool(generator.random() < HALF)
            done += 1


def train(config: DetectTrain, dataset: DetectionSet, seed: int, samples: int, rules: Sequence[str] = ()) -> nn.Module:
    """Return torchvision's detector after `samples` images of the training set; AdamW and a cosine with warm-up, as configured.

    rules: those of `PAPER` that it follows.
    """
    optim, batch = config.optim, config.train.batch_size
    if (optim.name, optim.schedule, optim.decay_norm_and_bias) != ("adamw", "cosine", False):
        raise SystemExit("the plain loop knows AdamW with a cosine, and no decay of biases; take scale=short")
    model = build(config, len(dataset.classes), seed, rules)
    masks = config.model.name == "mask-rcnn"
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone.body."), parameter.ndim > 1), []).append(parameter)
    rates = {True: optim.lr * optim.backbone_lr_scale, False: optim.lr}
    optimizer = torch.optim.AdamW(
        {"params": own, "lr": rates[pretrained], "weight_decay": optim.weight_decay if matrix else 0.0}
        for (pretrained, matrix), own in groups.items()
    )
    steps = samples // batch
    warm = min(optim.warmup_steps, steps)

    def factor(step: int) -> float:
        return (step + 1) / warm if step < warm else (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    order = _order(len(dataset), steps * batch, seed)
    for _ in range(steps):
        drawn = [next(order) for _ in range(batch)]
        images, targets = zip(
            *[_example(dataset, index, masks=masks, mirror=mirror and config.data.flip > 0) for index, mirror in drawn],
            strict=True,
        )
        with losses_of(config, rules):
            loss = torch.stack(list(model(list(images), list(targets)).values())).sum()
        if not loss.isfinite():
            raise SystemExit(f"torchvision's {config.model.name}, seed {seed}: the loss is {loss.item()}")
        optimizer.zero_grad()
        loss.backward()
        if config.train.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
        optimizer.step()
        schedule.step()
    return model


@torch.inference_mode()
def detect(model: nn.Module, dataset: DetectionSet, batch: int) -> list[Found]:
    """Return the detections of every image of a data set."""
    model.eval()
    found: list[Found] = []
    for start in range(0, len(dataset), batch):
        indices = range(start, min(start + batch, len(dataset)))
        images = [_example(dataset, index, masks=False, mirror=False)[0] for index in indices]
        outputs: Sequence[dict[str, Tensor]] = model(images)
        found += [
            Found(
                boxes=output["boxes"].numpy(),
                scores=output["scores"].numpy(),
                labels=output["labels"].numpy(),
                masks=(output["masks"][:, 0] >= HALF).numpy() if "masks" in output else None,
            )
            for output in outputs
        ]
    return found
