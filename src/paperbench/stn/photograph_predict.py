"""`paperbench predict` and `paperbench export` for nets with windows on photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paperbench.data import photographs
from paperbench.data.pictures import Exif, notes_of, read_picture
from paperbench.engine import device as devices
from paperbench.engine.checkpoints import load_for_evaluation, without_prefix
from paperbench.engine.class_names import read_classes
from paperbench.engine.drawings import SOFTWARE, Drawings
from paperbench.engine.exportable import Exportable, Output
from paperbench.engine.reporter import Reporter
from paperbench.stn import data
from paperbench.stn.birds import PartsNet
from paperbench.stn.config import StnBirds
from paperbench.stn.data import Photographs
from paperbench.stn.drawing import draw_parts

EXAMPLES = (4, 3)
"""Test images in each batch that the exported net is compared on."""


class TupleOutput(nn.Module):
    """A net whose output is a tuple, as exporters expect it."""

    def __init__(self, net: PartsNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return the logits."""
        return (self.net(images),)


def load_net(config: StnBirds, run_dir: Path, reporter: Reporter | None = None) -> tuple[PartsNet, int]:
    """Return the trained net of a run in evaluation mode, and the step of its checkpoint."""
    state, step, _ = load_for_evaluation(run_dir, reporter, which="last")
    weights = without_prefix(state["module"], "net.")
    net = PartsNet(config.model, classes=len(weights["classifier.bias"]), pretrained=False)
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False), step


def predict(
    config: StnBirds,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    skip_damaged: bool = False,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draw each image, its middle square, with its windows and what they show into `output/<number>-<name>.png`.

    Returns one dict for each image: `image`, `picture`, `label`, `probability` in 0..1. Raises DataError for a file that is
    no image; with `skip_damaged` its dict says so instead, see `engine.drawings`.
    """
    drawings = Drawings(images, output, name=lambda number, stem: f"{number:03d}-{stem}")
    where = devices.resolve(device or config.device)
    net = load_net(config, run_dir, reporter)[0].to(where)
    recorded = read_classes(run_dir)
    classes = recorded or tuple(f"class {number}" for number in range(net.classifier.out_features))
    side = data.input_side(config.data)
    exif: Exif = getattr(config.data, "exif", "apply")

    def read(number: int) -> tuple[Tensor, dict[str, Any]]:
        picture = read_picture(images[number], exif=exif)
        stored = photographs.prepare(picture.pixels, side=data.stored_side(side), channels=3)
        middle = (stored.shape[-1] - side) // 2  # the crop of the test images
        pixels = stored[None, :, middle : middle + side, middle : middle + side]
        return pixels.to(where).float() / 255, notes_of(picture)

    def show(found: tuple[Tensor, dict[str, Any]], place: Path) -> dict[str, Any]:
        pixels, notes = found
        with torch.inference_mode():
            probabilities = net(pixels).float().softmax(1)[0]
            chosen = int(probabilities.argmax())
            draw_parts(net, pixels, torch.tensor([chosen]), classes, place, software=SOFTWARE)
        return {"label": classes[chosen], "probability": round(float(probabilities[chosen]), 4), **notes}

    return drawings.of_each(read, show, skip_damaged=skip_damaged)


def export_model(config: StnBirds, run_dir: Path) -> Exportable:
    """Return the net of a run: (N, 3, S, S) float32 in 0..1 -> (N, classes) logits."""
    net, step = load_net(config, run_dir)
    count, side = sum(EXAMPLES), data.input_side(config.data)
    images = data.load_birds(replace(config.data, max_test_images=count), "test")
    source = Photographs(images.images, images.labels, size=side, key=0, device=torch.device("cpu"), mirror=False)
    pixels = torch.cat([batch for batch, _ in source.batches(count)])
    pixels = pixels[torch.arange(count) % len(pixels)]
    return Exportable(
        module=TupleOutput(net).eval(),
        weights="net",
        inputs=[(batch,) for batch in pixels.split(EXAMPLES)],
        input_names=("images",),
        outputs=(
            Output(
                name="logits",
                meaning=f"(N, {len(images.classes)}) scores of the classes, before softmax: {', '.join(images.classes[:50])}",
                tolerance=1e-3,
            ),
        ),
        meaning=f"images: (N, 3, {side}, {side}) float32 from 0 to 1, the middle squares of photographs, resized",
        step=step,
        dynamic={"images": {0: "batch"}},
    )
