"""log p(x) by importance sampling, for many images and many samples at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from paperbench.vae.model import Guide, Model

ROWS = 2048
"""Pairs of an image and a sample that are decoded at once: as many as keep the processor busy and its caches warm."""


class Estimate(NamedTuple):
    """log p(x) of each image in nats, (B,), and the standard error of that estimate, (B,)."""

    log_likelihood: Tensor
    standard_error: Tensor


@torch.no_grad()
def importance_sampled(
    model: Model, guide: Guide, x: Tensor, *, samples: int, stream: torch.Generator, rows: int = ROWS
) -> Estimate:
    """`log mean_k p(x, z_k) / q(z_k | x)` with z_k from the guide: x (B, D), `samples` of them for each image.

    The mean is unbiased, its logarithm is low by about half the squared standard error, which is that of the mean divided by the
    mean (delta method) and infinite for one sample. `rows` bounds the memory, and with it which random numbers meet which image;
    `stream` is on the images' device.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; it takes 1 or more")
    parts = [
        _of_a_few(model, guide, part, samples, stream, max(1, rows // len(part)))
        for part in x.split(max(1, min(rows, _images_at_once(rows, samples))))
    ]
    return Estimate(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _images_at_once(rows: int, samples: int) -> int:
    """A square block of images and samples, or more images where there are few samples."""
    return max(math.isqrt(rows), rows // samples)


def _of_a_few(
    model: Model, guide: Guide, x: Tensor, samples: int, stream: torch.Generator, at_once: int
) -> tuple[Tensor, Tensor]:
    """Sums of weights and of squared weights, kept as logarithms: weights span hundreds of nats."""
    posterior = guide.posterior(x)
    first = x.new_full((len(x),), -torch.inf)
    second = first.clone()
    for count in _counts(samples, at_once):
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


def _counts(total: int, at_once: int) -> Iterator[int]:
    for start in range(0, total, at_once):
        yield min(at_once, total - start)
