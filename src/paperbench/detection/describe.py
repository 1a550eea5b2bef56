"""A configuration in words, a line each: for the opening panel, `--dry-run` and `results.json`."""

from __future__ import annotations

from paperbench.config.words import counted
from paperbench.data import voc_layout
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
from paperbench.errors import DataError


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
        own = data.train or (f"{data.year}/{data.train_split}",)
        train = " + ".join(_voc_split(data.root, *name.split("/", 1)) for name in own)
        tested = _voc_split(data.root, data.year, data.test_split) if data.train else data.test_split
        what = f"voc: {train} {_tested(data, tested)}"
        limits += [f"{counted(len(data.classes), 'classes')} of one's own"] if data.classes else []
    elif isinstance(data, YoloData):
        what = f"yolo: {' + '.join(data.train or (data.train_split,))} {_tested(data)}"
        limits += [counted(len(data.classes), "classes")] if data.classes else []
    elif isinstance(data, CocoData):
        what = f"coco: {' + '.join(data.train or (data.train_split,))} {_tested(data)}"
    else:
        what = f"pennfudan: {counted(data.test_images, 'images')} held back"
    return ", ".join([f"{what} in {data.root}", *limits, f"short side {data.short_side}"])


def _voc_split(root: str | None, year: str, split: str) -> str:
    """Name a split of a set by its folder, `VOC2007 test`; one of a folder without lists of images by what it consists of."""
    try:
        layout = voc_layout.find(root, year)
    except DataError:  # said by whoever reads it
        return f"VOC{year} {split}"
    if layout.lists is not None:
        return f"{layout.folder.name} {split}"
    return "all XML files" if split == voc_layout.ALL else f"XML files of {split}"


def _tested(data: VocData | CocoData | YoloData, split: str = "") -> str:
    """Name what the test is on, behind the training split."""
    if data.test_fraction:
        return f"without the {100 * data.test_fraction:g} % held out for the test"
    return f"and {split or data.test_split}"


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
