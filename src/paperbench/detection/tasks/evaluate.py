"""Task `detect-eval`: a trained detector on a test split, by VOC's and COCO's rules."""

from __future__ import annotations

from collections.abc import Mapping

from paperbench.detection import datasets
from paperbench.detection.build import load_detector, load_model
from paperbench.detection.config import DetectEval
from paperbench.detection.describe import describe_data, describe_model
from paperbench.detection.evaluation import analysis
from paperbench.detection.evaluation.inference import Scorer
from paperbench.detection.predict import predict
from paperbench.engine.run import Run

__all__ = ["load_model", "plan", "predict", "run"]


def plan(config: DetectEval) -> Mapping[str, str]:
    """Describe the evaluation, a line each."""
    analysis.check(config)
    return {
        "data": describe_data(config.data),
        "model": describe_model(config.model),
        "checkpoint": config.checkpoint,
    }


def run(config: DetectEval, run: Run) -> dict[str, float]:
    """Evaluate and draw; the detections are written beside the results, as the devkit and as COCO take them."""
    model, step = load_detector(config, config.checkpoint, run.device, run.reporter)
    test_set = datasets.load_test(config.data, model.class_names, masks=model.masks)
    run.reporter.message(datasets.describe(test_set))
    run.reporter.message(f"weights of step {step} from {config.checkpoint}")
    scorer = Scorer(config, test_set, model, run)
    metrics = scorer()
    if run.ranks.is_main:
        run.draw(scorer.draw, run.directory.figures)
        scorer.write(run.directory.path / "detections")
    return {**metrics, "seconds_per_image": scorer.seconds_per_image, **analysis.measure(config, scorer)}
