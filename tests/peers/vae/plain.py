"""The paper's models written down once more: NumPy in float64, one loop over samples, no function of the program.

Weights are taken from modules of the program by the names that its checkpoints have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from torch import nn

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def weights_of(module: nn.Module) -> dict[str, Array]:
    """Return the weights of a module as float64 arrays."""
    return {name: value.detach().double().numpy() for name, value in module.state_dict().items()}


def linear(weights: Weights, name: str, x: Array) -> Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


ACTIVATIONS: dict[str, Any] = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0)}


def encode(weights: Weights, x: Array, activation: str) -> tuple[Array, Array]:
    """Return mean and log-variance of q(z | x), appendix C.2."""
    h = ACTIVATIONS[activation](linear(weights, "features.hidden", x))
    return linear(weights, "mean", h), linear(weights, "log_variance", h)


def log_likelihood(weights: Weights, x: Array, z: Array, activation: str, *, gaussian: bool) -> Array:
    """Return log p(x | z), appendix C.1 or C.2: x (B, D), z (K, B, L) -> (K, B)."""
    h = ACTIVATIONS[activation](linear(weights, "decoder.features.hidden", z))
    if not gaussian:
        p = special.expit(linear(weights, "decoder.logits", h))
        return np.asarray(special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(-1)
    mean, log_variance = (linear(weights, f"decoder.{name}", h) for name in ("means", "log_variances"))
    return stats.norm.logpdf(x, special.expit(mean), np.exp(0.5 * log_variance)).sum(-1)


def kl(mean: Array, log_variance: Array) -> Array:
    """Return KL(q || N(0, I)), appendix B."""
    return -0.5 * (1 + log_variance - mean**2 - np.exp(log_variance)).sum(-1)


def bound(
    form: str, model: Weights, encoder: Weights, x: Array, noise: Array, activation: str, *, gaussian: bool
) -> Array:
    """Return a bound of each image: estimator A (`sampled`), B (`analytic`), or the importance-weighted one."""
    mean, log_variance = encode(encoder, x, activation)
    sd = np.exp(0.5 * log_variance)
    z = mean + sd * noise
    likelihood = log_likelihood(model, x, z, activation, gaussian=gaussian)
    if form == "analytic":
        return likelihood.mean(0) - kl(mean, log_variance)
    log_weights = likelihood + stats.norm.logpdf(z).sum(-1) - stats.norm.logpdf(z, mean, sd).sum(-1)
    if form == "sampled":
        return log_weights.mean(0)
    return special.logsumexp(log_weights, axis=0) - np.log(len(log_weights))
