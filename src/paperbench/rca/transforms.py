"""Computed transforms on disk, found again by content: image, reference and settings, whatever their files are called."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.engine.files import explained, write_atomic
from paperbench.errors import EnvironmentError_
from paperbench.rca.registration import Schedule, Transforms

VERSION: Final = 2
"""Part of every key: to be raised whenever the registration computes something else."""


def fingerprint(
    image: NDArray[np.float64], spacing: Sequence[float], *, physical: bool, weights: NDArray[np.float64]
) -> str:
    """SHA-256 of what registration sees of an image."""
    digest = hashlib.sha256(json.dumps([image.shape, list(spacing), physical]).encode())
    for part in (image, weights):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


class TransformStore:
    """One small file a pair below `folder`. What cannot be read is computed anew; what cannot be written is an error, once."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.folder = folder
        self._settings = json.dumps([VERSION, asdict(schedule)], sort_keys=True)

    def _file(self, image: str, reference: str) -> Path:
        key = hashlib.sha256(f"{self._settings}|{image}|{reference}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npz"

    def load(self, image: str, reference: str) -> Transforms | None:
        """The transform from a reference to an image (both by fingerprint) as a batch of one, on the host; None if unknown."""
        try:
            content = io.BytesIO(self._file(image, reference).read_bytes())
            with np.load(content, allow_pickle=False) as held:
                arrays = [torch.from_numpy(held[f"arr_{k}"]) for k in range(len(held.files))]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return Transforms(arrays[0], tuple(arrays[1:])) if arrays else None

    def save(self, image: str, reference: str, transforms: Transforms, index: int) -> None:
        """Keeps transform `index` of a batch, as `rounded` leaves it."""
        path = self._file(image, reference)
        content = io.BytesIO()
        parts = (transforms.theta, *transforms.fields)
        np.savez(content, *(part[index : index + 1].float().cpu().numpy() for part in parts))
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content.getvalue())

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
