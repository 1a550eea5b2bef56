"""How much of a digit the distortions P and E leave on the canvas, over many training digits.

    uv run python -m benchmarks.stn_ink --data DIR

`whole` is the ink of the same warp on a canvas three times as large. `as drawn` is P with every corner as the normal distribution
gives it, but for squares that fold over (a corner's triangle of less than a quarter of its area); `redrawn` is P as shipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.common import machine, write
from paperbench.data import labelled
from paperbench.data.image_sets import DigitsData, MnistData
from paperbench.engine.counter_rng import uniform
from paperbench.engine.seeding import hashed
from paperbench.stn.distortions import SIDE, Elastic, Perspective, ink_boxes, quadrilateral_to_square
from paperbench.stn.grids import GridGenerator
from paperbench.stn.sampling import sample

BATCH = 1000
WIDER = 3
LITTLE = 20.0
"""Units of ink, of white pixels, under which hardly anything is left of a digit."""


def as_drawn(noise: Tensor, boxes: Tensor) -> Tensor:
    """Return corners that are drawn again only where they fold: with a digit that is a point, none leaves the canvas for it."""
    distortion = Perspective()
    distortion.MIN_AREA = 0.25
    return distortion.corners(noise, torch.zeros_like(boxes))


def measure(name: str, images: Tensor) -> dict[str, str]:
    """Return the shares of `images` (N, S, S) that lose ink, in percent."""
    distortion = Elastic() if name == "e" else Perspective()
    kept, left, moved = [], [], []
    for start in range(0, len(images), BATCH):
        samples = torch.arange(start, min(start + BATCH, len(images)))
        digits = images[samples].unsqueeze(1).float() / 255
        noise = uniform(hashed(0, 100), samples, torch.zeros_like(samples), distortion.draws)
        if isinstance(distortion, Perspective):
            corners = (as_drawn if name == "p, as drawn" else distortion.corners)(noise, ink_boxes(digits))
            scaled = (0.75 + 0.25 * noise[:, :1, None]) * torch.tensor(
                [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]
            )
            moved.append((corners - scaled) * (SIDE / 2))
            parameters = quadrilateral_to_square(corners)
        else:
            parameters = distortion.parameters(noise)
        inside = sample(digits, distortion.grid(parameters)).flatten(1).sum(1)
        whole = sample(digits, _wider_view(distortion.grid, parameters)).flatten(1).sum(1)
        left.append(inside)
        kept.append(inside / whole.clamp_min(1e-6))
    share, ink = torch.cat(kept), torch.cat(left)
    return {
        "distortion": name,
        "digits": str(len(images)),
        "percent_that_lose_over_5_percent": f"{100 * float((share < 0.95).double().mean()):.2f}",
        "percent_that_lose_over_1_percent": f"{100 * float((share < 0.99).double().mean()):.2f}",
        f"percent_with_under_{LITTLE:.0f}_units": f"{100 * float((ink < LITTLE).double().mean()):.2f}",
        "deviation_of_corners_in_pixels": f"{float(torch.cat(moved).std()):.2f}" if moved else "",
    }


def _wider_view(grid: GridGenerator, parameters: Tensor) -> Tensor:
    """Return the sampling grid (B, H, W, 2) of a canvas that is `WIDER` times as wide around the digit's."""
    side = SIDE * WIDER
    line = (torch.arange(side) + 0.5) * (2 / SIDE) - WIDER
    y, x = torch.meshgrid(line, line, indexing="ij")
    positions = grid.map_points(parameters, torch.stack([x, y], dim=2).view(-1, 2))
    return positions.view(len(parameters), side, side, 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `results/stn-ink.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="", help="folder that holds MNIST/raw; without it the embedded digits are used"
    )
    parser.add_argument("--digits", type=int, default=20_000)
    options = parser.parse_args(arguments)
    data = MnistData(root=options.data) if options.data else DigitsData()
    images = labelled.load(data, "train").images[: options.digits]
    rows = [{**measure(name, images), **machine("cpu")} for name in ("p, as drawn", "p, redrawn", "e")]
    for row in rows:
        print(*list(row.values())[:6], sep="  ", flush=True)
    write("stn-ink", rows)


if __name__ == "__main__":
    main()
