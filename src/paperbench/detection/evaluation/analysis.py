"""Measurements of a trained detector beside its average precision, where the configuration asks for them."""

from __future__ import annotations

from paperbench.detection.batches import BatchMaker, ProposalBatchMaker
from paperbench.detection.config import DetectTrain
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.one_stage import OneStage
from paperbench.detection.evaluation import ablations, timing
from paperbench.detection.evaluation.inference import Scorer, detect_all
from paperbench.detection.evaluation.scoring import measure as score
from paperbench.detection.metrics import MEANS
from paperbench.detection.proposals.source import proposals_of
from paperbench.detection.training.alternating import precomputed_proposals
from paperbench.errors import ConfigError


def check(config: DetectTrain) -> None:
    """Raise `ConfigError` for studies of parts that the model does not have, naming each."""
    evaluation, name = config.evaluation, config.model.name
    stages = config.model.stages if config.model.name == "faster-rcnn" else 0
    what = f"model.name={name}" if name != "faster-rcnn" else f"model.stages={stages}"
    wanted = (
        ("evaluation.ablations", evaluation.ablations, 2),
        ("evaluation.timed_images", evaluation.timed_images, 2),
        ("evaluation.pyramid", evaluation.pyramid, 1),
    )
    faults = [
        f"{key}: is for model.name=faster-rcnn with model.stages={needed}, and this is {what}; leave it out"
        for key, asked, needed in wanted
        if asked and stages != needed
    ]
    if faults:
        raise ConfigError(*faults)


def measure(config: DetectTrain, scorer: Scorer) -> dict[str, float]:
    """The metrics of all studies that were asked for, by name."""
    model, evaluation = scorer.model, config.evaluation
    metrics: dict[str, float] = {}
    if evaluation.ablations:
        assert isinstance(model, FasterRCNN)
        share = evaluation.ablation_share or ablations.share_of(model.rpn_config.pre_nms_topk_test)
        metrics |= ablations.measure(
            model,
            _batches(config, scorer),
            scorer.dataset,
            options=ablations.Options(share=share, seed=config.seed),
            batch_size=evaluation.batch_size,
            resamples=evaluation.bootstrap,
            run=scorer.run,
        )
    if evaluation.pyramid:
        assert isinstance(model, OneStage)
        metrics |= _on_pyramid(config, model, scorer)
    if evaluation.timed_images:
        assert isinstance(model, FasterRCNN)
        metrics |= timing.measure(model, scorer.make, images=evaluation.timed_images, run=scorer.run)
    return metrics


def _batches(config: DetectTrain, scorer: Scorer) -> BatchMaker:
    """Of the test images, with the proposals beside them that the detector was trained on, if they were not the network's."""
    given, plain = precomputed_proposals(config), scorer.make
    if given is None:
        return plain
    found = proposals_of(scorer.dataset, given, scorer.run, root=config.output.root)
    return ProposalBatchMaker(
        scorer.dataset,
        plain.store,
        found.boxes,
        flip=0.0,
        seed=plain.seed,
        multiple=plain.multiple,
        square=plain.square,
        training=False,
    )


def _on_pyramid(config: DetectTrain, model: OneStage, scorer: Scorer) -> dict[str, float]:
    """`pyramid/coco/AP50` and its like: the same weights on an image pyramid."""
    run, evaluation = scorer.run, config.evaluation
    before = model.pyramid, model.pyramid_side
    model.pyramid, model.pyramid_side = evaluation.pyramid, evaluation.pyramid_side
    try:
        found = detect_all(
            model,
            scorer.make,
            len(scorer.dataset),
            batch_size=evaluation.batch_size,
            run=run,
            progress=lambda done, total: run.reporter.progress("pyramid", done, total, {}),
        )
    finally:
        model.pyramid, model.pyramid_side = before
    metrics = run.ranks.on_main(lambda: score(scorer.dataset, found.detections, resamples=evaluation.bootstrap).metrics)
    return {
        f"pyramid/{name}": value
        for name, value in metrics.items()
        if name.removesuffix("/low").removesuffix("/high") in MEANS
    } | {"pyramid/seconds_per_image": found.seconds_per_image}
