"""What the trainer minimises: one module for each way of learning, made of a model and a guide.

Each separates what is drawn in a step (`draw`) from what is computed with it (`losses`). The second half holds all of the
work, is a pure function, and says nothing about a model axis: the same code is compiled, and trains several models side by
side. Losses are in nats for an image, means over the batch: (M,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from paperbench.engine.compiling import Compiled
from paperbench.vae import bounds
from paperbench.vae.model import Generative, Guide

Noise = tuple[Tensor, ...]


class Objective(nn.Module, ABC):
    """`forward(x, stream)` as `engine.trainer.Trainer` calls it: images (B, D) and the step's generator -> named losses."""

    def __init__(self) -> None:
        super().__init__()
        self._compiled: Compiled | None = None

    @abstractmethod
    def draw(self, images: int, stream: torch.Generator) -> Noise:
        """Everything random in a step over that many images."""

    @abstractmethod
    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        """Losses whose sum is minimised: images (M, B, D), noise as `draw` makes it (each with M in front) -> (M,)."""

    def compile_losses(self, tell: Callable[[str], None]) -> None:
        """From now on `losses` runs through `torch.compile`, where that works; `tell` hears where not."""
        self._compiled = Compiled(self.losses, tell=tell)

    def computed(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        """`losses`, compiled where that was asked for."""
        return (self._compiled or self.losses)(x, *noise)

    def forward(self, x: Tensor, stream: torch.Generator) -> dict[str, Tensor]:
        return self.computed(x, *self.draw(len(x), stream))


class Variational(Objective):
    """An objective over a model and its guide."""

    def __init__(self, model: Generative, guide: Guide) -> None:
        super().__init__()
        self.model = model
        self.guide = guide


class Aevb(Variational):
    """Auto-encoding variational Bayes, algorithm 1: minus a bound, by reparameterisation.

    form: which bound (`bounds`). samples: K. beta: weight of the KL in the analytic form; 1 is the bound, above it Higgins et
    al.'s beta-VAE (2017).
    """

    def __init__(
        self, model: Generative, guide: Guide, *, form: bounds.Form = "analytic", samples: int = 1, beta: float = 1.0
    ) -> None:
        super().__init__(model, guide)
        if beta != 1.0 and form != "analytic":
            raise ValueError(f"beta={beta} weighs the KL term, which the {form} form does not have by itself")
        self.form: bounds.Form = form
        self.samples = samples
        self.beta = beta

    def draw(self, images: int, stream: torch.Generator) -> Noise:
        shape = (self.samples, images, self.guide.latent)
        return (torch.randn(shape, generator=stream, device=stream.device),)

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        (eps,) = noise
        if self.form == "analytic":
            expected, kl = bounds.sgvb_analytic(self.model, self.guide, x, eps)
            return {"loss_reconstruction": -expected.mean(-1), "loss_kl": self.beta * kl.mean(-1)}
        return {"loss_bound": -bounds.bound(self.form, self.model, self.guide, x, eps).mean(-1)}


class WakeSleep(Variational):
    """Hinton, Dayan, Frey and Neal (1995), with the same recognition net (section 5).

    Wake: z from the guide, the model learns log p(x, z). Sleep: x and z dreamt by the model, the guide learns log q(z | x).
    The two share no parameter, so one step takes both.
    """

    def __init__(self, model: Generative, guide: Guide, *, pixels: int) -> None:
        super().__init__(model, guide)
        self.pixels = pixels

    def draw(self, images: int, stream: torch.Generator) -> Noise:
        shape = (1, images, self.guide.latent)
        awake = torch.randn(shape, generator=stream, device=stream.device)
        asleep = torch.randn(shape, generator=stream, device=stream.device)
        pixels = self.model.decoder.draw_noise((1, images, self.pixels), stream)
        return awake, asleep, pixels

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        awake, asleep, pixels = noise
        with torch.no_grad():
            z = self.guide.posterior(x).sample(awake)
            dreamt = self.model.decoder.sample(asleep, pixels).squeeze(-3)
        log_q = self.guide.posterior(dreamt).log_prob(asleep)
        return {
            "loss_wake": -self.model.log_joint(x, z).mean((-2, -1)),
            "loss_sleep": -log_q.mean((-2, -1)),
        }


class AutoEncoder(Objective):
    """A plain autoencoder: no distribution, no bound, only `|x - decode(encode(x))|^2` for each image.

    encoder: (M, B, D) -> codes (M, B, L). decoder: codes -> (M, B, D) before the sigmoid.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, latent: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent

    def encode(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., L)."""
        return self.encoder(x).float()

    def mean(self, z: Tensor) -> Tensor:
        """Codes (..., L) -> images in [0, 1], (..., D)."""
        return torch.sigmoid(self.decoder(z).float())

    def squared_error(self, x: Tensor) -> Tensor:
        """Sum over the pixels, for each image: (M, B, D) -> (M, B)."""
        return (self.mean(self.encode(x)) - x).square().sum(-1)

    def draw(self, images: int, stream: torch.Generator) -> Noise:
        return ()

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        return {"loss_reconstruction": self.squared_error(x).mean(-1)}
