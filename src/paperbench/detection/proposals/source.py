"""The proposals of a run: searched, read from a file, or asked of a trained region proposal network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.config.paths import expanded
from paperbench.config.validate import load_file
from paperbench.config.words import counted
from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.batches import BatchMaker
from paperbench.detection.build import load_detector
from paperbench.detection.config import DetectTrain
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.proposals import search, selective_search, sets
from paperbench.detection.proposals.sets import ProposalSet
from paperbench.detection.rcnn_config import ProposalConfig
from paperbench.engine import device as devices
from paperbench.engine.run import Run
from paperbench.errors import ConfigError


def cache_of(root: str | Path) -> Path:
    """Where the boxes of single images are kept, below the folder that runs are written to."""
    return expanded(root) / "proposals"


def proposals_of(
    dataset: DetectionSet,
    config: ProposalConfig,
    run: Run,
    *,
    root: str | Path,
    file: str | None = None,
    count: int = 0,
) -> ProposalSet:
    """The best `count` (0: all) proposals of every image of `dataset`, the same on every rank.

    root: the run's `output.root`. file: what `method=file` reads. Raises `Stopped` when asked to stop; what was found by then
    is kept.
    """
    if config.method == "file":
        path = expanded(file or "")
        return sets.read(path).of(dataset, source=str(path)).best(count)
    if config.method == "rpn":

        def report(done: int, total: int) -> None:
            run.raise_if_stopped()
            run.reporter.progress("propose", done, total, {})

        boxes = of_network(dataset, config, run.device, run.precision, report)
        return search.as_set(dataset, boxes, config, {"run": config.run}).best(count)
    run.reporter.message(f"{dataset.name} {dataset.split}: {config.method} on {counted(len(dataset), 'images')}")
    own = search.search_dataset(
        dataset,
        config,
        cache=cache_of(root),
        part=slice(run.ranks.rank, None, run.ranks.world),
        stopped=lambda: bool(run.stop),
        progress=lambda done, total: run.reporter.progress("propose", done, total, {}),
    )
    run.raise_if_stopped()
    everything: dict[int, NDArray[np.float32]] = {}
    for part in run.ranks.all_gather(own):
        everything |= part
    boxes = [everything[index] for index in range(len(dataset))]
    return search.as_set(dataset, boxes, config, search.settings_of(config)).best(count)


def of_network(
    dataset: DetectionSet,
    config: ProposalConfig,
    device: torch.device,
    precision: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[NDArray[np.float32]]:
    """Return the proposals of another run's region proposal network at test, with that run's own sizes of images."""
    trained, model = network(config.run or "", device)
    make = BatchMaker(
        dataset,
        datasets.store(trained.data, dataset, device),
        flip=0.0,
        seed=0,
        multiple=model.multiple,
        square=model.square,
        training=False,
    )
    found: list[NDArray[np.float32]] = []
    size = trained.evaluation.batch_size
    for start in range(0, len(dataset), size):
        indices = np.arange(start, min(start + size, len(dataset)))
        batch = make(indices, np.zeros_like(indices))
        with devices.autocast(device, precision), torch.inference_mode():
            proposals = model.propose(batch)
        boxes = (proposals.boxes / batch.scales.view(-1, 1, 1)).cpu().numpy()
        for index, rows, valid in zip(indices.tolist(), boxes, proposals.valid.cpu().numpy(), strict=True):
            record = dataset.records[index]
            found.append(selective_search.tidy(rows[valid], record.height, record.width, min_side=config.min_side))
        progress(len(found), len(dataset))
    return found


def network(checkpoint: str, device: torch.device) -> tuple[DetectTrain, FasterRCNN]:
    """The configuration and the detector of a run that has a region proposal network."""
    config = configuration(checkpoint)
    model, _ = load_detector(config, expanded(checkpoint).absolute(), device)
    if not isinstance(model, FasterRCNN):
        raise ConfigError(f"proposals.run={checkpoint}: {config.model.name} has no region proposal network")
    return config, model


def configuration(checkpoint: str) -> DetectTrain:
    """Of the run of Faster R-CNN that `checkpoint` is, or lies in; `ConfigError` if it is none."""
    path = expanded(checkpoint).absolute()
    folder = next((place for place in (path, *path.parents[:2]) if (place / "config.yaml").is_file()), None)
    if folder is None:
        raise ConfigError(
            f"proposals.run={checkpoint}: no run there (no config.yaml); give a trained run of Faster R-CNN"
        )
    task, config, _ = load_file(folder / "config.yaml")
    if task.name != "detect-train":
        raise ConfigError(f"proposals.run={checkpoint}: a run of task {task.name}; give a trained run of Faster R-CNN")
    return config


def check(config: ProposalConfig, splits: tuple[str, ...] = ("train", "test")) -> None:
    """Raise the error that proposals would begin with; quick, searches and computes nothing."""
    search.check(config, splits)
    if config.method == "rpn":
        configuration(config.run or "")
