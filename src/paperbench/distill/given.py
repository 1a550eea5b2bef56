"""Teachers that are there already: a run of ours, a file with weights, or logits that somebody stored.

`teacher=RUN` takes the teacher (or all of an ensemble) of a run of this program, `teacher=RUN/checkpoints/distilled` another of
its nets. A file is looked into: a state dict of fully connected layers, a checkpoint of ours, or logits (`.npy`, `.npz`, or a file
of `torch.save` with the key `logits`), one row for each training image in the order of the data set.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paperbench.distill.build import absorb_normalisation, from_weights
from paperbench.distill.inputs import Images
from paperbench.distill.nets import Net
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.errors import CheckpointError, ConfigError, DataError

_STAGES = ("teacher", "generalist", "distilled", "baseline")
_NESTED = ("state_dict", "model_state_dict", "model", "net")
_ARRAYS = (".npy", ".npz")


@dataclass(frozen=True)
class StoredLogits:
    """train: (N, K) float32. test: (Nt, K), or None where the file has none."""

    train: Tensor
    test: Tensor | None


def find(place: str) -> list[Path]:
    """The files or stage folders that `place` names, several for a run with an ensemble. Raises ConfigError; reads none of them."""
    path = Path(place).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"teacher={place}: there is no such run or file; `paperbench runs` lists the runs there are")
    if not (path / "checkpoints").is_dir():
        if _has_checkpoint(path):
            return [path]
        raise ConfigError(
            f"teacher={place}: no run directory; name a run, a folder of its checkpoints, or a file with weights or logits"
        )
    folder = path / "checkpoints"
    ensemble = sorted(folder.glob("teacher-*"), key=lambda entry: (len(entry.name), entry.name))
    if found := [entry for entry in ensemble if _has_checkpoint(entry)]:
        return found
    for name in _STAGES:
        if _has_checkpoint(folder / name):
            return [folder / name]
    raise ConfigError(
        f"teacher={place}: has no trained net; it must be a run of `paperbench train distill` that got that far"
    )


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("last.pt", "best.pt"))


def load(path: Path, *, train: Images, test: Images, mean: float, std: float) -> Net | StoredLogits:
    """The teacher in a file or stage folder. mean, std: of its training's normalisation, for weights that are not this program's.

    Raises DataError or CheckpointError naming the file and what does not fit.
    """
    content, ours = _content(path)
    if "logits" in content:
        return _stored(path, content, train, test)
    weights = _weights(content)
    try:
        net = from_weights(weights, size=train.size, classes=len(train.classes))
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be a teacher of these data: {error}. Any other net can teach by its logits: store them for all "
            f"{len(train)} training images, (images, classes), with numpy.save, and name that file"
        ) from None
    if not ours and (mean, std) != (0.0, 1.0):
        absorb_normalisation(net, mean=mean, std=std)
    return net


def _content(path: Path) -> tuple[Mapping[str, Any], bool]:
    """What is stored there, and whether this program wrote it."""
    if path.suffix in _ARRAYS:
        return _arrays(path), False
    if path.is_dir() or (path.parent / "manifest.json").is_file():
        state, _, _ = load_for_evaluation(path, which="last")
        return state, True
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Files that are no checkpoints fail in half a dozen ways; all mean the same here, and torch's advice, to run what is
        # in the file, is none.
        raise CheckpointError(
            f"{path}: holds no plain tensors that could be read; store a state dict, torch.save(net.state_dict(), FILE), "
            "or logits"
        ) from error
    if isinstance(content, Tensor):
        return {"logits": content}, False
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: holds a {type(content).__name__}; a teacher is a state dict or an array of logits")
    return content, False


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"logits": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no readable NumPy file: {error}") from error
    if "logits" not in arrays:
        raise DataError(f"{path}: has no array called logits; it has {', '.join(arrays) or 'none'}")
    return {
        name: torch.from_numpy(np.ascontiguousarray(arrays[name]))
        for name in arrays
        if arrays[name].dtype.kind in "fiu"
    }


def _weights(content: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(content.get("weights"), Mapping):
        return content["weights"]
    if isinstance(content.get("module"), Mapping):  # a training of ours: the net is a part of what is trained
        return {name.removeprefix("net."): value for name, value in content["module"].items()}
    for key in _NESTED:
        if isinstance(content.get(key), Mapping):
            return content[key]
    return content


def _stored(path: Path, content: Mapping[str, Any], train: Images, test: Images) -> StoredLogits:
    for key, images in (("images", train), ("test_images", test)):
        said = content.get(key)
        if isinstance(said, str) and said != images.fingerprint:
            split = "training" if images is train else "test"
            raise DataError(
                f"{path}: its logits are of other {split} images than {images.name} has now; "
                "use them with the data that they were computed on"
            )
    logits = _checked(path, content["logits"], train, "logits", "training")
    later = content.get("test_logits")
    return StoredLogits(logits, None if later is None else _checked(path, later, test, "test_logits", "test"))


def _checked(path: Path, value: Any, images: Images, key: str, split: str) -> Tensor:
    wanted = (len(images), len(images.classes))
    if not isinstance(value, Tensor) or tuple(value.shape) != wanted:
        found = " x ".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__
        raise DataError(
            f"{path}: {key} is {found}; {wanted[0]} {split} images and {wanted[1]} classes need {wanted[0]} x {wanted[1]}"
        )
    logits = value.to(torch.float32)
    if not bool(torch.isfinite(logits).all()):
        row = int((~torch.isfinite(logits)).any(1).nonzero()[0])
        raise DataError(f"{path}: {key}, row {row}: not finite")
    return logits
