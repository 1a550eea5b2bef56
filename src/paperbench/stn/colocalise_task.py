"""Task `stn-colocalise`: an encoder of digits first, then for each digit a transformer on a set of its images (A.2, table 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.data import labelled
from paperbench.data.classification import ImageSet
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.trainer import build_trainer
from paperbench.errors import ConfigError, DataError
from paperbench.stn import distortions
from paperbench.stn.colocalise import Colocaliser
from paperbench.stn.config import StnColocalise
from paperbench.stn.drawing import windows_found
from paperbench.stn.geometry import box_iou, boxes_of
from paperbench.stn.inputs import for_test, for_training
from paperbench.stn.learner import Classification, ErrorCount
from paperbench.stn.networks import ConvolutionalNet, FrontedNet

__all__ = ["plan", "run"]

CLUTTER = 103
"""First key of the streams that place digits and clutter."""
FOUND_AT = 0.5
"""IoU above which a digit counts as found."""
REFERENCE = 256
"""Digits by which the encoder's layers are brought to one scale."""


@dataclass(frozen=True)
class Scene:
    """The images of one digit, (N, 1, canvas, canvas) in 0..1, and where the digit is, (N, 4) normalised."""

    images: Tensor
    boxes: Tensor


def plan(config: StnColocalise) -> Mapping[str, str]:
    """What would be done on what, in words. Raises what would stop the run, before anything is written."""
    labelled.locate(config.data)
    if config.nproc > 1:
        raise ConfigError(f"nproc={config.nproc}: all images of a set take part in every step; use nproc=1")
    if len(set(config.digits)) < len(config.digits):
        raise ConfigError(f"digits={list(config.digits)}: names a digit twice")
    if config.start < config.smallest:
        raise ConfigError(f"start={config.start}: is below smallest={config.smallest}")
    clutter = f"{config.clutter} patches of clutter" if config.clutter else "no clutter"
    return {
        "data": f"{labelled.describe(config.data)}, {config.images} images of a digit on "
        f"{config.canvas}x{config.canvas}, {clutter}",
        "model": f"attention transformer, encoder CNN with {config.encoder.filters} filters",
        "schedule": f"encoder on {config.encoder.samples:,} digits, then {config.train.steps:,} steps for each of "
        f"{len(config.digits)} digits",
    }


def run(config: StnColocalise, run: Run) -> dict[str, float]:
    """Trains the encoder, localises each digit, draws; see `engine.task.Task`."""
    train_set = labelled.load(config.data, "train")
    chosen = {digit: _members(train_set, digit, config.images) for digit in config.digits}
    encoder, metrics = _encoder(config, train_set, run)
    digits = train_set.images[:REFERENCE].to(run.device).unsqueeze(1).float() / 255
    done = _encoder_steps(config)
    found: list[float] = []
    for digit, members in chosen.items():
        run.raise_if_stopped()
        scene = _scene(config, train_set, members, digit, run)
        seed_everything(run.seed, MODEL_INIT, digit + 1)
        colocaliser = _colocaliser(config, encoder, digits).to(run.device)
        view = stage(run, f"digit-{digit}", before=done, total=_steps(config), log_prefix="", log_offset=done)
        _localise(config, colocaliser, scene, view, digit)
        done += config.train.steps
        overlaps = colocaliser.overlaps(scene.images, scene.boxes)
        found.append(100 * float((overlaps > FOUND_AT).float().mean()))
        metrics |= {f"colocalise/{digit}": found[-1], f"colocalise/iou/{digit}": float(overlaps.mean())}
        run.reporter.message(f"digit {digit}: {found[-1]:.0f} % found")
        if run.ranks.is_main:
            shown = config.evaluation.pictures
            windows_found(
                scene.images[:shown],
                colocaliser.transformer,
                scene.boxes[:shown],
                run.directory.figures / f"digit-{digit}.png",
            )
    return {
        **metrics,
        "colocalise/mean": sum(found) / len(found),
        "colocalise/lowest": min(found),
        "colocalise/highest": max(found),
    }


def _encoder_steps(config: StnColocalise) -> int:
    return -(-config.encoder.samples // config.encoder.batch_size)


def _steps(config: StnColocalise) -> int:
    """Optimizer steps of the whole run."""
    return _encoder_steps(config) + len(config.digits) * config.train.steps


def _members(train_set: ImageSet, digit: int, count: int) -> Tensor:
    """Indices of the first `count` images of a digit."""
    members = torch.nonzero(train_set.labels == digit).flatten()[:count]
    if len(members) < count:
        raise DataError(f"{train_set.name}: has {len(members)} images of digit {digit}, images={count} were asked for")
    return members


def _scene(config: StnColocalise, train_set: ImageSet, members: Tensor, digit: int, run: Run) -> Scene:
    """The same one for the same seed, whatever else the run does."""
    placed = distortions.Cluttered(config.canvas, patches=config.clutter)
    samples = members.to(run.device)
    noise = uniform(hashed(run.seed, CLUTTER, digit), samples, torch.zeros_like(samples), placed.draws)
    return Scene(placed(train_set.images.to(run.device), samples, noise), placed.boxes(noise))


def _encoder(config: StnColocalise, train_set: ImageSet, run: Run) -> tuple[ConvolutionalNet, dict[str, float]]:
    """The digit CNN, trained or taken up again, and its error on the test digits."""
    options = config.encoder
    seed_everything(run.seed, MODEL_INIT)
    net = ConvolutionalNet(channels=1, side=distortions.SIDE, filters=options.filters, classes=10).to(run.device)
    learner = Classification(
        FrontedNet(torch.nn.Identity(), net), evaluations=1, classes=10, shape=(1, distortions.SIDE, distortions.SIDE)
    ).to(run.device)
    inputs = for_training(train_set, distortions.make(options.distortion), run.seed, run.device)
    test_set = for_test(labelled.load(config.data, "test"), distortions.make(options.distortion), 0, run.device)
    loop = LoopConfig(
        samples=options.samples,
        batch_size=options.batch_size,
        log_every=config.train.log_every,
        checkpoint_every=config.train.checkpoint_every,
        prefetch=config.train.prefetch,
    )
    optim = OptimConfig(name="adamw", lr=options.lr, schedule="cosine", warmup_steps=loop.steps // 10)
    metrics = build_trainer(
        stage(run, "encoder", total=_steps(config), log_prefix=""),
        learner,
        groups=[{"params": net.parameters()}],
        optim=optim,
        loop=loop,
        order=len(inputs),
        fetch=inputs.fetch,
        evaluate=ErrorCount(learner, test_set, run, batch_size=config.evaluation.batch_size),
    ).fit()
    return net, {"encoder/error": metrics["test/error"]}


def _colocaliser(config: StnColocalise, encoder: ConvolutionalNet, digits: Tensor) -> Colocaliser:
    return Colocaliser(
        encoder,
        digits,
        canvas=config.canvas,
        window=distortions.SIDE,
        start=config.start,
        smallest=config.smallest,
        margin=config.margin,
        attraction=config.attraction,
        coarse=config.coarse,
    )


def _localise(config: StnColocalise, colocaliser: Colocaliser, scene: Scene, run: Run, digit: int) -> None:
    """Trains the transformer of one digit, or takes it up again."""
    if config.coarse:
        centres = colocaliser.search(scene.images)
        size = torch.full_like(centres[:, :1], distortions.SIDE / config.canvas)
        found = box_iou(boxes_of(torch.cat([size, centres], dim=1)), scene.boxes) > FOUND_AT
        run.reporter.message(f"{100 * float(found.float().mean()):.0f} % found by the search alone")
    else:
        centres = scene.images.new_zeros(len(scene.images), 2)

    def fetch(key: BatchKey) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(key.indices).to(scene.images.device)
        return scene.images[chosen], centres[chosen]

    def evaluate() -> dict[str, float]:
        overlaps = colocaliser.overlaps(scene.images, scene.boxes)
        return {f"colocalise/{digit}": 100 * float((overlaps > FOUND_AT).float().mean())}

    build_trainer(
        run,
        colocaliser,
        groups=[{"params": colocaliser.transformer.parameters()}],
        optim=config.optim,
        loop=config.train,
        order=EpochOrder(len(scene.images), config.train.batch_size, hashed(run.seed, digit)),
        fetch=fetch,
        evaluate=evaluate,
    ).fit()
    colocaliser.eval()
