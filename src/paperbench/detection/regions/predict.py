"""Showing pictures to a detector on given proposals: boxes are looked for in each of them first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.predict import load_detector, pictures, show
from paperbench.detection.proposals import making, source
from paperbench.detection.region_config import ProposalConfig, RegionEval, RegionTrain
from paperbench.detection.regions.build import build, needs_svm
from paperbench.detection.regions.net import RegionNet
from paperbench.detection.regions.stages import region_batches
from paperbench.engine import device as devices
from paperbench.engine.reporter import Reporter
from paperbench.errors import ConfigError


def predict(
    config: RegionTrain,
    run_dir: Path,
    images: Sequence[Path],
    output: Path,
    *,
    score_threshold: float = 0.5,
    device: str | None = None,
    reporter: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Draws what the run's detector finds in each image, into `output/<name>.png`; see `detection.predict.predict`.

    Scores of SVMs are logistic functions of their margins. Raises `ConfigError` for a run whose proposals came from a file:
    it says nothing about other pictures.
    """
    where = devices.resolve(device or config.device)
    precision = devices.resolve_precision(config.precision, where)
    weights = config.checkpoint if isinstance(config, RegionEval) else run_dir
    model, _ = load_detector(config, weights, where, reporter, build=partial(build, svm=needs_svm(config)))
    assert isinstance(model, RegionNet)
    dataset = pictures(images, model.class_names)
    boxes = _proposals(dataset, config.proposals, where, precision)
    count = config.proposals.test_count or None
    store = datasets.store(config.data, dataset, where)
    make = region_batches(config, model, dataset, [found[:count] for found in boxes], store, 0, training=False)
    return show(model, make, images, output, score_threshold=score_threshold, precision=precision)


def _proposals(dataset: DetectionSet, config: ProposalConfig, device: torch.device, precision: str) -> list[np.ndarray]:
    if config.method == "file":
        raise ConfigError(
            "proposals.method=file: the run's proposals came from a file, which has none for these pictures; "
            "evaluate a checkpoint with proposals.method=selective-search and show them to that run"
        )
    if config.method == "rpn":
        return source.of_network(dataset, config, device, precision)
    settings = making.settings_of(config)
    return [making.search(dataset.decode(index), settings) for index in range(len(dataset))]
