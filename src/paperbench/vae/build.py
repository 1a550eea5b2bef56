"""From the configuration to models, guides and objectives: the one place where the room's keys meet its modules."""

from __future__ import annotations

from torch import nn

from paperbench.engine.seeding import generator
from paperbench.vae.config import AutoencoderModel, FreyData, NetConfig, VaeModel, VaeTrain
from paperbench.vae.mcem import Mcem
from paperbench.vae.model import BernoulliPixels, GaussianPixels, Generative, Guide
from paperbench.vae.nets import ConvFeatures, ConvPixels, MlpFeatures, initialise
from paperbench.vae.objectives import Aevb, AutoEncoder, Objective, WakeSleep

CHAINS = 102
"""First key of the stream that Monte Carlo EM's chains start from."""


def objective(config: VaeTrain, *, size: tuple[int, int], images: int) -> Objective:
    """What `config` trains on that many images of size (H, W), on the CPU; drawn from torch's global generator."""
    model = config.model
    pixels = size[0] * size[1]
    if isinstance(model, AutoencoderModel):
        return _initialised(_autoencoder(model, size), model)
    joint = generative(model, size=size, gaussian=is_gaussian(config))
    if config.estimator == "mcem":
        mcem = Mcem(
            joint,
            images=images,
            leapfrog_steps=config.mcem.leapfrog_steps,
            updates=config.mcem.updates,
            acceptance=config.mcem.acceptance,
            stream=generator("cpu", config.seed, CHAINS),
        )
        return _initialised(mcem, model)
    guide = Guide(_encoder(model, size), width=model.hidden, latent=model.latent)
    if config.estimator == "wake-sleep":
        return _initialised(WakeSleep(joint, guide, pixels=pixels), model)
    bound = config.bound
    return _initialised(Aevb(joint, guide, form=bound.form, samples=bound.samples, beta=model.beta), model)


def generative(model: VaeModel, *, size: tuple[int, int], gaussian: bool) -> Generative:
    """p(x, z) for images of size (H, W)."""
    features = MlpFeatures(inputs=model.latent, hidden=model.hidden, activation=model.activation)
    if gaussian:
        decoder = GaussianPixels(
            features, _decoder(model, size), _decoder(model, size), min_log_variance=model.min_log_variance
        )
    else:
        decoder = BernoulliPixels(features, _decoder(model, size))
    return Generative(decoder, latent=model.latent)


def is_gaussian(config: VaeTrain) -> bool:
    """Whether pixels are Gaussian rather than Bernoulli."""
    model = config.model
    if not isinstance(model, VaeModel):
        return False
    faces = isinstance(config.data, FreyData)
    return model.likelihood == "gaussian" or (model.likelihood == "auto" and faces)


def _autoencoder(model: AutoencoderModel, size: tuple[int, int]) -> AutoEncoder:
    encoder = nn.Sequential(_encoder(model, size), nn.Linear(model.hidden, model.latent))
    features = MlpFeatures(inputs=model.latent, hidden=model.hidden, activation=model.activation)
    return AutoEncoder(encoder, nn.Sequential(features, _decoder(model, size)), latent=model.latent)


def _encoder(model: NetConfig, size: tuple[int, int]) -> nn.Module:
    if model.net == "conv":
        return ConvFeatures(size=size, channels=model.channels, hidden=model.hidden, activation=model.activation)
    return MlpFeatures(inputs=size[0] * size[1], hidden=model.hidden, activation=model.activation)


def _decoder(model: NetConfig, size: tuple[int, int]) -> nn.Module:
    """From hidden units to pixels."""
    if model.net == "conv":
        return ConvPixels(size=size, channels=model.channels, hidden=model.hidden, activation=model.activation)
    return nn.Linear(model.hidden, size[0] * size[1])


def _initialised(module: Objective, model: NetConfig) -> Objective:
    initialise(module, model.init_std)
    return module
