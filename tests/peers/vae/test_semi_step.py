"""One step of `vae-semi`, of M1 and of M2, against a plain one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.engine.seeding import STEP, generator
from paperbench.engine.trainer import Trainer, build_trainer
from paperbench.vae import semi_task
from tests.peers.steps import Step, Weights, hold_against, opened, take_step

SMALL = (
    "train.samples=20",
    "train.batch_size=20",
    "labelled_batch_size=10",
    "labels=20",
    "data.max_train_images=200",
    "data.max_test_images=5",
    "model.hidden=8",
    "model.latent=3",
    "optim.schedule=constant",
    "optim.warmup_steps=0",
)

CASES = {
    "M2": (),
    "M2, more for the classes": ("model.alpha=5",),
    "M2, Adagrad with decay": ("optim.name=adagrad", "optim.weight_decay=0.01"),
    "M1": ("model=m1", "model.hidden=8", "model.latent=3"),
    "M1, SGD": ("model=m1", "model.hidden=8", "model.latent=3", "optim.name=sgd", "optim.lr=1e-4"),
}


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1)


def reconstruction(x: Tensor, logits: Tensor) -> Tensor:
    return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(-1)


class PlainM2:
    """Equations 6 to 9 of Kingma, Rezende, Mohamed and Welling (2014)."""

    def __init__(self, activation: str) -> None:
        self.act = torch.tanh if activation == "tanh" else torch.relu

    def joint(self, w: Weights, name: str, x: Tensor, y: Tensor) -> Tensor:
        matrix = torch.cat([w[f"{name}.of_input.weight"], w[f"{name}.of_class.weight"]], 1)
        return self.act(torch.cat([x, y], -1) @ matrix.T + w[f"{name}.of_input.bias"])

    def bound(self, w: Weights, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        h = self.joint(w, "encoder", x, y)
        mean, log_variance = linear(w, "mean", h), linear(w, "log_variance", h)
        logits = linear(w, "logits", self.joint(w, "decoder", mean + (log_variance / 2).exp() * noise, y))
        return reconstruction(x, logits) - math.log(y.shape[-1]) - divergence(mean, log_variance)

    def class_logs(self, w: Weights, x: Tensor) -> Tensor:
        return F.log_softmax(linear(w, "classifier.1", self.act(linear(w, "classifier.0.hidden", x))), -1)


def plain_m1(w: Weights, x: Tensor, stream: torch.Generator, activation: str) -> dict[str, Tensor]:
    act = torch.tanh if activation == "tanh" else torch.relu
    h = act(linear(w, "encoder.features.hidden", x))
    mean, log_variance = linear(w, "encoder.mean", h), linear(w, "encoder.log_variance", h)
    z = mean + (log_variance / 2).exp() * torch.randn(1, len(x), 3, generator=stream).double()[0]
    logits = linear(w, "model.decoder.logits", act(linear(w, "model.decoder.features.hidden", z)))
    return {
        "loss_reconstruction": -reconstruction(x, logits).mean(),
        "loss_kl": divergence(mean, log_variance).mean(),
    }


def plain_m2(w: Weights, batch: Any, stream: torch.Generator, config: Any) -> dict[str, Tensor]:
    plain = PlainM2(config.model.activation)
    x, known, labels = batch.unlabelled.double(), batch.labelled.double(), batch.classes
    noise = torch.randn(10, len(x), 3, generator=stream).double()
    own = torch.randn(1, len(known), 3, generator=stream).double()[0]
    logs = plain.class_logs(w, x)
    unlabelled = -(logs.exp() * logs).sum(1)
    for number in range(10):
        y = F.one_hot(torch.full((len(x),), number), 10).double()
        unlabelled = unlabelled + logs[:, number].exp() * plain.bound(w, x, y, noise[number])
    labelled = plain.bound(w, known, F.one_hot(labels, 10).double(), own)
    fraction = 20 / 200
    return {
        "loss_unlabelled": -(1 - fraction) * unlabelled.mean(),
        "loss_labelled": -fraction * labelled.mean(),
        "loss_classes": -config.model.alpha * plain.class_logs(w, known)[range(len(labels)), labels].mean(),
    }


@pytest.mark.parametrize(("case", "seed"), [(case, number) for number, case in enumerate(CASES)])
def test_a_step_is_the_plain_one(case: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {text.partition("=")[0]: text for text in (*SMALL, *CASES[case], f"seed={seed}")}
    # A choice of the model comes before what is changed in it.
    ordered = sorted(chosen.values(), key=lambda text: not text.startswith("model="))
    taken: list[tuple[Step, Any]] = []
    with opened(tmp_path, "vae-semi", *ordered) as (config, run):

        class Watched:
            def __init__(self, *arguments: Any, **named: Any) -> None:
                self.trainer: Trainer = build_trainer(*arguments, **{**named, "evaluate": None})

            def fit(self) -> dict[str, float]:
                batch = self.trainer.fetch(self.trainer.order.batch(0))
                taken.append((take_step(self.trainer, run.directory.metrics_file), batch))
                return {}

        monkeypatch.setattr(semi_task, "build_trainer", Watched)
        monkeypatch.setattr(semi_task, "_draw_styles", lambda *_: None)
        monkeypatch.setattr(semi_task, "loss_curves", lambda *_: None)
        semi_task.run(config, run)
        ((step, batch),) = taken

        def losses(weights: Weights) -> dict[str, Tensor]:
            stream = generator("cpu", config.seed, STEP, 0, 0)
            if config.model.name == "m1":
                return plain_m1(weights, batch.double(), stream, config.model.activation)
            return plain_m2(weights, batch, stream, config)

        hold_against(step, losses, optim=config.optim, clip_norm=config.train.clip_norm)
