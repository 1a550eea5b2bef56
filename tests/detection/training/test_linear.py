"""Pooling, SVD, SVMs and ridges: numbers that can be worked out by hand, and properties that must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from paperbench.data.detection import DetectionSet
from paperbench.detection.detectors.linear import LinearBoxes, LinearScores
from paperbench.detection.evaluation.variants import truncated, truncated_head
from paperbench.detection.rcnn_config import RidgeConfig, SvmConfig
from paperbench.detection.roi_pooling import pyramid_pool, warp, with_context
from paperbench.detection.training.features import FeatureStore, overlaps, usable
from paperbench.detection.training.linear import _solved, fit_ridges, fit_svms
from paperbench.errors import ConfigError
from tests.data.sets import in_memory, record

# --- pooling ----------------------------------------------------------------------------------------------------------


def test_a_pyramid_is_its_levels_one_after_the_other() -> None:
    features = torch.arange(25.0).view(1, 1, 5, 5)
    boxes = torch.tensor([[[0.0, 0, 4, 4], [1, 1, 3, 3]]])
    pooled = pyramid_pool(features, boxes, levels=(3, 1), scale=1.0)
    assert pooled.shape == (2, 10)
    assert pooled[0].tolist() == [6, 8, 9, 16, 18, 19, 21, 23, 24, 24]
    assert pooled[1, -1] == 18


def test_context_of_the_paper() -> None:
    """16 pixels around a region of 227 (appendix A): the box itself fills 195."""
    grown = with_context(torch.tensor([10.0, 20, 205, 215]), size=227, context=16)
    torch.testing.assert_close(grown, torch.tensor([-6.0, 4, 221, 231]))


def test_regions_are_warped_to_squares_and_the_outside_is_the_mean() -> None:
    images = torch.zeros(1, 3, 40, 40)
    images[:, :, 10:30, 10:20] = 1.0
    inside, across = warp(images, torch.tensor([[[10.0, 10, 20, 30], [-20, 0, 20, 40]]]), size=16, context=0)
    assert inside.shape == (3, 16, 16)
    torch.testing.assert_close(inside[:, 1:-1, 1:-1], torch.ones(3, 14, 14))
    assert across[:, :, :7].eq(0).all()
    assert across[:, 8, 14].gt(0.9).all()
    framed = warp(images, torch.tensor([[[10.0, 10, 20, 30]]]), size=16, context=4)[0]
    assert framed[:, :3].max() < 0.1
    assert framed[:, 6:10, 6:10].min() > 0.9


# --- singular values --------------------------------------------------------------------------------------------------


def test_all_singular_values_change_nothing_and_few_are_the_nearest_matrix() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 7), torch.randn(5, 12)
    torch.testing.assert_close(truncated(layer, 7)(x), layer(x), rtol=1e-4, atol=1e-5)
    two = truncated(layer, 2)
    product = two[1].weight @ two[0].weight  # pyright: ignore[reportOperatorIssue]
    s = torch.linalg.svdvals(layer.weight)
    assert torch.linalg.matrix_norm(layer.weight - product).item() == pytest.approx(
        s[2:].square().sum().sqrt().item(), rel=1e-4
    )


def test_the_papers_numbers_of_weights() -> None:
    """Section 3.1: u x v becomes t (u + v); fc6 and fc7 of VGG-16 with t = 1024 and 256."""
    with torch.device("meta"):
        fc6 = nn.Sequential(nn.Linear(25088, 1024, bias=False), nn.Linear(1024, 4096, bias=False))
        fc7 = nn.Sequential(nn.Linear(4096, 256, bias=False), nn.Linear(256, 4096, bias=False))
    assert [sum(p.numel() for p in net.parameters()) for net in (fc6, fc7)] == [29_884_416, 2_097_152]
    layer = truncated(nn.Linear(20, 16, bias=False), 4)
    assert sum(p.numel() for p in layer.parameters()) == 4 * (20 + 16)


def test_heads_are_cut_layer_by_layer_and_the_old_one_stays() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.ReLU()).eval()
    cut = truncated_head(head, [3])
    assert isinstance(cut[1], nn.Sequential)
    assert cut[4].weight.equal(head[4].weight)  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert isinstance(head[1], nn.Linear)
    assert not cut.training
    ranks = [part[0].out_features for part in truncated_head(head, [5, 2]) if isinstance(part, nn.Sequential)]
    assert ranks == [5, 2]
    with pytest.raises(ConfigError, match="layer 2 is 8 x 8 and has 8 singular values"):
        truncated_head(head, [3, 9])
    with pytest.raises(ConfigError, match="has 2 fully connected layers"):
        truncated_head(head, [3, 3, 3])


# --- features on disk -------------------------------------------------------------------------------------------------


def test_features_are_kept_up_to_the_bound(tmp_path: Path) -> None:
    computed: list[int] = []

    def compute(image: int) -> np.ndarray:
        computed.append(image)
        return np.full((4, 8), image, np.float32)

    one = 4 * 8 * 2 + 128  # float16 and the header of the file
    store = FeatureStore(tmp_path / "f" / "0", limit=2 * one, compute=compute)
    for image in (0, 1, 2, 0, 1, 2):
        assert store(image).tolist() == np.full((4, 8), image).tolist()
    assert computed == [0, 1, 2, 2]

    again = FeatureStore(tmp_path / "f" / "0", limit=2 * one, compute=compute)
    (tmp_path / "f" / "0" / "0.npy").write_bytes(b"damaged")
    assert again(1)[0, 0] == 1
    assert again(0)[0, 0] == 0
    assert computed == [0, 1, 2, 2, 0]
    store.remove()
    assert not (tmp_path / "f").exists()


# --- what is fitted ---------------------------------------------------------------------------------------------------


def made(images: int = 12) -> tuple[DetectionSet, list[np.ndarray]]:
    """Images with one object each, of classes 1 and 2 in turn, and proposals on it, near it and far from it."""
    rng = np.random.default_rng(0)
    records, proposals = [], []
    for index in range(images):
        x, y = rng.uniform(5, 25, 2)
        box = [x, y, x + 20, y + 20]
        records.append(replace(record(index, 64, 64, [box]), labels=np.array([1 + index % 2])))
        near = np.array(box) + rng.uniform(-2, 2, (6, 4))
        far = np.array([[40, 40, 60, 60], [42, 42, 63, 63], [0, 50, 12, 62]])
        proposals.append(np.concatenate([far, near]).astype(np.float32))  # unlike the objects, which come after them
    return replace(in_memory(*records)[0], classes=("a", "b")), proposals


def feature_of(dataset: DetectionSet, boxes: np.ndarray, image: int) -> np.ndarray:
    """Which object a box covers, in two dimensions, and a constant."""
    truth = dataset.records[image]
    overlap = overlaps(boxes, truth.boxes)[:, 0]
    shown = np.zeros((len(boxes), 3), np.float32)
    shown[:, int(truth.labels[0]) - 1] = overlap
    shown[:, 2] = 1 - overlap
    return shown


def test_svms_tell_classes_and_background_apart() -> None:
    dataset, proposals = made()

    def features(image: int) -> np.ndarray:
        return feature_of(dataset, np.concatenate([proposals[image], dataset.records[image].boxes]), image)

    config = SvmConfig(c=0.1, start_images=4, refit_every=1)
    seen: list[tuple[int, int]] = []
    weights, biases, scale = fit_svms(
        dataset, proposals, features, config=config, order=np.arange(12), progress=lambda *at: seen.append(at)
    )
    assert seen[-1] == (24, 24)
    norms = np.concatenate([np.linalg.norm(features(image), axis=1) for image in range(12)])
    assert scale == pytest.approx(20 / norms.mean(), rel=1e-5)
    svm = LinearScores(features=3, classes=2)
    svm.set(weights, biases, scale)
    margins = svm(torch.eye(3))
    assert (margins.diagonal()[:2] > 0).all()
    assert (margins[[0, 1, 2, 2], [1, 0, 0, 1]] < 0).all()

    again = fit_svms(dataset, proposals, features, config=config, order=np.arange(12))
    np.testing.assert_array_equal(again[0], weights)


def test_a_class_without_objects_is_never_found() -> None:
    dataset, proposals = made(4)
    fewer = replace(dataset, classes=("a", "b", "c"))
    weights, biases, _ = fit_svms(
        fewer,
        proposals,
        lambda image: feature_of(dataset, np.concatenate([proposals[image], dataset.records[image].boxes]), image),
        config=SvmConfig(start_images=2),
        order=np.arange(4),
    )
    assert weights.shape == (3, 3)
    assert not weights[2].any()
    assert biases[2] == -10


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_objects_that_do_not_count_are_no_examples(flag: str) -> None:
    """Neither of their class nor as what a proposal is moved onto; the proposals on them are background as without them."""
    dataset, proposals = made()
    with_more = []
    for own in dataset.records:
        boxes = np.concatenate([own.boxes, np.array([[41, 41, 61, 61]], np.float32)])
        more = record(int(own.image_id), 64, 64, boxes.tolist(), **{flag: [False, True]})
        with_more.append(replace(more, labels=np.array([int(own.labels[0]), 2])))
    other = replace(in_memory(*with_more)[0], classes=("a", "b"))

    def fitted(given: DetectionSet) -> list[np.ndarray | float]:
        def features(image: int) -> np.ndarray:
            truth, _, boxes = usable(given, proposals, image)
            return feature_of(given, np.concatenate([boxes, truth]), image)

        def pooled(image: int, boxes: np.ndarray) -> np.ndarray:
            return feature_of(given, boxes, image) + boxes[:, :1] / 64

        order = np.arange(12)
        svms = fit_svms(given, proposals, features, config=SvmConfig(start_images=4, refit_every=1), order=order)
        return [*svms, *fit_ridges(given, proposals, pooled, config=RidgeConfig(), order=order)]

    for one, two in zip(fitted(dataset), fitted(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_ridges_move_boxes_onto_their_objects() -> None:
    """With the wanted change itself as the feature, regression without penalty is the identity."""
    from paperbench.detection import boxes as box_ops

    dataset, proposals = made(40)

    def pooled(image: int, boxes: np.ndarray) -> np.ndarray:
        truth = torch.from_numpy(dataset.records[image].boxes)
        return box_ops.encode(torch.from_numpy(boxes), truth.expand(len(boxes), 4)).numpy()

    weights, biases, scale = fit_ridges(
        dataset, proposals, pooled, config=RidgeConfig(weight=1e-4), order=np.arange(40)
    )
    ridge = LinearBoxes(features=4, classes=2)
    ridge.set(weights, biases, scale)
    wanted = torch.tensor([[0.1, -0.05, 0.08, 0.02]])
    moved = ridge(wanted)
    assert moved.shape == (1, 3, 4)
    assert not moved[:, 0].any()
    torch.testing.assert_close(moved[0, 1:], wanted.expand(2, 4), rtol=1e-2, atol=1e-3)

    strong, _, _ = fit_ridges(dataset, proposals, pooled, config=RidgeConfig(weight=1e6), order=np.arange(40))
    assert np.abs(strong).max() < 0.1 * np.abs(weights).max()
    nothing, _, _ = fit_ridges(dataset, proposals, pooled, config=RidgeConfig(iou=1.0), order=np.arange(40))
    assert nothing.shape == (2, 4, 0)


def test_ridges_penalise_their_intercept_as_the_reference_implementation_does() -> None:
    """Against the formula of R-CNN's code: a column of ones, targets centred and decorrelated, one penalty for all weights."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, (30, 5)).astype(np.float32), rng.normal(0.3, 1, (30, 4)).astype(np.float32)
    config = RidgeConfig(weight=50.0)
    weights, biases, scale = _solved([[x], []], [[y], []], config)

    ones = np.concatenate([x * scale, np.ones((30, 1))], axis=1).astype(np.float64)
    mean = y.mean(axis=0)
    values, vectors = np.linalg.eigh((y - mean).T @ (y - mean) / len(y))
    apart, back = (vectors @ np.diag((values + 0.001) ** power) @ vectors.T for power in (-0.5, 0.5))
    beta = np.linalg.solve(ones.T @ ones + 50.0 * np.eye(6), ones.T @ ((y - mean) @ apart))
    fresh = rng.normal(1, 2, (7, 5))
    expected = np.concatenate([fresh * scale, np.ones((7, 1))], axis=1) @ beta @ back + mean
    np.testing.assert_allclose(fresh * scale @ weights[0].T + biases[0], expected, atol=1e-4)
    assert not weights[1].any()
    assert not biases[1].any()
