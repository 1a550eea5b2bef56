"""Every number that the detection tasks write is declared, and its better direction is right."""

from __future__ import annotations

from fnmatch import fnmatchcase

import numpy as np
import pytest

from paperbench.data import shapes
from paperbench.detection.evaluation import ablations, timing
from paperbench.detection.evaluation.detections import Detections
from paperbench.detection.evaluation.scoring import measure
from paperbench.detection.metrics import MEANS, METRICS
from paperbench.engine.metrics import METRICS as ENGINE
from paperbench.records.metrics import MetricRegistry

REGISTRY = MetricRegistry((*METRICS, *ENGINE))
VARIANTS = ("no-boxes", "svd", "svm", "softmax")
BOTH_ENDS = ("", "/low", "/high")


def scored() -> dict[str, float]:
    """Metrics of detections that are the ground truth, with masks, proposals and intervals."""
    dataset = shapes.read(split="test", images=4, size=96)
    detections = [
        Detections(
            boxes=record.boxes,
            scores=np.linspace(1, 0.5, len(record.labels), dtype=np.float32),
            labels=record.labels,
            masks=np.full((len(record.labels), 28, 28), 255, np.uint8),
        )
        for record in dataset.records
    ]
    return measure(dataset, detections, [record.boxes for record in dataset.records], resamples=20).metrics


def test_what_an_evaluation_writes_is_declared() -> None:
    metrics = scored()
    assert {"voc07/mAP", "coco/mask/AP50", "coco/AP/low", "proposals/AR@100"} <= metrics.keys()
    assert [name for name in metrics if name not in REGISTRY] == []


def test_what_studies_write_is_declared() -> None:
    names = [
        f"ablation/{row.name}/{name}"
        for row in (*ablations.ROWS, ablations.GIVEN)
        for name in ("voc07/mAP", "proposals")
    ]
    names += [f"{prefix}seconds/{part}" for prefix in ("", "svd/") for part in (*timing.RCNN_PARTS, "total")]
    names += [f"{prefix}share/{part}" for prefix in ("", "svd/") for part in timing.RCNN_PARTS]
    names += [f"seconds/{part}" for part in timing.PARTS] + ["images_per_second", "seconds_per_image"]
    names += [f"{use}/{mean}{end}" for use in (*VARIANTS, "pyramid") for mean in MEANS for end in BOTH_ENDS]
    names += [f"{use}/seconds_per_image" for use in (*VARIANTS, "pyramid")]
    names += [f"train/proposals/{name}" for name in ("recall50@300", "recall70@2000", "AR@100", "per_image")]
    assert [name for name in names if name not in REGISTRY] == []


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("pyramid/voc07/mAP", "higher"),
        ("svd/voc07/mAP", "higher"),
        ("svd/seconds/total", "lower"),
        ("svd/seconds_per_image", "lower"),
        ("ablation/no-nms-300/voc07/mAP", "higher"),
        ("voc07/mAP/low", "higher"),
        ("voc07/AP/cat", "higher"),
        ("proposals/recall50@1000", "higher"),
        ("proposals/per_image", "none"),
        ("share/conv", "none"),
        ("images_per_second", "higher"),
    ],
)
def test_directions(name: str, direction: str) -> None:
    assert REGISTRY.direction(name) == direction


def test_patterns_hide_no_declared_name() -> None:
    """A pattern never comes before a name or pattern that is a special case of it."""
    for place, spec in enumerate(METRICS):
        hidden = [
            later.name for later in METRICS[place + 1 :] if "*" in later.name and fnmatchcase(later.name, spec.name)
        ]
        assert hidden == [], spec.name
