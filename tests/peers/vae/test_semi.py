"""M1 and M2 of Kingma, Rezende, Mohamed and Welling (2014) against their equations in NumPy, and scikit-learn's parts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from paperbench.vae.config import M1Model, M2Model
from paperbench.vae.nets import initialise
from paperbench.vae.semi import M2, SemiBatch, make_classifier
from tests.peers.cases import grid
from tests.peers.vae import plain

Array = NDArray[np.float64]


def m2(classes: int, activation: Any, seed: int, *, alpha: float = 0.1, fraction: float = 0.2) -> M2:
    torch.manual_seed(seed)
    config = M2Model(latent=3, hidden=6, activation=activation, alpha=alpha)
    module = M2(config, pixels=10, classes=classes, labelled_fraction=fraction)
    initialise(module, 0.3)
    return module


def joint_features(weights: plain.Weights, name: str, x: Array, y: Array, activation: str) -> Array:
    both = np.concatenate([x, y], axis=-1)
    matrix = np.concatenate([weights[f"{name}.of_input.weight"], weights[f"{name}.of_class.weight"]], axis=1)
    return plain.ACTIVATIONS[activation](both @ matrix.T + weights[f"{name}.of_input.bias"])


def labelled_bound(weights: plain.Weights, x: Array, y: Array, noise: Array, activation: str) -> Array:
    """Return minus equation 6 for images (B, D) with one-hot classes (B, C) and noise (B, L)."""
    h = joint_features(weights, "encoder", x, y, activation)
    mean, log_variance = plain.linear(weights, "mean", h), plain.linear(weights, "log_variance", h)
    z = mean + np.exp(log_variance / 2) * noise
    p = special.expit(plain.linear(weights, "logits", joint_features(weights, "decoder", z, y, activation)))
    reconstruction = (special.xlogy(x, p) + special.xlog1py(1 - x, -p)).sum(-1)
    return np.asarray(reconstruction + math.log(1 / y.shape[-1]) - plain.kl(mean, log_variance))


def class_logs(weights: plain.Weights, x: Array, activation: str) -> Array:
    h = plain.ACTIVATIONS[activation](plain.linear(weights, "classifier.0.hidden", x))
    return special.log_softmax(plain.linear(weights, "classifier.1", h), axis=-1)


def unlabelled_bound(weights: plain.Weights, x: Array, noise: Array, activation: str) -> Array:
    """Return minus equation 7: the sum over the classes of q(y | x) (-L(x, y)), and the entropy of q(y | x)."""
    log_q = class_logs(weights, x, activation)
    total = -(np.exp(log_q) * log_q).sum(1)
    for number in range(log_q.shape[1]):
        y = np.tile(np.eye(log_q.shape[1])[number], (len(x), 1))
        total = total + np.exp(log_q[:, number]) * labelled_bound(weights, x, y, noise[number], activation)
    return total


@pytest.mark.parametrize(("classes", "activation", "seed"), grid((2, 5), ("tanh", "relu"), range(4)))
def test_the_bounds_are_equations_6_and_7(classes: int, activation: str, seed: int) -> None:
    module = m2(classes, activation, seed)
    draws = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 10, generator=draws)
    labels = torch.randint(0, classes, (4,), generator=draws)
    one_hot = torch.eye(classes)[labels]
    noise = torch.randn(classes, 4, 3, generator=draws)
    weights, pixels = plain.weights_of(module), x.double().numpy()
    with torch.no_grad():
        found = module.labelled_bound(x, one_hot[None], noise[:1])[0].numpy()
        whole = module.unlabelled_bound(x, noise).numpy()
        logs = module.log_q_classes(x).numpy()
    expected = labelled_bound(weights, pixels, one_hot.double().numpy(), noise[0].double().numpy(), activation)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(logs, class_logs(weights, pixels, activation), rtol=1e-4, atol=1e-5)
    expected = unlabelled_bound(weights, pixels, noise.double().numpy(), activation)
    np.testing.assert_allclose(whole, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(("alpha", "fraction", "seed"), grid((0.0, 0.1, 3.0), (0.01, 0.5), range(2)))
def test_the_losses_are_those_of_equation_9_for_an_average_image(alpha: float, fraction: float, seed: int) -> None:
    module = m2(3, "relu", seed, alpha=alpha, fraction=fraction)
    draws = torch.Generator().manual_seed(seed)
    x, known = torch.rand(6, 10, generator=draws), torch.rand(4, 10, generator=draws)
    labels = torch.randint(0, 3, (4,), generator=draws)
    losses = module(SemiBatch(x, known, labels), torch.Generator().manual_seed(77))
    stream = torch.Generator().manual_seed(77)
    noise = torch.randn(3, 6, 3, generator=stream).double().numpy()
    own = torch.randn(1, 4, 3, generator=stream).double().numpy()[0]
    weights = plain.weights_of(module)
    one_hot = np.eye(3)[labels.numpy()]
    unlabelled = unlabelled_bound(weights, x.double().numpy(), noise, "relu").mean()
    labelled = labelled_bound(weights, known.double().numpy(), one_hot, own, "relu").mean()
    logs = class_logs(weights, known.double().numpy(), "relu")
    expected = -(1 - fraction) * unlabelled - fraction * labelled - alpha * (logs * one_hot).sum(1).mean()
    assert float(sum(loss.detach() for loss in losses.values())) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "c", "seed"), grid(("svm", "logistic"), (0.1, 1.0, 30.0), range(3)))
def test_the_classifier_of_m1_is_scikit_learns_on_features_scaled_by_hand(kind: Any, c: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 4)) * [1, 10, 0.1, 1000] + 5
    y = (x[:, 0] + x[:, 1] / 10 + 0.5 * rng.normal(size=60) > 6).astype(int) + (x[:, 2] > 5.05)
    test = rng.normal(size=(40, 4)) * [1, 10, 0.1, 1000] + 5
    found = make_classifier(M1Model(classifier=kind, regularisation=c)).fit(x, y).predict(test)
    scaled, moved = ((part - x.mean(0)) / x.std(0) for part in (x, test))
    theirs = SVC(C=c) if kind == "svm" else LogisticRegression(C=c, max_iter=1000)
    np.testing.assert_array_equal(found, theirs.fit(scaled, y).predict(moved))
