"""Decoding of photographs as detectors are fed with them: images a second, by threads.

    uv run python -m benchmarks.decoding --data-root FOLDER

FOLDER holds any of `VOCdevkit/VOC2012`, `coco` and `PennFudanPed`. Each data set is read by its own reader, each photograph decoded
in full and resized to 600 pixels on its shorter side, at most 1000 on the longer one, by the store that training takes them from,
without its cache. `decode` stands for the reader's part alone: on a GPU the resizing is the GPU's.

`per_core` counts the processor time that this process took, whatever else runs on the machine; `a_second` is by the clock and holds
only beside the load that the row names (processes that were running or waiting to, this one among them): where others take the
cores, it says nothing of threads. Medians of the rounds.

`without_lock_percent` is the part of a thread's time that Pillow's decoder takes, in which Python's lock is given up. What is left
bounds the threads that can be at work at once: at 50 % two, at 80 % five.

At the end stands what an H200 is estimated to ask for, see `asked_by_an_h200`. It was never measured.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final
from unittest import mock

import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import vgg16

from benchmarks.common import machine, write
from paperbench.data.detection import DetectionSet
from paperbench.data.image_store import ImageStore
from paperbench.detection import datasets
from paperbench.detection.config import CocoData, DataConfig, PennFudanData, VocData
from paperbench.engine.processors import usable_cores

SHORT_SIDE, MAX_SIDE = 600, 1000
THREADS: Final = (1, 2, 4, 8)
BATCH: Final = 16
"""Images that are asked for at once: all threads have work."""
SIZE, REGIONS, BINS = (600, 800), 128, 7
"""A photograph of 375 x 500 pixels as Faster R-CNN is trained on it, and the regions of BINS x BINS that its head learns from."""
H200_OPERATIONS: Final = 989e12
"""Of dense bfloat16 a second, by NVIDIA's data sheet."""
REACHED: Final = 0.4
"""The part of them that a training is taken to reach: a guess."""


def photographs(root: str) -> dict[str, DetectionSet]:
    """Return the training split of each data set that lies in `root`."""
    known: dict[str, tuple[str, DataConfig]] = {
        "VOC, JPEG": ("VOCdevkit/VOC2012", VocData(name="voc", root=root, year="2012", train_split="trainval")),
        "COCO, JPEG": ("coco", CocoData(name="coco", root=root)),
        "Penn-Fudan, PNG": ("PennFudanPed", PennFudanData(name="pennfudan", root=root)),
    }
    return {
        name: datasets.load(config, "train")
        for name, (folder, config) in known.items()
        if (Path(root) / folder).exists()
    }


def rates(work: Callable[[], object], images: int, rounds: int) -> tuple[float, float]:
    """Return images a second of processor time and of the clock, medians; the first of `rounds` + 1 only warms up."""
    per_core, a_second = [], []
    for number in range(rounds + 1):
        began, used = time.perf_counter(), time.process_time()
        work()
        if number:
            per_core.append(images / (time.process_time() - used))
            a_second.append(images / (time.perf_counter() - began))
    return median(per_core), median(a_second)


def decode_all(dataset: DetectionSet, pool: ThreadPoolExecutor) -> None:
    """Decode every image of a data set."""
    for _ in pool.map(dataset.decode, range(len(dataset))):
        pass


def feed_all(store: ImageStore) -> None:
    """Decode and resize every image of a store, a batch at a time."""
    for start in range(0, len(store), BATCH):
        store.get_many(range(start, min(start + BATCH, len(store))))


class _TimedDecoder:
    """Pillow's decoder, and the time of this thread that its decoding takes."""

    seconds = 0.0

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, data: bytes) -> tuple[int, int]:
        began = time.thread_time()
        try:
            return self._decoder.decode(data)
        finally:
            _TimedDecoder.seconds += time.thread_time() - began


def without_lock(dataset: DetectionSet) -> float:
    """Return the percentage of a thread's time, decoding a data set alone, in which the interpreter's lock is given up."""
    original: Callable[..., Any] = Image._getdecoder  # pyright: ignore[reportAttributeAccessIssue]
    with mock.patch.object(Image, "_getdecoder", lambda *given: _TimedDecoder(original(*given))):
        _TimedDecoder.seconds, began = 0.0, time.thread_time()
        for index in range(len(dataset)):
            dataset.decode(index)
        return 100 * _TimedDecoder.seconds / (time.thread_time() - began)


def asked_by_an_h200() -> float:
    """Estimate the images a second at which an H200 trains Faster R-CNN on VGG-16, and so asks for.

    A step is taken for three forward passes (the gradients of weights and of maps take one each) of the trunk and of the two
    layers of the head.
    """
    net = vgg16().to("meta")
    with FlopCounterMode(display=False) as counter:
        cells = nn.Sequential(*list(net.features.children())[:-1])(torch.empty(1, 3, *SIZE, device="meta"))
        nn.Sequential(*list(net.classifier.children())[:6])(
            torch.empty(REGIONS, cells.shape[1] * BINS**2, device="meta")
        )
    return H200_OPERATIONS * REACHED / (3 * counter.get_total_flops())


def measure(name: str, dataset: DetectionSet, threads: int, rounds: int) -> dict[str, Any]:
    """Return one row."""
    store = ImageStore(
        dataset,
        short_side=SHORT_SIDE,
        max_side=MAX_SIDE,
        device=torch.device("cpu"),
        cache_mb=0,
        threads=threads,
    )
    with ThreadPoolExecutor(threads) as pool:
        decode = rates(lambda: decode_all(dataset, pool), len(dataset), rounds)
    both = rates(lambda: feed_all(store), len(dataset), rounds)
    return {
        "photographs": name,
        "images": len(dataset),
        "megapixels": f"{fmean(record.height * record.width for record in dataset.records) / 1e6:.2f}",
        "decoding_threads": threads,
        "decode_per_core": f"{decode[0]:.0f}",
        "decode_a_second": f"{decode[1]:.0f}",
        "decode_and_resize_per_core": f"{both[0]:.0f}",
        "decode_and_resize_a_second": f"{both[1]:.0f}",
        "without_lock_percent": f"{median(without_lock(dataset) for _ in range(rounds)):.0f}",
        "usable_cores": usable_cores(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes `results/decoding-cpu.csv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    found = photographs(options.data_root)
    if not found:
        raise SystemExit(f"{options.data_root}: holds none of VOCdevkit/VOC2012, coco, PennFudanPed")
    rows = []
    for name, dataset in found.items():
        for threads in THREADS:
            rows.append({**measure(name, dataset, threads, options.rounds), **machine("cpu")})
            print(*list(rows[-1].values())[:11], flush=True)
    print(f"an H200 is estimated to ask for {asked_by_an_h200():.0f} images a second")
    print(f"written to {write('decoding-cpu', rows)}")


if __name__ == "__main__":
    main()
