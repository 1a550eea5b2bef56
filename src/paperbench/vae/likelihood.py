"""Estimates of log p(x): importance sampling with the encoder as proposal, and the estimator of appendix D.

The importance-sampled likelihood needs an encoder and works in any number of latent dimensions. Appendix D needs none, so that all
three methods of figure 3 are measured alike, but is for latent spaces of fewer than five dimensions:

1. Draw samples of p(z | x) by HMC. 2. Fit a density q(z) to them. 3. Draw new samples of p(z | x); then

    log p(x) ~ -log mean_l q(z_l) / p(x, z_l)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.vae import hmc
from paperbench.vae.bounds import LOG_TWO_PI
from paperbench.vae.config import MarginalConfig
from paperbench.vae.model import Encoder, Generative

ROWS = 2048
"""Pairs of an image and a sample that are decoded at once: as many as keep the processor busy and its caches warm."""


class Likelihood(NamedTuple):
    """log p(x) of each image in nats, (B,), and the standard error of that estimate, (B,)."""

    log_likelihood: Tensor
    standard_error: Tensor


@torch.no_grad()
def importance_sampled_likelihood(
    model: Generative, encoder: Encoder, x: Tensor, *, samples: int, stream: torch.Generator, rows: int = ROWS
) -> Likelihood:
    """Estimate log p(x) by `log mean_k p(x, z_k) / q(z_k | x)` with `samples` z_k from the encoder for each image of x (B, D).

    The mean is unbiased, its logarithm is low by about half the squared standard error, which is that of the mean divided by the
    mean (delta method) and infinite for one sample. `rows` bounds the memory, and with it which random numbers meet which image;
    `stream` is on the images' device.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; it takes 1 or more")
    parts = [
        _estimate_block(model, encoder, part, samples, stream, max(1, rows // len(part)))
        for part in x.split(max(1, min(rows, _images_per_block(rows, samples))))
    ]
    return Likelihood(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _images_per_block(rows: int, samples: int) -> int:
    """Return the images of a block: a square of images and samples, or more images where there are few samples."""
    return max(math.isqrt(rows), rows // samples)


def _estimate_block(
    model: Generative, encoder: Encoder, x: Tensor, samples: int, stream: torch.Generator, at_once: int
) -> tuple[Tensor, Tensor]:
    """Return log p(x) and its standard error. Sums are kept as logarithms: weights span hundreds of nats."""
    posterior = encoder.posterior(x)
    first = x.new_full((len(x),), -torch.inf)
    second = first.clone()
    for count in _block_sizes(samples, at_once):
        noise = torch.randn((count, *posterior.mean.shape), generator=stream, device=x.device)
        z = posterior.sample(noise)
        log_weight = model.log_joint(x, z) - posterior.log_prob(z)
        first = torch.logaddexp(first, torch.logsumexp(log_weight, 0))
        second = torch.logaddexp(second, torch.logsumexp(2 * log_weight, 0))
    relative_variance = (second - 2 * first).exp() - 1 / samples
    error = (
        (relative_variance * samples / (samples - 1)).clamp(min=0).sqrt()
        if samples > 1
        else torch.full_like(first, torch.inf)
    )
    return first - math.log(samples), error


def _block_sizes(total: int, at_once: int) -> Iterator[int]:
    for start in range(0, total, at_once):
        yield min(at_once, total - start)


# --- appendix D -------------------------------------------------------------------------------------------------------

MAX_LATENT_DIMENSIONS = 4
"""Appendix D: the estimates are good "as long as the dimensionality of the sampled space is low (less than 5)"."""

Density = Callable[[Tensor], Tensor]


class Marginal(NamedTuple):
    """log p(x) of each image in nats (B,); its standard error (B,), as if the samples were independent; and the share of
    proposals that HMC accepted after the burn-in."""

    log_likelihood: Tensor
    standard_error: Tensor
    acceptance: float


def estimate_marginal(
    log_joint: hmc.LogDensity, start: Tensor, config: MarginalConfig, stream: torch.Generator
) -> Marginal:
    """Estimate log p(x) from `log_joint`, a function z (B, L) -> log p(x, z) (B,) whose rows are images.

    start: first positions of the chains (B, L), on the device of `stream`. Each of the two rounds draws `config.samples`;
    `config.images` is not read. Raises ValueError for too few samples to fit a density to.
    """
    if config.samples < start.shape[1] + 2:
        raise ValueError(f"samples is {config.samples}: a density in {start.shape[1]} dimensions needs more")
    chains = _Chains(log_joint, start, config, stream)
    chains.burn_in()
    density = FITS[config.density](chains.draw().z)
    samples = chains.draw()
    log_ratio = density(samples.z) - samples.log_joint
    count = config.samples
    log_mean = torch.logsumexp(log_ratio, 0) - math.log(count)
    # Scaled before squaring: log joints of images lie hundreds of nats apart from 0.
    relative = (log_ratio - log_mean).exp()
    error = relative.std(0, correction=1) / math.sqrt(count)
    return Marginal(-log_mean, error, chains.acceptance())


class _Samples(NamedTuple):
    z: Tensor
    """(K, B, L)."""
    log_joint: Tensor
    """(K, B)."""


class _Chains:
    """One chain for each image, with its own step size."""

    def __init__(
        self, log_joint: hmc.LogDensity, start: Tensor, config: MarginalConfig, stream: torch.Generator
    ) -> None:
        self._log_joint = log_joint
        self._config = config
        self._stream = stream
        self._state = hmc.evaluate(log_joint, start)
        self._step_size = torch.full((len(start), 1), 0.1, device=start.device)
        self._accepted: list[Tensor] = []

    def burn_in(self) -> None:
        for number in range(self._config.burn_in):
            probability = self._move()
            # Falling rates: large steps at first, small ones at the end.
            rate = 0.5 / (1 + number / 10)
            self._step_size = hmc.adapt_step_size(
                self._step_size, probability[:, None], target=self._config.acceptance, rate=rate
            )

    def draw(self) -> _Samples:
        drawn = []
        for _ in range(self._config.samples):
            for _ in range(self._config.transitions):
                self._accepted.append(self._move().mean())
            drawn.append((self._state.z, self._state.log_density))
        return _Samples(*map(torch.stack, zip(*drawn, strict=True)))

    def acceptance(self) -> float:
        return float(torch.stack(self._accepted).mean())

    def _move(self) -> Tensor:
        self._state, probability = hmc.transition(
            self._log_joint, self._state, self._step_size, self._config.leapfrog_steps, self._stream
        )
        return probability


# --- densities fitted to samples (K, B, L) of each image --------------------------------------------------------------


def fit_gaussian(z: Tensor) -> Density:
    """Return the log density, (K', B, L) -> (K', B), of the normal distribution with the samples' mean and covariance."""
    mean = z.mean(0)
    factor = _cholesky(_covariance(z - mean))
    return lambda points: _normal(points - mean, factor)


def fit_kde(z: Tensor) -> Density:
    """Return the log density of a kernel estimate: a normal distribution around each sample, of the samples' covariance, with
    Scott's rule for the bandwidth."""
    count, _, dimensions = z.shape
    factor = _cholesky(_covariance(z - z.mean(0))) * count ** (-1 / (dimensions + 4))

    def log_density(points: Tensor) -> Tensor:
        around = torch.stack([_normal(points - centre, factor) for centre in z])
        return torch.logsumexp(around, 0) - math.log(count)

    return log_density


FITS: dict[str, Callable[[Tensor], Density]] = {"gaussian": fit_gaussian, "kde": fit_kde}


def _covariance(centred: Tensor) -> Tensor:
    """Return the covariance (B, L, L) of centred samples (K, B, L)."""
    return torch.einsum("kbi,kbj->bij", centred, centred) / (len(centred) - 1)


def _cholesky(covariance: Tensor) -> Tensor:
    """Return the Cholesky factor of a covariance (B, L, L), which is nearly singular where chains hardly moved."""
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + 1e-12
    return torch.linalg.cholesky(covariance + 1e-5 * size * torch.eye(covariance.shape[-1], device=covariance.device))


def _normal(offset: Tensor, factor: Tensor) -> Tensor:
    """Return the log density of N(0, factor factor^T) at offsets (K, B, L) -> (K, B)."""
    scaled = torch.linalg.solve_triangular(factor, offset.permute(1, 2, 0), upper=False)  # (B, L, K)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (scaled.square().sum(1).T + offset.shape[-1] * LOG_TWO_PI) - log_det
