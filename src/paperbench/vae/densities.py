"""Log densities in nats, and the divergence that has a closed form.

The letters of this room: B images, D pixels, L latent dimensions, K samples of a latent variable for each image, and M models
that train side by side (an axis that is absent otherwise). Images are (M, B, D), parameters of a posterior (M, B, L), samples
(M, K, B, L), densities of samples (M, K, B). Every function here sums over the last axis and leaves the others alone.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

LOG_TWO_PI = math.log(2 * math.pi)


def bernoulli_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """`sum_d x_d log p_d + (1 - x_d) log(1 - p_d)` with `p = sigmoid(logits)`: (..., D), (..., D) -> (...).

    Appendix C.1. `x` in [0, 1]; between 0 and 1 this is no likelihood, only the cross-entropy that is used like one.
    """
    logits = logits.float()
    return (x * logits - F.softplus(logits)).sum(-1)


def normal_log_prob(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Of a normal distribution with diagonal covariance, appendix C.2: three times (..., D) -> (...)."""
    log_variance = log_variance.float()
    scaled = (x - mean.float()).square() * (-log_variance).exp()
    return -0.5 * (scaled + log_variance + LOG_TWO_PI).sum(-1)


def standard_normal_log_prob(z: Tensor, dimensions: int | Tensor | None = None) -> Tensor:
    """Of N(0, I): (..., L) -> (...).

    `dimensions` is L where some of the last axis is padding that holds zeros: a number, or a tensor that broadcasts against the
    result.
    """
    count = z.shape[-1] if dimensions is None else dimensions
    return -0.5 * (z.square().sum(-1) + count * LOG_TWO_PI)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)), appendix B: (..., L), (..., L) -> (...), never negative.

    Zero, with zero slopes, wherever mean and log-variance are zero: padding adds nothing.
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)
