"""Joint training: one net, all losses at once (section 3.2, "approximate joint training")."""

from __future__ import annotations

from typing import Any

from torch import nn

from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker, MaskBatchMaker, MaskStore
from paperbench.detection.config import DetectTrain
from paperbench.detection.detectors.base import Detector
from paperbench.detection.evaluation.inference import Scorer
from paperbench.engine.run import Run
from paperbench.engine.trainer import Trainer, build_trainer

WATCHED = "coco/AP50"


def trainer(
    config: DetectTrain, model: Detector, train_set: datasets.DetectionSet, run: Run, scorer: Scorer | None
) -> Trainer:
    """The trainer of `model`, on the run's device, for the schedule of `config`."""
    store = datasets.store(config.data, train_set, run.device)
    settings: dict[str, Any] = {
        "flip": config.data.flip,
        "seed": run.seed,
        "multiple": model.multiple,
        "square": model.square,
        "training": True,
    }
    if model.masks:
        make = MaskBatchMaker(train_set, store, MaskStore(train_set, cache_mb=config.data.cache_mb), **settings)
    else:
        make = BatchMaker(train_set, store, **settings)
    return build_trainer(
        run,
        model,
        optim=config.optim,
        loop=config.train,
        order=len(train_set),
        fetch=lambda key: make(key.indices, key.epochs),
        groups=parameter_groups(model, backbone_lr_scale=config.optim.backbone_lr_scale),
        evaluate=scorer,
        watch=WATCHED if scorer is not None else None,
    )


def parameter_groups(model: nn.Module, *, backbone_lr_scale: float) -> list[dict[str, Any]]:
    """Trained parameters with the multiple of the learning rate each group gets: new layers 1, the backbone its own."""
    pretrained, new = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (pretrained if name.startswith("backbone.") else new).append((name, parameter))
    return [
        {"params": new, "lr_scale": 1.0},  # first: its rate is the one that is shown
        {"params": pretrained, "lr_scale": backbone_lr_scale},
    ]
