"""One step of each net of `distill` and of a specialist against a plain one: loss, gradients, and the new weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.data import labelled
from paperbench.distill import training as distill_training
from paperbench.distill.training import Distillation
from paperbench.engine.seeding import GLOBAL, seed_everything
from tests.peers.steps import Weights, hold_against, opened, take_step

SMALL = (
    "train.samples=20",
    "train.batch_size=20",
    "teaching.samples=20",
    "teaching.batch_size=20",
    "teaching.net.width=9",
    "teaching.optim.schedule=constant",
    "teaching.optim.warmup_steps=0",
    "data.max_train_images=60",
    "data.max_test_images=5",
    "evaluation.examples=0",
    "model.width=8",
    "model.layers=2",
    "jitter=0",
    "baseline.train=false",
    "optim.schedule=constant",
    "optim.warmup_steps=0",
)

STUDENTS = {
    "the paper's": (),
    "T = 1": ("temperature=1", "hard_weight=0.5"),
    "T = 200": ("temperature=200",),
    "soft targets alone": ("hard_weight=0",),
    "hard targets alone": ("soft_weight=0", "hard_weight=1"),
    "logits": ("targets=logits",),
    "two teachers": ("teaching.members=2", "temperature=3"),
    "two teachers, logits averaged": ("teaching.members=2", "teaching.average=logits", "temperature=3"),
    "three layers": ("model.layers=3",),
    "without a class": ("transfer.omit=3",),
    "a third of the images": ("transfer.fraction=0.4", "train.batch_size=10", "train.samples=10"),
    "SGD": ("optim.name=sgd", "optim.lr=0.05"),
    "Adagrad": ("optim.name=adagrad", "optim.lr=0.01"),
    "AdamW with decay": ("optim.name=adamw", "optim.weight_decay=0.2"),
    "clipped": ("train.clip_norm=0.01", "optim.name=sgd", "optim.lr=0.1"),
}


def forward(weights: Weights, prefix: str, x: Tensor, *, drop: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
    """Return the logits of fully connected layers with ReLUs, by the names of their weights."""
    layers = sorted(
        {name.rpartition(".")[0] for name in weights if name.startswith(f"{prefix}trunk.")},
        key=lambda name: int(name.rpartition(".")[2]),
    )
    for number, layer in enumerate([*layers, f"{prefix}head"]):
        if drop is not None:
            x = drop(number, x)
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        if layer in layers:
            x = torch.relu(x)
    return x


def images(config: Any) -> tuple[Tensor, Tensor]:
    loaded = labelled.load(config.data, "train")
    return loaded.images.flatten(1).double() / 255, loaded.labels


@pytest.mark.parametrize(("case", "seed"), [(case, number) for number, case in enumerate(STUDENTS)])
def test_a_students_step_is_the_plain_one(case: str, seed: int, tmp_path: Path) -> None:
    chosen = {text.partition("=")[0]: text for text in (*SMALL, *STUDENTS[case], f"seed={seed}")}
    with opened(tmp_path / "run", "distill", *chosen.values(), f"output.root={tmp_path}") as (config, run):
        distillation = Distillation.of(config, run, distill_training.load(config, run.device))
        distillation.prepare_teachers()
        assert distillation.teacher_logits is not None
        teachers = distillation.teacher_logits.double()
        trainer = distillation.trainer()
        rows = distillation.split.transfer[torch.from_numpy(trainer.order.batch(0).indices)]
        step = take_step(trainer, run.directory.metrics_file)
        pixels, labels = images(config)
        x, y, v = pixels[rows], labels[rows], teachers[:, rows]
        if config.transfer.omit:
            assert 3 not in y.tolist()
        heat = config.temperature

        def losses(weights: Weights) -> dict[str, Tensor]:
            z = forward(weights, "net.", x)
            hard = -F.log_softmax(z, 1)[range(len(y)), y].mean()
            if config.targets == "logits":
                gap = z - v.mean(0)
                soft = 0.5 * ((gap - gap.mean(1, keepdim=True)) ** 2).mean()
            else:
                average = config.teaching.average == "logits"
                p = F.softmax(v.mean(0) / heat, 1) if average else F.softmax(v / heat, 2).mean(0)
                soft = heat**2 * F.kl_div(F.log_softmax(z / heat, 1), p, reduction="batchmean")
            return {"loss_soft": config.soft_weight * soft, "loss_hard": config.hard_weight * hard}

        # Stored targets are float32: the slope of the loss in them grows with the temperature.
        rough, clip = max(1.0, heat / 20), config.train.clip_norm
        hold_against(
            step, losses, optim=config.optim, clip_norm=clip, prefix="distilled/train/", near=1e-6 * rough, rough=rough
        )


TEACHERS = {
    "plain": ("teaching.net.dropout=0", "teaching.net.input_dropout=0", "teaching.net.max_norm=0", "teaching.jitter=0"),
    "dropout": ("teaching.net.max_norm=0", "teaching.jitter=0"),
    "constrained": ("teaching.net.max_norm=0.5", "teaching.jitter=0"),
    "constrained, without dropout": (
        "teaching.net.dropout=0", "teaching.net.input_dropout=0", "teaching.net.max_norm=0.2", "teaching.jitter=0",
    ),
    "SGD": ("teaching.optim.name=sgd", "teaching.optim.lr=0.1", "teaching.jitter=0"),
}  # fmt: skip


@pytest.mark.parametrize(("case", "seed"), [(case, number) for number, case in enumerate(TEACHERS)])
def test_a_teachers_step_is_the_plain_one(case: str, seed: int, tmp_path: Path) -> None:
    chosen = {text.partition("=")[0]: text for text in (*SMALL, *TEACHERS[case], f"seed={seed}")}
    with opened(tmp_path / "run", "distill", *chosen.values(), f"output.root={tmp_path}") as (config, run):
        distillation = Distillation.of(config, run, distill_training.load(config, run.device))
        stage = distillation._teacher(0)
        net = config.teaching.net
        pixels, labels = images(config)
        with stage.locked():
            trainer = stage.trainer()
            rows = torch.from_numpy(trainer.order.batch(0).indices)
            step = take_step(trainer, run.directory.metrics_file)

        def constrain(weight: Tensor) -> Tensor:
            return torch.renorm(weight, 2, 0, net.max_norm) if net.max_norm and weight.ndim > 1 else weight

        if net.max_norm:
            assert any(not torch.equal(constrain(value), value) for value in step.before.values())

        def losses(weights: Weights) -> dict[str, Tensor]:
            seed_everything(config.seed, GLOBAL, 0, 0)

            def drop(number: int, x: Tensor) -> Tensor:
                share = net.dropout if number else net.input_dropout
                # In float32, so that the same numbers are drawn.
                return x * (F.dropout(torch.ones_like(x, dtype=torch.float32), share).double() if share else 1.0)

            z = forward(weights, "net.", pixels[rows], drop=drop)
            return {"loss": -F.log_softmax(z, 1)[range(len(rows)), labels[rows]].mean()}

        optim, clip = config.teaching.optim, config.train.clip_norm
        hold_against(step, losses, optim=optim, clip_norm=clip, prefix="teacher/train/", constrain=constrain)
