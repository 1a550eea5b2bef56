"""Task `vae-semi`: classify with few labels, by M1 or M2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from paperbench.data import labelled
from paperbench.data.classification import ImageSet
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, generator, hashed, seed_everything
from paperbench.engine.trainer import build_trainer
from paperbench.errors import ConfigError, DataError
from paperbench.vae import build, pictures, pixels
from paperbench.vae.bounds import bound
from paperbench.vae.config import M2Model, SemiTrain, VaeModel
from paperbench.vae.evaluation import BOUND, CHUNK
from paperbench.vae.model import Guide
from paperbench.vae.nets import MlpFeatures, initialise
from paperbench.vae.objectives import Aevb
from paperbench.vae.pixels import Pixels, Split
from paperbench.vae.semi import M2, SemiBatch, classifier_of_features

__all__ = ["plan", "run"]

CHOICE, LABELLED = 120, 121
"""First keys of the streams that say which images have labels, and in which order these are seen."""

_STYLES = 10


def plan(config: SemiTrain) -> Mapping[str, str]:
    """What would be trained on what, in words; refuses what could not be, before anything is written."""
    mistakes = []
    if config.labelled % 10:
        mistakes.append(f"labelled={config.labelled}: as many of each class as of any other; give a multiple of 10")
    if config.labelled_batch > config.labelled:
        mistakes.append(f"labelled_batch={config.labelled_batch}: there are only labelled={config.labelled} labels")
    if mistakes:
        raise ConfigError(*mistakes)
    pixels.locate(config.data)
    for batch in (config.train.batch_size, config.labelled_batch):
        EpochOrder(1, batch, config.seed, world=config.nproc)
    model = config.model
    steps = -(-config.train.samples // config.train.batch_size)
    return {
        "data": f"{pixels.describe(config.data, config.binarisation)}, {config.labelled} labels",
        "model": f"{model.name}, hidden layers of {model.hidden} {model.activation}, {model.latent} latent dimensions",
        "schedule": f"{config.train.samples:,} samples seen in {steps:,} steps of {config.train.batch_size}, "
        f"{config.optim.name} {config.optim.lr:g}",
    }


def run(config: SemiTrain, run: Run) -> dict[str, float]:
    """Trains and classifies the test images; see `engine.task.Task`."""
    images = _load(config, run)
    seed_everything(run.seed, MODEL_INIT)
    metrics = (_run_m2 if isinstance(config.model, M2Model) else _run_m1)(config, run, images)
    if run.ranks.is_main:
        loss_curves(run.directory.metrics_file, run.directory.figures / "losses.png")
    return metrics


# --- images -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    every: Pixels
    unlabelled: Pixels
    labelled: Pixels
    test: Pixels
    classes: int


def _load(config: SemiTrain, run: Run) -> _Images:
    train, test = labelled.load(config.data, "train"), labelled.load(config.data, "test")
    chosen = choose(train.labels, config.labelled, classes=len(train.classes), seed=config.seed)
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[chosen] = False

    def made(images: ImageSet, split: Split) -> Pixels:
        return Pixels(images, split=split, binarisation=config.binarisation, divisor=255, device=run.device)

    return _Images(
        made(train, "train"), made(_of(train, rest), "train"), made(_of(train, chosen), "train"), made(test, "test"),
        len(train.classes),
    )  # fmt: skip


def _of(images: ImageSet, which: Tensor) -> ImageSet:
    return replace(images, images=images.images[which], labels=images.labels[which])


def choose(labels: Tensor, count: int, *, classes: int, seed: int) -> Tensor:
    """Positions of `count` images, as many of each class, in ascending order: a pure function of the seed.

    Raises DataError when a class has too few.
    """
    order = torch.from_numpy(EpochOrder(len(labels), len(labels), hashed(seed, CHOICE)).batch(0).indices)
    share = count // classes
    found = []
    for number in range(classes):
        of_class = order[labels[order] == number][:share]
        if len(of_class) < share:
            raise DataError(
                f"class {number} has {len(of_class)} training images, and {share} of it should be labelled; lower labelled="
            )
        found.append(of_class)
    return torch.cat(found).sort().values


# --- the two models ---------------------------------------------------------------------------------------------------


def _run_m1(config: SemiTrain, run: Run, images: _Images) -> dict[str, float]:
    wanted = config.model
    assert not isinstance(wanted, M2Model)
    net = VaeModel(latent=wanted.latent, hidden=wanted.hidden, activation=wanted.activation)
    features = MlpFeatures(inputs=images.every.width, hidden=wanted.hidden, activation=wanted.activation)
    objective = Aevb(
        build.generative(net, size=images.every.size, gaussian=False),
        Guide(features, width=wanted.hidden, latent=wanted.latent),
    )
    initialise(objective, wanted.init_std)
    objective.to(run.device)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        def codes(of: Pixels) -> np.ndarray:
            return _in_chunks(of, lambda x, _: objective.guide.posterior(x).mean).cpu().numpy()

        classifier = classifier_of_features(wanted.classifier, regularisation=wanted.regularisation)
        classifier.fit(codes(images.labelled), images.labelled.labels.cpu().numpy())
        found = torch.from_numpy(classifier.predict(codes(images.test)))

        def bound_of(x: Tensor, chunk: int) -> Tensor:
            stream = generator(run.device, run.seed, BOUND, chunk)
            noise = torch.randn((1, len(x), wanted.latent), generator=stream, device=run.device)
            return bound("analytic", objective.model, objective.guide, x, noise)

        return {**_errors(found, images.test), "test/bound": float(_in_chunks(images.test, bound_of).double().mean())}

    return build_trainer(
        run,
        objective,
        optim=config.optim,
        loop=config.train,
        order=len(images.every),
        fetch=lambda key: images.every.batch(key, seed=run.seed),
        evaluate=evaluate,
    ).fit()


def _run_m2(config: SemiTrain, run: Run, images: _Images) -> dict[str, float]:
    wanted = config.model
    assert isinstance(wanted, M2Model)
    model = M2(
        pixels=images.every.width,
        classes=images.classes,
        latent=wanted.latent,
        hidden=wanted.hidden,
        activation=wanted.activation,
        share_labelled=len(images.labelled) / len(images.every),
        alpha=wanted.alpha,
    )
    initialise(model, wanted.init_std)
    model.to(run.device)
    ranks = run.ranks
    order_labelled = EpochOrder(
        len(images.labelled), config.labelled_batch, hashed(run.seed, LABELLED), ranks.rank, ranks.world
    )

    def fetch(key: BatchKey) -> SemiBatch:
        with_label = order_labelled.batch(key.step)
        index = torch.from_numpy(with_label.indices).to(run.device)
        return SemiBatch(
            images.unlabelled.batch(key, seed=run.seed),
            images.labelled.batch(with_label, seed=hashed(run.seed, LABELLED)),
            images.labelled.labels[index],
        )

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        return _errors(_in_chunks(images.test, lambda x, _: model.log_q_classes(x).argmax(-1)).cpu(), images.test)

    metrics = build_trainer(
        run, model, optim=config.optim, loop=config.train, order=len(images.unlabelled), fetch=fetch, evaluate=evaluate
    ).fit()
    if ranks.is_main:
        _draw_styles(model, images, run, config.seed)
    return metrics


# --- measurements -----------------------------------------------------------------------------------------------------


def _in_chunks(of: Pixels, measure: Callable[[Tensor, int], Tensor]) -> Tensor:
    """`measure(images, chunk)` of all images, together."""
    starts = range(0, len(of), CHUNK)
    return torch.cat([measure(of.still(start, start + CHUNK), number) for number, start in enumerate(starts)])


def _errors(found: Tensor, test: Pixels) -> dict[str, float]:
    wrong = int((found != test.labels.cpu()).sum())
    return {"test/error": 100.0 * wrong / len(test), "test/errors": wrong}


def _draw_styles(model: M2, images: _Images, run: Run, seed: int) -> None:
    """A row for each draw of z, a column for each class: M2 tells what is drawn from how it is drawn."""
    z = pictures.random_latents(_STYLES, model.latent, seed).to(run.device).repeat_interleave(images.classes, 0)
    classes = torch.arange(images.classes, device=run.device).repeat(_STYLES)
    with torch.no_grad():
        drawn = model.image(z, classes)
    pictures.save_sheet(drawn, images.test.size, run.directory.figures / "styles.png", columns=images.classes)
