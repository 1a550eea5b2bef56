"""Proposals for a data set: searched in several processes, kept by what they depend on, never searched twice.

The boxes of an image lie in an `ArrayStore`, under the SHA-256 of the method, its settings and the pixels. A search that was
interrupted continues where it stopped; two data sets that share images share their boxes.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperbench.config.paths import expanded
from paperbench.data.detection import DetectionSet
from paperbench.detection.proposals import sets
from paperbench.detection.proposals.selective_search import opencv, selective_search, sliding_windows
from paperbench.detection.proposals.sets import ProposalSet
from paperbench.detection.rcnn_config import ProposalConfig
from paperbench.engine.processors import usable_cores
from paperbench.engine.store import ArrayStore, content_key
from paperbench.errors import ConfigError

Boxes = NDArray[np.float32]
VERSION = 1
"""Of the search: raised when the same settings would give other boxes."""
FEW = 8
"""So few images are searched in this process: starting others takes longer."""


def check(config: ProposalConfig, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Raise the error that making proposals would begin with; quick, searches nothing."""
    if config.method == "selective-search":
        opencv()
    if config.method == "rpn" and not config.run:
        raise ConfigError(
            "proposals.run: method=rpn needs a trained run of Faster R-CNN, such as proposals.run=outputs/…"
        )
    if config.method == "file":
        for split in splits:
            given = getattr(config, f"{split}_file")
            if not given:
                raise ConfigError(f"proposals.{split}_file: method=file needs one; `paperbench proposals` writes it")
            sets.read(expanded(given))


def search_dataset(
    dataset: DetectionSet,
    config: ProposalConfig,
    *,
    cache: Path,
    part: slice = slice(None),
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Boxes]:
    """Search the images `part` of `dataset`: boxes (P, 4) xyxy in stored pixels, best first, by the image's number.

    Where `stopped()` becomes true it returns what it has. For the methods that look at pixels alone; the boxes do not
    depend on `part`, nor on the number of processes.
    """
    indices = list(range(len(dataset)))[part]
    settings, store = settings_of(config), ArrayStore(cache, ".npy")
    answers: dict[int, Boxes] = {}
    workers = config.workers or usable_cores()
    with _searchers(workers, images=len(indices)) as submit:
        waiting: deque[tuple[int, str, Future[Boxes]]] = deque()

        def collect() -> None:
            index, key, future = waiting.popleft()
            answers[index] = future.result()
            store.save(key, answers[index])
            progress(len(answers), len(indices))

        for index in indices:
            if stopped():
                break
            pixels = dataset.decode(index)
            key = _key(pixels, settings)
            found = _load(store, key)
            if found is None:
                waiting.append((index, key, submit(pixels, settings)))
            else:
                answers[index] = found
                progress(len(answers), len(indices))
            if len(waiting) > 4 * workers:
                collect()
        while waiting:
            collect()
    return answers


def settings_of(config: ProposalConfig) -> dict[str, Any]:
    """Everything that decides the boxes of an image, beside its pixels."""
    own = config.selective_search if config.method == "selective-search" else config.sliding_windows
    return {"version": VERSION, "method": config.method, "min_side": config.min_side, **asdict(own)}


def as_set(
    dataset: DetectionSet, boxes: list[Boxes], config: ProposalConfig, settings: Mapping[str, Any]
) -> ProposalSet:
    """Boxes in the order of `dataset`, best first, as a set with falling scores."""
    return ProposalSet(
        images=tuple(str(record.image_id) for record in dataset.records),
        sizes=np.array([(record.height, record.width) for record in dataset.records], np.int64).reshape(-1, 2),
        boxes=boxes,
        scores=[np.linspace(1, 0, len(found), endpoint=False, dtype=np.float32) for found in boxes],
        method=config.method,
        settings=settings,
        dataset=dataset.name,
        split=dataset.split,
    )


# --- one image --------------------------------------------------------------------------------------------------------


def search_image(pixels: NDArray[np.uint8], settings: Mapping[str, Any]) -> Boxes:
    """The boxes of one image by `settings_of` a configuration."""
    own = {name: value for name, value in settings.items() if name not in ("version", "method")}
    if settings["method"] == "selective-search":
        return selective_search(pixels, **own)
    return sliding_windows(*pixels.shape[:2], **own)


def _key(pixels: NDArray[np.uint8], settings: Mapping[str, Any]) -> str:
    return content_key([settings, pixels.shape], pixels)


def _load(store: ArrayStore, key: str) -> Boxes | None:
    """Return the boxes that were found before; None if there are none, or the file is damaged."""
    (boxes,) = store.load(key) or [np.empty(0)]
    sound = boxes.ndim == 2 and boxes.shape[1:] == (4,) and boxes.dtype == np.float32 and np.isfinite(boxes).all()
    return boxes if sound else None


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def _searchers(
    workers: int, *, images: int
) -> Iterator[Callable[[NDArray[np.uint8], Mapping[str, Any]], Future[Boxes]]]:
    """Yield a function that takes an image and returns a future of its boxes: processes of their own, or this one for a few images.

    The processes are started with the first image that is not kept.
    """
    if workers == 1 or images <= FEW:
        yield _at_once
        return
    # Spawned, not forked: this process may have threads of torch, which a fork does not survive.
    with ProcessPoolExecutor(min(workers, images), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield lambda pixels, settings: pool.submit(search_image, pixels, settings)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _at_once(pixels: NDArray[np.uint8], settings: Mapping[str, Any]) -> Future[Boxes]:
    future: Future[Boxes] = Future()
    future.set_result(search_image(pixels, settings))
    return future
