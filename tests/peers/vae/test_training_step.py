"""One step of `vae-train` against a plain one: loss, gradients, and weights after the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from paperbench.data import labelled
from paperbench.engine.seeding import STEP, generator
from paperbench.vae.objectives import Mcem
from paperbench.vae.training import Training, load_data
from tests.peers.steps import Weights, hold_against, opened, take_step

SMALL = (
    "train.samples=20",
    "train.batch_size=20",
    "data.max_train_images=60",
    "data.max_test_images=5",
    "evaluation.importance_samples=0",
    "evaluation.train_images=5",
    "evaluation.marginal.images=0",
    "evaluation.pictures=false",
    "model.latent=3",
    "model.hidden=12",
    "optim.schedule=constant",
    "optim.warmup_steps=0",
)

CASES = {
    "analytic": (),
    "analytic, three samples": ("bound.samples=3",),
    "sampled": ("bound.form=sampled", "bound.samples=2"),
    "importance": ("bound.form=importance", "bound.samples=4"),
    "Gaussian pixels": ("model.likelihood=gaussian",),
    "Gaussian pixels, bounded": ("model.likelihood=gaussian", "model.min_log_variance=-0.05"),
    "beta": ("model.beta=4",),
    "ReLU": ("model.activation=relu", "model.init_std=null"),
    "prior": ("prior=true", "optim.name=sgd", "optim.lr=1e-4"),
    "prior and decay": ("prior=true", "optim.name=adagrad", "optim.weight_decay=0.01"),
    "clipped": ("train.clip_norm=0.5", "optim.name=sgd", "optim.lr=0.01"),
    "AdamW": ("optim.name=adamw", "optim.lr=0.001", "optim.weight_decay=0.1"),
    "wake-sleep": ("estimator=wake-sleep",),
    "Monte Carlo EM": ("estimator=mcem",),
    "autoencoder": ("model=autoencoder", "model.latent=3", "model.hidden=12"),
}


def linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normal(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    return -0.5 * ((x - mean) ** 2 / log_variance.exp() + log_variance + math.log(2 * math.pi)).sum(-1)


class Plain:
    """The losses of an image, in nats, by the paper's appendices."""

    def __init__(self, config: Any, x: Tensor, stream: torch.Generator) -> None:
        self.config = config
        self.x = x
        self.stream = stream
        self.act = torch.tanh if config.model.activation == "tanh" else torch.relu

    def encode(self, w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.act(linear(w, "encoder.features.hidden", x))
        return linear(w, "encoder.mean", h), linear(w, "encoder.log_variance", h)

    def log_likelihood(self, w: Weights, x: Tensor, z: Tensor) -> Tensor:
        h = self.act(linear(w, "model.decoder.features.hidden", z))
        if self.config.model.likelihood == "gaussian":
            log_variance = linear(w, "model.decoder.log_variances", h)
            if self.config.model.min_log_variance is not None:
                log_variance = log_variance.clamp(min=self.config.model.min_log_variance)
            return normal(x, torch.sigmoid(linear(w, "model.decoder.means", h)), log_variance)
        logits = linear(w, "model.decoder.logits", h)
        return (x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum(-1)

    def log_prior(self, z: Tensor) -> Tensor:
        return normal(z, torch.zeros(1), torch.zeros_like(z))

    def aevb(self, w: Weights) -> dict[str, Tensor]:
        config = self.config.bound
        noise = torch.randn(config.samples, len(self.x), 3, generator=generator_copy(self.stream)).double()
        mean, log_variance = self.encode(w, self.x)
        z = mean + (log_variance / 2).exp() * noise
        likelihood = self.log_likelihood(w, self.x, z)
        if config.form == "analytic":
            kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(-1).mean()
            return {"loss_reconstruction": -likelihood.mean(), "loss_kl": self.config.model.beta * kl}
        log_weights = likelihood + self.log_prior(z) - normal(z, mean, log_variance)
        if config.form == "sampled":
            return {"loss_bound": -log_weights.mean()}
        return {"loss_bound": -(torch.logsumexp(log_weights, 0) - math.log(config.samples)).mean()}

    def wake_sleep(self, w: Weights) -> dict[str, Tensor]:
        stream = generator_copy(self.stream)
        wake, sleep = (torch.randn(1, len(self.x), 3, generator=stream).double()[0] for _ in range(2))
        pixels = torch.rand(1, len(self.x), self.x.shape[1], generator=stream).double()[0]
        with torch.no_grad():
            mean, log_variance = self.encode(w, self.x)
            z = mean + (log_variance / 2).exp() * wake
            h = self.act(linear(w, "model.decoder.features.hidden", sleep))
            dream = (pixels < torch.sigmoid(linear(w, "model.decoder.logits", h))).double()
        joint = self.log_likelihood(w, self.x, z) + self.log_prior(z)
        return {"loss_wake": -joint.mean(), "loss_sleep": -normal(sleep, *self.encode(w, dream)).mean()}

    def joint(self, z: Tensor, w: Weights) -> dict[str, Tensor]:
        return {"loss_joint": -(self.log_likelihood(w, self.x, z) + self.log_prior(z)).mean()}

    def autoencoder(self, w: Weights) -> dict[str, Tensor]:
        codes = linear(w, "encoder.1", self.act(linear(w, "encoder.0.hidden", self.x)))
        pixels = torch.sigmoid(linear(w, "decoder.1", self.act(linear(w, "decoder.0.hidden", codes))))
        return {"loss_reconstruction": ((pixels - self.x) ** 2).sum(-1).mean()}


def generator_copy(stream: torch.Generator) -> torch.Generator:
    return stream.clone_state()


@pytest.mark.parametrize(("case", "seed"), [(case, number) for number, case in enumerate(CASES)])
def test_a_step_is_the_plain_one(case: str, seed: int, tmp_path: Path) -> None:
    chosen = {text.partition("=")[0]: text for text in (*SMALL, *CASES[case], f"seed={seed}")}
    with opened(tmp_path, "vae", *chosen.values()) as (config, run):
        train, test = load_data(config, run.device)
        training = Training.build(config, run, train, test)
        images = labelled.load(config.data, "train").images.flatten(1)
        batch = training.trainer.order.batch(0).indices
        stream = generator("cpu", config.seed, STEP, 0, 0)
        step = take_step(training.trainer, run.directory.metrics_file)
        plain = Plain(config, images[torch.from_numpy(batch)].double() / 255, stream)
        objective = training.objective
        losses: Any = plain.aevb
        if config.estimator == "wake-sleep":
            losses = plain.wake_sleep
        elif config.model.name == "autoencoder":
            losses = plain.autoencoder
        elif isinstance(objective, Mcem):
            # The chains are where they were moved to before the step; the moves have tests of their own.
            losses = partial(plain.joint, objective.chains[torch.from_numpy(batch)].double())

        def decay(name: str) -> float:
            prior = 1 / len(train) if config.prior and name.startswith("model.") else 0.0
            return config.optim.weight_decay + prior

        # Importance weights are exponentials of differences of hundreds of nats, of which float32 holds five digits.
        rough = 30.0 if config.bound.form == "importance" else 1.0
        clip = config.train.clip_norm
        hold_against(step, losses, optim=config.optim, clip_norm=clip, decay=decay, rough=rough)
