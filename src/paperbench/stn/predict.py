"""`paperbench predict RUN IMAGE…`: a trained digit net classifies image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from paperbench.data.pictures import notes_of, read_picture
from paperbench.engine import device as devices
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.drawings import SOFTWARE, Drawings
from paperbench.engine.reporter import Reporter
from paperbench.stn.config import StnMnist
from paperbench.stn.distortions import make_distortion
from paperbench.stn.drawing import draw_samples
from paperbench.stn.training import load_weights, make_net


def predict(
    config: StnMnist,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    skip_damaged: bool = False,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw each image under the predicted grid, with the warp below it, into `output/<number>-<name>.png`.

    Returns one dict for each image: `image`, `picture`, `label`, `probability` in 0..1. Raises DataError for a file that is
    no image; with `skip_damaged` its dict says so instead, see `engine.drawings`.
    """
    drawings = Drawings(images, output, name=lambda number, stem: f"{number:03d}-{stem}")
    where = devices.resolve(device or config.device)
    state = load_for_evaluation(run_dir, reporter, which="last")[0]
    net = load_weights(make_net(config), state).to(where).eval()
    canvas = make_distortion(config.distortion).canvas

    def read(number: int) -> tuple[Tensor, dict[str, Any]]:
        picture = read_picture(images[number])
        return fit_digit(picture.pixels, canvas).to(where), notes_of(picture)

    def show(found: tuple[Tensor, dict[str, Any]], place: Path) -> dict[str, Any]:
        picture, notes = found
        with torch.inference_mode():
            probabilities = net(picture).float().softmax(1)[0]
        draw_samples(net, picture, place, software=SOFTWARE)
        probability = round(float(probabilities.max()), 4)
        return {"label": str(int(probabilities.argmax())), "probability": probability, **notes}

    return drawings.of_each(read, show, skip_damaged=skip_damaged)


def read_digit(path: Path, canvas: int) -> Tensor:
    """Read an image file as `fit_digit` makes it."""
    return fit_digit(read_picture(path).pixels, canvas)


def fit_digit(pixels: NDArray[np.uint8], canvas: int) -> Tensor:
    """Return (H, W, 3) in grey, light ink on black, fitted into the canvas: (1, 1, canvas, canvas) in 0..1.

    An image with a light border is negated. One that is no larger than the canvas keeps its size.
    """
    grey = Image.fromarray(pixels).convert("L")
    values = np.asarray(grey, np.float32)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    if border.mean() > 127.5:
        grey = Image.fromarray(255 - np.asarray(grey))
    if max(grey.size) > canvas:
        scale = canvas / max(grey.size)
        grey = grey.resize(
            (max(1, round(grey.width * scale)), max(1, round(grey.height * scale))), Image.Resampling.LANCZOS
        )
    page = Image.new("L", (canvas, canvas))
    page.paste(grey, ((canvas - grey.width) // 2, (canvas - grey.height) // 2))
    return torch.from_numpy(np.asarray(page, np.float32) / 255)[None, None]
