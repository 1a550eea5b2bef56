"""What a configuration means, in a line each: for the opening panel and `--dry-run`."""

from __future__ import annotations

from paperbench.vae.build import is_gaussian
from paperbench.vae.config import AutoencoderModel, VaeTrain


def describe_model(config: VaeTrain) -> str:
    """Nets, latent dimensions and what a pixel is."""
    model = config.model
    net = "one hidden layer" if model.net == "mlp" else "two convolutions and a hidden layer"
    shape = f"{net} of {model.hidden} {model.activation}, {model.latent} latent dimensions"
    if isinstance(model, AutoencoderModel):
        return f"autoencoder, {shape}"
    beta = f", beta {model.beta:g}" if model.beta != 1 else ""
    return f"VAE, {shape}, {'Gaussian' if is_gaussian(config) else 'Bernoulli'} pixels{beta}"


def describe_learning(config: VaeTrain) -> str:
    """Which loss is made small."""
    if isinstance(config.model, AutoencoderModel):
        return "squared error of each image"
    if config.estimator == "wake-sleep":
        return "wake-sleep"
    if config.estimator == "mcem":
        mcem = config.mcem
        return f"Monte Carlo EM, {mcem.leapfrog_steps} leapfrog steps, {mcem.updates} updates for each sample"
    names = {"analytic": "bound with KL in closed form (B)", "sampled": "bound by samples alone (A)",
             "importance": "importance-weighted bound"}  # fmt: skip
    samples = config.bound.samples
    return f"AEVB, {names[config.bound.form]}, {samples} sample{'s' if samples > 1 else ''} for each image"


def describe_schedule(config: VaeTrain) -> str:
    """How many samples at which rate."""
    train, optim = config.train, config.optim
    steps = -(-train.samples // train.batch_size)
    prior = ", prior N(0, I) on the weights" if config.prior else ""
    return (
        f"{train.samples:,} samples seen in {steps:,} steps of {train.batch_size}, {optim.name} {optim.lr:g}, "
        f"{optim.schedule}{prior}"
    )
