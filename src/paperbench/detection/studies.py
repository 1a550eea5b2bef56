"""What is measured of a trained detector beside its average precision, where the configuration asks for it."""

from __future__ import annotations

from paperbench.detection import ablations, timing
from paperbench.detection.config import DetectTrain
from paperbench.detection.detector import FasterRCNN
from paperbench.detection.scoring import Scorer
from paperbench.errors import ConfigError


def check(config: DetectTrain) -> None:
    """Raises `ConfigError` for studies of parts that the model does not have."""
    wanted = [
        key
        for key, asked in (
            ("evaluation.ablations", config.evaluation.ablations),
            ("evaluation.timed_images", config.evaluation.timed_images),
        )
        if asked
    ]
    if wanted and config.model.name != "faster-rcnn":
        raise ConfigError(
            *(
                f"{key}: takes the parts of model.name=faster-rcnn apart, not of {config.model.name}; leave it out"
                for key in wanted
            )
        )


def measure(config: DetectTrain, scorer: Scorer) -> dict[str, float]:
    """The metrics of all studies that were asked for, by name."""
    model, evaluation = scorer.model, config.evaluation
    metrics: dict[str, float] = {}
    if evaluation.ablations:
        assert isinstance(model, FasterRCNN)
        share = evaluation.ablation_share or ablations.share_of(model.pre_nms_test)
        metrics |= ablations.measure(
            model,
            scorer.make,
            scorer.dataset,
            options=ablations.Options(share=share, seed=config.seed),
            batch_size=evaluation.batch_size,
            resamples=evaluation.bootstrap,
            run=scorer.run,
        )
    if evaluation.timed_images:
        assert isinstance(model, FasterRCNN)
        metrics |= timing.measure(model, scorer.make, images=evaluation.timed_images, run=scorer.run)
    return metrics
