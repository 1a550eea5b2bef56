"""Bounds and likelihoods on probabilistic PCA, whose log p(x), posterior and best bound are known in closed form.

z ~ N(0, I), x = W z + b + noise. Scikit-learn fits it and gives log p(x) too (Tipping and Bishop 1999).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from sklearn.decomposition import PCA, FactorAnalysis
from torch import Tensor, nn

from paperbench.vae import hmc
from paperbench.vae.config import MarginalConfig
from paperbench.vae.likelihood import (
    ROWS,
    estimate_marginal,
    fit_gaussian,
    fit_kde,
    importance_sampled_likelihood,
)
from paperbench.vae.model import Encoder, GaussianPixels, Generative
from paperbench.vae.objectives import bound, posterior_density
from tests.peers.cases import grid

Array = NDArray[np.float64]

SCALES = {"usual": 1.0, "bright": 40.0, "faint": 0.03}


class LinearPixels(GaussianPixels):
    """A decoder without the sigmoid of images: means W z + b, a variance for each pixel."""

    def __init__(self, weight: Array, bias: Array, variance: Array) -> None:
        super().__init__(nn.Identity(), nn.Identity(), nn.Identity())
        self.weight, self.bias = (nn.Parameter(torch.from_numpy(part).float()) for part in (weight, bias))
        self.log_variance = torch.from_numpy(np.log(variance)).float()

    def mean_and_log_variance(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean = z @ self.weight.T + self.bias
        return mean, self.log_variance.expand_as(mean)


@dataclass
class Known:
    """A model with W (D, L), bias (D,) and noise variances (D,), and images (B, D) drawn from it."""

    weight: Array
    bias: Array
    variance: Array
    x: Array

    @classmethod
    def drawn(cls, latent: int, *, seed: int, pixels: int = 6, images: int = 4, scale: float = 1.0) -> Known:
        rng = np.random.default_rng([latent, seed])
        weight = rng.normal(size=(pixels, latent)) * scale
        bias, variance = rng.normal(size=pixels) * scale, rng.uniform(0.3, 1.5, pixels) * scale**2
        clean = rng.normal(size=(images, latent)) @ weight.T + bias
        return cls(weight, bias, variance, clean + rng.normal(size=clean.shape) * np.sqrt(variance))

    @property
    def latent(self) -> int:
        return self.weight.shape[1]

    @property
    def images(self) -> Tensor:
        return torch.from_numpy(self.x).float()

    def model(self) -> Generative:
        return Generative(LinearPixels(self.weight, self.bias, self.variance), latent=self.latent)

    def log_likelihood(self) -> Array:
        covariance = self.weight @ self.weight.T + np.diag(self.variance)
        return np.atleast_1d(stats.multivariate_normal(self.bias, covariance).logpdf(self.x))

    def posterior(self) -> tuple[Array, Array]:
        """Return means (B, L) and the covariance (L, L) of p(z | x)."""
        precision = np.eye(self.latent) + self.weight.T @ (self.weight / self.variance[:, None])
        covariance = np.linalg.inv(precision)
        return (self.x - self.bias) / self.variance @ self.weight @ covariance, covariance

    def encoder(self, variances: Array) -> Encoder:
        """Return an encoder with the right means and these variances (L,), uncorrelated."""
        _, covariance = self.posterior()
        gain = covariance @ (self.weight / self.variance[:, None]).T
        encoder = Encoder(nn.Identity(), width=len(self.bias), latent=self.latent)
        with torch.no_grad():
            encoder.mean.weight.copy_(torch.from_numpy(gain))
            encoder.mean.bias.copy_(torch.from_numpy(-gain @ self.bias))
            encoder.log_variance.weight.zero_()
            encoder.log_variance.bias.copy_(torch.from_numpy(np.log(variances)))
        return encoder

    def expected_bound(self, variances: Array) -> float:
        """Return log p(x) less KL(q || p(z | x)), for the encoder of `variances`; the gap is the same for every image."""
        precision = np.linalg.inv(self.posterior()[1])
        determinants = np.linalg.slogdet(precision)[1] + np.log(variances).sum()
        return -0.5 * float(np.diag(precision) @ variances - self.latent - determinants)


@pytest.mark.parametrize(
    ("form", "scale", "samples", "seed"), grid(("sampled", "importance"), SCALES, (1, 4), range(3))
)
def test_every_sample_gives_log_p_where_the_encoder_is_the_posterior(
    form: Any, scale: str, samples: int, seed: int
) -> None:
    known = Known.drawn(1, seed=seed, scale=SCALES[scale])
    encoder = known.encoder(known.posterior()[1].diagonal())
    noise = torch.randn(samples, 4, 1, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        found = bound(form, known.model(), encoder, known.images, noise)
    np.testing.assert_allclose(found.numpy(), known.log_likelihood(), atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "latent", "widened", "seed"), grid(("analytic", "sampled"), (1, 2, 4), (0.5, 1.0, 2.0), range(2))
)
def test_a_bound_falls_short_by_the_divergence_from_the_posterior(
    form: Any, latent: int, widened: float, seed: int
) -> None:
    """The expectation of both estimators is log p(x) - KL(q || p(z | x)), equation 1."""
    known = Known.drawn(latent, seed=seed)
    variances = widened * known.posterior()[1].diagonal()
    draws = 2000
    noise = torch.randn(draws, 4, latent, generator=torch.Generator().manual_seed(seed))
    model, encoder = known.model(), known.encoder(variances)
    with torch.no_grad():
        values = bound(form, model, encoder, known.images.expand(4, -1), noise)
        singles = torch.stack([bound(form, model, encoder, known.images, noise[k : k + 1]) for k in range(60)])
    expected = known.log_likelihood() + known.expected_bound(variances)
    error = singles.double().std(0).numpy() / math.sqrt(draws)
    assert bool((np.abs(values.double().numpy() - expected) < 6 * error + 3e-4).all())
    if latent > 1 or widened != 1.0:
        assert known.expected_bound(variances) < 0


@pytest.mark.parametrize(("latent", "seed"), grid((1, 2, 3), range(2)))
def test_the_best_variances_are_one_over_the_precisions(latent: int, seed: int) -> None:
    """Of a factorised q (Bishop 2006, section 10.1.2): the gradient of the bound is zero there, for the mean and the variance."""
    known = Known.drawn(latent, seed=seed)
    best = 1 / np.diag(np.linalg.inv(known.posterior()[1]))
    encoder = known.encoder(best)
    # Pairs z and -z around the mean, of the right second moment, give the expectation of a quadratic exactly.
    pairs = torch.cat([torch.eye(latent), -torch.eye(latent)])[:, None] * latent**0.5
    bound("analytic", known.model(), encoder, known.images, pairs.expand(-1, 4, -1)).sum().backward()
    for layer in (encoder.mean, encoder.log_variance):
        assert layer.bias.grad is not None
        assert float(layer.bias.grad.abs().max()) < 2e-3
    with torch.no_grad():
        value = bound("analytic", known.model(), encoder, known.images, pairs.expand(-1, 4, -1))
    np.testing.assert_allclose(value.numpy(), known.log_likelihood() + known.expected_bound(best), atol=1e-3)


@pytest.mark.parametrize(("samples", "images", "widened", "seed"), grid((1, 2, 7, 40), (1, 5), (1.0, 3.0), range(2)))
def test_an_importance_sampled_likelihood_is_the_log_of_a_mean_of_weights(
    samples: int, images: int, widened: float, seed: int
) -> None:
    known = Known.drawn(2, seed=seed, images=images)
    variances = widened * known.posterior()[1].diagonal()
    found = importance_sampled_likelihood(
        known.model(), known.encoder(variances), known.images, samples=samples, stream=torch.Generator().manual_seed(9)
    )
    assert images * samples < ROWS  # one block: the noise is drawn at once
    noise = torch.randn(samples, images, 2, generator=torch.Generator().manual_seed(9)).double().numpy()
    mean = known.posterior()[0]
    z = mean + np.sqrt(variances) * noise
    log_joint = stats.norm.logpdf(z).sum(-1) + stats.norm.logpdf(
        known.x, z @ known.weight.T + known.bias, np.sqrt(known.variance)
    ).sum(-1)
    log_weights = log_joint - stats.norm.logpdf(z, mean, np.sqrt(variances)).sum(-1)
    np.testing.assert_allclose(
        found.log_likelihood.numpy(), special.logsumexp(log_weights, axis=0, b=1 / samples), atol=2e-4
    )
    if samples == 1:
        assert bool(torch.isinf(found.standard_error).all())
    else:
        weights = np.exp(log_weights - log_weights.max(0))
        expected = weights.std(0, ddof=1) / math.sqrt(samples) / weights.mean(0)
        np.testing.assert_allclose(found.standard_error.numpy(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("latent", "scale", "rows"), grid((1, 2, 4), SCALES, (64, 100_000)))
def test_importance_sampling_finds_log_p(latent: int, scale: str, rows: int) -> None:
    known = Known.drawn(latent, seed=5, scale=SCALES[scale], images=9)
    encoder = known.encoder(1.3 * known.posterior()[1].diagonal())
    found = importance_sampled_likelihood(
        known.model(), encoder, known.images, samples=600, stream=torch.Generator().manual_seed(1), rows=rows
    )
    away = (found.log_likelihood.double().numpy() - known.log_likelihood()) / found.standard_error.double().numpy()
    assert np.abs(away).max() < 5
    assert float(found.standard_error.max()) < 0.5


@pytest.mark.parametrize(("kind", "latent", "seed"), grid(("pca", "factor analysis"), (1, 3), range(2)))
def test_a_model_that_scikit_learn_fitted_has_its_likelihood(kind: str, latent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(200, latent)) @ rng.normal(size=(latent, 6)) * 2 + rng.normal(size=(200, 6)) * 0.7 + 3
    if kind == "pca":
        fitted = PCA(latent).fit(data)
        gain = np.sqrt(fitted.explained_variance_ - fitted.noise_variance_)
        weight, variance = fitted.components_.T * gain, np.full(6, fitted.noise_variance_)
    else:
        fitted = FactorAnalysis(latent, random_state=0).fit(data)
        weight, variance = fitted.components_.T, fitted.noise_variance_
    known = Known(weight, fitted.mean_, variance, data[:6])
    np.testing.assert_allclose(known.log_likelihood(), fitted.score_samples(data[:6]), rtol=1e-9)
    encoder = known.encoder(1.2 * known.posterior()[1].diagonal())
    found = importance_sampled_likelihood(
        known.model(), encoder, known.images, samples=2000, stream=torch.Generator().manual_seed(2)
    )
    away = found.log_likelihood.double().numpy() - fitted.score_samples(data[:6])
    assert bool((np.abs(away) < 5 * found.standard_error.numpy() + 1e-3).all())


@pytest.mark.parametrize(("latent", "density"), grid((1, 2, 3), ("gaussian", "kde")))
def test_appendix_d_finds_log_p(latent: int, density: Any) -> None:
    known = Known.drawn(latent, seed=latent, images=6)
    config = MarginalConfig(samples=60, leapfrog_steps=5, burn_in=40, density=density)
    found = estimate_marginal(
        posterior_density(known.model(), known.images),
        torch.zeros(6, latent),
        config,
        torch.Generator().manual_seed(latent),
    )
    away = found.log_likelihood.double().numpy() - known.log_likelihood()
    assert np.abs(away).max() < 10 * float(found.standard_error.max()) + 0.05
    assert np.median(np.abs(away)) < 0.15
    assert found.acceptance > 0.7


# --- fitted densities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "count", "scale"), grid((1, 2, 4), (8, 100), (0.01, 1.0, 300.0)))
def test_fitted_densities_are_scipys(dims: int, count: int, scale: float) -> None:
    rng = np.random.default_rng([dims, count])
    turn, _ = np.linalg.qr(rng.normal(size=(dims, dims)))
    samples = rng.normal(size=(count, 2, dims)) * rng.uniform(0.5, 2, dims) @ turn * scale + scale
    points = samples[:5] + 0.1 * scale
    z, where = torch.from_numpy(samples), torch.from_numpy(points)
    for image in range(2):
        own = samples[:, image].T
        normal = stats.multivariate_normal(own.mean(1), np.atleast_2d(np.cov(own)))
        # A hundred-thousandth of the mean variance is added to every one.
        found = fit_gaussian(z)(where)[:, image].numpy()
        np.testing.assert_allclose(found, normal.logpdf(points[:, image]), atol=2e-2)
        kde = stats.gaussian_kde(own)
        found = fit_kde(z)(where)[:, image].numpy()
        np.testing.assert_allclose(found, kde.logpdf(points[:, image].T), atol=2e-2)


# --- Hamiltonian Monte Carlo ------------------------------------------------------------------------------------------


def quadratic(precision: Array) -> hmc.LogDensity:
    matrix = torch.from_numpy(precision)
    return lambda z: -0.5 * torch.einsum("bi,ij,bj->b", z, matrix, z)


def plain_leapfrog(precision: Array, z: Array, p: Array, step: Array, steps: int) -> tuple[Array, Array]:
    """Half a step of the momentum, steps of both, half a step of the momentum (Neal 2011, section 2.3)."""
    p = p - step / 2 * (z @ precision)
    for number in range(steps):
        z = z + step * p
        p = p - (step if number < steps - 1 else step / 2) * (z @ precision)
    return z, p


@pytest.mark.parametrize(("dims", "steps", "seed"), grid((1, 3), (1, 4, 25), range(3)))
def test_leapfrog_is_that_of_numpy(dims: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng([dims, steps, seed])
    root = rng.normal(size=(dims, dims))
    precision = root @ root.T + np.eye(dims)
    z, p = rng.normal(size=(2, 4, dims))
    step = rng.uniform(0.01, 0.2, (4, 1))
    density = quadratic(precision)
    state, momentum = hmc.leapfrog(
        density, hmc.evaluate(density, torch.from_numpy(z)), torch.from_numpy(p), torch.from_numpy(step), steps
    )
    expected = plain_leapfrog(precision, z, p, step, steps)
    np.testing.assert_allclose(state.z.numpy(), expected[0], atol=1e-10)
    np.testing.assert_allclose(momentum.numpy(), expected[1], atol=1e-10)
    np.testing.assert_allclose(state.gradient.numpy(), -expected[0] @ precision, atol=1e-10)
    value = -0.5 * np.einsum("bi,ij,bj->b", expected[0], precision, expected[0])
    np.testing.assert_allclose(state.log_density.numpy(), value, atol=1e-10)


@pytest.mark.parametrize(("step", "steps"), grid((0.1, 0.7, 1.9), (1, 10)))
def test_leapfrog_of_an_oscillator_is_a_power_of_its_matrix(step: float, steps: int) -> None:
    """Stable for steps below 2; the matrix has determinant 1, so that volumes stay."""
    matrix = np.array([[1 - step**2 / 2, step], [-step * (1 - step**2 / 4), 1 - step**2 / 2]])
    density = quadratic(np.eye(1))
    state, momentum = hmc.leapfrog(
        density,
        hmc.evaluate(density, torch.tensor([[0.4]], dtype=torch.float64)),
        torch.tensor([[-1.1]], dtype=torch.float64),
        step,
        steps,
    )
    expected = np.linalg.matrix_power(matrix, steps) @ np.array([0.4, -1.1])
    assert [float(state.z), float(momentum)] == pytest.approx(expected.tolist(), abs=1e-10)


@pytest.mark.parametrize(("dims", "step", "seed"), grid((1, 3), (0.05, 0.5, 1.8), range(3)))
def test_a_transition_is_metropolis_rule_on_the_energy(dims: int, step: float, seed: int) -> None:
    """With the noise drawn in the order of the program: momentum, jitter of the step, acceptance."""
    rng = np.random.default_rng([dims, seed])
    root = rng.normal(size=(dims, dims))
    precision = root @ root.T + np.eye(dims)
    z = rng.normal(size=(30, dims)).astype(np.float32).astype(np.float64)
    density = quadratic(precision)
    new, probability = hmc.transition(
        density, hmc.evaluate(density, torch.from_numpy(z)), step, 3, torch.Generator().manual_seed(seed)
    )
    stream = torch.Generator().manual_seed(seed)
    p = torch.randn(30, dims, generator=stream).double().numpy()
    jitter = torch.rand(30, 1, generator=stream).double().numpy()
    coin = torch.rand(30, generator=stream).double().numpy()
    end, momentum = plain_leapfrog(precision, z, p, step * (0.7 + 0.6 * jitter), 3)

    def energy(place: Array, own: Array) -> Array:
        return 0.5 * np.einsum("bi,ij,bj->b", place, precision, place) + 0.5 * (own**2).sum(1)

    expected = np.minimum(1, np.exp(energy(z, p) - energy(end, momentum)))
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(new.z.numpy(), np.where((coin < expected)[:, None], end, z), atol=1e-5)


@pytest.mark.parametrize(("target", "rate"), grid((0.5, 0.65, 0.9), (0.01, 0.1)))
def test_the_step_size_rests_where_acceptance_is_on_target(target: float, rate: float) -> None:
    one = torch.ones(())
    at = hmc.adapt_step_size(one, torch.tensor(target), target=target, rate=rate)
    assert float(at) == pytest.approx(1.0)
    up = hmc.adapt_step_size(one, torch.tensor(1.0), target=target, rate=rate)
    down = hmc.adapt_step_size(one, torch.tensor(0.0), target=target, rate=rate)
    assert math.log(float(up)) == pytest.approx(rate, rel=1e-5)
    # Acceptance of 1 with probability `target`, else of 0: the log of the step does not move in the mean.
    assert target * math.log(float(up)) + (1 - target) * math.log(float(down)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_chains_keep_the_posterior_that_they_start_from(seed: int) -> None:
    """2,000 chains, each from a draw of p(z | x): after transitions they still are one, for a kernel that leaves it invariant."""
    known = Known.drawn(2, seed=seed, images=1)
    mean, covariance = known.posterior()
    start = np.random.default_rng(seed).multivariate_normal(mean[0], covariance, size=2000)
    density = posterior_density(known.model(), known.images.expand(2000, -1))
    state = hmc.evaluate(density, torch.from_numpy(start).float())
    stream = torch.Generator().manual_seed(seed)
    for _ in range(5):
        state, _ = hmc.transition(density, state, 0.4, 5, stream)
    z = state.z.double().numpy()
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (z - mean[0]).T)
    for row in whitened:
        assert stats.kstest(row, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(whitened)[0, 1]) < 0.1
    assert float((state.z - torch.from_numpy(start).float()).abs().mean()) > 0.05
