"""Task `stn-colocalise`: an encoder of digits first, then a transformer on the images of each digit (A.2, table 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from paperbench.config.schema import LoopConfig, OptimConfig
from paperbench.data import labelled
from paperbench.data.image_sets import ImageSet
from paperbench.engine.checkpoints import load_for_evaluation, without_prefix
from paperbench.engine.counter_rng import uniform
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.trainer import build_trainer
from paperbench.errors import ConfigError, DataError
from paperbench.stn.colocalise import Colocaliser, box_iou, make_transformer, window_boxes
from paperbench.stn.config import StnColocalise
from paperbench.stn.data import evaluation_digits, training_digits
from paperbench.stn.distortions import SIDE, TranslationClutter, make_distortion
from paperbench.stn.drawing import draw_windows
from paperbench.stn.evaluation import DigitEvaluator
from paperbench.stn.networks import ConvolutionalNet, FrontEndNet
from paperbench.stn.training import DigitClassifier

__all__ = ["load_model", "plan", "run"]

CLUTTER = 103
"""First key of the streams that place digits and clutter."""
MIN_IOU = 0.5
"""IoU above which a digit counts as found."""
REFERENCE_DIGITS = 256
"""Digits on which the scale of the encoder's layers is measured."""


@dataclass(frozen=True)
class Scene:
    """The images of one digit, (N, 1, canvas, canvas) in 0..1, and its boxes, (N, 4) normalised."""

    images: Tensor
    boxes: Tensor


def plan(config: StnColocalise) -> Mapping[str, str]:
    """Describe data, model and schedule. Raises what would stop the run, before anything is written."""
    labelled.locate(config.data)
    if config.nproc > 1:
        raise ConfigError(f"nproc={config.nproc}: all images of a set take part in every step; use nproc=1")
    if len(set(config.digits)) < len(config.digits):
        raise ConfigError(f"digits={list(config.digits)}: names a digit twice")
    if config.initial_scale < config.min_scale:
        raise ConfigError(f"initial_scale={config.initial_scale}: is below min_scale={config.min_scale}")
    clutter = f"{config.clutter} patches of clutter" if config.clutter else "no clutter"
    return {
        "data": f"{labelled.describe(config.data)}, {config.images} images of a digit on "
        f"{config.canvas}x{config.canvas}, {clutter}",
        "model": f"attention transformer, encoder CNN with {config.encoder.filters} filters",
        "schedule": f"encoder on {config.encoder.samples:,} digits, then {config.train.steps:,} steps for each of "
        f"{len(config.digits)} digits",
    }


def run(config: StnColocalise, run: Run) -> dict[str, float]:
    """Train the encoder, localise each digit, draw; see `engine.task.Task`."""
    train_set = labelled.load(config.data, "train")
    chosen = {digit: _find_digit(train_set, digit, config.images) for digit in config.digits}
    encoder, metrics = _train_encoder(config, train_set, run)
    digits = train_set.images[:REFERENCE_DIGITS].to(run.device).unsqueeze(1).float() / 255
    done = _encoder_steps(config)
    percent_found: list[float] = []
    for digit, members in chosen.items():
        run.raise_if_stopped()
        scene = _make_scene(config, train_set, members, digit, run)
        seed_everything(run.seed, MODEL_INIT, digit + 1)
        colocaliser = _make_colocaliser(config, encoder, digits).to(run.device)
        view = stage(run, f"digit-{digit}", before=done, total=_steps(config), log_prefix="", log_offset=done)
        _localise(config, colocaliser, scene, view, digit)
        done += config.train.steps
        overlaps = colocaliser.overlaps(scene.images, scene.boxes)
        percent_found.append(100 * float((overlaps > MIN_IOU).float().mean()))
        metrics |= {f"colocalise/{digit}": percent_found[-1], f"colocalise/iou/{digit}": float(overlaps.mean())}
        run.reporter.message(f"digit {digit}: {percent_found[-1]:.0f} % found")
        if run.ranks.is_main:
            count = config.evaluation.pictures
            run.draw(
                draw_windows,
                scene.images[:count],
                colocaliser.transformer,
                scene.boxes[:count],
                run.directory.figures / f"digit-{digit}.png",
            )
    return {
        **metrics,
        "colocalise/mean": sum(percent_found) / len(percent_found),
        "colocalise/lowest": min(percent_found),
        "colocalise/highest": max(percent_found),
    }


def _encoder_steps(config: StnColocalise) -> int:
    return -(-config.encoder.samples // config.encoder.batch_size)


def _steps(config: StnColocalise) -> int:
    """Return the optimizer steps of the whole run."""
    return _encoder_steps(config) + len(config.digits) * config.train.steps


def _find_digit(train_set: ImageSet, digit: int, count: int) -> Tensor:
    """Return the indices of the first `count` images of a digit."""
    members = torch.nonzero(train_set.labels == digit).flatten()[:count]
    if len(members) < count:
        raise DataError(f"{train_set.name}: has {len(members)} images of digit {digit}, fewer than images={count}")
    return members


def _make_scene(config: StnColocalise, train_set: ImageSet, members: Tensor, digit: int, run: Run) -> Scene:
    """Place the images of a digit, and clutter: a pure function of seed and digit."""
    distortion = TranslationClutter(config.canvas, patches=config.clutter)
    samples = members.to(run.device)
    noise = uniform(hashed(run.seed, CLUTTER, digit), samples, torch.zeros_like(samples), distortion.draws)
    return Scene(distortion(train_set.images.to(run.device), samples, noise), distortion.boxes(noise))


def _make_encoder(config: StnColocalise) -> ConvolutionalNet:
    return ConvolutionalNet(channels=1, side=SIDE, filters=config.encoder.filters, classes=10)


def _train_encoder(config: StnColocalise, train_set: ImageSet, run: Run) -> tuple[ConvolutionalNet, dict[str, float]]:
    """Train or resume the digit CNN, and return it with its error on the test digits."""
    options = config.encoder
    seed_everything(run.seed, MODEL_INIT)
    net = _make_encoder(config).to(run.device)
    classifier = DigitClassifier(
        FrontEndNet(torch.nn.Identity(), net), evaluations=1, classes=10, shape=(1, SIDE, SIDE)
    ).to(run.device)
    inputs = training_digits(train_set, make_distortion(options.distortion), run.seed, run.device)
    test_set = evaluation_digits(labelled.load(config.data, "test"), make_distortion(options.distortion), 0, run.device)
    loop = LoopConfig(
        samples=options.samples,
        batch_size=options.batch_size,
        log_every=config.train.log_every,
        checkpoint_every=config.train.checkpoint_every,
        checkpoint_seconds=config.train.checkpoint_seconds,
        prefetch=config.train.prefetch,
    )
    optim = OptimConfig(name="adamw", lr=options.lr, schedule="cosine", warmup_steps=loop.steps // 10)
    metrics = build_trainer(
        stage(run, "encoder", total=_steps(config), log_prefix=""),
        classifier,
        groups=[{"params": net.parameters()}],
        optim=optim,
        loop=loop,
        order=len(inputs),
        fetch=inputs.fetch,
        evaluate=DigitEvaluator(classifier, test_set, run, batch_size=config.evaluation.batch_size),
    ).fit()
    return net, {"encoder/error": metrics["test/error"]}


def _make_colocaliser(config: StnColocalise, encoder: ConvolutionalNet, digits: Tensor) -> Colocaliser:
    return Colocaliser(
        encoder,
        digits,
        canvas=config.canvas,
        window=SIDE,
        initial_scale=config.initial_scale,
        min_scale=config.min_scale,
        margin=config.margin,
        attraction=config.attraction,
        search_weight=config.search_weight,
    )


def _localise(config: StnColocalise, colocaliser: Colocaliser, scene: Scene, run: Run, digit: int) -> None:
    """Train or resume the transformer of one digit."""
    if config.search_weight:
        centres = colocaliser.search(scene.images)
        size = torch.full_like(centres[:, :1], SIDE / config.canvas)
        found = box_iou(window_boxes(torch.cat([size, centres], dim=1)), scene.boxes) > MIN_IOU
        run.reporter.message(f"{100 * float(found.float().mean()):.0f} % found by the search alone")
    else:
        centres = scene.images.new_zeros(len(scene.images), 2)

    def fetch(key: BatchKey) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(key.indices).to(scene.images.device)
        return scene.images[index], centres[index]

    def evaluate() -> dict[str, float]:
        overlaps = colocaliser.overlaps(scene.images, scene.boxes)
        return {f"colocalise/{digit}": 100 * float((overlaps > MIN_IOU).float().mean())}

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


def load_model(config: StnColocalise, run_dir: Path) -> nn.ModuleDict:
    """Return `encoder`, the digit net, and `digit-<d>`, the transformer of each digit; see `engine.task.LoadsModel`."""

    def weights(name: str, prefix: str) -> dict[str, Tensor]:
        state, *_ = load_for_evaluation(run_dir / "checkpoints" / name, which="last")
        return without_prefix(state["module"], prefix)

    nets = nn.ModuleDict({"encoder": _make_encoder(config)})
    nets["encoder"].load_state_dict(weights("encoder", "net.classifier."))
    for digit in config.digits:
        transformer = make_transformer(
            canvas=config.canvas, window=SIDE, initial_scale=config.initial_scale, min_scale=config.min_scale
        )
        transformer.load_state_dict(weights(f"digit-{digit}", "transformer."))
        nets[f"digit-{digit}"] = transformer
    return nets.eval()
