"""R-CNN, SPP-net, Fast R-CNN and Faster R-CNN on the same images with the same backbone: seconds an image by part, and AP50.

    python -m benchmarks.family train --data-root DIR --weights FILE --folder RUNS
    python -m benchmarks.family time --folder RUNS

`train` trains the four on Penn-Fudan with SqueezeNet, each by its own schedule of `scale=short`; what is there is not trained
again. `time` shows each of them the same test images, one image at a time and the four in turn, so that whatever else the machine
does meets all of them. Selective search runs for each image; the three detectors that need it get the same boxes.

`conv` is what is computed once for the image, `proposal` selective search or the layers of the proposal network, `region-wise`
everything for each region, suppression included. R-CNN computes nothing for the image: its convolutions are region-wise. A second
row of R-CNN has regions of 224 pixels, the size of the paper's, with the same weights: a time without an accuracy.

Ratios are medians over images of the ratio within an image: of what a detector does given its proposals, and end to end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.common import machine, write
from paperbench.config.compose import compose
from paperbench.config.validate import dump, load_file
from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import load_detector
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.rcnn import RCNN
from paperbench.detection.evaluation import timing
from paperbench.detection.proposals.selective_search import selective_search
from paperbench.detection.training.multi_stage import proposal_batches
from paperbench.engine import device as devices
from paperbench.engine import launch
from paperbench.engine.reporter import SilentReporter

SYSTEMS = ("rcnn", "sppnet", "fast-rcnn", "faster-rcnn")
PAPER_CROP = 224
WHOLE_CROP = "rcnn, 224 px"
MOST = 2000
"""Proposals of an image, as in the papers."""
PARTS = ("conv", "proposal", "region-wise")

Boxes = np.ndarray


@dataclass
class Contestant:
    """One detector: `detect(index, boxes, watch)` detects one image, timed; `slow` ones see fewer images."""

    name: str
    detect: Callable[[int, Boxes, timing.Stopwatch], None]
    given: bool
    slow: bool
    ap50: float | None
    rows: dict[int, dict[str, float]] = field(default_factory=dict)


# --- training ---------------------------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> None:
    """Trains what is missing in the folder."""
    for name in arguments.only or SYSTEMS:
        folder = arguments.folder / name
        if (folder / "results.json").is_file():
            print(f"{name}: there already")
            continue
        overrides = [
            "data=pennfudan",
            f"data.root={arguments.data_root}",
            "model.backbone=squeezenet1_1",
            f"model.weights={arguments.weights}",
            f"output.root={arguments.folder}",
        ]
        began = time.perf_counter()
        if folder.is_dir():
            launch.resume(folder, SilentReporter())
        else:
            launch.start(dump(compose(name, overrides).config), run_dir=folder, reporter=SilentReporter())
        print(f"{name}: AP50 {ap50(folder):.1f}, {time.perf_counter() - began:.0f} s", flush=True)


def ap50(folder: Path) -> float:
    """Of a run, in percent."""
    return json.loads((folder / "results.json").read_text())["metrics"]["coco/AP50"]


# --- timing -----------------------------------------------------------------------------------------------------------


def contestants(folder: Path, dataset: DetectionSet, device: torch.device) -> list[Contestant]:
    """The trained detectors of the folder, and R-CNN a second time with larger regions."""
    found = []
    for name in SYSTEMS:
        run = folder / name
        _, config, _ = load_file(run / "config.yaml")
        precision = devices.resolve_precision(config.precision, device)
        store = datasets.store(config.data, dataset, device)
        model, _ = load_detector(config, run, device)
        if isinstance(model, FasterRCNN):
            make = BatchMaker(
                dataset, store, flip=0.0, seed=0, multiple=model.multiple, square=model.square, training=False
            )
            found.append(Contestant(name, partial(_faster, model, make, precision), False, False, ap50(run)))
            continue
        assert isinstance(model, FastRCNN)

        def batches(boxes: Boxes, index: int, config: Any = config, model: FastRCNN = model, store: Any = store) -> Any:
            everything = [np.zeros((0, 4), np.float32)] * len(dataset)
            everything[index] = boxes
            return proposal_batches(config, model, dataset, everything, store, 0, training=False)

        slow = isinstance(model, RCNN)
        found.append(Contestant(name, partial(_given, model, batches, precision, None), True, slow, ap50(run)))
        if slow:
            larger = partial(_given, model, batches, precision, PAPER_CROP)
            found.append(Contestant(WHOLE_CROP, larger, True, True, None))
    return found


def _given(
    model: FastRCNN, batches: Any, precision: str, crop: int | None, index: int, boxes: Boxes, watch: timing.Stopwatch
) -> None:
    batch = batches(boxes, index)(np.array([index]), np.array([0]))
    before = model.config.crop if isinstance(model, RCNN) else 0
    if crop is not None and isinstance(model, RCNN):
        model.config.crop = crop
    with devices.autocast(watch.device, precision), torch.inference_mode():
        timing.detect_rcnn_timed(model, batch, watch)
    if isinstance(model, RCNN):
        model.config.crop = before


def _faster(
    model: FasterRCNN, make: BatchMaker, precision: str, index: int, boxes: Boxes, watch: timing.Stopwatch
) -> None:
    batch = make(np.array([index]), np.array([0]))
    with devices.autocast(watch.device, precision), torch.inference_mode():
        timing.detect_timed(model, batch, watch)


def seconds_by_part(watch: timing.Stopwatch) -> dict[str, float]:
    """`conv`, `proposal` and `region-wise`, with the finer parts of detectors on given proposals added up."""
    summed: dict[str, float] = defaultdict(float)
    for name, seconds in watch.seconds.items():
        summed[name if name in ("conv", "proposal") else "region-wise"] += seconds
    return {part: summed[part] for part in PARTS}


def measure(arguments: argparse.Namespace) -> None:
    """Times all of them and writes `results/family-cpu.csv`."""
    device = torch.device("cpu")
    devices.keep_freed_memory()
    devices.keep_compiled_kernels()
    _, config, _ = load_file(arguments.folder / "fast-rcnn" / "config.yaml")
    dataset = datasets.load(config.data, "test")
    sides = contestants(arguments.folder, dataset, device)
    counts: list[int] = []
    for index in range(min(arguments.images + 1, len(dataset))):
        began = time.perf_counter()
        boxes = selective_search(dataset.decode(index))[:MOST]
        searched = time.perf_counter() - began
        for side in sides:
            # Image 0 warms up, with few regions; slow detectors see the first images alone.
            if side.slow and index > arguments.slow_images:
                continue
            watch = timing.Stopwatch(device)
            side.detect(index, boxes if index else boxes[:64], watch)
            if index:
                parts = seconds_by_part(watch)
                side.rows[index] = {**parts, "proposal": searched} if side.given else parts
        if index:
            counts.append(len(boxes))
            print(f"image {index}: {len(boxes)} boxes in {searched:.2f} s", flush=True)
    rows = [row_of(side, sides, counts, device) for side in sides]
    print(f"written to {write('family-cpu', rows)}")


def row_of(side: Contestant, sides: list[Contestant], counts: list[int], device: torch.device) -> dict[str, Any]:
    """One line of the CSV."""
    by_name = {other.name: other for other in sides}
    middle = {part: median(row[part] for row in side.rows.values()) for part in PARTS}
    total = median(sum(row.values()) for row in side.rows.values())
    row = {
        "system": side.name,
        "workload": "pennfudan, squeezenet1_1, 320 px",
        "images": len(side.rows),
        "proposals": round(median(counts[: len(side.rows)])) if side.given else "",
        **{f"{part}_s": f"{seconds:.4f}" for part, seconds in middle.items()},
        "total_s": f"{total:.4f}",
        "coco_AP50": "" if side.ap50 is None else f"{side.ap50:.1f}",
        "times_rcnn_given_proposals": ratio(by_name["rcnn"], side, given=True),
        "times_rcnn_224_given_proposals": ratio(by_name[WHOLE_CROP], side, given=True),
        "times_fast_rcnn_end_to_end": ratio(by_name["fast-rcnn"], side, given=False),
        **machine(device.type),
    }
    print(", ".join(f"{name} {value}" for name, value in list(row.items())[:11]), flush=True)
    return row


def ratio(slower: Contestant, faster: Contestant, *, given: bool) -> str:
    """How many times the seconds of `faster` those of `slower` are, without proposals if they are given."""

    def cost(row: dict[str, float]) -> float:
        return sum(row.values()) - (row["proposal"] if given else 0.0)

    if given and not faster.given:
        return ""
    shared = sorted(slower.rows.keys() & faster.rows.keys())
    return f"{median(cost(slower.rows[index]) / cost(faster.rows[index]) for index in shared):.2f}"


def main() -> None:
    """Trains or measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train what is missing")
    training.add_argument("--data-root", type=Path, required=True, help="folder with PennFudanPed")
    training.add_argument(
        "--weights", type=Path, required=True, help="SqueezeNet's weights (torchvision squeezenet1_1)"
    )
    training.add_argument("--only", nargs="*", choices=SYSTEMS)
    timed = commands.add_parser("time", help="time what was trained")
    timed.add_argument("--images", type=int, default=20)
    timed.add_argument("--slow-images", type=int, default=4, help="images that R-CNN sees")
    for command in (training, timed):
        command.add_argument("--folder", type=Path, required=True, help="where the runs are")
    arguments = parser.parse_args()
    (train if arguments.command == "train" else measure)(arguments)


if __name__ == "__main__":
    main()
