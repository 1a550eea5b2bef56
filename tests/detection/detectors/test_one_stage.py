from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.build import build
from paperbench.detection.detectors.one_stage import OneStage, classify_in_parts, nearest_level
from paperbench.detection.evaluation import analysis
from paperbench.detection.tasks import train as task
from paperbench.engine import launch
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import EXIT_DONE, ConfigError
from tests.detection.detectors.test_faster_rcnn import batch

OVERRIDES = ["scale=smoke", "device=cpu", "threads=1", "precision=float32", "model.stages=1"]


@pytest.fixture
def detector() -> OneStage:
    torch.manual_seed(0)
    model = build(compose("faster-rcnn", OVERRIDES).config.model, classes=["cat", "dog"])
    assert isinstance(model, OneStage)
    return model.eval()


def test_windows_are_all_anchors_and_every_weight_is_trained(detector: OneStage) -> None:
    images = batch()
    windows = detector.windows(images, 12, 12)
    assert windows.boxes.shape == (2, 12 * 12 * 9, 4)
    assert windows.valid.all(1).tolist() == [True, False]  # the second image is 80 pixels high: some lie below it
    losses = detector.train()(images, torch.Generator().manual_seed(0))
    assert losses.keys() == {"loss_classification", "loss_box"}
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name


def test_parts_of_the_boxes_give_what_all_of_them_give_at_once(
    detector: OneStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = batch()
    with torch.no_grad():
        features = detector.extract(images)
        boxes = detector.windows(images, 12, 12).boxes[:, :50]
        logits, deltas = detector.classify(features, boxes)
        monkeypatch.setattr("paperbench.detection.detectors.one_stage.CHUNK", 14)
        scores, offsets = classify_in_parts(detector, features, boxes)
    torch.testing.assert_close(scores.flatten(0, 1), logits)
    torch.testing.assert_close(offsets.flatten(0, 1), deltas)


def test_a_window_is_pooled_where_it_is_closest_to_the_side_asked_for() -> None:
    boxes = torch.tensor([[0.0, 0, 50, 50], [0, 0, 100, 100], [0, 0, 400, 400], [0, 0, 200, 50]])
    assert nearest_level(boxes, (0.5, 1.0, 2.0), 100).tolist() == [2, 1, 0, 1]


def test_a_pyramid_of_one_size_changes_nothing_and_a_real_one_does(detector: OneStage) -> None:
    images = batch()
    detector.head_config.score_threshold = 0.2
    with torch.no_grad():
        plain = detector._on_pyramid(images, detector.windows(images, 12, 12).boxes, detector.anchors(12, 12))
        detector.pyramid = (1.0, 1.0)  # computed by the other way
        same = detector._on_pyramid(images, detector.windows(images, 12, 12).boxes, detector.anchors(12, 12))
        torch.testing.assert_close(same, plain)
        detector.pyramid, detector.pyramid_side = (0.7, 1.0, 1.6), 40.0
        other = detector._on_pyramid(images, detector.windows(images, 12, 12).boxes, detector.anchors(12, 12))
    assert other[0].shape == plain[0].shape
    # The anchors of 40 pixels are pooled at the size of the image, the others are not.
    middle = nearest_level(detector.anchors(12, 12), detector.pyramid, 40.0) == 1
    torch.testing.assert_close(other[0][:, middle], plain[0][:, middle])
    assert not torch.allclose(other[0][:, ~middle], plain[0][:, ~middle])


def test_a_window_on_a_larger_image_is_pooled_at_its_place_there(detector: OneStage) -> None:
    images = batch()
    boxes, anchors = detector.windows(images, 12, 12).boxes, detector.anchors(12, 12)
    detector.pyramid = (2.0,)
    with torch.no_grad():
        found = detector._on_pyramid(images, boxes, anchors)
        pixels = detector._resized(detector.normalise(images.images, images.sizes), 2.0)
        expected = classify_in_parts(detector, detector.neck(detector.backbone(pixels)), 2 * boxes)
    assert pixels.shape[-1] == 192
    torch.testing.assert_close(found, expected)


def test_one_run_gives_both_rows_of_the_table(tmp_path: Path) -> None:
    overrides = [*OVERRIDES, "train.samples=2", "data.max_test_images=2", "evaluation.pyramid=[0.8, 1.0, 1.5]"]
    outcome = launch.start(
        compose("faster-rcnn", overrides).resolved, run_dir=tmp_path / "run", reporter=SilentReporter()
    )
    assert outcome.exit_code == EXIT_DONE
    assert outcome.results is not None
    metrics = outcome.results["metrics"]
    assert {"voc07/mAP", "pyramid/voc07/mAP", "pyramid/coco/AP50"} <= metrics.keys()
    assert not any(name.startswith("proposals/") for name in metrics)


def test_parts_that_one_stage_does_not_have_are_refused() -> None:
    asked = [*OVERRIDES, "evaluation.ablations=true", "evaluation.timed_images=2"]
    with pytest.raises(ConfigError) as refused:
        analysis.check(compose("faster-rcnn", asked).config)
    assert len(refused.value.mistakes) == 2
    with pytest.raises(ConfigError, match=r"evaluation.pyramid"):
        analysis.check(compose("faster-rcnn", ["scale=smoke", "evaluation.pyramid=[1, 2]"]).config)
    with pytest.raises(ConfigError, match="two stages"):
        task.plan(compose("faster-rcnn", [*OVERRIDES, "train.schedule=alternating"]).config)
    with pytest.raises(ConfigError, match=r"model.shared=false"):
        task.plan(compose("faster-rcnn", [*OVERRIDES, "model.shared=false"]).config)
