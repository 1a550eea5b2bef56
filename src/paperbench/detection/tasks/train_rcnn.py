"""Task `region-train`: proposals, a detector on them, its stages, the evaluation, and pictures."""

from __future__ import annotations

from collections.abc import Mapping

from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.backbones import check_weights
from paperbench.detection.build import build_for, load_model
from paperbench.detection.config import RCNNTrain
from paperbench.detection.describe import describe_rcnn
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.evaluation import timing
from paperbench.detection.evaluation.inference import Scorer
from paperbench.detection.evaluation.variants import check_variants, variant
from paperbench.detection.metrics import MEANS
from paperbench.detection.predict import predict_on_proposals as predict
from paperbench.detection.proposals import source
from paperbench.detection.proposals.sets import ProposalSet
from paperbench.detection.rcnn_config import check_model
from paperbench.detection.training.multi_stage import MultiStageTraining, proposal_batches
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.errors import ConfigError

__all__ = ["load_model", "plan", "predict", "run"]


def plan(config: RCNNTrain) -> Mapping[str, str]:
    """Describe the training; raise the error of a configuration that cannot work, before anything is written."""
    datasets.locate(config.data)
    source.check(config.proposals)
    check_model(config.model)
    check_variants(config)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    if config.model.weights is not None:
        check_weights(config.model.backbone, config.model.weights)
    if config.train.evaluate_every and (
        config.model.classifier == "svm" or config.model.boxes in ("ridge", "stage-wise")
    ):
        raise ConfigError(
            f"train.evaluate_every={config.train.evaluate_every}: this model is complete after its last stage only; leave it out"
        )
    return describe_rcnn(config)


def run(config: RCNNTrain, run: Run) -> dict[str, float]:
    """Trains, evaluates on the test split, draws; see `engine.task.Task`."""
    train_set, test_set = datasets.load_splits(config.data)
    for dataset in (train_set, test_set):
        run.reporter.message(datasets.describe(dataset))
    own = config.proposals
    given = source.proposals_of(
        train_set, own, run, root=config.output.root, file=own.train_file, count=own.train_count
    )
    tested = test_proposals(test_set, config, run)
    seed_everything(run.seed, MODEL_INIT)
    model = build_for(config, classes=train_set.classes, pretrained=not run.checkpoints.exists()).to(run.device)
    assert isinstance(model, FastRCNN)
    scorer = make_scorer(config, test_set, tested, model, run)
    metrics = MultiStageTraining(config, model, train_set, given.boxes, run).fit(scorer)
    if run.ranks.is_main:
        run.draw(loss_curves, run.directory.metrics_file, run.directory.figures / "losses.png")
        run.draw(scorer.draw, run.directory.figures)
    return {**metrics, "seconds_per_image": scorer.seconds_per_image, **more(config, scorer, model)}


def test_proposals(dataset: DetectionSet, config: RCNNTrain, run: Run) -> ProposalSet:
    """The proposals of the test split."""
    own = config.proposals
    return source.proposals_of(dataset, own, run, root=config.output.root, file=own.test_file, count=own.test_count)


def make_scorer(config: RCNNTrain, dataset: DetectionSet, proposals: ProposalSet, model: FastRCNN, run: Run) -> Scorer:
    """Return the evaluation of `model` on `dataset`."""
    store = datasets.store(config.data, dataset, run.device)
    make = proposal_batches(config, model, dataset, proposals.boxes, store, run.seed, training=False)
    return Scorer(config, dataset, model, run, make)


def more(config: RCNNTrain, scorer: Scorer, model: FastRCNN) -> dict[str, float]:
    """Measure the rest that the configuration asks for: the times of parts, and variants with the same weights."""
    metrics: dict[str, float] = {}
    images = config.evaluation.timed_images
    if images:
        metrics |= timing.measure_rcnn(model, scorer.make, images=images, run=scorer.run)  # pyright: ignore[reportArgumentType]
    for name in config.evaluation.variants:
        with variant(model, name, config):
            other = Scorer(config, scorer.dataset, model, scorer.run, scorer.make)
            found = other()
            metrics |= {f"{name}/{metric}": value for metric, value in found.items() if _is_mean(metric)}
            metrics[f"{name}/seconds_per_image"] = other.seconds_per_image
            if images and name == "svd":
                times = timing.measure_rcnn(model, scorer.make, images=images, run=scorer.run)  # pyright: ignore[reportArgumentType]
                metrics |= {f"svd/{metric}": value for metric, value in times.items()}
    return metrics


def _is_mean(metric: str) -> bool:
    return metric.removesuffix("/low").removesuffix("/high") in MEANS
