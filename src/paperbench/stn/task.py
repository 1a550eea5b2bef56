"""Tasks `stn-mnist`, distorted digits (section 4.1, table 1), and `stn-addition`, the sum of two digits, each distorted in a
channel of its own (appendix A.1, table 4)."""

from __future__ import annotations

from collections.abc import Mapping

from paperbench.data import labelled
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.errors import ConfigError
from paperbench.stn import drawing
from paperbench.stn.distortions import make_distortion
from paperbench.stn.evaluation import DigitEvaluator
from paperbench.stn.export import export_model
from paperbench.stn.layers import count_parameters
from paperbench.stn.networks import has_transformer
from paperbench.stn.predict import predict
from paperbench.stn.training import (
    DigitConfig,
    describe_schedule,
    digits_per_input,
    load_digits,
    load_model,
    load_splits,
    make_classifier,
    make_net,
    make_trainer,
)

__all__ = ["export_model", "load_model", "plan", "predict", "run"]

_DISTORTIONS = {
    "none": "undistorted",
    "r": "rotated (R)",
    "rts": "rotated, scaled, translated (RTS)",
    "p": "in perspective (P)",
    "e": "elastic (E)",
    "tc": "translated, cluttered (TC)",
}


def plan(config: DigitConfig) -> Mapping[str, str]:
    """Describe data, model and schedule. Raises what would stop the run, before anything is written."""
    labelled.locate(config.data)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    if config.transform != "affine" and not has_transformer(config.model):
        raise ConfigError(
            f"transform={config.transform}: model {config.model.name} has no transformer; leave transform out"
        )
    net = make_net(config)
    canvas = make_distortion(config.distortion).canvas
    held_back = ""
    if config.validation.images:
        load_splits(config)
        held_back = f", the last {config.validation.images:,} training images held back and scored"
    pairs = "pairs of " if digits_per_input(config) == 2 else ""
    return {
        "data": f"{pairs}{labelled.describe(config.data)}, {_DISTORTIONS[config.distortion]}, {canvas}x{canvas}"
        f"{held_back}",
        "model": f"{_describe_model(config)}, {count_parameters(net):,} weights",
        "schedule": describe_schedule(config.train, config.optim),
    }


def _describe_model(config: DigitConfig) -> str:
    """Return the model in words, as in `2 x ST-FCN (affine)`."""
    model = config.model
    if not has_transformer(model):
        return model.name.upper()
    number = f"{model.transformers} x " if model.transformers > 1 else ""  # type: ignore[union-attr]
    return f"{number}{model.name.upper()} ({config.transform})"


def run(config: DigitConfig, run: Run) -> dict[str, float]:
    """Train, score on the fixed test set or the images held back, draw; see `engine.task.Task`."""
    train_set, scored_set = load_digits(config, run)
    seed_everything(run.seed, MODEL_INIT)
    classifier = make_classifier(config, scored_set, run)
    evaluate = DigitEvaluator(
        classifier,
        scored_set,
        run,
        batch_size=config.evaluation.batch_size,
        split="validation" if config.validation.images else "test",
    )
    metrics = make_trainer(config, classifier, train_set, run, evaluate).fit()
    if run.ranks.is_main:
        run.draw(loss_curves, run.directory.metrics_file, run.directory.figures / "losses.png")
        run.draw(
            drawing.draw_figures,
            classifier,
            scored_set,
            run,
            images=config.evaluation.pictures,
            every=config.train.evaluate_every,
        )
    return {**metrics, "model/parameters": float(count_parameters(classifier.net))}
