"""Computed transforms on disk, found again by content: image, reference and settings, whatever their files are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.engine.store import ArrayStore, content_key
from paperbench.errors import EnvironmentError_
from paperbench.rca.registration import Schedule, Transforms

VERSION: Final = 2
"""Part of every key: to be raised whenever the registration computes something else."""


def fingerprint(
    image: NDArray[np.float64], spacing: Sequence[float], *, physical: bool, weights: NDArray[np.float64]
) -> str:
    """SHA-256 of what registration sees of an image."""
    return content_key([image.shape, list(spacing), physical], image, weights)


class TransformStore:
    """One small file a pair below `folder`. What cannot be read is computed again; what cannot be written is an error."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.folder = folder
        self._arrays = ArrayStore(folder)
        self._settings = json.dumps([VERSION, asdict(schedule)], sort_keys=True)

    def _key(self, image: str, reference: str) -> str:
        return content_key(f"{self._settings}|{image}|{reference}")

    def load(self, image: str, reference: str) -> Transforms | None:
        """The transform from a reference to an image (both by fingerprint) as a batch of one, on the host; None if unknown."""
        arrays = self._arrays.load(self._key(image, reference))
        if arrays is None:
            return None
        theta, *fields = map(torch.from_numpy, arrays)
        return Transforms(theta, tuple(fields))

    def save(self, image: str, reference: str, transforms: Transforms, index: int) -> None:
        """Write transform `index` of a batch, as `rounded` leaves it."""
        parts = (transforms.theta, *transforms.fields)
        arrays = (part[index : index + 1].float().cpu().numpy() for part in parts)
        self._arrays.save(self._key(image, reference), *arrays)

    def check(self) -> None:
        """Raises EnvironmentError_ where the folder cannot be made."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentError_(
                f"output.transforms={self.folder}: cannot be made: {error.strerror}; "
                "choose another folder, or none: output.transforms=''"
            ) from error


def rounded(transforms: Transforms) -> Transforms:
    """To the 32 bits that are kept on disk, so that a transform is the same whether it was just computed or found."""
    return Transforms(transforms.theta.float(), tuple(field.float() for field in transforms.fields))
