"""The Frey faces: 1,965 frames of one face in a film, 28 x 20 grey pixels (Roweis, Saul and Hinton 2001).

Read from `frey_rawface.mat` as its authors publish it: variable `ff`, 560 x 1965, each column a frame, row by row.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from paperbench.data import mat_files
from paperbench.data.image_sets import ImageSet
from paperbench.data.layout import count_departure, data_root, missing
from paperbench.engine.seeding import hashed
from paperbench.errors import ConfigError, DataError

HEIGHT: Final = 28
WIDTH: Final = 20
FRAMES: Final = 1965
_FILE: Final = "frey_rawface.mat"
_VARIABLE: Final = "ff"
_SHUFFLE: Final = 1312


def find(root: str | Path | None) -> Path:
    """The file below `root/frey` or `root`. Raises DataError."""
    base = data_root(root)
    for folder in (base / "frey", base):
        if (folder / _FILE).is_file():
            return folder / _FILE
    raise missing("frey", base, f"frey/{_FILE} was looked for")


def load(root: str | Path | None, split: Literal["train", "test"], *, test_images: int) -> ImageSet:
    """All frames but `test_images` to train on, or these; no labels (all 0), one class.

    The film has no split of its own: frames are shuffled, the same way for ever, and the last ones are held back. Neighbouring
    frames are alike, so a held-back frame has near twins in training. Raises DataError for a file that is missing, damaged or
    something else, and ConfigError when nothing would be left to train on.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; it takes 'train' or 'test'")
    frames = read(find(root))
    if test_images >= len(frames):
        raise ConfigError(f"data.test_images={test_images}: there are {len(frames)} frames; leave some to train on")
    bits = np.random.Philox(key=hashed(_SHUFFLE)).random_raw(len(frames))
    order = np.argsort(bits, kind="stable")
    chosen = order[-test_images:] if split == "test" else order[:-test_images]
    images = torch.from_numpy(frames[chosen])
    return ImageSet(
        images=images,
        labels=torch.zeros(len(images), dtype=torch.int64),
        classes=("face",),
        name=f"Frey faces {split}",
    )


def read(path: Path) -> np.ndarray:
    """All frames in the order of the film, (N, 28, 20) uint8. Raises DataError naming the file and what is wrong with it."""
    import scipy.io  # half a second: only when faces are wanted

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        mat_files.check(raw, _VARIABLE)
        content = scipy.io.loadmat(io.BytesIO(raw), variable_names=[_VARIABLE])
        names = [name for name, *_ in scipy.io.whosmat(io.BytesIO(raw))]
    except Exception as error:
        # SciPy's reader meets damage with a dozen kinds of exception; all mean the same here.
        raise DataError(f"{path}: no sound MATLAB file ({_one_line(error)}); replace it by a fresh copy") from error
    pixels = content.get(_VARIABLE)
    if pixels is None:
        raise DataError(f"{path}: has no variable {_VARIABLE}; it has {', '.join(names) or 'none'}")
    if pixels.ndim != 2 or pixels.shape[0] != HEIGHT * WIDTH or pixels.shape[1] == 0:
        shape = " x ".join(map(str, pixels.shape))
        raise DataError(
            f"{path}: {_VARIABLE} is {shape}, not {HEIGHT * WIDTH} x frames ({FRAMES} in the published file)"
        )
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: {_VARIABLE} holds {pixels.dtype}, not bytes (uint8)")
    return np.ascontiguousarray(pixels.T).reshape(-1, HEIGHT, WIDTH)


def departures(root: str | Path | None) -> list[str]:
    """Return in words that the film has another number of frames than the published one. Raises DataError."""
    return count_departure("film", len(read(find(root))), FRAMES, what="frames")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
