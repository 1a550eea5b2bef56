"""The two halves of a variational auto-encoder (sections 2.2 and 2.3), and how a configuration builds them.

`Generative` is the generative model: it evaluates log p(x, z). `Encoder` is the recognition model: it draws z for an x and
evaluates log q(z | x). Every bound, likelihood and training rule of this package uses these two and nothing inside them. See
`bounds` for the letters in the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paperbench.vae.bounds import (
    LOG_TWO_PI,
    bernoulli_log_prob,
    kl_to_standard_normal,
    normal_log_prob,
    standard_normal_log_prob,
)
from paperbench.vae.config import NetConfig, VaeModel
from paperbench.vae.nets import MlpFeatures, make_features, make_pixels


@dataclass(frozen=True)
class Posterior:
    """A normal distribution with diagonal covariance for each image: mean and log-variance (M, B, L).

    `dimensions` is L where the last axis is padded with zeros, as in `bounds.standard_normal_log_prob`.
    """

    mean: Tensor
    log_variance: Tensor
    dimensions: int | Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Return z by the reparameterisation, section 2.4: standard normal noise (M, K, B, L) -> (M, K, B, L)."""
        return self.mean.unsqueeze(-3) + (0.5 * self.log_variance).exp().unsqueeze(-3) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log q(z | x): (M, K, B, L) -> (M, K, B)."""
        log_variance = self.log_variance.unsqueeze(-3)
        scaled = (z - self.mean.unsqueeze(-3)).square() * (-log_variance).exp()
        return -0.5 * ((scaled + log_variance).sum(-1) + self.dimensions * LOG_TWO_PI)

    def kl(self) -> Tensor:
        """Return KL(q(z | x) || p(z)), (M, B)."""
        return kl_to_standard_normal(self.mean, self.log_variance)


class Encoder(nn.Module):
    """The recognition model q(z | x): features of the image, and from them a mean and a log-variance (appendix C.2)."""

    def __init__(self, features: nn.Module, *, width: int, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.features = features
        self.mean = nn.Linear(width, latent)
        self.log_variance = nn.Linear(width, latent)
        self.register_buffer("mask", None, persistent=False)
        self.register_buffer("dimensions", None, persistent=False)

    mask: Tensor | None
    dimensions: Tensor | None

    def set_stacked_latents(self, latents: Sequence[int]) -> None:
        """Set how many latent dimensions each model of a stacked encoder has; the others are padding from then on."""
        device = next(self.parameters()).device
        counts = torch.tensor(latents, device=device)
        self.mask = (torch.arange(max(latents), device=device) < counts[:, None]).float()[:, None, :]
        self.dimensions = counts.float()[:, None, None]

    def posterior(self, x: Tensor) -> Posterior:
        """Return q(z | x) of x (M, B, D), always in float32: exponentials of rounded log-variances are not worth the speed."""
        h = self.features(x)
        mean, log_variance = self.mean(h).float(), self.log_variance(h).float()
        if self.mask is not None:
            mean, log_variance = mean * self.mask, log_variance * self.mask
        return Posterior(mean, log_variance, self.latent if self.dimensions is None else self.dimensions)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return z (M, K, B, L) and log q(z | x) (M, K, B) for x (M, B, D) and standard normal noise (M, K, B, L)."""
        posterior = self.posterior(x)
        z = posterior.sample(noise)
        return z, posterior.log_prob(z)


class BernoulliPixels(nn.Module):
    """p(x | z) of black and white pixels, appendix C.1."""

    def __init__(self, features: nn.Module, pixels: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.logits = pixels

    def mean(self, z: Tensor) -> Tensor:
        """Return the probabilities of white, (..., D)."""
        return torch.sigmoid(self.logits(self.features(z)).float())

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return bernoulli_log_prob(x, self.logits(self.features(z)))

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        """Return pixels drawn by uniform noise in [0, 1), both (..., D)."""
        return (noise < self.mean(z)).float()

    def draw_noise(self, shape: Sequence[int], stream: torch.Generator) -> Tensor:
        """Return noise as `sample` takes it."""
        return torch.rand(tuple(shape), generator=stream, device=stream.device)


class GaussianPixels(nn.Module):
    """p(x | z) of pixels in [0, 1]: normal, its means through a sigmoid (section 5), a log-variance for every pixel.

    `min_log_variance` limits the density where pixels hardly vary; None, as in the paper, leaves it unbounded.
    """

    def __init__(
        self, features: nn.Module, means: nn.Module, log_variances: nn.Module, *, min_log_variance: float | None = None
    ) -> None:
        super().__init__()
        self.features = features
        self.means = means
        self.log_variances = log_variances
        self.min_log_variance = min_log_variance

    def mean(self, z: Tensor) -> Tensor:
        """Return the expected pixels, (..., D)."""
        return torch.sigmoid(self.means(self.features(z)).float())

    def mean_and_log_variance(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of every pixel, (..., D) each."""
        h = self.features(z)
        log_variance = self.log_variances(h).float()
        if self.min_log_variance is not None:
            log_variance = log_variance.clamp(min=self.min_log_variance)
        return torch.sigmoid(self.means(h).float()), log_variance

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        return normal_log_prob(x, *self.mean_and_log_variance(z))

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        """Return pixels drawn by standard normal noise, both (..., D), not clipped to [0, 1], as the density is not either."""
        mean, log_variance = self.mean_and_log_variance(z)
        return mean + (0.5 * log_variance).exp() * noise

    def draw_noise(self, shape: Sequence[int], stream: torch.Generator) -> Tensor:
        """Return noise as `sample` takes it."""
        return torch.randn(tuple(shape), generator=stream, device=stream.device)


class Generative(nn.Module):
    """The generative model p(x, z) = N(z; 0, I) p(x | z)."""

    def __init__(self, decoder: BernoulliPixels | GaussianPixels, *, latent: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.latent = latent
        self.register_buffer("dimensions", None, persistent=False)

    dimensions: Tensor | None

    def set_stacked_latents(self, latents: Sequence[int]) -> None:
        """Set how many latent dimensions each of the stacked models has."""
        device = next(self.parameters()).device
        self.dimensions = torch.tensor(latents, dtype=torch.float32, device=device)[:, None, None]

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x | z): x (M, B, D), z (M, K, B, L) -> (M, K, B)."""
        return self.decoder.log_prob(x.unsqueeze(-3), z)

    def log_prior(self, z: Tensor) -> Tensor:
        """Return log p(z): (M, K, B, L) -> (M, K, B)."""
        return standard_normal_log_prob(z, self.dimensions)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x, z): x (M, B, D), z (M, K, B, L) -> (M, K, B)."""
        return self.log_prior(z) + self.log_likelihood(x, z)

    def mean(self, z: Tensor) -> Tensor:
        """Return the expected image, (..., L) -> (..., D), in [0, 1]."""
        return self.decoder.mean(z)


# --- from the configuration -------------------------------------------------------------------------------------------


def make_generative(model: VaeModel, *, size: tuple[int, ...], gaussian: bool) -> Generative:
    """Build p(x, z) for images of size (H, W), or (C, H, W), whose pixels are Gaussian or Bernoulli."""
    features = MlpFeatures(inputs=model.latent, hidden=model.hidden, activation=model.activation)
    if gaussian:
        decoder = GaussianPixels(
            features, make_pixels(model, size), make_pixels(model, size), min_log_variance=model.min_log_variance
        )
    else:
        decoder = BernoulliPixels(features, make_pixels(model, size))
    return Generative(decoder, latent=model.latent)


def make_encoder(model: NetConfig, *, size: tuple[int, ...]) -> Encoder:
    """Build q(z | x) for images of size (H, W), or (C, H, W),."""
    return Encoder(make_features(model, size), width=model.hidden, latent=model.latent)
