"""Specialists: the classes that they know (section 5.3), their nets and losses, and their batches (section 5.4).

k-means on the columns of the covariance of the generalist's predictions finds classes that are often confused; no label is used. A
specialist is the generalist's trunk with a head for the classes it knows and a dustbin for all others. Half of every batch shows
its classes, half is a random part of all other images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.distill.batches import Batch
from paperbench.distill.losses import hard_loss, soft_loss
from paperbench.distill.nets import Net
from paperbench.engine.device import as_float64
from paperbench.engine.order import BatchKey, EpochOrder
from paperbench.engine.seeding import hashed

# --- classes ----------------------------------------------------------------------------------------------------------


def covariance(probabilities: Tensor) -> Tensor:
    """Return the covariance (K, K) float64 of predictions (N, K): positive at i, j where both are likely for the same images."""
    exact = as_float64(probabilities)
    centred = exact - exact.mean(0)
    return centred.T @ centred / max(1, len(probabilities) - 1)


def confusable(matrix: Tensor, *, count: int, size: int = 0, seed: int) -> list[tuple[int, ...]]:
    """Return up to `count` different sets of two or more classes, sorted, each in ascending order.

    matrix: (K, K) `covariance`. With `size` = 0 they are the clusters of its columns and share no class. Else each set is the
    `size` classes whose columns lie nearest to a cluster's centre, so that sets overlap and some classes may be in none, as
    in the paper. A cluster of one class gives no set, unless `size` makes it one of several.

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
    """Return (M, K) bool: true where specialist m knows class k."""
    known = torch.zeros(len(sets), classes, dtype=torch.bool)
    for number, members in enumerate(sets):
        known[number, list(members)] = True
    return known


# --- nets -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def specialist_from(generalist: Net, members: Sequence[int]) -> Net:
    """Return a copy of the generalist with (B, |members| + 1) logits, the last one the dustbin's.

    The rows of the known classes are the generalist's. The dustbin starts as the mean of the other rows, with the log of their
    number in its bias: the mass that they would have together if they were alike.
    """
    weight, bias = generalist.head.weight, generalist.head.bias
    others = [number for number in range(len(weight)) if number not in set(members)]
    if not others:
        raise ValueError("a specialist that knows every class has no dustbin")
    head = nn.Linear(weight.shape[1], len(members) + 1).to(device=weight.device, dtype=weight.dtype)
    head.weight[:-1] = weight[list(members)]
    head.bias[:-1] = bias[list(members)]
    head.weight[-1] = weight[others].mean(0)
    head.bias[-1] = bias[others].mean() + math.log(len(others))
    return Net(deepcopy(generalist.trunk), head, max_norm=generalist.max_norm)


def labels_for(members: Sequence[int], classes: int) -> Tensor:
    """Return (classes,) int64: the specialist's label of each class, the dustbin's for those that it does not know."""
    own = torch.full((classes,), len(members), dtype=torch.int64)
    own[list(members)] = torch.arange(len(members))
    return own


def as_specialist(logits: Tensor, members: Sequence[int], correction: float) -> Tensor:
    """Return (B, |members| + 1) logits of a specialist that agrees with the generalist's `logits` (B, classes).

    `correction` is subtracted from the dustbin's logit, because it is added after training: soft targets and oversampled labels
    then agree, and the corrected specialist gives the probabilities of the generalist.
    """
    log_p = F.log_softmax(logits, dim=1)
    rest = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
    rest[list(members)] = False
    dustbin = log_p[:, rest].logsumexp(1, keepdim=True) - correction
    return torch.cat([log_p[:, list(members)], dustbin], dim=1)


def scattered(probabilities: Tensor, members: Sequence[int], classes: int) -> Tensor:
    """Return probabilities (B, |members| + 1) as (B, classes + 1), as `evaluation.combine` takes them."""
    spread = probabilities.new_zeros((len(probabilities), classes + 1))
    spread[:, list(members)] = probabilities[:, :-1]
    spread[:, -1] = probabilities[:, -1]
    return spread


class SpecialistLoss(nn.Module):
    """A specialist with the losses of its labels and, weighted, of the generalist's soft targets (section 6.1)."""

    def __init__(self, net: Net, *, soft_weight: float, temperature: float) -> None:
        super().__init__()
        self.net = net
        self.soft_weight = soft_weight
        self.temperature = temperature

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """batch.targets: (B, |members| + 1) of the generalist at `temperature`, or None without a soft loss."""
        logits = self.net(batch.inputs).float()
        losses = {"loss_hard": hard_loss(logits, batch.labels)}
        if batch.targets is not None:
            losses["loss_soft"] = self.soft_weight * soft_loss(logits, batch.targets, self.temperature)
        return losses


def softmax_corrected(logits: Tensor, correction: float) -> Tensor:
    """Return probabilities (B, n) with `correction` added to the last logit, the dustbin's."""
    adjusted = as_float64(logits)
    adjusted[:, -1] += correction
    return F.softmax(adjusted, dim=1)


# --- batches ----------------------------------------------------------------------------------------------------------


_SPECIAL, _OTHER = 1, 2


class HalvesOrder(EpochOrder):
    """Batches with one half from the specialist's images and one from the others, each half with epochs of its own.

    special, others: positions in the training set. batch_size: even. Like every order, a pure function of (seed, step).
    """

    def __init__(self, special: NDArray[np.int64], others: NDArray[np.int64], batch_size: int, seed: int) -> None:
        super().__init__(len(special) + len(others), batch_size, seed)
        if batch_size % 2:
            raise ValueError(f"batch_size={batch_size} is odd: a batch has two halves")
        self._parts = [
            (special, EpochOrder(len(special), batch_size // 2, hashed(seed, _SPECIAL))),
            (others, EpochOrder(len(others), batch_size // 2, hashed(seed, _OTHER))),
        ]

    def _slice(self, step: int, offset: int, count: int) -> BatchKey:
        keys = [(positions, order.batch(step)) for positions, order in self._parts]
        indices = np.concatenate([positions[key.indices] for positions, key in keys])
        epochs = np.concatenate([key.epochs for _, key in keys])
        return BatchKey(step, indices[offset : offset + count], epochs[offset : offset + count])


def dustbin_correction(special: int, others: int) -> float:
    """Return the constant for the dustbin's logit after training: the log of the factor by which special images were oversampled.

    A batch holds as many of them as of the others; the data hold special : others.
    """
    return math.log(others / special)
