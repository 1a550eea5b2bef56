"""The labels of a set, and label maps as one binary mask for each label.

`values`: a voxel belongs to the organ whose number it holds. `bits`: organs may overlap, and a voxel holds the sum of theirs
(1, 2, 4, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperbench.errors import ConfigError, DataError

Kind = Literal["values", "bits"]


@dataclass(frozen=True)
class Labels:
    """The labels whose masks are scored, in order: their values in the maps and their names."""

    kind: Kind
    values: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    def planes(self, labels: Tensor) -> Tensor:
        """Return maps (...) of any integer type as binary masks (L, ...)."""
        if max(self.values) > torch.iinfo(labels.dtype).max:
            labels = labels.long()
        values = torch.tensor(self.values, dtype=labels.dtype, device=labels.device)
        values = values.view(-1, *[1] * labels.dim())
        return (labels & values) != 0 if self.kind == "bits" else labels == values

    def map_of(self, planes: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return binary masks (L, ...) as one map; where `values` overlap the later label wins."""
        out = np.zeros(planes.shape[1:], np.int64)
        for value, plane in zip(self.values, planes, strict=True):
            out = out | (plane * value) if self.kind == "bits" else np.where(plane, value, out)
        return out

    def vote(self, maps: Tensor) -> Tensor:
        """Return the majority vote (...) of maps (N, ...).

        `values`: the most frequent label or background, ties going to background and then to the first label. `bits`: every label
        that more than half of the maps have.
        """
        if max(self.values) > torch.iinfo(maps.dtype).max:
            maps = maps.long()
        votes = self.planes(maps).sum(1)
        numbers = torch.tensor(self.values, dtype=maps.dtype, device=maps.device)
        if self.kind == "bits":
            return ((2 * votes > len(maps)) * numbers.view(-1, *[1] * (maps.dim() - 1))).sum(0).to(maps.dtype)
        most = len(maps) - votes.sum(0)
        winner = maps.new_zeros(most.shape)
        for number, count in zip(numbers, votes, strict=True):
            winner = torch.where(count > most, number, winner)
            most = torch.maximum(most, count)
        return winner


def narrow(labels: NDArray[np.int64]) -> NDArray[Any]:
    """Return the map in bytes where all its values fit: an eighth of the memory."""
    return labels.astype(np.uint8) if labels.min() >= 0 and labels.max() < 256 else labels


def check_labels(kind: Kind, values: Sequence[int], names: Sequence[str]) -> None:
    """Raise ConfigError where values and names of `labels` do not fit."""
    if names and len(names) != len(values):
        raise ConfigError(f"labels.names: {len(names)} names for {len(values)} labels.values; give one for each")
    if len(set(values)) != len(values) or len(set(names)) != len(names):
        raise ConfigError("labels: a value or a name is given twice")
    if any(value < 1 for value in values):
        raise ConfigError(f"labels.values: {min(values)} is the background; labels are 1 and above")
    if kind == "bits" and any(value & (value - 1) for value in values):
        raise ConfigError("labels.values: with labels.kind=bits they are powers of two: 1, 2, 4, ...")


def labels_in(kind: Kind, maps: Iterable[NDArray[np.int64]]) -> set[int]:
    """Return all labels that maps hold."""
    found: set[int] = set()
    for labels in maps:
        found |= {int(value) for value in np.unique(labels) if value}
    if kind == "bits":
        whole = 0
        for value in found:
            whole |= value
        found = {1 << bit for bit in range(63) if whole >> bit & 1}
    return found


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The labels of a run beside those that its references hold."""

    labels: Labels
    held: frozenset[int]
    chosen: bool
    """True where the configuration names the labels to score: others are left out on purpose."""

    def foreign(self, labels: NDArray[np.int64]) -> tuple[list[int], list[int]]:
        """Return the labels of a map that no reference has, and, where there are any, the labels to score that the map lacks."""
        found = labels_in(self.labels.kind, [labels])
        foreign = sorted(found - self.held)
        missing = sorted(set(self.labels.values) - found) if foreign else []
        return ([], []) if self.chosen and not missing else (foreign, missing)

    def explain(self, foreign: Sequence[int], missing: Sequence[int]) -> str:
        """Return in words what `foreign` found."""
        plural = "s" if len(foreign) > 1 else ""
        text = f"holds the label{plural} {_listed(foreign)}, which no reference has (they have {_listed(self.held)})"
        if missing:
            text += f", and lacks {_listed(missing)}: rename its labels to those of the references"
        return text


def find_labels(kind: Kind, values: Sequence[int], names: Sequence[str], maps: Iterable[NDArray[np.int64]]) -> Labels:
    """Return the labels of the configuration, or all that the references' `maps` hold.

    Raises ConfigError where values and names do not fit, DataError where the references hold none of them.
    """
    check_labels(kind, values, names)
    found = labels_in(kind, maps)
    missing = sorted(set(values) - found)
    if missing:
        raise DataError(
            f"labels.values: no reference mask holds {', '.join(map(str, missing))}; "
            f"they hold {_listed(found)} (labels.kind={kind})"
        )
    if not found:
        raise DataError("the reference masks are all empty: no mask can be scored with them")
    chosen = tuple(values) or tuple(sorted(found))
    if len(chosen) > 255:
        raise DataError(
            f"the reference masks hold {len(chosen)} labels, at most 255 can be scored; name them, such as labels.values=[1,2]"
        )
    return Labels(kind, chosen, tuple(names) or tuple(map(str, chosen)))


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)[:20])) or "none"
