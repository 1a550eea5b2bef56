"""Densities and divergences against torch.distributions and SciPy in float64, and against what can be integrated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from paperbench.vae.bounds import (
    bernoulli_log_prob,
    elbo,
    elbo_analytic,
    importance_bound,
    kl_to_standard_normal,
    normal_log_prob,
    standard_normal_log_prob,
)
from paperbench.vae.model import Posterior
from tests.peers.cases import grid

KINDS = (
    "small",
    "unit",
    "large",
    "narrow",
    "wide",
    "zero",
    "mixed",
    "one dimension",
    "many dimensions",
    "half precision",
)


def stream(*key: int) -> torch.Generator:
    return torch.Generator().manual_seed(hash(key) % 2**31)


def gaussians(kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return means and log-variances (2, 5, L) in float32, as large as an encoder may make them."""
    draws = stream(KINDS.index(kind), seed)
    width = {"one dimension": 1, "many dimensions": 300}.get(kind, 7)
    mean, log_variance = torch.randn(2, 2, 5, width, generator=draws)
    match kind:
        case "small":
            mean, log_variance = mean * 1e-4, log_variance * 1e-4
        case "large":
            mean = mean * 1000
        case "narrow":
            log_variance = log_variance - 20
        case "wide":
            log_variance = log_variance + 15
        case "zero":
            mean, log_variance = torch.zeros_like(mean), torch.zeros_like(mean)
        case "mixed":
            mean, log_variance = mean * 10.0 ** torch.arange(-3, 4), log_variance * 3
        case "half precision":
            mean, log_variance = mean.half().float(), log_variance.half().float()
    return mean, log_variance


def as_normal(mean: Tensor, log_variance: Tensor) -> Independent:
    return Independent(Normal(mean.double(), (0.5 * log_variance.double()).exp()), 1)


def assert_near(found: Tensor, expected: Tensor, terms: Tensor) -> None:
    """Equal up to the rounding of a float32 sum whose terms add up to `terms` without their signs."""
    assert found.shape == expected.shape
    assert bool(((found.double() - expected).abs() <= 1e-6 * terms.double() + 1e-7).all()), (found, expected)


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS, range(3)))
def test_the_kl_is_torchs(kind: str, seed: int) -> None:
    mean, log_variance = gaussians(kind, seed)
    prior = Independent(Normal(torch.zeros_like(mean).double(), 1.0), 1)
    expected = kl_divergence(as_normal(mean, log_variance), prior)
    found = kl_to_standard_normal(mean, log_variance)
    assert_near(found, expected, (1 + mean.square() + log_variance.abs() + log_variance.exp()).sum(-1))
    assert bool((found >= 0).all())
    torch.testing.assert_close(Posterior(mean, log_variance, mean.shape[-1]).kl(), found, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "seed"), grid(("unit", "one dimension", "mixed", "half precision"), range(4)))
def test_the_kl_is_the_mean_of_the_difference_of_log_densities(kind: str, seed: int) -> None:
    mean, log_variance = (part[0, :1] for part in gaussians(kind, 20 + seed))
    posterior = Posterior(mean, log_variance, mean.shape[-1])
    draws = 20_000
    z = posterior.sample(torch.randn(draws, 1, mean.shape[-1], generator=stream(seed)))
    ratios = (posterior.log_prob(z) - standard_normal_log_prob(z)).double()
    error = float(ratios.std() / math.sqrt(draws))
    assert float(ratios.mean()) == pytest.approx(float(posterior.kl()), abs=5 * error + 1e-5)


@pytest.mark.parametrize(("mean", "log_variance"), grid((-3.0, 0.0, 0.01, 2.0), (-5.0, -0.5, 0.0, 1.5)))
def test_the_kl_is_an_integral(mean: float, log_variance: float) -> None:
    q = stats.norm(mean, math.exp(0.5 * log_variance))
    reach = 12 * q.std()
    integral, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), mean - reach, mean + reach, limit=200, points=[mean]
    )
    found = kl_to_standard_normal(torch.tensor([mean]), torch.tensor([log_variance]))
    assert float(found) == pytest.approx(integral, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS, range(3)))
def test_the_gradient_of_the_kl_is_torchs(kind: str, seed: int) -> None:
    leaves = [part.double().requires_grad_() for part in gaussians(kind, 40 + seed)]
    others = [part.detach().clone().requires_grad_() for part in leaves]
    kl_to_standard_normal(leaves[0], leaves[1]).sum().backward()
    prior = Independent(Normal(torch.zeros_like(others[0]), 1.0), 1)
    kl_divergence(as_normal(others[0], others[1]), prior).sum().backward()
    for ours, theirs in zip(leaves, others, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        if kind == "zero":
            assert not ours.grad.any()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS, range(3)))
def test_normal_densities_are_torchs(kind: str, seed: int) -> None:
    mean, log_variance = gaussians(kind, 60 + seed)
    x = torch.rand(mean.shape, generator=stream(seed))
    expected = as_normal(mean, log_variance).log_prob(x.double())
    scaled = (x - mean).square() * (-log_variance).exp()
    assert_near(normal_log_prob(x, mean, log_variance), expected, (scaled + log_variance.abs() + 2).sum(-1))
    z = mean.clamp(-50, 50)
    expected = Independent(Normal(torch.zeros_like(z).double(), 1.0), 1).log_prob(z.double())
    assert_near(standard_normal_log_prob(z), expected, (z.square() + 2).sum(-1))


@pytest.mark.parametrize(("kind", "samples", "seed"), grid(KINDS, (1, 4), range(2)))
def test_a_posteriors_samples_have_the_density_of_torch(kind: str, samples: int, seed: int) -> None:
    mean, log_variance = gaussians(kind, 80 + seed)
    posterior = Posterior(mean, log_variance, mean.shape[-1])
    noise = torch.randn(2, samples, 5, mean.shape[-1], generator=stream(seed))
    z = posterior.sample(noise)
    exact = mean.double().unsqueeze(1) + (0.5 * log_variance.double()).exp().unsqueeze(1) * noise.double()
    torch.testing.assert_close(z.double(), exact, rtol=1e-5, atol=1e-5)
    if kind != "large":  # there a float32 z is too coarse for its own density
        expected = as_normal(mean.unsqueeze(1), log_variance.unsqueeze(1)).log_prob(z.double())
        # (z - mean) / sd loses the digits of a mean that is large beside its deviation.
        coarse = (mean.abs() * (-0.5 * log_variance).exp()).unsqueeze(1) * (noise.abs() + 1)
        terms = (noise.square() + log_variance.abs().unsqueeze(1) + 2 + coarse).sum(-1)
        assert_near(posterior.log_prob(z), expected, terms)


@pytest.mark.parametrize("pixels", ["black and white", "grey", "black", "white", "one"])
@pytest.mark.parametrize(("scale", "seed"), grid((1e-3, 1.0, 30.0, 1e4), range(2)))
def test_bernoulli_pixels_are_torchs(pixels: str, scale: float, seed: int) -> None:
    draws = stream(seed, int(scale * 1000))
    logits = torch.randn(3, 1 if pixels == "one" else 50, generator=draws) * scale
    grey = torch.rand(logits.shape, generator=draws)
    x = {"black": torch.zeros_like(grey), "white": torch.ones_like(grey), "grey": grey}.get(
        pixels, (grey > 0.5).float()
    )
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="none").sum(
        -1
    )
    found = bernoulli_log_prob(x, logits)
    assert_near(found, expected, (logits.abs() + 1).sum(-1))
    if pixels != "grey":
        theirs = Independent(Bernoulli(logits=logits.double()), 1).log_prob(x.double())
        assert_near(found, theirs, (logits.abs() + 1).sum(-1))
    p = special.expit(logits.double().numpy())
    by_formula = special.xlogy(x.numpy(), p) + special.xlog1py(1 - x.double().numpy(), -p)
    if scale <= 1:  # above it 1 - p rounds to 0, which the logits avoid
        assert_near(found, torch.from_numpy(np.asarray(by_formula)).sum(-1), (logits.abs() + 1).sum(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_logits_of_any_type_are_taken_in_single_precision(dtype: torch.dtype, scale: float) -> None:
    logits = (torch.randn(4, 300, generator=stream(3)) * scale).to(dtype)
    x = (torch.rand(4, 300, generator=stream(4)) > 0.5).float()
    expected = Independent(Bernoulli(logits=logits.double()), 1).log_prob(x.double())
    assert_near(bernoulli_log_prob(x, logits), expected, (logits.float().abs() + 1).sum(-1))


@pytest.mark.parametrize("magnitude", ["nats", "hundreds", "thousands", "apart", "equal", "minus infinity"])
@pytest.mark.parametrize(("samples", "seed"), grid((1, 2, 50), range(2)))
def test_bounds_are_means_and_log_mean_exps(magnitude: str, samples: int, seed: int) -> None:
    draws = np.random.default_rng([samples, seed])
    log_joint, log_q = draws.normal(size=(2, 3, samples, 4))
    match magnitude:
        case "hundreds":
            log_joint = log_joint - 500
        case "thousands":
            log_joint = 40 * log_joint - 5000
        case "apart":
            log_joint[:, 0] -= 1000
        case "equal":
            log_joint, log_q = np.full_like(log_joint, -90.0), np.full_like(log_q, -3.0)
        case "minus infinity":
            log_joint[:, -1] = -np.inf
    tensors = torch.from_numpy(log_joint), torch.from_numpy(log_q)
    weights = log_joint - log_q
    np.testing.assert_allclose(elbo(*tensors).numpy(), weights.mean(1), rtol=1e-12)
    expected = special.logsumexp(weights, axis=1, b=1 / samples)
    np.testing.assert_allclose(importance_bound(*tensors).numpy(), expected, rtol=1e-12)
    kl = np.abs(draws.normal(size=(3, 4)))
    found = elbo_analytic(tensors[0], torch.from_numpy(kl)).numpy()
    np.testing.assert_allclose(found, log_joint.mean(1) - kl, rtol=1e-12)
    # Jensen: the importance-weighted bound is never the lower one.
    assert bool((importance_bound(*tensors) >= elbo(*tensors) - 1e-9).all())
