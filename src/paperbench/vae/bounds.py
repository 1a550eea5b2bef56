"""Log densities, the KL divergence, and the lower bounds on log p(x) made of them: pure functions of tensors, in nats.

The letters of this package: B images, D pixels, L latent dimensions, K samples of the latent variables for each image, and M
models whose weights are stacked (an axis that is absent otherwise). Images are (M, B, D), parameters of a posterior (M, B, L),
samples z (M, K, B, L), densities of samples (M, K, B), bounds (M, B).

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Burda, Grosse and Salakhutdinov, "Importance Weighted
Autoencoders", ICLR 2016.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)


# --- densities: they sum over the last axis and leave the others alone ------------------------------------------------


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """Return `sum_d x_d log p_d + (1 - x_d) log(1 - p_d)` with `p = sigmoid(logits)`: (..., D), (..., D) -> (...).

    Appendix C.1. `x` in [0, 1]; between 0 and 1 this is no likelihood, only the cross-entropy that is used like one.
    """
    logits = logits.float()
    return (x * logits - F.softplus(logits)).sum(-1)


def normal_log_prob(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the log density of a normal distribution with diagonal covariance, appendix C.2: three times (..., D) -> (...)."""
    log_variance = log_variance.float()
    scaled = (x - mean.float()).square() * (-log_variance).exp()
    return -0.5 * (scaled + log_variance + LOG_TWO_PI).sum(-1)


def standard_normal_log_prob(z: Tensor, dimensions: int | Tensor | None = None) -> Tensor:
    """Return the log density of N(0, I): (..., L) -> (...).

    `dimensions` is L where some of the last axis is padding that holds zeros: a number, or a tensor that broadcasts against the
    result.
    """
    count = z.shape[-1] if dimensions is None else dimensions
    return -0.5 * (z.square().sum(-1) + count * LOG_TWO_PI)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, I)), appendix B: (..., L), (..., L) -> (...), never negative.

    Zero, with zero gradients, wherever mean and log-variance are zero: padding adds nothing.
    """
    # For a small l, exp(l) - 1 - l is a difference of numbers near 1: expm1 keeps its digits, and rounding below 0 is cut.
    spread = (log_variance.expm1() - log_variance).clamp_min(0.0)
    return 0.5 * (mean.square() + spread).sum(-1)


# --- bounds: they average over the samples ----------------------------------------------------------------------------


def elbo(log_joint: Tensor, log_q: Tensor) -> Tensor:
    """Return estimator A of the evidence lower bound, equation 6: the mean of log p(x, z) - log q(z | x).

    Both (..., K, B), with z drawn from q(z | x) -> (..., B).
    """
    return (log_joint - log_q).mean(-2)


def elbo_analytic(log_likelihood: Tensor, kl: Tensor) -> Tensor:
    """Return estimator B of the evidence lower bound, equation 7: the mean of log p(x | z) minus KL(q(z | x) || p(z)).

    log_likelihood (..., K, B), with z drawn from q(z | x); kl (..., B) in closed form -> (..., B).
    """
    return log_likelihood.mean(-2) - kl


def importance_bound(log_joint: Tensor, log_q: Tensor) -> Tensor:
    """Return the importance-weighted bound, Burda et al. equation 8: log of the mean of p(x, z) / q(z | x) over K samples.

    Both (..., K, B), with z drawn from q(z | x) -> (..., B). With K = 1 it is `elbo`; in expectation it does not fall with K, and
    it reaches log p(x) in the limit.
    """
    return torch.logsumexp(log_joint - log_q, -2) - math.log(log_joint.shape[-2])
