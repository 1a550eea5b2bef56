"""Which classes a generalist confuses: k-means on the columns of the covariance of its predictions (section 5.3).

No label is used: classes that are often predicted together have similar columns.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def covariance(probabilities: Tensor) -> Tensor:
    """(N, K) predictions -> (K, K) float64, symmetric; entry i, j is positive where i and j are likely for the same images."""
    centred = probabilities.double() - probabilities.double().mean(0)
    return centred.T @ centred / max(1, len(probabilities) - 1)


def confusable(matrix: Tensor, *, count: int, size: int = 0, seed: int) -> list[tuple[int, ...]]:
    """Up to `count` sets of two classes or more, each in ascending order; the sets are sorted, and no two are the same.

    matrix: (K, K) `covariance`. With `size` = 0 they are the clusters of its columns and share no class. Else each set is the
    `size` classes whose columns lie nearest to a cluster's centre, so that sets overlap and some classes may be in none, as
    in the paper. A cluster of one class has nothing to tell apart and gives no set, unless `size` makes it one of several.

    Raises ValueError for more clusters than classes, and for sets of all classes or of one.
    """
    from sklearn.cluster import KMeans  # takes a second: only when there are specialists

    classes = len(matrix)
    if not 1 <= count <= classes:
        raise ValueError(f"{count} clusters of {classes} classes; choose from 1 to {classes}")
    if size and not 2 <= size < classes:
        raise ValueError(f"sets of {size} out of {classes} classes; choose from 2 to {classes - 1}, or 0")
    columns = matrix.T.cpu().numpy()
    # Without stubs, the type of `n_init` is guessed from its default, "auto".
    means = KMeans(n_clusters=count, n_init=10, random_state=seed % 2**32)  # pyright: ignore[reportArgumentType]
    means.fit(columns)
    if size == 0:
        sets = [np.flatnonzero(means.labels_ == number) for number in range(count)]
    else:
        sets = [_nearest(columns, centre, size) for centre in means.cluster_centers_]
    found = {tuple(sorted(int(name) for name in members)) for members in sets}
    return sorted(members for members in found if len(members) > 1)


def _nearest(columns: NDArray[np.float64], centre: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    return np.argsort(np.linalg.norm(columns - centre, axis=1), kind="stable")[:size]


def membership(sets: list[tuple[int, ...]], classes: int) -> Tensor:
    """(M, K) bool: whether specialist m knows class k."""
    known = torch.zeros(len(sets), classes, dtype=torch.bool)
    for number, members in enumerate(sets):
        known[number, list(members)] = True
    return known
