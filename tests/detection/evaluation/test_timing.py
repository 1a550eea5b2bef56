"""What is timed: the detector as it detects, in evaluation mode, without the images that warm up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from paperbench.detection.evaluation import timing
from paperbench.detection.evaluation.inference import Scorer
from tests.detection.test_arguments import a_run, a_scorer, config_of, net_of, scenes

KEYS = ("data.short_side=160", "data.max_side=200", "model.rpn.min_size=24")
KEYS += tuple(
    f"model.rpn.{key}={value}"
    for key, value in (
        ("pre_nms_topk_train", 40),
        ("post_nms_topk_train", 30),
        ("pre_nms_topk_test", 20),
        ("post_nms_topk_test", 9),
    )
)


def scorer_of(*overrides: str) -> Scorer:
    config = config_of("faster-rcnn", *overrides)
    return a_scorer(config, net_of(config))


def test_the_parts_together_detect_what_the_detector_detects(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_of(*KEYS)
    scorer.model.eval()
    batch = scorer.make(np.array([0]), np.array([0]))
    assert (batch.scales != 1).all()  # the least size is that of the stored image
    given: list[Any] = []

    def postprocess(*arguments: Any) -> Any:
        given.append(arguments)
        return original(*arguments)

    original = timing.postprocess
    monkeypatch.setattr(timing, "postprocess", postprocess)
    timing.detect_timed(scorer.model, batch, timing.Stopwatch(torch.device("cpu")))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        _, proposals = scorer.model.detect(batch)
    ((_, _, boxes, valid, sizes, _),) = given
    assert proposals is not None
    assert 0 < int(valid.sum()) < valid.numel()  # some are too small
    torch.testing.assert_close(boxes[valid], proposals.boxes[proposals.valid])
    torch.testing.assert_close(sizes, batch.sizes)


@pytest.mark.parametrize("training", [True, False])
def test_images_that_warm_up_do_not_count_and_the_net_is_left_as_it_was(training: bool) -> None:
    scorer = scorer_of()
    scorer.model.train(training)
    seen: list[tuple[bool, bool]] = []

    def detect(net: Any, batch: Any, watch: timing.Stopwatch) -> None:
        seen.append((net.training, torch.is_inference_mode_enabled()))
        watch.seconds["conv"] = float(len(seen))

    rows = timing.times(scorer.model, detect, scorer.make, images=2, run=a_run())
    assert [row["conv"] for row in rows] == [timing.WARM_UP + 1.0, timing.WARM_UP + 2.0]
    assert seen == [(False, True)] * (timing.WARM_UP + 2)
    assert scorer.model.training is training


def test_no_more_images_are_timed_than_there_are() -> None:
    scorer = scorer_of()
    rows = timing.times(scorer.model, lambda *_: None, scorer.make, images=99, run=a_run())
    assert len(rows) == len(scenes())
