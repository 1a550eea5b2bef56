"""A configuration in words, a line each: for the opening panel, `--dry-run` and `results.json`."""

from __future__ import annotations

from paperbench.config.words import counted
from paperbench.detection.config import (
    CocoData,
    DetectTrain,
    ModelConfig,
    PennFudanData,
    RCNNTrain,
    ShapesData,
    VocData,
    YoloData,
)
from paperbench.detection.model_config import FasterRCNNModel, FPNModel, RFCNModel, SSDModel, YOLOModel
from paperbench.detection.rcnn_config import ProposalConfig, SPPNetModel


def describe_data(data: ShapesData | VocData | CocoData | YoloData | PennFudanData) -> str:
    """Return the name of the data, and their amount where the configuration alone decides it."""
    if isinstance(data, ShapesData):
        train, test = (
            min(count, limit) if limit else count
            for count, limit in ((data.train_images, data.max_train_images), (data.test_images, data.max_test_images))
        )
        what = f"shapes: generated scenes of {data.size} px, {train} train, {test} test, data seed {data.data_seed}"
        return f"{what}, short side {data.short_side}" if data.short_side != data.size else what
    limits = [
        f"first {limit} {split}"
        for split, limit in (("train", data.max_train_images), ("test", data.max_test_images))
        if limit
    ]
    if isinstance(data, VocData):
        train = " + ".join(
            f"VOC{name.replace('/', ' ')}" for name in data.train or (f"{data.year}/{data.train_split}",)
        )
        what = f"voc: {train} {_tested(data, f'VOC{data.year} ' if data.train else '')}"
        limits += [f"{counted(len(data.classes), 'classes')} of one's own"] if data.classes else []
    elif isinstance(data, YoloData):
        what = f"yolo: {' + '.join(data.train or (data.train_split,))} {_tested(data)}"
        limits += [counted(len(data.classes), "classes")] if data.classes else []
    elif isinstance(data, CocoData):
        what = f"coco: {' + '.join(data.train or (data.train_split,))} {_tested(data)}"
    else:
        what = f"pennfudan: {counted(data.test_images, 'images')} held back"
    return ", ".join([f"{what} in {data.root}", *limits, f"short side {data.short_side}"])


def _tested(data: VocData | CocoData | YoloData, year: str = "") -> str:
    """Name what the test is on, behind the training split."""
    if data.test_fraction:
        return f"without the {100 * data.test_fraction:g} % held out for the test"
    return f"and {year}{data.test_split}"


def describe_model(model: ModelConfig) -> str:
    """Backbone, weights, and what is laid over the image."""
    weights = f"weights {model.weights}" if model.weights else "random weights"
    deformable = f", {model.deformable} deformable" if model.deformable else ""
    backbone = f"{model.name}, {model.backbone} ({weights}{deformable})"
    match model:
        case SSDModel():
            return f"{backbone}, {len(model.boxes.ratios)} maps of {model.side} px"
        case YOLOModel():
            return f"{backbone}, {model.grid} x {model.grid} cells of {model.boxes} boxes on {model.side} px"
        case FPNModel():
            return f"{backbone}, {len(model.anchors.sizes)} levels, {model.head.pool}"
        case FasterRCNNModel():
            kind = "anchors" if model.stages == 2 else "windows, one stage"
            anchors = f"{len(model.anchors.sizes)} x {len(model.anchors.ratios)} {kind}"
            if not model.shared:
                anchors += f" on a {model.proposals_backbone or 'backbone'} of their own"
            pool = "position-sensitive" if isinstance(model, RFCNModel) else model.head.pool
            return f"{backbone}, {anchors}, {pool}"


def describe_schedule(config: DetectTrain) -> str:
    """Return the number of images, the learning rate and the steps of the schedule."""
    train, optim = config.train, config.optim
    if train.schedule == "alternating":
        samples = train.alternation.samples or train.samples
        proposing = train.alternation.rpn_samples or samples
        seen = f"{samples:,} images each" if proposing == samples else f"{proposing:,} and {samples:,} images in turn"
        count = "4 steps" if getattr(config.model, "shared", True) else "2 steps, nothing shared"
        return f"alternating, {count} of {seen}, {optim.name} {optim.lr:g}, {optim.schedule}"
    steps = -(-train.samples // train.batch_size)
    return f"{train.samples:,} images in {steps:,} steps of {train.batch_size}, {optim.name} {optim.lr:g}, {optim.schedule}"


def describe_rcnn(config: RCNNTrain) -> dict[str, str]:
    """Data, proposals, model and schedule, a line each."""
    model, train, optim = config.model, config.train, config.optim
    weights = f"weights {model.weights}" if model.weights else "random weights"
    if isinstance(model, SPPNetModel) and model.pretrain:
        weights += f", convolutions pretrained on {model.pretrain:,} images"
    boxes = {"none": "no box regression", "ridge": "ridge box regression"}.get(
        model.boxes, f"{model.boxes} box regression"
    )
    return {
        "data": describe_data(config.data),
        "proposals": describe_proposals(config.proposals),
        "model": f"{model.name}, {model.backbone} ({weights}), {model.classifier}, {boxes}",
        "schedule": f"{train.samples:,} images in steps of {train.batch_size}, {optim.name} {optim.lr:g}, {optim.schedule}",
    }


def describe_proposals(config: ProposalConfig) -> str:
    """The method and what decides it, in a line."""
    if config.method == "selective-search":
        own = config.selective_search
        return f"selective search, {own.mode}, k from {own.base_k}"
    if config.method == "sliding-windows":
        own = config.sliding_windows
        return f"sliding windows of {len(own.sizes)} sizes and {len(own.ratios)} shapes, step {own.step:g}"
    return f"region proposal network of {config.run}" if config.method == "rpn" else "from a file"
