"""The same weights in torchvision's Faster R-CNN and in ours: the same proposals, losses and detections to 1e-4.

Every anchor and every region is sampled on both sides (the minibatches are larger than what there is to sample), so that
the two random generators do not matter.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from paperbench.detection.anchors import AnchorGrid
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.model_config import HeadConfig, RpnConfig
from paperbench.detection.roi_head import BoxPredictor, two_layer_head
from paperbench.detection.rpn import RPNHead

STRIDE, CHANNELS, HIDDEN, CLASSES = 16, 8, 24, 3
SIZES, RATIOS = (16.0, 32.0, 64.0), (0.5, 1.0, 2.0)
BETA_SIGMA = 3.0  # torchvision's beta of 1 / 9
EVERYTHING = 100_000


def backbone() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, stride=4, padding=1), nn.Tanh(), nn.Conv2d(CHANNELS, CHANNELS, 4, stride=4)
    )
    net.out_channels = CHANNELS  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    return net


def theirs() -> TorchvisionFasterRCNN:
    torch.manual_seed(1)
    model = TorchvisionFasterRCNN(
        backbone(),
        min_size=96,
        max_size=160,
        rpn_anchor_generator=AnchorGenerator((SIZES,), (RATIOS,)),
        rpn_batch_size_per_image=EVERYTHING,
        rpn_positive_fraction=1.0,
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=60,
        rpn_pre_nms_top_n_test=120,
        rpn_post_nms_top_n_test=40,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_head=nn.Sequential(
            nn.Flatten(), nn.Linear(CHANNELS * 49, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        ),
        box_predictor=_Predictor(),
        box_batch_size_per_image=EVERYTHING,
        box_positive_fraction=1.0,
        box_score_thresh=0.26,
        box_nms_thresh=0.4,
        box_detections_per_img=15,
    )
    with torch.no_grad():  # random weights that disagree: without it every score and box would be nearly the same
        for name, parameter in model.named_parameters():
            if name.startswith(("rpn", "roi_heads.box_predictor")):
                parameter.normal_(std=0.1)
    return model


class _Predictor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(HIDDEN, CLASSES + 1)
        self.deltas = nn.Linear(HIDDEN, (CLASSES + 1) * 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scores(x), self.deltas(x)


def ours(reference: TorchvisionFasterRCNN) -> FasterRCNN:
    anchors = AnchorGrid(sizes=SIZES, ratios=RATIOS, stride=STRIDE, convention="torchvision")
    model = FasterRCNN(
        backbone=backbone(),
        head=two_layer_head(in_channels=CHANNELS, pool_size=7, hidden=HIDDEN, batch_norm=False, dropout=0.0),
        predictor=BoxPredictor(in_channels=HIDDEN, classes=CLASSES),
        rpn=RPNHead(in_channels=CHANNELS, channels=CHANNELS, anchors=anchors.per_location, softmax=False),
        anchors=anchors,
        rpn_config=RpnConfig(
            batch_size_per_image=EVERYTHING,
            positive_fraction=1.0,
            ignore_cross_boundary=False,
            normalisation="sampled",
            loss_weight=1.0,
            sigma=BETA_SIGMA,
            pre_nms_topk_train=200,
            post_nms_topk_train=60,
            pre_nms_topk_test=120,
            post_nms_topk_test=40,
            min_size=1e-3,
        ),
        head_config=HeadConfig(
            batch_size_per_image=EVERYTHING,
            positive_fraction=1.0,
            pool="roi-align",
            pool_size=7,
            target_std=(0.1, 0.1, 0.2, 0.2),
            sigma=BETA_SIGMA,
            score_threshold=0.26,
            nms_iou=0.4,
            detections_per_image=15,
        ),
    )
    state = reference.state_dict()
    renamed = {
        "rpn.head.conv.0.0.": "rpn.conv.",
        "rpn.head.cls_logits.": "rpn.objectness.",
        "rpn.head.bbox_pred.": "rpn.deltas.",
        "roi_heads.box_head.": "head.",
        "roi_heads.box_predictor.": "predictor.",
    }
    for old, new in renamed.items():
        state = {(new + key[len(old) :] if key.startswith(old) else key): value for key, value in state.items()}
    model.load_state_dict({**state, "_extra_state": model.get_extra_state()})
    return model


@pytest.fixture
def images() -> Batch:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (2, 3, 96, 160), generator=generator, dtype=torch.uint8)
    pixels[1, :, :, 128:] = 0
    boxes = torch.tensor(
        [[[10, 12, 60, 70], [50, 5, 150, 90], [3, 50, 33, 94]], [[20, 20, 100, 60], [0, 0, 0, 0], [0, 0, 0, 0]]]
    )
    return Batch(
        images=pixels,
        sizes=torch.tensor([[96, 160], [96, 128]]),
        scales=torch.ones(2),
        boxes=boxes.float(),
        labels=torch.tensor([[1, 3, 2], [2, 0, 0]]),
        indices=torch.arange(2),
    )


def as_torchvision(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    pixels = [image[:, :h, :w].float() / 255 for image, (h, w) in zip(batch.images, batch.sizes.tolist(), strict=True)]
    targets = [
        {"boxes": boxes[labels > 0], "labels": labels[labels > 0]}
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
    ]
    return pixels, targets


def test_losses_and_gradients_equal_torchvisions(images: Batch) -> None:
    reference = theirs().train()
    model = ours(reference).train()
    expected = reference(*as_torchvision(images))
    losses = model(images)
    names = {
        "loss_rpn_objectness": "loss_objectness",
        "loss_rpn_box": "loss_rpn_box_reg",
        "loss_classification": "loss_classifier",
        "loss_box": "loss_box_reg",
    }
    for name, their_name in names.items():
        torch.testing.assert_close(losses[name], expected[their_name], atol=1e-4, rtol=0)
        assert losses[name] > 0
    sum(losses.values(), torch.zeros(())).backward()
    sum(expected.values(), torch.zeros(())).backward()
    for (name, parameter), (_, other) in zip(
        model.backbone.named_parameters(), reference.backbone.named_parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, other.grad, atol=1e-4, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("mode", ["train", "test"])
def test_proposals_equal_torchvisions(images: Batch, mode: str) -> None:
    reference = theirs().train(mode == "train")
    model = ours(reference).train(mode == "train")
    pixels, targets = as_torchvision(images)
    inputs, scaled = reference.transform(pixels, targets)
    features = {"0": reference.backbone(inputs.tensors)}
    expected, _ = reference.rpn(inputs, features, scaled)
    proposals = model.propose(images)
    for image, boxes in enumerate(expected):
        found = proposals.boxes[image][proposals.valid[image]]
        assert len(found) > 10
        torch.testing.assert_close(found, boxes, atol=1e-4, rtol=0)


def test_detections_equal_torchvisions(images: Batch) -> None:
    reference = theirs().eval()
    model = ours(reference).eval()
    with torch.no_grad():
        expected = reference(as_torchvision(images)[0])
    found, _ = model.detect(images)
    for image, detections in enumerate(expected):
        valid = found.valid[image]
        assert valid.sum() == len(detections["boxes"]) > 3
        torch.testing.assert_close(found.scores[image][valid], detections["scores"], atol=1e-4, rtol=0)
        torch.testing.assert_close(found.boxes[image][valid], detections["boxes"], atol=1e-4, rtol=0)
        assert torch.equal(found.labels[image][valid], detections["labels"])
