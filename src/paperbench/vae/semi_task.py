"""Task `vae-semi`: classify with few labels, by M1 or M2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from paperbench.data import labelled
from paperbench.data.image_sets import ImageSet
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, generator, hashed, seed_everything
from paperbench.engine.trainer import build_trainer
from paperbench.engine.transfer import to_device
from paperbench.errors import ConfigError, DataError
from paperbench.vae import data, drawing
from paperbench.vae.config import BoundConfig, M1Model, M2Model, SemiTrain, VaeModel
from paperbench.vae.data import Pixels, Split
from paperbench.vae.evaluation import BOUND, CHUNK
from paperbench.vae.model import make_encoder, make_generative
from paperbench.vae.nets import initialise
from paperbench.vae.objectives import Aevb, bound
from paperbench.vae.semi import M2, SemiBatch, make_classifier

__all__ = ["load_model", "plan", "run"]

CHOICE, LABELLED = 120, 121
"""First keys of the streams of which images have labels, and of the order in which these are seen."""

_STYLES = 10
"""Rows of the figure of M2."""


def plan(config: SemiTrain) -> Mapping[str, str]:
    """Describe data, model and schedule. Raises what would stop the run, before anything is written."""
    mistakes = []
    if config.labels % 10:
        mistakes.append(f"labels={config.labels}: classes have equal numbers of labels; give a multiple of 10")
    if config.labelled_batch_size > config.labels:
        mistakes.append(f"labelled_batch_size={config.labelled_batch_size}: there are only labels={config.labels}")
    if mistakes:
        raise ConfigError(*mistakes)
    data.locate(config.data)
    for batch in (config.train.batch_size, config.labelled_batch_size):
        EpochOrder(1, batch, config.seed, world=config.nproc)
    model = config.model
    steps = -(-config.train.samples // config.train.batch_size)
    return {
        "data": f"{data.describe(config.data, config.binarisation)}, {config.labels} labels",
        "model": f"{model.name}, hidden layers of {model.hidden} {model.activation}, {model.latent} latent dimensions",
        "schedule": f"{config.train.samples:,} samples seen in {steps:,} steps of {config.train.batch_size}, "
        f"{config.optim.name} {config.optim.lr:g}",
    }


def run(config: SemiTrain, run: Run) -> dict[str, float]:
    """Train, and classify the test images; see `engine.task.Task`."""
    images = _load(config, run)
    seed_everything(run.seed, MODEL_INIT)
    metrics = (_run_m2 if isinstance(config.model, M2Model) else _run_m1)(config, run, images)
    if run.ranks.is_main:
        run.draw(loss_curves, run.directory.metrics_file, run.directory.figures / "losses.png")
    return metrics


# --- images -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Images:
    train: Pixels
    """All training images, labelled or not."""
    unlabelled: Pixels
    labelled: Pixels
    test: Pixels
    classes: int


def _load(config: SemiTrain, run: Run) -> _Images:
    train, test = labelled.load(config.data, "train"), labelled.load(config.data, "test")
    chosen = choose_labelled(train.labels, config.labels, classes=len(train.classes), seed=config.seed)
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[chosen] = False

    def pixels(images: ImageSet, split: Split) -> Pixels:
        return Pixels(images, split=split, binarisation=config.binarisation, divisor=255, device=run.device)

    return _Images(
        train=pixels(train, "train"),
        unlabelled=pixels(_select(train, rest), "train"),
        labelled=pixels(_select(train, chosen), "train"),
        test=pixels(test, "test"),
        classes=len(train.classes),
    )


def _select(images: ImageSet, index: Tensor) -> ImageSet:
    return replace(images, images=images.images[index], labels=images.labels[index])


def choose_labelled(labels: Tensor, count: int, *, classes: int, seed: int) -> Tensor:
    """Choose `count` images, as many of each class, and return their positions in ascending order: a pure function of the seed.

    Raises DataError when a class has too few.
    """
    order = torch.from_numpy(EpochOrder(len(labels), len(labels), hashed(seed, CHOICE)).batch(0).indices)
    share = count // classes
    chosen = []
    for number in range(classes):
        of_class = order[labels[order] == number][:share]
        if len(of_class) < share:
            raise DataError(
                f"class {number} has {len(of_class)} training images, and {share} labels of it are needed; lower labels="
            )
        chosen.append(of_class)
    return torch.cat(chosen).sort().values


# --- the two models ---------------------------------------------------------------------------------------------------


def _run_m1(config: SemiTrain, run: Run, images: _Images) -> dict[str, float]:
    model = config.model
    assert isinstance(model, M1Model)
    objective = _make_objective(model, size=images.train.size)
    initialise(objective, model.init_std)
    objective.to(run.device)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        def codes(of: Pixels) -> np.ndarray:
            return _map_chunks(of, lambda x, _: objective.encoder.posterior(x).mean).cpu().numpy()

        classifier = make_classifier(model)
        classifier.fit(codes(images.labelled), images.labelled.labels.cpu().numpy())
        predicted = torch.from_numpy(classifier.predict(codes(images.test)))

        def bound_of(x: Tensor, chunk: int) -> Tensor:
            stream = generator(run.device, run.seed, BOUND, chunk)
            noise = torch.randn((1, len(x), model.latent), generator=stream, device=run.device)
            return bound("analytic", objective.model, objective.encoder, x, noise)

        return {
            **_errors(predicted, images.test),
            "test/bound": float(_map_chunks(images.test, bound_of).cpu().double().mean()),
        }

    return build_trainer(
        run,
        objective,
        optim=config.optim,
        loop=config.train,
        order=len(images.train),
        fetch=lambda key: images.train.train_batch(key, seed=run.seed),
        evaluate=evaluate,
    ).fit()


def _make_objective(model: M1Model, *, size: data.Size) -> Aevb:
    net = VaeModel(latent=model.latent, hidden=model.hidden, activation=model.activation)
    return Aevb(make_generative(net, size=size, gaussian=False), make_encoder(net, size=size), BoundConfig())


def _run_m2(config: SemiTrain, run: Run, images: _Images) -> dict[str, float]:
    assert isinstance(config.model, M2Model)
    model = M2(
        config.model,
        pixels=images.train.width,
        classes=images.classes,
        labelled_fraction=len(images.labelled) / len(images.train),
    )
    initialise(model, config.model.init_std)
    model.to(run.device)
    ranks = run.ranks
    order_labelled = EpochOrder(
        len(images.labelled), config.labelled_batch_size, hashed(run.seed, LABELLED), ranks.rank, ranks.world
    )

    def fetch(key: BatchKey) -> SemiBatch:
        labelled_key = order_labelled.batch(key.step)
        index = to_device(labelled_key.indices, run.device)
        return SemiBatch(
            images.unlabelled.train_batch(key, seed=run.seed),
            images.labelled.train_batch(labelled_key, seed=hashed(run.seed, LABELLED)),
            images.labelled.labels[index],
        )

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        return _errors(_map_chunks(images.test, lambda x, _: model.log_q_classes(x).argmax(-1)).cpu(), images.test)

    metrics = build_trainer(
        run, model, optim=config.optim, loop=config.train, order=len(images.unlabelled), fetch=fetch, evaluate=evaluate
    ).fit()
    if ranks.is_main:
        run.draw(_draw_styles, model, images, run, config.seed)
    return metrics


# --- measurements -----------------------------------------------------------------------------------------------------


def _map_chunks(of: Pixels, measure: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Return `measure(images, chunk)` of all images, concatenated."""
    starts = range(0, len(of), CHUNK)
    return torch.cat([measure(of.eval_batch(start, start + CHUNK), number) for number, start in enumerate(starts)])


def _errors(predicted: Tensor, test: Pixels) -> dict[str, float]:
    wrong = int((predicted != test.labels.cpu()).sum())
    return {"test/error": 100.0 * wrong / len(test), "test/errors": wrong}


def _draw_styles(model: M2, images: _Images, run: Run, seed: int) -> None:
    """Draw a row for each z, a column for each class: M2 separates class and style."""
    z = drawing.sample_prior(_STYLES, model.latent, seed).to(run.device).repeat_interleave(images.classes, 0)
    classes = torch.arange(images.classes, device=run.device).repeat(_STYLES)
    with torch.no_grad():
        decoded = model.decode(z, classes)
    drawing.save_image_grid(decoded, images.test.size, run.directory.figures / "styles.png", columns=images.classes)


def load_model(config: SemiTrain, run_dir: Path) -> nn.Module:
    """Return M2, or the auto-encoder of M1, of a run; see `engine.task.LoadsModel`."""
    weights = load_for_evaluation(run_dir, which="last")[0]["module"]
    if isinstance(config.model, M2Model):
        classes, pixels = weights["encoder.of_class.weight"].shape[1], weights["encoder.of_input.weight"].shape[1]
        net: nn.Module = M2(config.model, pixels=pixels, classes=classes, labelled_fraction=1.0)
    else:
        net = _make_objective(config.model, size=data.image_size(config.data))
    net.load_state_dict(weights)
    return net.eval()
