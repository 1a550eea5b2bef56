from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection import boxes
from paperbench.detection.batches import Batch
from paperbench.detection.detectors.faster_rcnn import FasterRCNN, build_faster_rcnn
from paperbench.detection.evaluation import ablations, timing
from paperbench.detection.evaluation.ablations import ROWS, Options, Row, detect_rows
from paperbench.detection.evaluation.inference import per_image
from paperbench.detection.rpn import Proposals, objectness_score
from paperbench.engine import launch
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import EXIT_DONE
from tests.detection.detectors.test_faster_rcnn import batch

OPTIONS = Options(share=0.05, seed=0)


@pytest.fixture
def detector() -> FasterRCNN:
    torch.manual_seed(0)
    model = build_faster_rcnn(compose("faster-rcnn", ["scale=smoke"]).config.model, classes=["cat", "dog"]).eval()
    model.head_config.score_threshold = 0.2
    return model


def candidates(model: FasterRCNN, images: Batch, options: Options = OPTIONS) -> ablations._Candidates:
    with torch.no_grad():
        logits, deltas, anchors = model.score_anchors(model.extract(images))
    return ablations._Candidates(model, images, objectness_score(logits), deltas, anchors, options)


def test_the_paper_s_rows_are_among_them() -> None:
    printed = [("rpn", n) for n in (100, 300, 1000)] + [("no-nms", 6000)]
    printed += [("no-cls", n) for n in (100, 300, 1000)] + [("no-reg", n) for n in (300, 1000)]
    assert {(row.kind, row.count) for row in ROWS} >= set(printed)
    assert len(ROWS) == 12


@pytest.mark.parametrize("count", [100, 300])
def test_a_row_of_the_whole_network_is_its_plain_detection(detector: FasterRCNN, count: int) -> None:
    images = batch()
    row = ROWS.index(Row("rpn", count))
    config = detector.rpn_config
    config.pre_nms_topk_test, config.post_nms_topk_test = OPTIONS.most("no-nms"), OPTIONS.count(ROWS[row])
    expected = [found for found, _ in per_image(*detector.detect(images), images)]
    for found, plain in zip(detect_rows(detector, images, OPTIONS)[row][0], expected, strict=True):
        torch.testing.assert_close(torch.from_numpy(found.boxes), torch.from_numpy(plain.boxes), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(torch.from_numpy(found.scores), torch.from_numpy(plain.scores))
        assert found.labels.tolist() == plain.labels.tolist()


def test_rows_hold_what_their_names_say(detector: FasterRCNN) -> None:
    images = batch()
    with torch.no_grad():
        logits, deltas, anchors = detector.score_anchors(detector.extract(images))
    scores = objectness_score(logits)
    decoded = boxes.clip(boxes.decode(anchors, deltas), images.sizes)
    found = candidates(detector, images)

    index, valid = found.of(Row("no-nms", 300))
    assert index.shape == (2, 15)
    best = decoded.gather(1, scores.topk(15, dim=1).indices[..., None].expand(-1, -1, 4))
    torch.testing.assert_close(found.boxes[:, :15][valid], best[valid])

    still = boxes.clip(anchors.expand(2, -1, -1), images.sizes)
    index, valid = found.of(Row("no-reg", 1000))
    for image in range(2):
        own = found.boxes[image][index[image][valid[image]]]
        assert (own[:, None] == still[image][None]).all(-1).any(1).all()

    index, valid = found.of(Row("no-cls", 1000))
    drawn = [found.boxes[image][index[image][valid[image]]] for image in range(2)]
    for image in range(2):
        assert (drawn[image][:, None] == decoded[image][None]).all(-1).any(1).all()
        assert len(drawn[image].unique(dim=0)) == len(drawn[image])


def test_random_boxes_follow_from_seed_and_image_and_not_from_scores_or_batch(detector: FasterRCNN) -> None:
    images, few, many = batch(), Row("no-cls", 100), Row("no-cls", 1000)
    found = candidates(detector, images)
    index, _ = found.of(many)
    first = found.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    assert torch.equal(found.of(few)[0], index[:, : OPTIONS.count(few)])  # the few are among the many

    with torch.no_grad():
        detector.rpn.objectness.weight.mul_(-1)
    other = candidates(detector, images)
    torch.testing.assert_close(other.boxes.gather(1, other.of(many)[0][..., None].expand(-1, -1, 4)), first)

    alone = replace(
        images, **{name: value[1:] for name, value in vars(images).items() if isinstance(value, torch.Tensor)}
    )
    single = candidates(detector, alone)
    torch.testing.assert_close(
        single.boxes.gather(1, single.of(many)[0][..., None].expand(-1, -1, 4)), first[1:], rtol=1e-4, atol=1e-3
    )
    reseeded = candidates(detector, images, replace(OPTIONS, seed=1))
    assert not torch.equal(reseeded.boxes.gather(1, index[..., None].expand(-1, -1, 4)), first)


def test_numbers_of_proposals_shrink_with_what_the_net_ranks() -> None:
    assert ablations.share_of(6000) == 1
    assert ablations.share_of(300) == 0.05
    assert ablations.share_of(20000) == 1
    assert Options(share=0.001, seed=0).count(Row("rpn", 100)) == 1


def test_a_trained_run_is_taken_apart_and_timed(tmp_path: Path) -> None:
    overrides = [
        "scale=smoke", "device=cpu", "threads=1", "train.samples=2", "data.max_test_images=3",
        "evaluation.ablations=true", "evaluation.timed_images=2", "evaluation.bootstrap=10",
    ]  # fmt: skip
    outcome = launch.start(
        compose("faster-rcnn", overrides).resolved, run_dir=tmp_path / "run", reporter=SilentReporter()
    )
    assert outcome.exit_code == EXIT_DONE
    assert outcome.results is not None
    metrics = outcome.results["metrics"]
    for row in ROWS:
        for name in ("voc07/mAP", "voc/mAP", "voc07/mAP/low", "voc07/mAP/high", "proposals"):
            assert f"ablation/{row.name}/{name}" in metrics
    assert metrics["ablation/no-nms-6000/proposals"] > metrics["ablation/no-nms-300/proposals"]
    assert all(metrics[f"seconds/{part}"] > 0 for part in (*timing.PARTS, "total"))
    assert metrics["images_per_second"] == pytest.approx(1 / metrics["seconds/total"])


def test_given_proposals_are_a_row_of_their_own(detector: FasterRCNN) -> None:
    images = batch()
    given = torch.tensor([[[8.0, 8, 50, 60], [20, 30, 80, 90]], [[5, 5, 40, 40], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [True, False]])
    carried = replace(images, proposals=Proposals(given, valid.float(), valid))
    plain, found = detect_rows(detector, images, OPTIONS), detect_rows(detector, carried, OPTIONS)
    assert (len(plain), len(found)) == (12, 13)
    assert found[-1][1].tolist() == [2, 1]
    for (with_given, _), (without, _) in zip(found, plain, strict=False):
        assert [len(own) for own in with_given] == [len(own) for own in without]
