"""Specialists: covariances, clusters, the combination of section 5.5 and its tables against NumPy, scikit-learn and SciPy."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize, special
from sklearn.cluster import KMeans, kmeans_plusplus
from torch import Tensor

from paperbench.distill.nets import mlp
from paperbench.distill.specialists.evaluation import (
    MOST,
    accuracy,
    active_specialists,
    closed_form,
    combine,
    conditional_accuracy,
    coverage,
    objective,
)
from paperbench.distill.specialists.model import (
    as_specialist,
    confusable,
    covariance,
    dustbin_correction,
    labels_for,
    membership,
    scattered,
    softmax_corrected,
    specialist_from,
)
from tests.peers.cases import grid

Array = NDArray[np.float64]

KINDS = ("flat", "usual", "sure", "sparse", "half precision")


def probabilities(kind: str, shape: tuple[int, ...], seed: int) -> Array:
    rng = np.random.default_rng([KINDS.index(kind), seed])
    scale = {"flat": 0.01, "usual": 1.0, "sure": 20.0, "sparse": 300.0, "half precision": 1.0}[kind]
    values = special.softmax(rng.normal(size=shape) * scale, axis=-1)
    return values.astype(np.float16).astype(float) if kind == "half precision" else values


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "images", "seed"), grid(KINDS, (2, 3, 40), range(2)))
def test_the_covariance_is_numpys(kind: str, images: int, seed: int) -> None:
    values = probabilities(kind, (images, 6), seed)
    found = covariance(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found, np.cov(values, rowvar=False), atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_covariance_of_small_types_is_taken_in_doubles(dtype: torch.dtype) -> None:
    values = torch.from_numpy(probabilities("usual", (200, 5), 3)).to(dtype)
    found = covariance(values)
    np.testing.assert_allclose(found.numpy(), np.cov(values.double().numpy(), rowvar=False), atol=1e-15)
    assert not covariance(values[:1]).any()


def blobs(groups: list[list[int]], seed: int) -> Tensor:
    """Return predictions (N, K) in which the classes of a group are confused with each other alone."""
    rng = np.random.default_rng(seed)
    classes = sum(map(len, groups))
    rows = []
    for _ in range(600):
        group = groups[rng.integers(len(groups))]
        values = np.full(classes, -6.0) + rng.normal(0, 0.1, classes)
        values[group] = rng.normal(0, 0.6, len(group))
        rows.append(special.softmax(values))
    return torch.from_numpy(np.array(rows))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [(3, 3), (2, 2, 2), (4, 2, 3)])
def test_clusters_are_the_groups_that_are_confused(sizes: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(sum(sizes))
    ends = np.cumsum([0, *sizes])
    groups = [sorted(int(k) for k in order[a:b]) for a, b in pairwise(ends)]
    matrix = covariance(blobs(groups, seed))
    found = confusable(matrix, count=len(groups), seed=seed)
    columns = matrix.T.numpy()
    theirs = KMeans(n_clusters=len(groups), n_init=20, random_state=seed + 1).fit(columns)
    own = sum(
        float(((columns[list(members)] - columns[list(members)].mean(0)) ** 2).sum()) for members in found
    )  # a cluster of one class adds nothing
    assert own <= theirs.inertia_ * (1 + 1e-6) + 1e-12
    assert all(len(members) > 1 for members in found)
    taken = [k for members in found for k in members]
    assert len(taken) == len(set(taken))


@pytest.mark.parametrize(("classes", "count", "size", "seed"), grid((6, 15), (2, 4), (2, 5), range(2)))
def test_overlapping_sets_are_the_nearest_classes_of_a_centre(classes: int, count: int, size: int, seed: int) -> None:
    matrix = covariance(torch.from_numpy(probabilities("usual", (100, classes), seed)))
    found = confusable(matrix, count=count, size=size, seed=seed)
    columns = matrix.T.numpy()
    assert 1 <= len(found) <= count
    for members in found:
        assert len(set(members)) == size
    centres = KMeans(n_clusters=count, n_init=10, random_state=seed).fit(columns).cluster_centers_
    expected = set()
    for centre in centres:
        away = [(float(((column - centre) ** 2).sum()), k) for k, column in enumerate(columns)]
        expected.add(tuple(sorted(k for _, k in sorted(away)[:size])))
    assert set(found) == expected


def test_starting_points_are_many() -> None:
    """One start of k-means++ can be worse than ten: the inertia is the smallest of several."""
    matrix = covariance(torch.from_numpy(probabilities("usual", (200, 30), 5))).numpy()
    found = confusable(torch.from_numpy(matrix), count=8, seed=0)
    own = sum(float(((matrix[list(m)] - matrix[list(m)].mean(0)) ** 2).sum()) for m in found)
    single = []
    for seed in range(20):
        start, _ = kmeans_plusplus(matrix, 8, random_state=seed)
        single.append(KMeans(n_clusters=8, init=start, n_init=1).fit(matrix).inertia_)
    assert own <= np.median(single)


@pytest.mark.parametrize("seed", range(5))
def test_labels_and_membership_are_those_of_the_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = tuple(sorted(int(k) for k in rng.choice(9, rng.integers(2, 8), replace=False)))
    own = labels_for(members, 9).tolist()
    assert own == [members.index(k) if k in members else len(members) for k in range(9)]
    assert membership([members], 9)[0].tolist() == [k in members for k in range(9)]


# --- nets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "correction", "seed"), grid(KINDS[:3], (-2.0, 0.0, 1.5), range(2)))
def test_a_specialists_targets_are_sums_of_the_generalists_probabilities(
    kind: str, correction: float, seed: int
) -> None:
    logits = np.log(probabilities(kind, (7, 8), seed)) + seed
    members = (1, 4, 6)
    own = as_specialist(torch.from_numpy(logits), members, correction)
    p = special.softmax(logits, axis=1)
    expected = np.concatenate([p[:, members], 1 - p[:, members].sum(1, keepdims=True)], axis=1)
    corrected = softmax_corrected(own, correction).numpy()
    np.testing.assert_allclose(corrected, expected, atol=1e-9)
    spread = scattered(torch.from_numpy(corrected), members, 8).numpy()
    np.testing.assert_allclose(spread[:, list(members)], p[:, members], atol=1e-9)
    np.testing.assert_allclose(spread.sum(1), 1)


@pytest.mark.parametrize(("special", "others", "seed"), grid((3, 40), (10, 2000), range(2)))
def test_the_correction_undoes_the_oversampling(special: int, others: int, seed: int) -> None:
    """Bayes: of a training half and half, the odds of the dustbin are too small by others / special."""
    rng = np.random.default_rng(seed)
    likelihood = rng.random(2)  # of an image under the special classes and under the others
    seen = 0.5 * likelihood / (0.5 * likelihood).sum()
    prior = np.array([special, others]) / (special + others)
    expected = prior * likelihood / (prior * likelihood).sum()
    logits = torch.from_numpy(np.log(seen))[None]
    found = softmax_corrected(logits, dustbin_correction(special, others))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_specialist_starts_with_the_generalists_rows(seed: int) -> None:
    torch.manual_seed(seed)
    generalist = mlp(inputs=5, classes=7, widths=[6])
    torch.nn.init.normal_(generalist.head.bias)
    net, x = specialist_from(generalist, (2, 5)), torch.rand(3, 5)
    with torch.no_grad():
        found, whole = net(x).double().numpy(), generalist(x).double().numpy()
    np.testing.assert_allclose(found[:, :2], whole[:, [2, 5]], atol=1e-6)
    # The dustbin: as many classes as there are others, all alike.
    rest = whole[:, [0, 1, 3, 4, 6]].mean(1)
    np.testing.assert_allclose(found[:, 2], special.logsumexp(np.repeat(rest[:, None], 5, 1), axis=1), atol=1e-6)


# --- the combination --------------------------------------------------------------------------------------------------


def problem(kind: str, specialists: int, seed: int, classes: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng([seed, specialists])
    images = 2
    p_g = probabilities(kind, (images, classes), seed)
    known = np.zeros((specialists, classes), bool)
    p_m = np.zeros((images, specialists, classes + 1))
    for number in range(specialists):
        members = rng.choice(classes, rng.integers(2, classes - 1), replace=False)
        known[number, members] = True
        own = probabilities(kind, (images, len(members) + 1), 100 + seed + number)
        p_m[:, number, members], p_m[:, number, -1] = own[:, :-1], own[:, -1]
    active = rng.random((images, specialists)) < 0.8
    active[0] = True
    return tuple(map(torch.from_numpy, (p_g, p_m, known, active)))  # type: ignore[return-value]


def divergence(q: Array, p_g: Array, p_m: Array, known: NDArray[np.bool_], active: NDArray[np.bool_]) -> float:
    """Return equation 5 for one image: the sum of KL(p_g, q) and of KL(p_m, q) of the active specialists."""
    total = special.rel_entr(p_g, q).sum()
    for number in np.flatnonzero(active):
        inside = known[number]
        total += special.rel_entr(p_m[number, :-1][inside], q[inside]).sum()
        total += special.rel_entr(p_m[number, -1], q[~inside].sum())
    return float(total)


@pytest.mark.parametrize(
    ("kind", "specialists", "seed"), grid(("flat", "usual", "half precision"), (1, 2, 4), range(2))
)
def test_the_combination_is_scipys_minimum(kind: str, specialists: int, seed: int) -> None:
    """By descent in logits, as the paper does it."""
    p_g, p_m, known, active = problem(kind, specialists, seed)
    q = combine(p_g, p_m, known, active).numpy()
    for image in range(len(q)):
        own = (p_g[image].numpy(), p_m[image].numpy(), known.numpy(), active[image].numpy())
        found = optimize.minimize(
            lambda logits, own=own: divergence(special.softmax(logits), *own),
            np.log(np.maximum(own[0], 1e-12)),
            method="L-BFGS-B",
            options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9},
        )
        np.testing.assert_allclose(q[image], special.softmax(found.x), atol=2e-4)
        assert divergence(q[image], *own) <= found.fun + 1e-9
        value = objective(torch.from_numpy(q), p_g, p_m, known, active)[image]
        assert float(value) == pytest.approx(divergence(q[image], *own), abs=1e-9)


@pytest.mark.parametrize(("kind", "specialists", "seed"), grid(KINDS, (0, 1, 3, 6), range(2)))
def test_nothing_near_the_combination_is_better(kind: str, specialists: int, seed: int) -> None:
    """The objective is convex in q: a minimum among its neighbours is the minimum."""
    p_g, p_m, known, active = problem(kind, specialists, 30 + seed)
    q = combine(p_g, p_m, known, active)
    np.testing.assert_allclose(q.sum(1).numpy(), 1, atol=1e-9)
    assert bool((q >= 0).all())
    best = objective(q, p_g, p_m, known, active)
    rng = np.random.default_rng(seed)
    images = 10 * len(q)  # ten neighbours of each at every distance, at once
    for size in (1e-1, 1e-3, 1e-5):
        moved = q.repeat(10, 1) * torch.from_numpy(np.exp(size * rng.normal(size=(images, q.shape[1]))))
        moved = moved / moved.sum(1, keepdim=True)
        values = objective(moved, p_g.repeat(10, 1), p_m.repeat(10, 1, 1), known, active.repeat(10, 1))
        assert bool((values >= best.repeat(10) - 1e-10).all())
    if not specialists:
        torch.testing.assert_close(q, p_g / p_g.sum(1, keepdim=True), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "seed"), grid(KINDS[:3], range(3)))
def test_one_specialist_has_a_closed_form(kind: str, seed: int) -> None:
    p_g, p_m, known, _ = problem(kind, 1, 60 + seed)
    active = torch.ones(len(p_g), 1, dtype=torch.bool)
    expected = closed_form(p_g, p_m[:, 0], known[0])
    torch.testing.assert_close(combine(p_g, p_m, known, active), expected, rtol=1e-7, atol=1e-10)


# --- tables 3 and 4 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("specialists", "top", "seed"), grid((1, 5), (1, 3), range(3)))
def test_active_specialists_know_one_of_the_likeliest_classes(specialists: int, top: int, seed: int) -> None:
    p_g, _, known, _ = problem("usual", specialists, seed)
    found = active_specialists(p_g, known, top=top)
    for image, row in enumerate(p_g.numpy()):
        likeliest = set(np.argsort(-row)[:top].tolist())
        assert found[image].tolist() == [bool(likeliest & set(np.flatnonzero(own))) for own in known.numpy()]


@pytest.mark.parametrize(("specialists", "seed"), grid((1, 3, 12), range(3)))
def test_coverage_is_counted_image_by_image(specialists: int, seed: int) -> None:
    rng = np.random.default_rng([specialists, seed])
    before, after = torch.from_numpy(rng.normal(size=(2, 80, 5)))
    labels = torch.from_numpy(rng.integers(0, 5, 80))
    known = torch.from_numpy(rng.random((specialists, 5)) < (0.9 if specialists == 12 else 0.5))
    found = coverage(before, after, labels, known)
    table: dict[int, list[tuple[bool, bool]]] = {}
    for image in range(80):
        number = min(sum(bool(own[labels[image]]) for own in known), MOST)
        right = [int(scores[image].argmax()) == int(labels[image]) for scores in (before, after)]
        table.setdefault(number, []).append((right[0], right[1]))
    assert {int(name.split("/")[1]) for name in found} == set(table)
    for number, rows in table.items():
        earlier, later = (sum(column) for column in zip(*rows, strict=True))
        assert found[f"coverage/{number}/examples"] == len(rows)
        assert found[f"coverage/{number}/more_correct"] == later - earlier
        if earlier:
            assert found[f"coverage/{number}/relative_gain"] == pytest.approx(100 * (later / earlier - 1))
        else:
            assert f"coverage/{number}/relative_gain" not in found


@pytest.mark.parametrize(("specialists", "seed"), grid((0, 1, 4), range(3)))
def test_conditional_accuracy_is_counted_specialist_by_specialist(specialists: int, seed: int) -> None:
    rng = np.random.default_rng([specialists, seed])
    values, labels = torch.from_numpy(rng.normal(size=(60, 6))), torch.from_numpy(rng.integers(0, 6, 60))
    known = torch.from_numpy(rng.random((specialists, 6)) < 0.5)
    right = []
    for own in known.tolist():
        members = [k for k, knows in enumerate(own) if knows]
        for scores, label in zip(values.tolist(), labels.tolist(), strict=True):
            if label in members:
                right.append(max(members, key=lambda k, scores=scores: scores[k]) == label)
    found = conditional_accuracy(values, labels, known)
    if not right:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(100 * sum(right) / len(right))
    assert accuracy(values, labels) == pytest.approx(100 * np.mean(values.argmax(1).numpy() == labels.numpy()))
