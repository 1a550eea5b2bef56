"""A linear model with normal noise: the one case in which log p(x) and p(z | x) are known exactly.

z ~ N(0, I), x = A z + b + noise, noise ~ N(0, variance).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from paperbench.vae.bounds import normal_log_prob
from paperbench.vae.model import Encoder, GaussianPixels, Generative


class LinearPixels(GaussianPixels):
    """The decoder, without the sigmoid for images."""

    def __init__(self, weight: Tensor, bias: Tensor, variance: float) -> None:
        super().__init__(nn.Identity(), nn.Identity(), nn.Identity())
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.variance = variance

    def log_prob(self, x: Tensor, z: Tensor) -> Tensor:
        mean = z @ self.weight.T + self.bias
        return normal_log_prob(x, mean, torch.full_like(mean, self.variance).log())


class LinearGaussian:
    """A model of 6 pixels and `latent` dimensions, and images drawn from it."""

    def __init__(self, latent: int = 2, *, images: int = 5, variance: float = 0.5) -> None:
        stream = torch.Generator().manual_seed(latent)
        self.weight = torch.randn(6, latent, generator=stream)
        self.bias = torch.randn(6, generator=stream)
        self.variance = variance
        self.latent = latent
        noise = torch.randn(images, 6, generator=stream) * variance**0.5
        self.x = torch.randn(images, latent, generator=stream) @ self.weight.T + self.bias + noise
        self.model = Generative(LinearPixels(self.weight, self.bias, variance), latent=latent)

    def log_likelihood(self) -> Tensor:
        """Return log p(x) of each image, (B,)."""
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(6)
        return MultivariateNormal(self.bias, covariance).log_prob(self.x)

    def posterior(self) -> tuple[Tensor, Tensor]:
        """Return means (B, L) and the covariance (L, L) of p(z | x)."""
        covariance = torch.linalg.inv(torch.eye(self.latent) + self.weight.T @ self.weight / self.variance)
        return (self.x - self.bias) @ self.weight @ covariance / self.variance, covariance

    def encoder(self, *, widened: float = 1.0) -> Encoder:
        """Return an encoder with the right means and variances, but no correlations: the posterior itself only for one dimension.

        widened: factor on the variances.
        """
        _, covariance = self.posterior()
        gain = covariance @ self.weight.T / self.variance
        encoder = Encoder(nn.Identity(), width=6, latent=self.latent)
        with torch.no_grad():
            encoder.mean.weight.copy_(gain)
            encoder.mean.bias.copy_(-gain @ self.bias)
            encoder.log_variance.weight.zero_()
            encoder.log_variance.bias.copy_((widened * covariance.diagonal()).log())
        return encoder
