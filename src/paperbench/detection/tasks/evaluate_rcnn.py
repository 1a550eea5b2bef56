"""Task `region-eval`: a detector that was trained on given proposals, on a test split, by VOC's and COCO's rules."""

from __future__ import annotations

from collections.abc import Mapping

from paperbench.detection import datasets
from paperbench.detection.build import load_detector, load_model
from paperbench.detection.config import RCNNEval
from paperbench.detection.describe import describe_rcnn
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.evaluation.variants import check_variants
from paperbench.detection.predict import predict_on_proposals as predict
from paperbench.detection.proposals import source
from paperbench.detection.tasks.train_rcnn import make_scorer, more, test_proposals
from paperbench.engine.run import Run

__all__ = ["load_model", "plan", "predict", "run"]


def plan(config: RCNNEval) -> Mapping[str, str]:
    """Describe the evaluation, a line each."""
    datasets.locate(config.data)
    source.check(config.proposals, ("test",))
    check_variants(config)
    facts = describe_rcnn(config)
    del facts["schedule"]
    return {**facts, "checkpoint": config.checkpoint}


def run(config: RCNNEval, run: Run) -> dict[str, float]:
    """Evaluate and draw; the detections are written beside the results, as the devkit and as COCO take them."""
    model, step = load_detector(config, config.checkpoint, run.device, run.reporter)
    test_set = datasets.load_test(config.data, model.class_names)
    run.reporter.message(datasets.describe(test_set))
    tested = test_proposals(test_set, config, run)
    assert isinstance(model, FastRCNN)
    run.reporter.message(f"weights of step {step} from {config.checkpoint}")
    scorer = make_scorer(config, test_set, tested, model, run)
    metrics = scorer()
    if run.ranks.is_main:
        run.draw(scorer.draw, run.directory.figures)
        scorer.write(run.directory.path / "detections")
    return {**metrics, "seconds_per_image": scorer.seconds_per_image, **more(config, scorer, model)}
