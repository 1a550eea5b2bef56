"""A digit experiment from its configuration to its metrics: what `stn-mnist` and `stn-addition` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from paperbench.config.schema import LoopConfig
from paperbench.data import labelled
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.errors import ConfigError
from paperbench.stn import distortions, drawing
from paperbench.stn.build import Net, build, has_transformer, parameter_groups
from paperbench.stn.config import StnAddition, StnMnist
from paperbench.stn.fitting import describe_schedule
from paperbench.stn.inputs import DistortedImages, for_test, for_training
from paperbench.stn.learner import Classification, ErrorCount
from paperbench.stn.parameters import count

DigitExperiment = StnMnist | StnAddition

NAMES = {
    "none": "undistorted",
    "r": "rotated (R)",
    "rts": "rotated, scaled, translated (RTS)",
    "p": "in perspective (P)",
    "e": "elastic (E)",
    "tc": "translated, cluttered (TC)",
}


def digits_of(config: DigitExperiment) -> int:
    """Digits in one input."""
    return 2 if isinstance(config, StnAddition) else 1


def make_net(config: DigitExperiment) -> Net:
    """The untrained net of `config`. Raises ConfigError for one that cannot be."""
    digits = digits_of(config)
    canvas = distortions.make(config.distortion).canvas
    classes = 10 if digits == 1 else 9 * digits + 1
    try:
        return build(config.model, transform=config.transform, canvas=canvas, channels=digits, classes=classes)
    except ValueError as error:
        raise ConfigError(f"model.side={config.model.side}, distortion={config.distortion}: {error}") from None


def plan(config: DigitExperiment) -> Mapping[str, str]:
    """What would be trained on what, in words. Raises what would stop the run, before anything is written."""
    labelled.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    if config.transform != "affine" and not has_transformer(config.model):
        raise ConfigError(
            f"transform={config.transform}: model {config.model.name} has no transformer; leave transform out"
        )
    net = make_net(config)
    canvas = distortions.make(config.distortion).canvas
    pairs = "pairs of " if digits_of(config) == 2 else ""
    return {
        "data": f"{pairs}{labelled.describe(config.data)}, {NAMES[config.distortion]}, {canvas}x{canvas}",
        "model": f"{describe_model(config)}, {count(net):,} weights",
        "schedule": describe_schedule(config.train, config.optim),
    }


def describe_model(config: DigitExperiment) -> str:
    """`2 x ST-FCN (affine)` and the like."""
    model = config.model
    if not has_transformer(model):
        return model.name.upper()
    number = f"{model.transformers} x " if model.transformers > 1 else ""  # type: ignore[union-attr]
    return f"{number}{model.name.upper()} ({config.transform})"


def restore(net: Net, state: Mapping[str, Any]) -> Net:
    """`net` with the weights of a run's checkpoint."""
    prefix = "net."
    module: Mapping[str, Tensor] = state["module"]
    net.load_state_dict({name.removeprefix(prefix): value for name, value in module.items() if name.startswith(prefix)})
    return net


def run(config: DigitExperiment, run: Run) -> dict[str, float]:
    """Trains, scores on the fixed test set, draws; see `engine.task.Task`."""
    seed_everything(run.seed, MODEL_INIT)
    net = make_net(config).to(run.device)
    train_set, test_set = inputs(config, run)
    learner = Classification(
        net, evaluations=_evaluations(config.train), classes=test_set.classes, shape=_seen_shape(net, test_set)
    ).to(run.device)
    score = ErrorCount(learner, test_set, run, batch_size=config.evaluation.batch_size)
    metrics = trainer(config, learner, train_set, run, score).fit()
    if run.ranks.is_main:
        loss_curves(run.directory.metrics_file, run.directory.figures / "losses.png")
        drawing.draw(learner, test_set, run, pictures=config.evaluation.pictures, every=config.train.evaluate_every)
    return {**metrics, "model/parameters": float(count(net))}


def inputs(config: DigitExperiment, run: Run) -> tuple[DistortedImages, DistortedImages]:
    """Training and test inputs on the run's device."""
    digits, distortion = digits_of(config), config.distortion
    train_set = for_training(
        labelled.load(config.data, "train"), distortions.make(distortion), run.seed, run.device, digits=digits
    )
    test_set = for_test(
        labelled.load(config.data, "test"),
        distortions.make(distortion),
        config.evaluation.seed,
        run.device,
        digits=digits,
    )
    return train_set, test_set


def trainer(
    config: DigitExperiment,
    learner: Classification,
    train_set: DistortedImages,
    run: Run,
    score: ErrorCount | None,
) -> Trainer:
    """The trainer of `learner` for the schedule of `config`."""
    rate = getattr(config.model, "localisation_lr", 1.0)
    return build_trainer(
        run,
        learner,
        groups=parameter_groups(learner.net, localisation_lr=rate),
        optim=config.optim,
        loop=config.train,
        order=len(train_set),
        fetch=train_set.fetch,
        evaluate=score,
    )


def _evaluations(loop: LoopConfig) -> int:
    """How often a training of `loop` is evaluated, the last time included."""
    return -(-loop.steps // loop.evaluate_every) if loop.evaluate_every else 1


def _seen_shape(net: Net, test_set: DistortedImages) -> tuple[int, int, int]:
    """C, H, W of what the classifier sees."""
    sample = torch.zeros(1, test_set.digits, test_set.side, test_set.side, device=test_set.device)
    with torch.no_grad():
        _, channels, height, width = net.warped(sample).shape
    return channels, height, width
