"""Tasks on photographs: `stn-svhn`, numbers of one to five digits (section 4.2, table 2), and `stn-birds`, fine-grained classes by
windows on parts (section 4.3, table 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.config.words import counted
from paperbench.data import photographs
from paperbench.data.image_sets import FoldersConfig
from paperbench.engine.checkpoints import load_for_evaluation, without_prefix
from paperbench.engine.class_names import record_classes
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.trainer import build_trainer
from paperbench.errors import ConfigError, DataError
from paperbench.stn import data
from paperbench.stn.birds import PartsNet, check_weights, wrong_classes
from paperbench.stn.config import StnBirds, StnSvhn
from paperbench.stn.data import TRAIN_NOISE, Photographs, Progress, Split
from paperbench.stn.drawing import draw_numbers, draw_parts
from paperbench.stn.evaluation import PhotographEvaluator
from paperbench.stn.house_numbers import HouseNumberNet, sequence_loss, wrong_sequences
from paperbench.stn.layers import count_parameters
from paperbench.stn.photograph_predict import export_model, load_net, predict
from paperbench.stn.training import SupervisedNet, describe_schedule

__all__ = ["export_model", "load_model", "plan", "predict", "run"]

_HOUSE_NUMBER_NETS = {"svhn-cnn": "CNN", "svhn-st-single": "ST-CNN Single", "svhn-st-multi": "ST-CNN Multi"}


def plan(config: StnSvhn | StnBirds) -> Mapping[str, str]:
    """Describe data, model and schedule. Raises what would stop the run, before anything is written."""
    data.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    return {
        "data": data.describe(config.data),
        "model": _describe_parts_net(config) if isinstance(config, StnBirds) else _describe_house_number_net(config),
        "schedule": describe_schedule(config.train, config.optim),
    }


def run(config: StnSvhn | StnBirds, run: Run) -> dict[str, float]:
    """Train, score, draw; see `engine.task.Task`."""
    return _run_birds(config, run) if isinstance(config, StnBirds) else _run_house_numbers(config, run)


# --- house numbers ----------------------------------------------------------------------------------------------------


def _describe_house_number_net(config: StnSvhn) -> str:
    with torch.device("meta"):
        weights = count_parameters(_make_house_number_net(config))
    return f"{_HOUSE_NUMBER_NETS[config.model.name]}, {weights:,} weights"


def _make_house_number_net(config: StnSvhn) -> HouseNumberNet:
    try:
        return HouseNumberNet(config.model, side=config.data.size)
    except ValueError as error:
        raise ConfigError(f"data.size={config.data.size}: {error}") from None


def _run_house_numbers(config: StnSvhn, run: Run) -> dict[str, float]:
    train_set, test_set = (_load_numbers(config, split, run) for split in ("train", "test"))
    seed_everything(run.seed, MODEL_INIT)
    net = _make_house_number_net(config).to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def draw(images: Tensor, labels: Tensor, figures: Path) -> None:
        draw_numbers(net, images, labels, figures / "numbers.png")

    return _fit(config, run, net, train_set, test_set, loss=sequence_loss, wrong=wrong_sequences, draw=draw)


def _load_numbers(config: StnSvhn, split: Split, run: Run) -> Photographs:
    numbers = data.load_numbers(config.data, split, _progress(run, split))
    if not len(numbers):
        raise DataError(f"{numbers.name}: no image is left; {numbers.left_out}")
    left = "".join(f", left out {count} with {reason}" for reason, count in numbers.left_out.items())
    run.reporter.message(f"{numbers.name}: {counted(len(numbers), 'images')}{left}")
    key = hashed(run.seed, TRAIN_NOISE)
    return Photographs(numbers.images, numbers.labels, size=config.data.size, key=key, device=run.device, mirror=False)


# --- birds ------------------------------------------------------------------------------------------------------------


def _describe_parts_net(config: StnBirds) -> str:
    model = config.model
    check_weights(model.backbone, model.weights)
    windows = f"{model.windows} x ST-CNN" if model.windows else "CNN"
    start = "from scratch" if model.weights is None else "from ImageNet weights"
    return f"{windows} on {model.backbone} (the paper: Inception with batch normalisation), {start}"


def _run_birds(config: StnBirds, run: Run) -> dict[str, float]:
    (train_set, classes), (test_set, names) = (_load_birds(config, split, run) for split in ("train", "test"))
    assert classes == names
    if isinstance(config.data, FoldersConfig):
        photographs.record(run, config.data)
    else:
        record_classes(run, classes)
    seed_everything(run.seed, MODEL_INIT)
    net = PartsNet(config.model, classes=len(classes), pretrained=not run.checkpoints.exists()).to(run.device)

    def draw(images: Tensor, labels: Tensor, figures: Path) -> None:
        draw_parts(net, images, labels, classes, figures / "parts.png")

    return _fit(config, run, net, train_set, test_set, loss=F.cross_entropy, wrong=wrong_classes, draw=draw)


def _load_birds(config: StnBirds, split: Split, run: Run) -> tuple[Photographs, tuple[str, ...]]:
    birds = data.load_birds(config.data, split, _progress(run, split))
    run.reporter.message(f"{birds.name}: {counted(len(birds), 'images')} of {len(birds.classes)} classes")
    photographs = Photographs(
        birds.images,
        birds.labels,
        size=data.input_side(config.data),
        key=hashed(run.seed, TRAIN_NOISE),
        device=run.device,
        mirror=split == "train" and config.data.name != "parts",
    )
    return photographs, birds.classes


# --- both -------------------------------------------------------------------------------------------------------------


def _progress(run: Run, split: Split) -> Progress:
    return lambda done, total: run.reporter.progress(f"read {split}", done, total, {})


def _fit(
    config: StnSvhn | StnBirds,
    run: Run,
    net: HouseNumberNet | PartsNet,
    train_set: Photographs,
    test_set: Photographs,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    wrong: Callable[[Tensor, Tensor], Tensor],
    draw: Callable[[Tensor, Tensor, Path], None],
) -> dict[str, float]:
    """Train and score `net`; `draw` takes the first test images, their labels and the folder of the figures."""
    metrics = build_trainer(
        run,
        SupervisedNet(net, loss),
        groups=net.parameter_groups(localisation_lr=config.model.localisation_lr),
        optim=config.optim,
        loop=config.train,
        order=len(train_set),
        fetch=train_set.fetch,
        evaluate=PhotographEvaluator(net, test_set, run, batch_size=config.evaluation.batch_size, wrong=wrong),
    ).fit()
    if run.ranks.is_main:
        run.draw(loss_curves, run.directory.metrics_file, run.directory.figures / "losses.png")
        net.eval()
        if config.evaluation.pictures:
            run.draw(draw, *next(test_set.batches(config.evaluation.pictures)), run.directory.figures)
    return {**metrics, "model/parameters": float(count_parameters(net))}


def load_model(config: StnSvhn | StnBirds, run_dir: Path) -> HouseNumberNet | PartsNet:
    """Return the trained net of a run; see `engine.task.LoadsModel`."""
    if isinstance(config, StnBirds):
        return load_net(config, run_dir)[0].requires_grad_(True)
    net = _make_house_number_net(config)
    net.load_state_dict(without_prefix(load_for_evaluation(run_dir, which="last")[0]["module"], "net."))
    return net.eval()
