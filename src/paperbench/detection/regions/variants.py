"""The same weights used in other ways at test: what ablations of the paper compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from paperbench.detection.region_config import RegionTrain, Variant
from paperbench.detection.regions.net import RegionNet
from paperbench.detection.regions.svd import truncated_head


@contextmanager
def variant(model: RegionNet, name: Variant, config: RegionTrain) -> Iterator[None]:
    """`model` as the variant for the length of the block.

    `no-boxes`: proposals are not moved (Fast R-CNN, table 6); `svd`: `model.svd` singular values of each layer of the head
    (section 3.1); `svm`, `softmax`: the other classifier (table 8).
    """
    before = model.head, model.classifier, model.box_source
    try:
        if name == "no-boxes":
            model.box_source = "none"
        elif name == "svd":
            model.head = truncated_head(model.head, config.model.svd)
        else:
            model.classifier = name
        yield
    finally:
        model.head, model.classifier, model.box_source = before
