"""What the trainer minimises: a module for each way of learning.

Each separates what is drawn in a step (`draw_noise`) from what is computed with it (`losses`). The second half does all of the
work, is a pure function, and does not depend on a model axis: the same code is compiled, and trains several stacked models. Losses
are in nats for an image, means over the batch: (M,).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.data.image_sets import FoldersData
from paperbench.engine.compiling import CompiledFunction
from paperbench.engine.seeding import generator
from paperbench.vae import hmc
from paperbench.vae.bounds import elbo, elbo_analytic, importance_bound
from paperbench.vae.config import AutoencoderModel, BoundConfig, BoundForm, FreyData, McemConfig, VaeModel, VaeTrain
from paperbench.vae.model import Encoder, Generative, make_encoder, make_generative
from paperbench.vae.nets import MlpFeatures, initialise, make_features, make_pixels

Noise = tuple[Tensor, ...]

CHAINS = 102
"""First key of the stream that Monte Carlo EM's chains start from."""

INITIAL_STEP_SIZE = 0.05
"""Of Monte Carlo EM's HMC."""


def bound(form: BoundForm, model: Generative, encoder: Encoder, x: Tensor, noise: Tensor) -> Tensor:
    """Return a lower bound on log p(x) of each image, in nats: x (M, B, D), standard normal noise (M, K, B, L) -> (M, B).

    form: `analytic` (estimator B, KL in closed form), `sampled` (estimator A) or `importance`; see `bounds`.
    """
    if form == "analytic":
        posterior = encoder.posterior(x)
        return elbo_analytic(model.log_likelihood(x, posterior.sample(noise)), posterior.kl())
    z, log_q = encoder(x, noise)
    return (elbo if form == "sampled" else importance_bound)(model.log_joint(x, z), log_q)


class Objective(nn.Module, ABC):
    """`forward(x, stream)` as `engine.trainer.Trainer` calls it: images (B, D) and the step's generator -> named losses."""

    def __init__(self) -> None:
        super().__init__()
        self._compiled: CompiledFunction | None = None

    @abstractmethod
    def draw_noise(self, images: int, stream: torch.Generator) -> Noise:
        """Draw everything random in a step over that many images."""

    @abstractmethod
    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        """Return the losses whose sum is minimised: images (M, B, D), noise of `draw_noise`, each with M in front -> (M,)."""

    def compile_losses(self, tell: Callable[[str], None]) -> None:
        """Run `losses` through `torch.compile` from now on, where that works; `tell` receives a message where it does not."""
        self._compiled = CompiledFunction(self.losses, report=tell)

    def compute_losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        """Return `losses`, by the compiled function where there is one."""
        return (self._compiled or self.losses)(x, *noise)

    def forward(self, x: Tensor, stream: torch.Generator) -> dict[str, Tensor]:
        return self.compute_losses(x, *self.draw_noise(len(x), stream))


class Variational(Objective):
    """An objective over a generative model and its encoder. Checkpoints that call the encoder `guide` are read as well."""

    def __init__(self, model: Generative, encoder: Encoder) -> None:
        super().__init__()
        self.model = model
        self.encoder = encoder
        self.register_load_state_dict_pre_hook(_rename_guide)


class Aevb(Variational):
    """Auto-encoding variational Bayes, algorithm 1: minus a bound, by reparameterisation.

    config: which bound, and of how many samples. beta: weight of the KL in the analytic form; 1 is the bound, above it the
    beta-VAE of Higgins et al. (2017).
    """

    def __init__(self, model: Generative, encoder: Encoder, config: BoundConfig, *, beta: float = 1.0) -> None:
        super().__init__(model, encoder)
        if beta != 1.0 and config.form != "analytic":
            raise ValueError(f"beta={beta} weighs the KL term, which the {config.form} form does not have by itself")
        self.config = config
        self.beta = beta

    def draw_noise(self, images: int, stream: torch.Generator) -> Noise:
        shape = (self.config.samples, images, self.encoder.latent)
        return (torch.randn(shape, generator=stream, device=stream.device),)

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        (eps,) = noise
        if self.config.form == "analytic":
            posterior = self.encoder.posterior(x)
            log_likelihood = self.model.log_likelihood(x, posterior.sample(eps)).mean(-2)
            return {"loss_reconstruction": -log_likelihood.mean(-1), "loss_kl": self.beta * posterior.kl().mean(-1)}
        return {"loss_bound": -bound(self.config.form, self.model, self.encoder, x, eps).mean(-1)}


class WakeSleep(Variational):
    """The wake-sleep algorithm of Hinton, Dayan, Frey and Neal (1995), with the same recognition model (section 5).

    Wake phase: z from the encoder, the generative model learns log p(x, z). Sleep phase: x and z from the generative model, the
    encoder learns log q(z | x). The two share no parameter, so one step takes both.
    """

    def __init__(self, model: Generative, encoder: Encoder, *, pixels: int) -> None:
        super().__init__(model, encoder)
        self.pixels = pixels

    def draw_noise(self, images: int, stream: torch.Generator) -> Noise:
        shape = (1, images, self.encoder.latent)
        wake = torch.randn(shape, generator=stream, device=stream.device)
        sleep = torch.randn(shape, generator=stream, device=stream.device)
        pixels = self.model.decoder.draw_noise((1, images, self.pixels), stream)
        return wake, sleep, pixels

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        wake, sleep, pixels = noise
        with torch.no_grad():
            z = self.encoder.posterior(x).sample(wake)
            dream = self.model.decoder.sample(sleep, pixels).squeeze(-3)
        log_q = self.encoder.posterior(dream).log_prob(sleep)
        return {
            "loss_wake": -self.model.log_joint(x, z).mean((-2, -1)),
            "loss_sleep": -log_q.mean((-2, -1)),
        }


class AutoEncoder(Objective):
    """A plain autoencoder: no distribution and no bound, but `|x - decode(encode(x))|^2` for each image.

    encoder: (M, B, D) -> codes (M, B, L). decoder: codes -> (M, B, D) before the sigmoid.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, latent: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.latent = latent

    def encode(self, x: Tensor) -> Tensor:
        """Return codes (..., L) of images (..., D)."""
        return self.encoder(x).float()

    def mean(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (..., D), of codes (..., L)."""
        return torch.sigmoid(self.decoder(z).float())

    def squared_error(self, x: Tensor) -> Tensor:
        """Return the sum over the pixels of each image: (M, B, D) -> (M, B)."""
        return (self.mean(self.encode(x)) - x).square().sum(-1)

    def draw_noise(self, images: int, stream: torch.Generator) -> Noise:
        return ()

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        return {"loss_reconstruction": self.squared_error(x).mean(-1)}


# --- Monte Carlo EM ---------------------------------------------------------------------------------------------------


class Mcem(Objective):
    """Monte Carlo EM, the paper's third method (appendix E): no recognition model; HMC samples the posterior itself.

    For each batch: 10 leapfrog steps move the batch's latent variables, with a step size tuned to 90 % acceptance; then 5 updates
    of the weights on log p(x, z) with that sample (`config` holds these numbers). Every image keeps its latent variables until it
    is seen again.

    Called with (images (B, D), their numbers (B,), the step). Chains and step size are buffers: checkpoints hold them. images: how
    many there are, each with a chain that starts at a draw from the prior.
    """

    chains: Tensor
    step_size: Tensor

    def __init__(self, model: Generative, config: McemConfig, *, images: int, stream: torch.Generator) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.register_buffer("chains", torch.randn((images, model.latent), generator=stream, device=stream.device))
        self.register_buffer("step_size", torch.tensor(INITIAL_STEP_SIZE))

    def forward(self, x: tuple[Tensor, Tensor, int], stream: torch.Generator) -> dict[str, Tensor]:  # type: ignore[override]
        images, numbers, step = x
        if step % self.config.updates == 0:
            self._move_chains(images, numbers, stream)
        return self.compute_losses(images, self.chains[numbers].unsqueeze(0))

    def draw_noise(self, images: int, stream: torch.Generator) -> Noise:
        return ()

    def losses(self, x: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        (z,) = noise
        return {"loss_joint": -self.model.log_joint(x, z).mean((-2, -1))}

    def _move_chains(self, x: Tensor, numbers: Tensor, stream: torch.Generator) -> None:
        """Make one transition of the chains of these images, and adapt the step size."""
        # Energies are differences of large numbers: half precision would decide acceptance by its rounding.
        with torch.autocast(x.device.type, enabled=False):
            density = posterior_density(self.model, x)
            state, probability = hmc.transition(
                density, hmc.evaluate(density, self.chains[numbers]), self.step_size, self.config.leapfrog_steps, stream
            )
        self.chains[numbers] = state.z
        self.step_size.copy_(hmc.adapt_step_size(self.step_size, probability.mean(), target=self.config.acceptance))


def posterior_density(model: Generative, x: Tensor) -> hmc.LogDensity:
    """Return log p(z | x) up to a constant, for images x (B, D), as a function z (B, L) -> (B,)."""
    return lambda z: model.log_joint(x, z.unsqueeze(0)).squeeze(0)


# --- from the configuration -------------------------------------------------------------------------------------------


def make_objective(config: VaeTrain, *, size: tuple[int, ...], images: int) -> Objective:
    """Build what `config` trains on `images` images of size (H, W), or (C, H, W), on the CPU.

    It is drawn from torch's global generator."""
    objective = _make_objective(config, size, images)
    initialise(objective, config.model.init_std)
    return objective


def has_gaussian_pixels(config: VaeTrain) -> bool:
    """Return True if pixels are Gaussian rather than Bernoulli."""
    model = config.model
    if not isinstance(model, VaeModel):
        return False
    return model.likelihood == "gaussian" or (
        model.likelihood == "auto" and isinstance(config.data, FreyData | FoldersData)
    )


def _make_objective(config: VaeTrain, size: tuple[int, ...], images: int) -> Objective:
    model = config.model
    if isinstance(model, AutoencoderModel):
        return _make_autoencoder(model, size)
    generative = make_generative(model, size=size, gaussian=has_gaussian_pixels(config))
    if config.estimator == "mcem":
        return Mcem(generative, config.mcem, images=images, stream=generator("cpu", config.seed, CHAINS))
    encoder = make_encoder(model, size=size)
    if config.estimator == "wake-sleep":
        return WakeSleep(generative, encoder, pixels=math.prod(size))
    return Aevb(generative, encoder, config.bound, beta=model.beta)


def _make_autoencoder(model: AutoencoderModel, size: tuple[int, ...]) -> AutoEncoder:
    encoder = nn.Sequential(make_features(model, size), nn.Linear(model.hidden, model.latent))
    features = MlpFeatures(inputs=model.latent, hidden=model.hidden, activation=model.activation)
    return AutoEncoder(encoder, nn.Sequential(features, make_pixels(model, size)), latent=model.latent)


def _rename_guide(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the parameters of a checkpoint of an earlier version, where the encoder was called `guide`."""
    for name in [name for name in state_dict if name.startswith(f"{prefix}guide.")]:
        state_dict[f"{prefix}encoder.{name.removeprefix(f'{prefix}guide.')}"] = state_dict.pop(name)
