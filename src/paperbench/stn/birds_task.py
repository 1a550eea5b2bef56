"""Task `stn-birds`: fine-grained classes by windows on parts (section 4.3, table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.trainer import build_trainer
from paperbench.stn import datasets
from paperbench.stn.birds import PartsNet
from paperbench.stn.config import PartsModel, StnBirds
from paperbench.stn.drawing import parts_seen
from paperbench.stn.fitting import describe_schedule
from paperbench.stn.inputs import TRAIN_NOISE
from paperbench.stn.parameters import count
from paperbench.stn.pixels import Batch, Photographs
from paperbench.stn.scoring import ErrorRate
from paperbench.stn.trunks import check_weights

__all__ = ["plan", "run"]


class Classifier(nn.Module):
    """The net with its loss."""

    def __init__(self, net: PartsNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The cross-entropy."""
        images, labels = batch
        return {"loss": F.cross_entropy(self.net(images), labels)}


def make_net(model: PartsModel, classes: int, *, pretrained: bool) -> PartsNet:
    """The net before training; without `pretrained` its weights are about to be replaced and none are read."""
    return PartsNet(
        windows=model.windows,
        classes=classes,
        backbone=model.backbone,
        weights=model.weights if pretrained else None,
        side=model.side,
        dropout=model.dropout,
    )


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) whether the class was missed."""
    return logits.argmax(1) != labels


def plan(config: StnBirds) -> Mapping[str, str]:
    """What would be trained on what, in words. Raises what would stop the run, before anything is written."""
    datasets.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    check_weights(config.model.backbone, config.model.weights)
    model = config.model
    windows = f"{model.windows} x ST-CNN" if model.windows else "CNN"
    start = "from nothing" if model.weights is None else "from ImageNet weights"
    return {
        "data": datasets.describe(config.data),
        "model": f"{windows} on {model.backbone} (the paper: Inception with batch normalisation), {start}",
        "schedule": describe_schedule(config.train, config.optim),
    }


def run(config: StnBirds, run: Run) -> dict[str, float]:
    """Trains, scores, draws; see `engine.task.Task`."""
    (train_set, classes), (test_set, names) = (_photographs(config, split, run) for split in ("train", "test"))
    assert classes == names
    seed_everything(run.seed, MODEL_INIT)
    learner = Classifier(make_net(config.model, len(classes), pretrained=not run.checkpoints.exists()).to(run.device))
    metrics = build_trainer(
        run,
        learner,
        groups=learner.net.parameter_groups(localisation_lr=config.model.localisation_lr),
        optim=config.optim,
        loop=config.train,
        order=len(train_set),
        fetch=train_set.fetch,
        evaluate=ErrorRate(learner.net, test_set, run, batch_size=config.evaluation.batch_size, wrong=wrong),
    ).fit()
    if run.ranks.is_main:
        loss_curves(run.directory.metrics_file, run.directory.figures / "losses.png")
        learner.net.eval()
        for images, labels in test_set.all(max(1, config.evaluation.pictures)):
            if config.evaluation.pictures:
                parts_seen(learner.net, images, labels, classes, run.directory.figures / "parts.png")
            break
    return {**metrics, "model/parameters": float(count(learner.net))}


def _photographs(config: StnBirds, split: Any, run: Run) -> tuple[Photographs, tuple[str, ...]]:
    found = datasets.load_birds(
        config.data, split, lambda done, total: run.reporter.progress(f"read {split}", done, total, {})
    )
    run.reporter.message(f"{found.name}: {len(found):,} images of {len(found.classes)} classes")
    photographs = Photographs(
        found.images,
        found.labels,
        size=config.data.size,
        key=hashed(run.seed, TRAIN_NOISE),
        device=run.device,
        mirror=split == "train" and config.data.name == "cub",
    )
    return photographs, found.classes
