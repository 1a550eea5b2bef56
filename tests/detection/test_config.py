"""Keys of earlier versions are answered with today's."""

from __future__ import annotations

import pytest

from paperbench.config.compose import compose
from paperbench.errors import ConfigError


@pytest.mark.parametrize(
    ("experiment", "override", "key"),
    [
        ("faster-rcnn", "model.rpn.sampled=8", "model.rpn.batch_size_per_image"),
        ("faster-rcnn", "model.rpn.pre_nms_train=8", "model.rpn.pre_nms_topk_train"),
        ("faster-rcnn", "model.rpn.post_nms_test=8", "model.rpn.post_nms_topk_test"),
        ("faster-rcnn", "model.head.rois=8", "model.head.batch_size_per_image"),
        ("faster-rcnn", "model.head.detections=8", "model.head.detections_per_image"),
        ("faster-rcnn", "model.head.mining=true", "model.head.ohem"),
        ("faster-rcnn", "model.head.mining_nms_iou=0.5", "model.head.ohem_nms_iou"),
        ("fpn", "model.pyramid.finest=8", "model.pyramid.finest_stride"),
        ("fpn", "model.pyramid.deeper=1", "model.pyramid.extra_stages"),
        ("fpn", "model.pyramid.pooled=1", "model.pyramid.pooled_levels"),
        ("fpn", "model.pyramid.canonical=112", "model.pyramid.canonical_size"),
        ("ssd", "model.negatives=1", "model.negatives_per_positive"),
        ("yolo", "model.empty_weight=1", "model.noobj_weight"),
        ("yolo", "model.coordinate_weight=1", "model.coord_weight"),
        ("rcnn", "model.ridge.most=10", "model.ridge.max_examples"),
        ("fast-rcnn", "model.head.rois=8", "model.head.batch_size_per_image"),
    ],
)
def test_old_keys_are_answered_with_the_new_ones(experiment: str, override: str, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"It was renamed: {key} "):
        compose(experiment, [override])
