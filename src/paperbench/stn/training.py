"""The modules that the trainer trains, and the construction of a digit experiment from its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.data import labelled
from paperbench.data.image_sets import ImageSet
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.run import Run
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.errors import ConfigError
from paperbench.stn.config import StnAddition, StnMnist
from paperbench.stn.data import Batch, DistortedDigits, evaluation_digits, training_digits
from paperbench.stn.distortions import make_distortion
from paperbench.stn.networks import Net, build_net, parameter_groups

DigitConfig = StnMnist | StnAddition


class SupervisedNet(nn.Module):
    """A net with its loss, a function of logits and labels."""

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.loss = loss

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        images, labels = batch
        return {"loss": self.loss(self.net(images), labels)}


class DigitClassifier(nn.Module):
    """A digit net with its loss, and the mean classifier input of each class at each evaluation.

    The means are part of the state: a resumed run draws the same figure of its own training.
    """

    net: Net
    means: Tensor
    evaluations: Tensor

    def __init__(self, net: Net, *, evaluations: int, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("means", torch.zeros(evaluations, classes, *shape))
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the cross-entropy of a batch."""
        inputs, labels = batch
        return {"loss": F.cross_entropy(self.net(inputs), labels)}

    def record_means(self, means: Tensor) -> None:
        """Store the means of one more evaluation, (classes, C, H, W)."""
        at = min(int(self.evaluations), len(self.means) - 1)
        self.means[at] = means
        self.evaluations.fill_(at + 1)


def describe_schedule(loop: LoopConfig, optim: OptimConfig) -> str:
    """Return steps, batch size, optimizer and rate in words."""
    return f"{loop.steps:,} steps of {loop.batch_size}, {optim.name}, rate {optim.lr:g}, {optim.schedule}"


# --- digit experiments ------------------------------------------------------------------------------------------------


def digits_per_input(config: DigitConfig) -> int:
    """Return the number of digits in one input."""
    return 2 if isinstance(config, StnAddition) else 1


def make_net(config: DigitConfig) -> Net:
    """Build the untrained net of `config`. Raises ConfigError for sizes that do not fit."""
    digits = digits_per_input(config)
    canvas = make_distortion(config.distortion).canvas
    classes = 10 if digits == 1 else 9 * digits + 1
    try:
        return build_net(config.model, transform=config.transform, canvas=canvas, channels=digits, classes=classes)
    except ValueError as error:
        raise ConfigError(f"model.side={config.model.side}, distortion={config.distortion}: {error}") from None


def load_weights(net: Net, state: Mapping[str, Any]) -> Net:
    """Load the weights of a run's checkpoint into `net`, and return it."""
    prefix = "net."
    module: Mapping[str, Tensor] = state["module"]
    net.load_state_dict({name.removeprefix(prefix): value for name, value in module.items() if name.startswith(prefix)})
    return net


def make_classifier(config: DigitConfig, test_set: DistortedDigits, run: Run) -> DigitClassifier:
    """Build the untrained module on the run's device; drawn from torch's global generator."""
    net = make_net(config).to(run.device)
    sample = torch.zeros(1, test_set.digits, test_set.side, test_set.side, device=run.device)
    with torch.no_grad():
        _, channels, height, width = net.classifier_input(sample).shape
    loop = config.train
    evaluations = -(-loop.steps // loop.evaluate_every) if loop.evaluate_every else 1
    shape = (channels, height, width)
    return DigitClassifier(net, evaluations=evaluations, classes=test_set.classes, shape=shape).to(run.device)


def load_splits(config: DigitConfig) -> tuple[ImageSet, ImageSet]:
    """Load the images to train on and those to score: the test set, or the training images held back from it.

    Raises ConfigError if none would be left to train on, DataError as `labelled.load`.
    """
    images, held_back = labelled.load(config.data, "train"), config.validation.images
    if held_back == 0:
        return images, labelled.load(config.data, "test")
    if held_back >= len(images):
        raise ConfigError(f"validation.images={held_back}: {images.name} has {len(images):,} training images here")
    return images.split(held_back)


def load_digits(config: DigitConfig, run: Run) -> tuple[DistortedDigits, DistortedDigits]:
    """Load the inputs to train on and to score onto the run's device."""
    digits = digits_per_input(config)
    train_images, scored_images = load_splits(config)
    return (
        training_digits(train_images, make_distortion(config.distortion), run.seed, run.device, digits=digits),
        evaluation_digits(
            scored_images, make_distortion(config.distortion), config.evaluation.seed, run.device, digits=digits
        ),
    )


def make_trainer(
    config: DigitConfig,
    classifier: DigitClassifier,
    train_set: DistortedDigits,
    run: Run,
    evaluate: Callable[[], dict[str, float]] | None,
) -> Trainer:
    """Build the trainer of `classifier` for the schedule of `config`."""
    rate = getattr(config.model, "localisation_lr", 1.0)
    return build_trainer(
        run,
        classifier,
        groups=parameter_groups(classifier.net, localisation_lr=rate),
        optim=config.optim,
        loop=config.train,
        order=len(train_set),
        fetch=train_set.fetch,
        evaluate=evaluate,
        cast_together=True,
    )


def load_model(config: DigitConfig, run_dir: Path) -> Net:
    """Return the trained digit net of a run; see `engine.task.LoadsModel`."""
    return load_weights(make_net(config), load_for_evaluation(run_dir, which="last")[0]).eval()
