"""Lower bounds on log p(x), each in a line or two: `model` knows log p(x, z), `guide` draws z and knows log q(z | x).

`noise` is standard normal, (M, K, B, L): K samples for each image. Results are in nats for each image, (M, B).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from paperbench.vae.model import Generative, Guide

Form = Literal["analytic", "sampled", "importance"]


def sgvb_sampled(model: Generative, guide: Guide, x: Tensor, noise: Tensor) -> Tensor:
    """Estimator A, equation 6: the mean of log p(x, z) - log q(z | x) over the samples."""
    z, log_q = guide(x, noise)
    return (model.log_joint(x, z) - log_q).mean(-2)


def sgvb_analytic(model: Generative, guide: Guide, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Estimator B, equation 7, in its two terms: the expected log p(x | z), sampled, and the KL in closed form.

    The bound is the first minus the second.
    """
    posterior = guide.posterior(x)
    return model.log_likelihood(x, posterior.sample(noise)).mean(-2), posterior.kl()


def importance_weighted(model: Generative, guide: Guide, x: Tensor, noise: Tensor) -> Tensor:
    """The bound of Burda, Grosse and Salakhutdinov (2016), equation 8: log of the mean of p(x, z) / q(z | x) over K samples.

    With K = 1 it is estimator A; it does not fall with K, in expectation, and reaches log p(x) in the limit.
    """
    z, log_q = guide(x, noise)
    return torch.logsumexp(model.log_joint(x, z) - log_q, -2) - math.log(noise.shape[-3])


def bound(form: Form, model: Generative, guide: Guide, x: Tensor, noise: Tensor) -> Tensor:
    """The bound of that name: `analytic` (B), `sampled` (A) or `importance`."""
    if form == "analytic":
        expected, kl = sgvb_analytic(model, guide, x, noise)
        return expected - kl
    return (sgvb_sampled if form == "sampled" else importance_weighted)(model, guide, x, noise)
