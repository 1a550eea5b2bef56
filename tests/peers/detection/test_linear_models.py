"""Singular values, SVMs and ridge regression of the R-CNN family against SciPy, scikit-learn and their normal equations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg, optimize
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch import nn

from paperbench.data.detection import DetectionSet
from paperbench.detection.detectors.linear import LinearBoxes, LinearScores
from paperbench.detection.evaluation.variants import truncated
from paperbench.detection.rcnn_config import RidgeConfig, SvmConfig
from paperbench.detection.training.features import overlaps
from paperbench.detection.training.linear import NORM, fit_ridges, fit_svms
from tests.data.sets import in_memory, record
from tests.peers.cases import grid

Array = NDArray[np.float32]


# --- singular values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "kept", "kind"),
    grid(((7, 12), (12, 7), (9, 9), (1, 6)), (1, 3, 99), ("normal", "low rank", "thousands", "zero")),
)
def test_a_truncated_layer_is_the_nearest_matrix_of_its_rank(shape: tuple[int, int], kept: int, kind: str) -> None:
    rng = np.random.default_rng([*shape, kept])
    weight = rng.normal(size=shape)
    if kind == "low rank":
        weight = rng.normal(size=(shape[0], 2)) @ rng.normal(size=(2, shape[1]))
    weight = weight * {"thousands": 3000.0, "zero": 0.0}.get(kind, 1.0)
    layer = nn.Linear(shape[1], shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    rank = min(kept, *shape)
    parts = truncated(layer, rank)
    x = rng.normal(size=(5, shape[1]))
    with torch.no_grad():
        found = parts(torch.from_numpy(x).float()).double().numpy()
    u, s, v = linalg.svd(layer.weight.detach().double().numpy(), full_matrices=False)
    nearest = (u[:, :rank] * s[:rank]) @ v[:rank]
    size = max(1.0, float(np.abs(weight).max()))
    np.testing.assert_allclose(found, x @ nearest.T + layer.bias.detach().double().numpy(), atol=2e-5 * size)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_truncated_layer_keeps_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = nn.Linear(11, 8, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.normal(size=(8, 11))))
    parts = truncated(layer, 3)
    product = torch.linalg.multi_dot([part.weight for part in parts][::-1]).detach().double().numpy()  # type: ignore[misc]
    theirs = TruncatedSVD(3, algorithm="arpack", random_state=0)
    reduced = theirs.fit_transform(layer.weight.detach().double().numpy())
    np.testing.assert_allclose(product, theirs.inverse_transform(reduced), atol=1e-5)


# --- examples ---------------------------------------------------------------------------------------------------------


class World:
    """Images with an object of one of two classes, proposals, and features that tell a little about them."""

    def __init__(self, seed: int, *, images: int = 6, width: int = 5, scale: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        self.boxes: list[Array] = []
        self.proposals: list[Array] = []
        records = []
        for _ in range(images):
            corner = rng.uniform(5, 40, (1, 2))
            box = np.concatenate([corner, corner + rng.uniform(15, 30, (1, 2))], axis=1).astype(np.float32)
            near = box + rng.normal(0, 2, (6, 4))
            far = box + 70 + rng.normal(0, 2, (8, 4))
            label = int(rng.integers(1, 3))
            records.append(replace(record(len(records), 200, 200, box.tolist()), labels=np.array([label])))
            self.boxes.append(box)
            self.proposals.append(np.concatenate([near, far]).astype(np.float32))
        self.dataset: DetectionSet = replace(in_memory(*records)[0], classes=("a", "b"))
        self.features = [(rng.normal(size=(len(p) + 1, width)) * scale).astype(np.float32) for p in self.proposals]

    def __call__(self, image: int) -> Array:
        return self.features[image]

    def pooled(self, image: int, boxes: Array) -> Array:
        """Return features of boxes by their places among the proposals."""
        rows = [int(np.flatnonzero((self.proposals[image] == box).all(1))[0]) for box in boxes]
        return self.features[image][rows]


def examples(world: World, label: int, config: SvmConfig) -> tuple[Array, NDArray[np.int64]]:
    """Return all objects of a class, and all proposals that overlap none of them enough, as R-CNN has it."""
    rows, kinds = [], []
    for image, record_ in enumerate(world.dataset.records):
        own = record_.boxes[record_.labels == label]
        for place, box in enumerate(world.proposals[image]):
            if not len(own) or overlaps(box[None], own).max() < config.negative_iou:
                rows.append(world.features[image][place])
                kinds.append(0)
        if len(own):
            rows.append(world.features[image][-1])
            kinds.append(1)
    return np.array(rows), np.array(kinds)


def hinge(rows: NDArray[np.float64], kinds: NDArray[np.int64], config: SvmConfig) -> Callable[..., float]:
    """Return the objective of a linear SVM, whose bias is the weight of a constant feature, at (w, weight of that)."""
    signs = np.where(kinds == 1, 1.0, -1.0)
    costs = np.where(kinds == 1, config.positive_weight, 1.0) * config.c

    def value(point: NDArray[np.float64]) -> float:
        margins = signs * (rows @ point[:-1] + config.bias_scale * point[-1])
        return float(0.5 * point @ point + costs @ np.maximum(0, 1 - margins))

    return value


@pytest.mark.parametrize(("c", "positive_weight", "seed"), grid((1e-3, 0.1), (1.0, 2.0), range(3)))
def test_a_classifier_minimises_the_hinge_loss_of_its_examples(c: float, positive_weight: float, seed: int) -> None:
    """All negatives at once: the first fit then sees every example, and no later one has to be hard."""
    world = World(seed)
    config = SvmConfig(c=c, positive_weight=positive_weight, start_images=len(world.dataset), feature_norm=0.0)
    weights, biases, scale = fit_svms(
        world.dataset, world.proposals, world, config=config, order=np.arange(len(world.dataset))
    )
    assert scale == 1.0
    for label in (1, 2):
        rows, kinds = examples(world, label, config)
        if not kinds.any():
            continue
        value = hinge(rows.astype(np.float64), kinds, config)
        own = value(np.append(weights[label - 1], biases[label - 1] / config.bias_scale).astype(np.float64))
        theirs = LinearSVC(
            C=c, loss="hinge", intercept_scaling=config.bias_scale, class_weight={1: positive_weight}, max_iter=100_000
        ).fit(rows.astype(np.float64), kinds)
        best = value(np.append(theirs.coef_[0], theirs.intercept_[0] / config.bias_scale))
        start = np.append(theirs.coef_[0], theirs.intercept_[0] / config.bias_scale)
        descended = optimize.minimize(value, start, method="Powell", options={"maxiter": 4000, "xtol": 1e-8})
        assert own <= min(best, float(descended.fun)) * 1.01 + 1e-6


@pytest.mark.parametrize(("norm", "scale"), grid((0.0, 1.0, 20.0), (1e-3, 1.0, 500.0)))
def test_features_are_scaled_to_their_mean_norm(norm: float, scale: float) -> None:
    world = World(3, scale=scale)
    config = SvmConfig(feature_norm=norm, start_images=len(world.dataset))
    *_, found = fit_svms(world.dataset, world.proposals, world, config=config, order=np.arange(len(world.dataset)))
    mean = np.mean([np.linalg.norm(row) for rows in world.features for row in rows])
    assert found == pytest.approx(norm / mean if norm else 1.0, rel=1e-4)


@pytest.mark.parametrize(("weight", "seed"), grid((1e-3, 1.0, 1000.0), range(4)))
def test_a_regression_solves_the_normal_equations(weight: float, seed: int) -> None:
    """Appendix C, with R-CNN's code for the intercept: a penalised constant feature, on targets from which the mean is taken."""
    world = World(seed)
    config = RidgeConfig(weight=weight)
    weights, biases, scale = fit_ridges(
        world.dataset, world.proposals, world.pooled, config=config, order=np.arange(len(world.dataset))
    )
    rows: dict[int, list[Array]] = {1: [], 2: []}
    moves: dict[int, list[list[float]]] = {1: [], 2: []}
    for image, record_ in enumerate(world.dataset.records):
        label, (x1, y1, x2, y2) = int(record_.labels[0]), record_.boxes[0].astype(float)
        for place, box in enumerate(world.proposals[image]):
            if overlaps(box[None], record_.boxes)[0, 0] > config.iou:
                a1, b1, a2, b2 = box.astype(float)
                wide, high = a2 - a1, b2 - b1
                rows[label].append(world.features[image][place])
                moves[label].append([
                    ((x1 + x2) - (a1 + a2)) / 2 / wide, ((y1 + y2) - (b1 + b2)) / 2 / high,
                    np.log((x2 - x1) / wide), np.log((y2 - y1) / high),
                ])  # fmt: skip
    known = np.array([row for group in rows.values() for row in group], dtype=np.float64)
    assert scale == pytest.approx(NORM / np.linalg.norm(known, axis=1).mean(), rel=1e-5)
    for label in (1, 2):
        if not rows[label]:
            assert not weights[label - 1].any()
            continue
        x = np.array(rows[label], dtype=np.float64) * scale
        y = np.array(moves[label])
        extended = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        mean = y.mean(0)
        gram = extended.T @ extended + weight * np.eye(extended.shape[1])
        solution = linalg.solve(gram, extended.T @ (y - mean), assume_a="pos")
        near = 2e-3 if weight < 1 else 2e-4
        np.testing.assert_allclose(weights[label - 1], solution[:-1].T, rtol=near, atol=near * np.abs(solution).max())
        np.testing.assert_allclose(biases[label - 1], solution[-1] + mean, rtol=near, atol=near)
        theirs = Ridge(alpha=weight, fit_intercept=False, solver="svd").fit(extended, y - mean)
        np.testing.assert_allclose(theirs.coef_.T, solution, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("images", "classes", "scale"), grid((1, 7), (1, 4), (1.0, 0.03)))
def test_linear_parts_are_a_product_with_the_scaled_features(images: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng([images, classes])
    x = rng.normal(size=(images, 2, 3)).astype(np.float32)
    scores, boxes = LinearScores(features=6, classes=classes), LinearBoxes(features=6, classes=classes)
    w, b = rng.normal(size=(classes, 6)).astype(np.float32), rng.normal(size=classes).astype(np.float32)
    scores.set(w, b, scale)
    flat = x.reshape(images, 6).astype(np.float64) * scale
    np.testing.assert_allclose(scores(torch.from_numpy(x)).numpy(), flat @ w.T + b, rtol=1e-4, atol=1e-5)
    w4, b4 = rng.normal(size=(classes, 4, 6)).astype(np.float32), rng.normal(size=(classes, 4)).astype(np.float32)
    boxes.set(w4, b4, scale)
    found = boxes(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found[:, 1:], np.einsum("nd,ckd->nck", flat, w4) + b4, rtol=1e-4, atol=1e-5)
    assert not found[:, 0].any()
