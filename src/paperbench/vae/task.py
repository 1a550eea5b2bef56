"""Task `vae-train`: train an auto-encoder and measure its bound and likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paperbench.config.explain import show
from paperbench.data import photographs
from paperbench.data.image_sets import FoldersData
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.errors import ConfigError
from paperbench.vae import data
from paperbench.vae.config import AutoencoderModel, RateSearchConfig, VaeTrain
from paperbench.vae.export import export_model
from paperbench.vae.likelihood import MAX_LATENT_DIMENSIONS
from paperbench.vae.objectives import has_gaussian_pixels
from paperbench.vae.predict import predict
from paperbench.vae.rate_search import AUTO
from paperbench.vae.stacked import run_stacked, stack_key
from paperbench.vae.training import Training, load_data, load_model

__all__ = [
    "check",
    "describe_model",
    "export_model",
    "load_model",
    "plan",
    "predict",
    "run",
    "run_stacked",
    "stack_key",
]


def plan(config: VaeTrain) -> Mapping[str, str]:
    """Describe data, model, learning and schedule. Raises what would stop the run, before anything is written."""
    check(config)
    return {
        "data": data.describe(config.data, config.binarisation),
        "model": describe_model(config),
        "learning": _describe_learning(config),
        "schedule": _describe_schedule(config),
    }


def run(config: VaeTrain, run: Run) -> dict[str, float]:
    """Train, measure on the test split, draw; see `engine.task.Task`."""
    if isinstance(config.data, FoldersData):
        photographs.record(run, config.data, labelled=False)
    training = Training.build(config, run, *load_data(config, run.device))
    training.compile(training.objective)
    return training.finish(training.trainer.fit())


# --- contradictions ---------------------------------------------------------------------------------------------------


def check(config: VaeTrain) -> None:
    """Raise ConfigError with all contradictions in `config`, or DataError when its data are missing."""
    mistakes = [*_check_estimator(config), *_check_model(config), *_check_rate(config), *_check_evaluation(config)]
    if mistakes:
        raise ConfigError(*mistakes)
    data.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)


def _check_estimator(config: VaeTrain) -> Iterator[str]:
    plain = isinstance(config.model, AutoencoderModel)
    if plain and config.estimator != "aevb":
        yield f"estimator={config.estimator}: a plain autoencoder has no distribution to estimate; take model=vae"
    if config.bound.form != "analytic" and (plain or config.estimator != "aevb"):
        subject = "a plain autoencoder" if plain else f"estimator={config.estimator}"
        yield f"bound.form={config.bound.form}: {subject} maximises no bound; it belongs to estimator=aevb"
    if config.estimator == "mcem" and config.nproc > 1:
        yield f"nproc={config.nproc}: Monte Carlo EM keeps a chain for each image in one process; take nproc=1"
    if config.estimator == "mcem" and config.marginal_images == 0:
        yield (
            "evaluation.marginal.images=0: estimator=mcem has no recognition model, so there is no bound to measure, only "
            "log p(x) by appendix D; say for how many images, as in evaluation.marginal.images=1000"
        )
    if config.prior and config.optim.name == "adamw":
        yield (
            "prior=true: is a weight decay within the gradient, and adamw decays weights beside it; take optim.name=adagrad "
            "or optim.name=sgd, or set optim.weight_decay"
        )


def _check_model(config: VaeTrain) -> Iterator[str]:
    model = config.model
    if model.net == "conv" and isinstance(config.data, FoldersData) and config.data.side % 4:
        yield f"data.side={config.data.side}: model.net=conv halves images twice and needs a multiple of 4"
    if isinstance(model, AutoencoderModel):
        return
    if model.beta != 1 and (config.estimator != "aevb" or config.bound.form != "analytic"):
        yield (
            f"model.beta={model.beta:g}: weighs the KL term, which is apart only with estimator=aevb and bound.form=analytic"
        )
    if has_gaussian_pixels(config) and config.binarisation != "grey":
        yield (
            f"binarisation={config.binarisation}: Gaussian pixels are grey; take binarisation=grey, or "
            "model.likelihood=bernoulli"
        )
    if model.min_log_variance is not None and not has_gaussian_pixels(config):
        yield f"model.min_log_variance={model.min_log_variance:g}: Bernoulli pixels have no variance of their own"


def _check_rate(config: VaeTrain) -> Iterator[str]:
    search, usual = config.rate_search, RateSearchConfig()
    if config.optim.lr == AUTO:
        if len(set(search.rates)) < len(search.rates):
            yield f"rate_search.rates={show(search.rates)}: names a rate twice"
        return
    for key in ("rates", "samples"):
        if getattr(search, key) != getattr(usual, key):
            yield (
                f"rate_search.{key}={show(getattr(search, key))}: is of no use with optim.lr={config.optim.lr:g}; take "
                "optim.lr=auto, or leave it out"
            )


def _check_evaluation(config: VaeTrain) -> Iterator[str]:
    latent, wanted = config.model.latent, config.evaluation.marginal.images
    if isinstance(config.model, AutoencoderModel):
        if wanted:
            yield f"evaluation.marginal.images={wanted}: a plain autoencoder has no log p(x)"
    elif config.marginal_images and latent > MAX_LATENT_DIMENSIONS:
        why = f"evaluation.marginal.images={wanted}: the estimator of appendix D is"
        if not wanted:
            why = "estimator=mcem: has no recognition model, and what measures it without one (appendix D) is"
        yield f"{why} for at most {MAX_LATENT_DIMENSIONS} latent dimensions; model.latent is {latent}, take model.latent=3"


# --- descriptions for the opening panel and `--dry-run` ---------------------------------------------------------------


def describe_model(config: VaeTrain) -> str:
    """Return nets, latent dimensions and distribution of the pixels in words."""
    model = config.model
    net = "one hidden layer" if model.net == "mlp" else "two convolutions and a hidden layer"
    shape = f"{net} of {model.hidden} {model.activation}, {model.latent} latent dimensions"
    if isinstance(model, AutoencoderModel):
        return f"autoencoder, {shape}"
    beta = f", beta {model.beta:g}" if model.beta != 1 else ""
    return f"VAE, {shape}, {'Gaussian' if has_gaussian_pixels(config) else 'Bernoulli'} pixels{beta}"


def _describe_learning(config: VaeTrain) -> str:
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


def _describe_schedule(config: VaeTrain) -> str:
    train, optim = config.train, config.optim
    steps = -(-train.samples // train.batch_size)
    prior = ", prior N(0, I) on the weights" if config.prior else ""
    rate = f"{optim.lr:g}" if optim.lr != AUTO else _describe_search(config)
    return f"{train.samples:,} samples seen in {steps:,} steps of {train.batch_size}, {optim.name} {rate}, {optim.schedule}{prior}"


def _describe_search(config: VaeTrain) -> str:
    rates = ", ".join(f"{rate:g}" for rate in config.rate_search.rates)
    return f"with the best rate of {rates} after {config.rate_search.samples:,} samples of each"
