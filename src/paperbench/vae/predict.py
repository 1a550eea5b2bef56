"""Showing pictures to a trained model: `paperbench predict RUN IMAGE…` draws each beside its reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from paperbench.data import frey, mnist
from paperbench.engine import device as devices
from paperbench.engine.reporter import Reporter
from paperbench.errors import ConfigError, DataError
from paperbench.vae import pictures, pixels
from paperbench.vae.config import FreyData, VaeEval, VaeTrain
from paperbench.vae.mcem import Mcem
from paperbench.vae.restore import load_objective


def predict(
    config: VaeTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    device: str | None = None,
    reporter: Reporter | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """Draws each picture, scaled to the model's size and made grey, beside what the model makes of it.

    Into `output/<name>.png`; returns one dict an image: `image`, `picture`, and `latent`, where the encoder puts it. Raises
    DataError for a file that is no picture and ConfigError for a model without an encoder.
    """
    where = devices.resolve(device or config.device)
    size = (frey.HEIGHT, frey.WIDTH) if isinstance(config.data, FreyData) else (mnist.SIDE, mnist.SIDE)
    checkpoint = config.checkpoint if isinstance(config, VaeEval) else run_dir
    objective, _step = load_objective(config, checkpoint, size=size, device=where, reporter=reporter)
    if isinstance(objective, Mcem):
        raise ConfigError(f"{run_dir}: was trained by Monte Carlo EM, which has no encoder to show pictures to")
    shown = torch.stack([read(path, size) for path in images]).to(where) / pixels.divisor(config.data)
    with torch.inference_mode():
        codes = pictures.encode(objective, shown)
        made = pictures.decode(objective, codes)
    answers = []
    for number, path in enumerate(images):
        pair = torch.stack([shown[number], made[number]])
        picture = pictures.save_sheet(pair, size, output / f"{_name(images, number)}.png", columns=2)
        latent = [round(value, 4) for value in codes[number].tolist()]
        answers.append({"image": str(path), "picture": str(picture), "latent": latent})
    return answers


def read(path: Path, size: tuple[int, int]) -> Tensor:
    """A picture as grey bytes of that size (H, W), flat: (H * W,) uint8. Raises DataError for a file that is no picture."""
    try:
        with Image.open(path) as picture:
            grey = picture.convert("L").resize((size[1], size[0]), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from error
    return torch.from_numpy(np.asarray(grey).copy()).flatten()


def _name(images: Sequence[Path], number: int) -> str:
    """The stem of a file, numbered where several share it."""
    stem = images[number].stem
    before = sum(other.stem == stem for other in images[:number])
    return f"{stem}-{before + 1}" if before else stem


def run_directory(checkpoint: str) -> Path:
    """The run that a checkpoint, a folder or file, belongs to."""
    path = Path(checkpoint)
    return path if path.is_dir() and (path / "config.yaml").is_file() else path.parent.parent
