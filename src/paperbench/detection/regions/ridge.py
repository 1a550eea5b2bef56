"""Box regression by ridge regression on pooled features (R-CNN, appendix C)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from paperbench.data.detection import DetectionSet
from paperbench.detection import boxes as box_ops
from paperbench.detection.region_config import RidgeConfig
from paperbench.detection.regions.features import Array, overlaps, usable

NORM = 20.0
"""Mean norm of the features that the penalty is meant for (R-CNN's code)."""


def fit_ridges(
    dataset: DetectionSet,
    proposals: Sequence[Array],
    pooled: Callable[[int, Array], Array],
    *,
    config: RidgeConfig,
    order: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Array, Array, float]:
    """One regression a class: weights (C, 4, D), biases (C, 4), and the factor that features are multiplied by.

    `pooled(i, boxes)` (R, D): pooled features of boxes (R, 4) of image i. A proposal belongs to the object that it overlaps most;
    those with an overlap above `iou` are used, at most `most` a class, from the first images of `order`. A class without any
    leaves boxes where they are.
    """
    inputs: list[list[Array]] = [[] for _ in dataset.classes]
    targets: list[list[Array]] = [[] for _ in dataset.classes]
    counts = np.zeros(len(dataset.classes), int)
    for place, image in enumerate(order.tolist()):
        if (counts >= config.most).all():
            break
        truth, labels, boxes = usable(dataset, proposals, image)
        if len(truth) and len(boxes):
            overlap = overlaps(boxes, truth)
            chosen = np.flatnonzero(
                (overlap.max(axis=1) > config.iou) & (counts < config.most)[labels[overlap.argmax(1)] - 1]
            )
            if len(chosen):
                nearest = overlap[chosen].argmax(axis=1)
                rows = pooled(image, boxes[chosen])
                moves = box_ops.encode(torch.from_numpy(boxes[chosen]), torch.from_numpy(truth[nearest])).numpy()
                for label in np.unique(labels[nearest]):
                    own = labels[nearest] == label
                    inputs[label - 1].append(rows[own])
                    targets[label - 1].append(moves[own])
                    counts[label - 1] += own.sum()
        progress(place + 1, len(order))
    return _solved(inputs, targets, config)


def _solved(
    inputs: Sequence[Sequence[Array]], targets: Sequence[Sequence[Array]], config: RidgeConfig
) -> tuple[Array, Array, float]:
    known = [part for parts in inputs for part in parts]
    if not known:
        return np.zeros((len(inputs), 4, 0), np.float32), np.zeros((len(inputs), 4), np.float32), 1.0
    mean = float(np.linalg.norm(np.concatenate(known), axis=1).mean())
    scale = NORM / mean if mean else 1.0
    weights = np.zeros((len(inputs), 4, known[0].shape[1]), np.float32)
    biases = np.zeros((len(inputs), 4), np.float32)
    for label, (rows, moves) in enumerate(zip(inputs, targets, strict=True)):
        if rows:
            # With fewer examples than features the solver turns to the dual problem by itself.
            x, y = np.concatenate(rows)[: config.most] * scale, np.concatenate(moves)[: config.most]
            ridge = Ridge(alpha=config.weight, solver="cholesky").fit(x, y)
            weights[label], biases[label] = ridge.coef_, ridge.intercept_
    return weights, biases, scale
