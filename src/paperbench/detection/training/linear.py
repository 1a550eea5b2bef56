"""Linear SVMs and ridge regressions on features of regions (R-CNN, section 2.3 and appendix C)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.data.detection import DetectionSet
from paperbench.detection import boxes as box_ops
from paperbench.detection.rcnn_config import RidgeConfig, SvmConfig
from paperbench.detection.training.features import Array, overlaps, usable

HARD, EASY = -1.0001, -1.2
"""A negative whose margin is above the one is added, one below the other is let go (R-CNN's code)."""
MOST_STEPS = 5000
SCALE_IMAGES = 200
"""Images that the mean norm of features is taken from."""


@dataclass
class _Class:
    """One classifier while it is fitted: examples, and its hyperplane once there is one."""

    positives: list[Array] = field(default_factory=list)
    negatives: list[Array] = field(default_factory=list)
    weight: Array | None = None
    bias: float = 0.0
    new: int = 0

    def margins(self, features: Array) -> Array:
        assert self.weight is not None
        return features @ self.weight + self.bias

    def fit(self, config: SvmConfig) -> None:
        """Fit anew and drop easy negatives."""
        from sklearn.exceptions import ConvergenceWarning  # takes seconds: only R-CNN and SPP-net fit machines
        from sklearn.svm import LinearSVC

        positives, negatives = np.concatenate(self.positives), np.concatenate(self.negatives)
        svm = LinearSVC(
            C=config.c,
            loss="hinge",
            intercept_scaling=config.bias_scale,  # pyright: ignore[reportArgumentType]
            class_weight={1: config.positive_weight},
            random_state=0,
            max_iter=MOST_STEPS,
        )
        labels = np.repeat([1, 0], [len(positives), len(negatives)])
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # it is fitted again and again; the last steps hardly matter
            svm.fit(np.concatenate([positives, negatives]), labels)
        self.weight, self.bias = np.asarray(svm.coef_, np.float32)[0], float(np.ravel(svm.intercept_)[0])
        self.negatives = [negatives[self.margins(negatives) >= EASY]]
        self.new = 0


def fit_svms(
    dataset: DetectionSet,
    proposals: Sequence[Array],
    features: Callable[[int], Array],
    *,
    config: SvmConfig,
    order: NDArray[np.int64],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Array, Array, float]:
    """One classifier a class: weights (C, D), biases (C), and the factor that features are multiplied by.

    `features(i)` (P + G, D): of the proposals of image i, then of its objects. order: the images in the order in which they are
    looked at, once for objects and once for hard negatives. A class without an object gets the weight 0 and the bias -10, and
    is never found.
    """
    images = order.tolist()
    scale = _scale((features(image) for image in images[:SCALE_IMAGES]), config.feature_norm)
    classes = [_Class() for _ in dataset.classes]
    width = 0
    for place, image in enumerate(images):
        _, labels, boxes = usable(dataset, proposals, image)
        rows = features(image)
        width = rows.shape[1]
        for label, own in enumerate(classes, start=1):
            own.positives.append(rows[len(boxes) :][labels == label] * scale)
        progress(place + 1, 2 * len(images))
    for place, image in enumerate(images):
        truth, labels, boxes = usable(dataset, proposals, image)
        rows = features(image)[: len(boxes)] * scale
        for label, own in enumerate(classes, start=1):
            if sum(map(len, own.positives)):
                _add_negatives(own, rows, boxes, truth[labels == label], config)
        if place + 1 >= config.start_images:
            _refit(classes, config, least=config.refit_every)
        progress(len(images) + place + 1, 2 * len(images))
    _refit(classes, config, least=0)
    weights = [own.weight if own.weight is not None else np.zeros(width, np.float32) for own in classes]
    biases = [own.bias if own.weight is not None else -10.0 for own in classes]
    return np.stack(weights), np.array(biases, np.float32), scale


def _add_negatives(own: _Class, rows: Array, boxes: Array, objects: Array, config: SvmConfig) -> None:
    """Those of proposals that overlap no object (G, 4) of the class: all before the first fit, the hard ones after it."""
    background = rows
    if len(objects):
        background = rows[overlaps(boxes, objects).max(axis=1) < config.negative_iou]
    if own.weight is not None:
        background = background[own.margins(background) > HARD]
        own.new += len(background)
    own.negatives.append(background)


def _refit(classes: Sequence[_Class], config: SvmConfig, *, least: int) -> None:
    """Fit the classes with more than `least` new negatives, or none fitted yet, of which there are examples of both kinds."""
    for own in classes:
        due = own.weight is None or own.new > least
        if due and sum(map(len, own.positives)) and sum(map(len, own.negatives)):
            own.fit(config)


def _scale(features: Iterable[Array], norm: float) -> float:
    """Return the factor that makes the mean norm of features `norm`; 1 for 0."""
    norms = np.concatenate([np.zeros(0, np.float32), *(np.linalg.norm(rows, axis=1) for rows in features)])
    mean = float(norms.mean()) if len(norms) else 0.0
    return norm / mean if norm and mean else 1.0


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
    those with an overlap above `iou` are used, at most `max_examples` a class, from the first images of `order`. A class without
    any leaves boxes where they are.
    """
    inputs: list[list[Array]] = [[] for _ in dataset.classes]
    targets: list[list[Array]] = [[] for _ in dataset.classes]
    counts = np.zeros(len(dataset.classes), int)
    for place, image in enumerate(order.tolist()):
        if (counts >= config.max_examples).all():
            break
        truth, labels, boxes = usable(dataset, proposals, image)
        if len(truth) and len(boxes):
            overlap = overlaps(boxes, truth)
            chosen = np.flatnonzero(
                (overlap.max(axis=1) > config.iou) & (counts < config.max_examples)[labels[overlap.argmax(1)] - 1]
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
    from sklearn.linear_model import Ridge

    mean = float(np.linalg.norm(np.concatenate(known), axis=1).mean())
    scale = NORM / mean if mean else 1.0
    weights = np.zeros((len(inputs), 4, known[0].shape[1]), np.float32)
    biases = np.zeros((len(inputs), 4), np.float32)
    for label, (rows, moves) in enumerate(zip(inputs, targets, strict=True)):
        if rows:
            # With fewer examples than features the solver turns to the dual problem by itself.
            x, y = np.concatenate(rows)[: config.max_examples] * scale, np.concatenate(moves)[: config.max_examples]
            # The intercept is the weight of a constant feature and is penalised as the others are; targets are taken from their
            # mean, which is not (rcnn_train_bbox_regressor of R-CNN's code). The paper's formula has no intercept.
            x, centre = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1), y.mean(axis=0)
            ridge = Ridge(alpha=config.weight, fit_intercept=False, solver="cholesky").fit(x, y - centre)
            weights[label], biases[label] = ridge.coef_[:, :-1], ridge.coef_[:, -1] + centre
    return weights, biases, scale
