"""Task `detect-train`: a data set, a detector from its configuration, the trainer, the evaluation, and pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from paperbench.detection import datasets
from paperbench.detection.backbones import check_weights
from paperbench.detection.build import build, load_model
from paperbench.detection.config import DetectTrain
from paperbench.detection.describe import describe_data, describe_model, describe_schedule
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.evaluation import analysis
from paperbench.detection.evaluation.inference import Scorer
from paperbench.detection.export import export_model
from paperbench.detection.model_config import FasterRCNNModel, MaskRCNNModel
from paperbench.detection.predict import predict
from paperbench.detection.proposals import search
from paperbench.detection.training.alternating import AlternatingTraining, precomputed_proposals
from paperbench.detection.training.joint import trainer
from paperbench.engine.figures import loss_curves
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, seed_everything
from paperbench.errors import ConfigError, DataError

__all__ = ["export_model", "load_model", "plan", "predict", "run"]


def plan(config: DetectTrain) -> Mapping[str, str]:
    """Describe the training; raise the error of a configuration that cannot work, before anything is written."""
    check(config)
    return {
        "data": describe_data(config.data),
        "model": describe_model(config.model),
        "schedule": describe_schedule(config),
    }


def check(config: DetectTrain) -> None:
    """Raise the error that the data's place, the weights or the model of `config` would end in; quick, computes nothing."""
    datasets.locate(config.data)
    analysis.check(config)
    EpochOrder(1, config.train.batch_size, config.seed, world=config.nproc)
    if config.train.schedule == "alternating":
        check_alternation(config)
    if config.model.weights is not None:
        check_weights(config.model.backbone, config.model.weights)
    if isinstance(config.model, FasterRCNNModel) and config.model.proposals_backbone is not None:
        check_proposals_backbone(config.model, config.model.proposals_backbone)
    with torch.device("meta"):
        model = build(config.model, classes=["object"], pretrained=False)
    if model.square and config.data.max_side > model.side:
        raise ConfigError(
            f"data.max_side={config.data.max_side}: images that large do not fit model.side={model.side}; "
            f"give data.short_side={model.side} data.max_side={model.side}"
        )
    if model.masks and not datasets.has_masks(config.data):
        raise ConfigError(
            f"data={config.data.name} has no masks to train model={config.model.name} on; give data=shapes, pennfudan, coco or yolo"
        )


def check_proposals_backbone(model: FasterRCNNModel, name: str) -> None:
    """Raise `ConfigError` for a second backbone where there is one only, and for weights that it does not have."""
    if model.shared or model.name != "faster-rcnn":
        raise ConfigError(
            f"model.proposals_backbone={name}: only model.name=faster-rcnn with model.shared=false has a backbone for proposals"
        )
    if model.proposals_weights is not None:
        check_weights(name, model.proposals_weights)


def check_alternation(config: DetectTrain) -> None:
    """Raise `ConfigError` for nets that are not trained in turn, and for batches that cannot be shared out."""
    if config.model.name != "faster-rcnn" or config.model.stages == 1:
        what = config.model.name if config.model.name != "faster-rcnn" else "model.stages=1"
        raise ConfigError(
            f"train.schedule=alternating trains the two stages of model.name=faster-rcnn in turn, not {what}; "
            "give train.schedule=joint"
        )
    given = precomputed_proposals(config)
    if given is not None:
        if config.model.shared:
            raise ConfigError(
                f"train.alternation.detector_proposals={given.method}: step 4 trains the detector on the network's own proposals; "
                "give model.shared=false as well"
            )
        search.check(given)
    images = config.train.alternation.rpn_batch_size
    if images % config.nproc:
        raise ConfigError(
            f"train.alternation.rpn_batch_size={images} cannot be shared by {config.nproc} processes; "
            f"make it a multiple of nproc={config.nproc}"
        )


def run(config: DetectTrain, run: Run) -> dict[str, float]:
    """Trains, evaluates on the test split, draws; see `engine.task.Task`."""
    learns_masks = isinstance(config.model, MaskRCNNModel)
    train_set, test_set = datasets.load_splits(config.data, masks=learns_masks)
    for dataset in (train_set, test_set):
        run.reporter.message(datasets.describe(dataset))
        if learns_masks and dataset.masks is None:
            raise DataError(
                f"{config.data.name} {dataset.split}: no annotation has a segmentation, and {config.model.name} learns from masks; "
                "`paperbench train fpn` learns from boxes"
            )

    seed_everything(run.seed, MODEL_INIT)
    resuming = run.checkpoints.exists()
    alternating = config.train.schedule == "alternating"
    # Steps of an alternation begin with the initial weights again, also in a run that is resumed.
    model = build(config.model, classes=train_set.classes, pretrained=alternating or not resuming).to(run.device)
    scorer = Scorer(config, test_set, model, run)
    if alternating:
        assert isinstance(model, FasterRCNN)
        metrics = AlternatingTraining(config, model, train_set, run, scorer).fit()
    else:
        metrics = trainer(config, model, train_set, run, scorer).fit()

    if run.ranks.is_main:
        run.draw(loss_curves, run.directory.metrics_file, run.directory.figures / "losses.png")
        run.draw(scorer.draw, run.directory.figures)
    return {**metrics, "seconds_per_image": scorer.seconds_per_image, **analysis.measure(config, scorer)}
