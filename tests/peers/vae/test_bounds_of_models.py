"""Whole models against the same models in NumPy and float64, by the formulas of appendix C and of Burda et al."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paperbench.vae.config import BoundConfig, VaeModel
from paperbench.vae.model import Encoder, Generative, make_encoder, make_generative
from paperbench.vae.nets import initialise
from paperbench.vae.objectives import Aevb, WakeSleep, bound
from tests.peers.cases import grid
from tests.peers.vae import plain

SIZE = (4, 4)


def models(
    *, gaussian: bool, activation: str, std: float | None = 0.3, seed: int = 0, latent: int = 3
) -> tuple[Generative, Encoder]:
    config = VaeModel(latent=latent, hidden=6, activation=activation)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    generative = make_generative(config, size=SIZE, gaussian=gaussian)
    encoder = make_encoder(config, size=SIZE)
    for module in (generative, encoder):
        initialise(module, std)
    return generative, encoder


def images(kind: str, count: int, seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    grey = torch.rand(count, 16, generator=draws)
    return {"grey": grey, "binary": (grey > 0.5).float(), "black": torch.zeros_like(grey)}[kind]


def noise(samples: int, count: int, seed: int, latent: int = 3) -> Tensor:
    return torch.randn(samples, count, latent, generator=torch.Generator().manual_seed(seed + 1000))


@pytest.mark.parametrize(
    ("form", "gaussian", "activation", "samples", "pixels"),
    grid(("analytic", "sampled", "importance"), (False, True), ("tanh", "relu"), (1, 5), ("grey", "binary")),
)
def test_a_bound_is_that_of_numpy(form: Any, gaussian: bool, activation: str, samples: int, pixels: str) -> None:
    seed = samples + 10 * gaussian
    generative, encoder = models(gaussian=gaussian, activation=activation, seed=seed)
    x, eps = images(pixels, 4, seed), noise(samples, 4, seed)
    with torch.no_grad():
        found = bound(form, generative, encoder, x, eps)
    expected = plain.bound(
        form,
        plain.weights_of(generative),
        plain.weights_of(encoder),
        x.double().numpy(),
        eps.double().numpy(),
        activation,
        gaussian=gaussian,
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(("gaussian", "std", "seed"), grid((False, True), (None, 1e-3, 1.0), range(3)))
def test_a_joint_density_is_the_prior_and_the_likelihood(gaussian: bool, std: float | None, seed: int) -> None:
    generative, _ = models(gaussian=gaussian, activation="tanh", std=std, seed=seed)
    x, z = images("grey", 3, seed), noise(4, 3, seed) * 2
    with torch.no_grad():
        found = generative.log_joint(x, z).numpy()
    weights, points = plain.weights_of(generative), z.double().numpy()
    likelihood = plain.log_likelihood(weights, x.double().numpy(), points, "tanh", gaussian=gaussian)
    prior = -0.5 * (points**2 + np.log(2 * np.pi)).sum(-1)
    np.testing.assert_allclose(found, likelihood + prior, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(("gaussian", "activation", "seed"), grid((False, True), ("tanh", "relu"), range(2)))
def test_the_gradient_of_a_bound_is_its_slope(gaussian: bool, activation: str, seed: int) -> None:
    """By differences of the NumPy model: the noise is fixed, so the bound is a plain function of the weights."""
    generative, encoder = models(gaussian=gaussian, activation=activation, seed=seed)
    x, eps = images("grey", 3, seed), noise(2, 3, seed)
    bound("analytic", generative, encoder, x, eps).sum().backward()
    weights = {"model": plain.weights_of(generative), "encoder": plain.weights_of(encoder)}

    def value() -> float:
        arguments = x.double().numpy(), eps.double().numpy(), activation
        return float(plain.bound("analytic", weights["model"], weights["encoder"], *arguments, gaussian=gaussian).sum())

    rng = np.random.default_rng(seed)
    for side, module in (("model", generative), ("encoder", encoder)):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            place = tuple(int(rng.integers(n)) for n in parameter.shape)
            own = weights[side][name]
            before, step = own[place], 1e-5
            ends = []
            for sign in (1, -1):
                own[place] = before + sign * step
                ends.append(value())
            own[place] = before
            slope = (ends[0] - ends[1]) / (2 * step)
            assert float(parameter.grad[place]) == pytest.approx(slope, rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize(("form", "samples", "beta"), [
    ("analytic", 1, 1.0), ("analytic", 3, 1.0), ("analytic", 1, 4.0), ("sampled", 1, 1.0), ("sampled", 3, 1.0),
    ("importance", 1, 1.0), ("importance", 5, 1.0),
])  # fmt: skip
@pytest.mark.parametrize("gaussian", [False, True])
def test_the_losses_are_minus_the_bound_of_an_image(form: Any, samples: int, beta: float, gaussian: bool) -> None:
    generative, encoder = models(gaussian=gaussian, activation="tanh", seed=samples)
    objective = Aevb(generative, encoder, BoundConfig(form=form, samples=samples), beta=beta)
    x = images("grey", 5, samples)
    losses = objective(x, torch.Generator().manual_seed(3))
    eps = torch.randn(samples, 5, 3, generator=torch.Generator().manual_seed(3)).double().numpy()
    model, recognition, pixels = plain.weights_of(generative), plain.weights_of(encoder), x.double().numpy()
    expected = -plain.bound(form, model, recognition, pixels, eps, "tanh", gaussian=gaussian).mean()
    kl = plain.kl(*plain.encode(recognition, pixels, "tanh")).mean()
    assert float(sum(loss.detach() for loss in losses.values())) == pytest.approx(expected + (beta - 1) * kl, rel=1e-5)
    if form == "analytic":
        assert float(losses["loss_kl"].detach()) == pytest.approx(beta * kl, rel=1e-5)


@pytest.mark.parametrize(("gaussian", "seed"), grid((False, True), range(4)))
def test_wake_and_sleep_learn_what_they_are_to_and_nothing_else(gaussian: bool, seed: int) -> None:
    """Wake: log p(x, z) for the generative weights. Sleep: log q(z | x) of a dream for the encoder's. No gradient crosses."""
    generative, encoder = models(gaussian=gaussian, activation="tanh", seed=seed)
    objective = WakeSleep(generative, encoder, pixels=16)
    x = images("grey", 6, seed)
    wake, sleep, pixels = objective.draw_noise(6, torch.Generator().manual_seed(seed))
    losses = objective.losses(x, wake, sleep, pixels)
    model, recognition = plain.weights_of(generative), plain.weights_of(encoder)
    mean, log_variance = plain.encode(recognition, x.double().numpy(), "tanh")
    z = mean + np.exp(0.5 * log_variance) * wake.double().numpy()
    likelihood = plain.log_likelihood(model, x.double().numpy(), z, "tanh", gaussian=gaussian)
    expected = -(likelihood - 0.5 * (z**2 + np.log(2 * np.pi)).sum(-1)).mean()
    assert float(losses["loss_wake"].detach()) == pytest.approx(expected, rel=1e-5)

    with torch.no_grad():
        dream = generative.decoder.sample(sleep, pixels)[0]
    mean, log_variance = plain.encode(recognition, dream.double().numpy(), "tanh")
    scaled = (sleep[0].double().numpy() - mean) ** 2 / np.exp(log_variance)
    expected = 0.5 * (scaled + log_variance + np.log(2 * np.pi)).sum(-1).mean()
    assert float(losses["loss_sleep"].detach()) == pytest.approx(expected, rel=1e-5)

    for name, own, other in (("loss_wake", generative, encoder), ("loss_sleep", encoder, generative)):
        gradients = torch.autograd.grad(
            losses[name], [*own.parameters(), *other.parameters()], retain_graph=True, allow_unused=True
        )
        count = len(list(own.parameters()))
        assert all(gradient is not None and bool(gradient.any()) for gradient in gradients[:count])
        assert all(gradient is None for gradient in gradients[count:])


@pytest.mark.parametrize("seed", range(3))
def test_dreams_are_drawn_as_their_distribution_says(seed: int) -> None:
    for gaussian in (False, True):
        generative, _ = models(gaussian=gaussian, activation="tanh", seed=seed)
        z = torch.zeros(1, 1, 3)
        draws = torch.Generator().manual_seed(seed)
        many = generative.decoder.draw_noise((20_000, 1, 16), draws)
        with torch.no_grad():
            dreams = generative.decoder.sample(z.expand(20_000, 1, 3), many).double()[:, 0]
            mean = generative.mean(z)[0, 0].double()
        spread = dreams.std(0) / 20_000**0.5
        assert bool(((dreams.mean(0) - mean).abs() < 5 * spread).all())
        if not gaussian:
            torch.testing.assert_close(dreams.var(0), mean * (1 - mean), atol=0.01, rtol=0)
