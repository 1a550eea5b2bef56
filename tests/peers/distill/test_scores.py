"""Scores, the bias of omitted classes, jitter and max-norm against scikit-learn, torch and searches of every value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from paperbench.data.image_sets import ImageSet
from paperbench.distill.batches import Images, JitteredBatches
from paperbench.distill.evaluation import add_bias, best_bias, class_scores, errors, omitted_class_metrics, scores
from paperbench.distill.nets import convnet, mlp
from paperbench.engine.order import BatchKey
from tests.peers.cases import grid

KINDS = ("normal", "good", "hundreds", "two classes", "many classes", "one image", "one class shown", "half precision")


def predictions(kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and labels (N,)."""
    draws = torch.Generator().manual_seed(100 * seed + KINDS.index(kind))
    count = 1 if kind == "one image" else 60
    classes = {"two classes": 2, "many classes": 90}.get(kind, 5)
    labels = torch.randint(0, classes, (count,), generator=draws)
    values = torch.randn(count, classes, generator=draws)
    match kind:
        case "good":
            values = values + 2 * torch.nn.functional.one_hot(labels, classes)
        case "hundreds":
            values = values * 300
        case "one class shown":
            labels = torch.full_like(labels, 3)
        case "half precision":
            values = values.half().float()
    return values, labels


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS, range(3)))
def test_errors_and_likelihoods_are_those_of_scikit_learn(kind: str, seed: int) -> None:
    logits, labels = predictions(kind, seed)
    found = scores(logits, labels)
    predicted = logits.argmax(1).numpy()
    accuracy = sklearn_metrics.accuracy_score(labels.numpy(), predicted)
    assert found["test/accuracy"] == pytest.approx(100 * accuracy)
    assert found["test/error"] == pytest.approx(100 * (1 - accuracy))
    assert found["test/errors"] == sklearn_metrics.zero_one_loss(labels.numpy(), predicted, normalize=False)
    exact = torch.log_softmax(logits.double(), 1)
    assert found["test/nll"] == pytest.approx(-float(exact[range(len(labels)), labels].mean()), rel=1e-9)
    if kind != "hundreds":  # scikit-learn cuts probabilities off
        log_loss = sklearn_metrics.log_loss(labels.numpy(), exact.exp().numpy(), labels=range(logits.shape[1]))
        assert found["test/nll"] == pytest.approx(log_loss, rel=1e-6)


@pytest.mark.parametrize(("kind", "chosen", "seed"), grid(KINDS, ((0,), (1, 0)), range(2)))
def test_scores_of_some_classes_are_their_recall(kind: str, chosen: tuple[int, ...], seed: int) -> None:
    logits, labels = predictions(kind, 10 + seed)
    found = class_scores(logits, labels, chosen)
    shown = np.isin(labels.numpy(), chosen)
    if not shown.any():
        assert math.isnan(found["right"])
        return
    right = sklearn_metrics.accuracy_score(labels.numpy()[shown], logits.argmax(1).numpy()[shown])
    assert found["right"] == pytest.approx(100 * right)
    assert found["errors"] == (labels.numpy() != logits.argmax(1).numpy())[shown].sum()


@pytest.mark.parametrize(("kind", "seed"), grid(("normal", "good", "hundreds", "two classes", "one image"), range(5)))
def test_the_bias_has_the_fewest_errors_of_all(kind: str, seed: int) -> None:
    """Against a search: just below, at, and just above every bias at which the prediction of an image changes."""
    logits, labels = predictions(kind, 20 + seed)
    classes = (0,) if logits.shape[1] == 2 else (1, 3)
    others = [k for k in range(logits.shape[1]) if k not in classes]
    found = best_bias(logits, labels, classes)
    margins = (logits[:, others].amax(1) - logits[:, list(classes)].amax(1)).double()
    between = (margins.sort().values[1:] + margins.sort().values[:-1]) / 2
    tried = torch.cat([margins.min().view(1) - 1, between, margins.max().view(1) + 1])
    counts = [errors(add_bias(logits, classes, float(bias)), labels) for bias in tried]
    assert found.errors == min(counts)
    assert errors(add_bias(logits, classes, found.bias), labels) == found.errors


@pytest.mark.parametrize("seed", range(6))
def test_the_share_of_removed_errors_counts_new_ones_too(seed: int) -> None:
    logits, labels = predictions("good", 40 + seed)
    logits[:, 3] -= 3
    found = omitted_class_metrics(logits, labels, (3,), (3,), validation=(logits, labels), prefix="distilled")
    before = int((logits.argmax(1) != labels).sum())
    moved = logits.double()
    moved[:, 3] += found["corrected/bias"]
    after = int((moved.argmax(1) != labels).sum())
    assert found["corrected/removed"] == pytest.approx(100 * (before - after) / before)
    assert found["corrected/test/errors"] == found["validated/test/errors"] == after
    recalls = sklearn_metrics.recall_score(labels, moved.argmax(1), labels=[3], average=None)
    assert found["corrected/omitted/right"] == pytest.approx(100 * recalls[0])


@pytest.mark.parametrize(("reach", "channels", "seed"), grid((0, 1, 2, 5), (1, 3), range(3)))
def test_jitter_moves_an_image_as_scipy_does(reach: int, channels: int, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)
    pixels = torch.randint(1, 256, (7, channels, 9, 8), generator=draws, dtype=torch.uint8)
    images = Images.of(
        ImageSet(images=pixels, labels=torch.arange(7) % 3, classes=("a", "b", "c"), name="random"), torch.device("cpu")
    )
    batches = JitteredBatches(images, reach=reach, seed=seed)
    key = BatchKey(0, np.array([3, 0, 6, 3]), np.array([0, 0, 0, 1]))
    inputs, labels, rows = batches(key)
    assert labels.tolist() == [0, 0, 0, 0]
    assert rows.tolist() == [3, 0, 6, 3]
    for moved, row in zip(inputs.view(4, channels, 9, 8), rows.tolist(), strict=True):
        candidates = [
            ndimage.shift(pixels[row].double().numpy() / 255, (0, down, right), order=0, cval=0.0)
            for down in range(-reach, reach + 1)
            for right in range(-reach, reach + 1)
        ]
        near = [np.abs(moved.double().numpy() - candidate).max() < 1e-6 for candidate in candidates]
        assert sum(near) == 1


@pytest.mark.parametrize("reach", [1, 2])
def test_all_shifts_are_equally_likely(reach: int) -> None:
    """Both coordinates, independently: the chi-squared statistic of all (2 r + 1)^2 shifts over the epochs."""
    pixels = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    pixels[0, 0, 4, 4] = 255
    images = Images.of(
        ImageSet(images=pixels, labels=torch.zeros(1, dtype=torch.int64), classes=("a",), name="dot"),
        torch.device("cpu"),
    )
    epochs = np.arange(4000)
    inputs, *_ = JitteredBatches(images, reach=reach, seed=1)(BatchKey(0, np.zeros_like(epochs), epochs))
    counts = inputs.view(-1, 9, 9).sum(0)[4 - reach : 5 + reach, 4 - reach : 5 + reach].double().numpy()
    assert counts.sum() == pytest.approx(4000)
    expected = 4000 / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < counts.size + 5 * math.sqrt(2 * counts.size)


@pytest.mark.parametrize(("limit", "scale", "net"), grid((0.1, 1.0, 15**0.5), (0.01, 1.0, 100.0), ("mlp", "convnet")))
def test_the_largest_norm_is_torchs_renorm(limit: float, scale: float, net: str) -> None:
    torch.manual_seed(0)
    if net == "mlp":
        module = mlp(inputs=12, classes=4, widths=[7, 6], max_norm=limit)
    else:
        module = convnet(size=(3, 8, 8), classes=4, width=4, blocks=2, max_norm=limit)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    module.constrain()
    for name, parameter in module.named_parameters():
        expected = torch.renorm(before[name], 2, 0, limit) if parameter.ndim > 1 else before[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-5, atol=1e-8)
        if parameter.ndim > 1:
            assert float(parameter.detach().flatten(1).norm(dim=1).max()) <= limit * (1 + 1e-6)
