"""log p(x) by the estimator of appendix D, for latent spaces of fewer than five dimensions.

1. Draw samples of p(z | x) by HMC. 2. Fit a density q(z) to them. 3. Draw new samples of p(z | x); then

    log p(x) ~ -log mean_l q(z_l) / p(x, z_l)

It needs no recognition model, so that all three methods of figure 3 are measured alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from paperbench.vae import hmc
from paperbench.vae.densities import LOG_TWO_PI

MOST_DIMENSIONS = 4
"""Appendix D: the estimates are good "as long as the dimensionality of the sampled space is low (less than 5)"."""

Density = Callable[[Tensor], Tensor]


class Marginal(NamedTuple):
    """log p(x) of each image in nats (B,); its standard error (B,), as if the samples were independent; and the share of
    proposals that HMC accepted, averaged over everything after the burn-in."""

    log_likelihood: Tensor
    standard_error: Tensor
    acceptance: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """samples: of each of the two rounds. leapfrog_steps: of a transition (appendix D: 4). transitions: between two samples.
    burn_in: transitions in which each chain tunes its own step size to `acceptance`. density: what is fitted."""

    samples: int = 50
    leapfrog_steps: int = 4
    transitions: int = 1
    burn_in: int = 100
    acceptance: float = 0.9
    density: Literal["gaussian", "kde"] = "gaussian"


def sampled_marginal(log_joint: hmc.LogDensity, start: Tensor, settings: Settings, stream: torch.Generator) -> Marginal:
    """`log_joint`: z (B, L) -> log p(x, z) (B,), each row for its own image. start: (B, L), on the device of `stream`.

    Raises ValueError for too few samples to fit a density to.
    """
    if settings.samples < start.shape[1] + 2:
        raise ValueError(f"samples is {settings.samples}: a density in {start.shape[1]} dimensions needs more")
    chains = _Chains(log_joint, start, settings, stream)
    chains.burn_in()
    density = FITS[settings.density](chains.draw().z)
    fresh = chains.draw()
    log_ratio = density(fresh.z) - fresh.log_joint
    count = settings.samples
    log_mean = torch.logsumexp(log_ratio, 0) - math.log(count)
    # Scaled before squaring: log joints of images lie hundreds of nats apart from 0.
    relative = (log_ratio - log_mean).exp()
    error = relative.std(0, correction=1) / math.sqrt(count)
    return Marginal(-log_mean, error, chains.acceptance())


class _Drawn(NamedTuple):
    z: Tensor
    """(K, B, L)."""
    log_joint: Tensor
    """(K, B)."""


class _Chains:
    """A chain for each image, with a step size of its own."""

    def __init__(self, log_joint: hmc.LogDensity, start: Tensor, settings: Settings, stream: torch.Generator) -> None:
        self._log_joint = log_joint
        self._settings = settings
        self._stream = stream
        self._state = hmc.at(log_joint, start)
        self._step_size = torch.full((len(start), 1), 0.1, device=start.device)
        self._accepted: list[Tensor] = []

    def burn_in(self) -> None:
        for number in range(self._settings.burn_in):
            probability = self._move()
            # Falling rates: coarse at first, quiet at the end.
            rate = 0.5 / (1 + number / 10)
            self._step_size = hmc.adapted(
                self._step_size, probability[:, None], target=self._settings.acceptance, rate=rate
            )

    def draw(self) -> _Drawn:
        drawn = []
        for _ in range(self._settings.samples):
            for _ in range(self._settings.transitions):
                self._accepted.append(self._move().mean())
            drawn.append((self._state.z, self._state.log_density))
        return _Drawn(*map(torch.stack, zip(*drawn, strict=True)))

    def acceptance(self) -> float:
        return float(torch.stack(self._accepted).mean())

    def _move(self) -> Tensor:
        self._state, probability = hmc.transition(
            self._log_joint, self._state, self._step_size, self._settings.leapfrog_steps, self._stream
        )
        return probability


# --- densities fitted to samples (K, B, L), each image apart ----------------------------------------------------------


def fit_gaussian(z: Tensor) -> Density:
    """The normal distribution with the samples' mean and covariance. Its log density: (K', B, L) -> (K', B)."""
    mean = z.mean(0)
    factor = _cholesky(_covariance(z - mean))
    return lambda points: _normal(points - mean, factor)


def fit_kde(z: Tensor) -> Density:
    """A normal distribution around each sample, shaped like all of them, by Scott's rule for the width."""
    count, _, dimensions = z.shape
    factor = _cholesky(_covariance(z - z.mean(0))) * count ** (-1 / (dimensions + 4))

    def log_density(points: Tensor) -> Tensor:
        around = torch.stack([_normal(points - centre, factor) for centre in z])
        return torch.logsumexp(around, 0) - math.log(count)

    return log_density


FITS: dict[str, Callable[[Tensor], Density]] = {"gaussian": fit_gaussian, "kde": fit_kde}


def _covariance(centred: Tensor) -> Tensor:
    """(K, B, L) -> (B, L, L)."""
    return torch.einsum("kbi,kbj->bij", centred, centred) / (len(centred) - 1)


def _cholesky(covariance: Tensor) -> Tensor:
    """Of a covariance (B, L, L) that chains which hardly moved may have left singular."""
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + 1e-12
    return torch.linalg.cholesky(covariance + 1e-5 * size * torch.eye(covariance.shape[-1], device=covariance.device))


def _normal(offset: Tensor, factor: Tensor) -> Tensor:
    """Log density of N(0, factor factor^T) at offsets (K, B, L) -> (K, B)."""
    scaled = torch.linalg.solve_triangular(factor, offset.permute(1, 2, 0), upper=False)  # (B, L, K)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (scaled.square().sum(1).T + offset.shape[-1] * LOG_TWO_PI) - log_det
