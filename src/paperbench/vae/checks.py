"""What a configuration may not ask for, found before anything is written."""

from __future__ import annotations

from collections.abc import Iterator

from paperbench.engine.order import EpochOrder
from paperbench.errors import ConfigError
from paperbench.vae import pixels
from paperbench.vae.build import is_gaussian
from paperbench.vae.config import AutoencoderModel, VaeTrain
from paperbench.vae.marginal import MOST_DIMENSIONS


def check(config: VaeTrain) -> None:
    """Raises ConfigError with everything that contradicts itself in `config`, or DataError when its data are not there."""
    mistakes = [*_of_estimator(config), *_of_model(config), *_of_evaluation(config)]
    if mistakes:
        raise ConfigError(*mistakes)
    pixels.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)


def _of_estimator(config: VaeTrain) -> Iterator[str]:
    plain = isinstance(config.model, AutoencoderModel)
    if plain and config.estimator != "aevb":
        yield f"estimator={config.estimator}: a plain autoencoder has no distribution to estimate; take model=vae"
    if config.bound.form != "analytic" and (plain or config.estimator != "aevb"):
        what = "a plain autoencoder" if plain else f"estimator={config.estimator}"
        yield f"bound.form={config.bound.form}: {what} maximises no bound; it belongs to estimator=aevb"
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


def _of_model(config: VaeTrain) -> Iterator[str]:
    model = config.model
    if isinstance(model, AutoencoderModel):
        return
    if model.beta != 1 and (config.estimator != "aevb" or config.bound.form != "analytic"):
        yield (
            f"model.beta={model.beta:g}: weighs the KL term, which is apart only with estimator=aevb and bound.form=analytic"
        )
    if is_gaussian(config) and config.binarisation != "grey":
        yield (
            f"binarisation={config.binarisation}: Gaussian pixels are grey; take binarisation=grey, or "
            "model.likelihood=bernoulli"
        )
    if model.min_log_variance is not None and not is_gaussian(config):
        yield f"model.min_log_variance={model.min_log_variance:g}: Bernoulli pixels have no variance of their own"


def _of_evaluation(config: VaeTrain) -> Iterator[str]:
    latent, wanted = config.model.latent, config.evaluation.marginal.images
    if isinstance(config.model, AutoencoderModel):
        if wanted:
            yield f"evaluation.marginal.images={wanted}: a plain autoencoder has no log p(x)"
    elif config.marginal_images and latent > MOST_DIMENSIONS:
        why = f"evaluation.marginal.images={wanted}: the estimator of appendix D is"
        if not wanted:
            why = "estimator=mcem: has no recognition model, and what measures it without one (appendix D) is"
        yield f"{why} for at most {MOST_DIMENSIONS} latent dimensions; model.latent is {latent}, take model.latent=3"
