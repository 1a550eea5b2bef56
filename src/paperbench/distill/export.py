"""`paperbench export`: the distilled student of a run in a file that other programs read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from paperbench.config.commands import command
from paperbench.distill import datasets
from paperbench.distill.batches import as_float
from paperbench.distill.config import Distill
from paperbench.distill.nets import Net, build
from paperbench.distill.torchvision_nets import Classifier
from paperbench.distill.training import DISTILLED
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.class_names import read_classes
from paperbench.engine.exportable import Exportable, Output
from paperbench.errors import CheckpointError, ConfigError

EXAMPLES = (4, 3, 1)
"""Test images in each batch that the exported student is compared on."""


class Student(nn.Module):
    """A net with the conversion of its images: (N, C, H, W) bytes -> (N, K) logits."""

    def __init__(self, net: Net | Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """The logits."""
        return (self.net(as_float(images)),)


def export_model(config: Distill, run_dir: Path) -> Exportable:
    """Return the distilled student, with images of its test split; see `engine.task.Exports`.

    Raises `ConfigError` or `CheckpointError` when the run has no student (yet) or one of another configuration, and `DataError`
    when the test images are missing: the exported student is compared on them.
    """
    net, step = load_student(config, run_dir)
    channels, height, width = datasets.size(config.data)
    count = sum(EXAMPLES)
    images = datasets.load(
        replace(config.data, max_test_images=min(config.data.max_test_images or count, count)), "test"
    )
    pixels = images.images[torch.arange(count) % len(images)].reshape(-1, channels, height, width)
    return Exportable(
        module=Student(net).eval(),
        weights="net",
        inputs=[(batch,) for batch in pixels.split(EXAMPLES)],
        input_names=("images",),
        outputs=(
            Output(
                name="logits",
                meaning=f"(N, {len(images.classes)}) scores of the classes, before softmax",
                tolerance=1e-3,
            ),
        ),
        meaning=f"images: (N, {channels}, {height}, {width}) bytes, 0 to 255, as the data set has them",
        step=step,
        dynamic={"images": {0: "batch"}},
        metadata={"classes": json.dumps(list(images.classes)), "net": DISTILLED},
    )


def class_names(config: Distill, run_dir: Path) -> tuple[str, ...]:
    """Return the names of the classes that a run was trained on."""
    return read_classes(run_dir) or datasets.classes(config.data)


def load_student(config: Distill, run_dir: Path) -> tuple[Net | Classifier, int]:
    """Return the distilled net of a run on the CPU, in evaluation mode, and the step of its checkpoint."""
    folder = run_dir / "checkpoints" / DISTILLED
    if not folder.is_dir():
        raise ConfigError(f"{run_dir}: has no distilled student yet; `{command('resume', run_dir)}` trains it")
    state, step, file = load_for_evaluation(folder, which="last")
    classes = class_names(config, run_dir)
    net = build(config.model, size=datasets.size(config.data), classes=len(classes), pretrained=False)
    try:
        net.load_state_dict({name.removeprefix("net."): value for name, value in state["module"].items()})
    except (KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{file}: holds no student of this run's configuration ({error})") from error
    # The constraint is applied once: a graph that rescales its own weights cannot be exported.
    if net.max_norm > 0:
        net.constrain()
        net.max_norm = 0.0
    return net.requires_grad_(False).eval(), step


def load_model(config: Distill, run_dir: Path) -> Net | Classifier:
    """Return the distilled student of a run: (N, D) flat pixels in 0..1 -> (N, K) logits; see `engine.task.LoadsModel`."""
    return load_student(config, run_dir)[0]
