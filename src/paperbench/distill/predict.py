"""`paperbench predict RUN IMAGE…`: a distilled student classifies image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paperbench.data import photographs
from paperbench.data.image_sets import TransferFoldersData
from paperbench.data.pictures import Picture, notes_of, read_picture
from paperbench.distill import datasets
from paperbench.distill.batches import as_float
from paperbench.distill.config import Cifar100Data, Distill
from paperbench.distill.export import class_names, load_student
from paperbench.distill.figures import draw_answer
from paperbench.engine import device as devices
from paperbench.engine.drawings import SOFTWARE, Drawings
from paperbench.engine.reporter import Reporter


def predict(
    config: Distill,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    skip_damaged: bool = False,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw each image, as the student sees it, beside its probabilities into `output/<number>-<name>.png`.

    Of a photograph the student sees the middle square. For sets of digits, light on dark, an image with a light border is negated.
    Returns one dict for each image: `image`, `picture`, `label`, `probability` in 0..1. Raises DataError for a file that is no
    image; with `skip_damaged` its dict says so instead, see `engine.drawings`.
    """
    drawings = Drawings(images, output, name=lambda number, stem: f"{number:03d}-{stem}")
    where = devices.resolve(device or config.device)
    net = load_student(config, run_dir)[0].to(where)
    classes, size = class_names(config, run_dir), datasets.size(config.data)
    exif = config.data.exif if isinstance(config.data, TransferFoldersData) else "apply"

    def read(number: int) -> tuple[Tensor, dict[str, Any]]:
        picture = read_picture(images[number], exif=exif)
        if isinstance(config.data, TransferFoldersData | Cifar100Data):
            return photographs.prepare(picture.pixels, side=size[1], channels=size[0]), notes_of(picture)
        return _as_digits(picture, size), notes_of(picture)

    def show(found: tuple[Tensor, dict[str, Any]], place: Path) -> dict[str, Any]:
        pixels, notes = found
        with torch.inference_mode():
            probabilities = net(as_float(pixels[None].to(where))).float().softmax(1)[0].cpu()
        draw_answer(pixels, probabilities, classes, place, software=SOFTWARE)
        chosen = int(probabilities.argmax())
        return {"label": classes[chosen], "probability": round(float(probabilities[chosen]), 4), **notes}

    return drawings.of_each(read, show, skip_damaged=skip_damaged)


def _as_digits(picture: Picture, size: tuple[int, int, int]) -> Tensor:
    """Return the picture in grey, light on dark, (1, H, W) uint8."""
    _, height, width = size
    grey = np.asarray(Image.fromarray(picture.pixels).convert("L").resize((width, height), Image.Resampling.LANCZOS))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return torch.from_numpy((255 - grey if border.mean() > 127.5 else grey).copy())[None]
