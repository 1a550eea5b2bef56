"""Task `stn-svhn`: numbers of one to five digits in photographs (section 4.2, table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from paperbench.data.sequences import NumberSet
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.trainer import build_trainer
from paperbench.errors import ConfigError, DataError
from paperbench.stn import datasets
from paperbench.stn.config import HouseNumberModel, StnSvhn
from paperbench.stn.drawing import numbers_read
from paperbench.stn.fitting import describe_schedule
from paperbench.stn.house_numbers import HouseNumberNet, Transformers, sequence_loss, wrong
from paperbench.stn.inputs import TRAIN_NOISE
from paperbench.stn.parameters import count
from paperbench.stn.pixels import Batch, Photographs
from paperbench.stn.scoring import ErrorRate

__all__ = ["plan", "run"]

NAMES = {"svhn-cnn": "CNN", "svhn-st-single": "ST-CNN Single", "svhn-st-multi": "ST-CNN Multi"}


class Reader(nn.Module):
    """The net with its loss."""

    def __init__(self, net: HouseNumberNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The cross-entropy of all places."""
        images, labels = batch
        return {"loss": sequence_loss(self.net(images), labels)}


def make_net(model: HouseNumberModel, side: int) -> HouseNumberNet:
    """The untrained net. Raises ConfigError for images that are too small."""
    kind: Transformers = {"cnn": "none", "st-single": "single", "st-multi": "multi"}[model.name.removeprefix("svhn-")]  # type: ignore[assignment]
    assert kind in get_args(Transformers)
    try:
        return HouseNumberNet(
            side=side,
            transformers=kind,
            filters=model.filters,
            hidden=model.hidden,
            dropout=model.dropout,
            padding=model.padding,
        )
    except ValueError as error:
        raise ConfigError(f"data.size={side}: {error}") from None


def plan(config: StnSvhn) -> Mapping[str, str]:
    """What would be trained on what, in words. Raises what would stop the run, before anything is written."""
    datasets.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    with torch.device("meta"):
        weights = count(make_net(config.model, config.data.size))
    return {
        "data": datasets.describe(config.data),
        "model": f"{NAMES[config.model.name]}, {weights:,} weights",
        "schedule": describe_schedule(config.train, config.optim),
    }


def run(config: StnSvhn, run: Run) -> dict[str, float]:
    """Trains, scores, draws; see `engine.task.Task`."""
    train_set, test_set = (_photographs(config, split, run) for split in ("train", "test"))
    seed_everything(run.seed, MODEL_INIT)
    reader = Reader(make_net(config.model, config.data.size).to(run.device, memory_format=torch.channels_last))  # type: ignore[call-overload]
    metrics = build_trainer(
        run,
        reader,
        groups=reader.net.parameter_groups(localisation_lr=config.model.localisation_lr),
        optim=config.optim,
        loop=config.train,
        order=len(train_set),
        fetch=train_set.fetch,
        evaluate=ErrorRate(reader.net, test_set, run, batch_size=config.evaluation.batch_size, wrong=wrong),
    ).fit()
    if run.ranks.is_main:
        loss_curves(run.directory.metrics_file, run.directory.figures / "losses.png")
        reader.net.eval()
        for images, labels in test_set.all(max(1, config.evaluation.pictures)):
            if config.evaluation.pictures:
                numbers_read(reader.net, images, labels, run.directory.figures / "numbers.png")
            break
    return {**metrics, "model/parameters": float(count(reader.net))}


def _photographs(config: StnSvhn, split: Any, run: Run) -> Photographs:
    found: NumberSet = datasets.load_numbers(
        config.data, split, lambda done, total: run.reporter.progress(f"read {split}", done, total, {})
    )
    if not len(found):
        raise DataError(f"{found.name}: no image is left; {found.left_out}")
    left = "".join(f", left out {number} with {reason}" for reason, number in found.left_out.items())
    run.reporter.message(f"{found.name}: {len(found):,} images{left}")
    return Photographs(
        found.images,
        found.labels,
        size=config.data.size,
        key=hashed(run.seed, TRAIN_NOISE),
        device=run.device,
        mirror=False,
    )
