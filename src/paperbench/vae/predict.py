"""`paperbench predict RUN IMAGE…`: a trained model reconstructs image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paperbench.data.image_files import BadImageError
from paperbench.data.image_sets import FoldersData
from paperbench.data.photographs import prepare
from paperbench.data.pictures import Exif, Picture, notes_of, read_picture
from paperbench.engine import device as devices
from paperbench.engine.drawings import SOFTWARE, Drawings
from paperbench.engine.reporter import Reporter
from paperbench.errors import ConfigError, DataError
from paperbench.vae import data, drawing
from paperbench.vae.config import VaeEval, VaeTrain
from paperbench.vae.objectives import Mcem
from paperbench.vae.training import load_objective


def predict(
    config: VaeTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    skip_damaged: bool = False,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw each image, made as the data set's are, beside its reconstruction into `output/<name>.png`.

    It is scaled to the model's size and grey, and of photographs the middle square is taken.

    Returns one dict for each image: `image`, `picture`, and `latent`, its code. Raises DataError for a file that is no image, with
    `skip_damaged` its dict says so instead (`engine.drawings`), and ConfigError for a model without an encoder.
    """
    drawings = Drawings(images, output)
    where = devices.resolve(device or config.device)
    size = data.image_size(config.data)
    checkpoint = config.checkpoint if isinstance(config, VaeEval) else run_dir
    objective = load_objective(config, checkpoint, size=size, device=where, reporter=reporter)[0]
    if isinstance(objective, Mcem):
        raise ConfigError(f"{run_dir}: was trained by Monte Carlo EM, which has no encoder to show pictures to")

    def read(number: int) -> tuple[Tensor, dict[str, Any]]:
        exif = config.data.exif if isinstance(config.data, FoldersData) else "apply"
        picture = _read(images[number], exif)
        if isinstance(config.data, FoldersData):
            pixels = prepare(picture.pixels, side=size[-1], channels=3 if config.data.colour else 1).flatten()
        else:
            pixels = _grey(picture, size)
        return pixels[None].to(where) / data.divisor(config.data), notes_of(picture)

    def show(found: tuple[Tensor, dict[str, Any]], place: Path) -> dict[str, Any]:
        x, notes = found
        with torch.inference_mode():
            code = drawing.encode(objective, x)
            reconstruction = drawing.decode(objective, code)
        drawing.save_image_grid(torch.cat([x, reconstruction]), size, place, columns=2, software=SOFTWARE)
        return {"latent": [round(value, 4) for value in code[0].tolist()], **notes}

    return drawings.of_each(read, show, skip_damaged=skip_damaged)


def read_grey(path: Path, size: tuple[int, ...]) -> Tensor:
    """Read an image file as grey bytes of size (H, W), flat: (H * W,) uint8. Raises DataError for a file that is no image."""
    return _grey(_read(path), size)


def _read(path: Path, exif: Exif = "apply") -> Picture:
    try:
        return read_picture(path, exif=exif)
    except BadImageError as error:
        raise DataError(f"{path}: cannot be read as a picture: {error.detail or error.reason}") from error


def _grey(picture: Picture, size: tuple[int, ...]) -> Tensor:
    grey = Image.fromarray(picture.pixels).convert("L").resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(grey).copy()).flatten()


def run_directory(checkpoint: str) -> Path:
    """Return the directory of the run that a checkpoint, a folder or file, belongs to."""
    path = Path(checkpoint)
    return path if path.is_dir() and (path / "config.yaml").is_file() else path.parent.parent
