"""Task `distill-specialists`: a generalist, and specialists on the classes that it confuses (section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from paperbench.distill import datasets
from paperbench.distill.config import Specialists
from paperbench.distill.nets import build, describe, parameters_in
from paperbench.distill.specialists.training import GENERALIST, SpecialistTraining
from paperbench.engine.checkpoints import load_for_evaluation
from paperbench.engine.run import Run
from paperbench.errors import ConfigError

__all__ = ["load_model", "plan", "run"]


def plan(config: Specialists) -> Mapping[str, str]:
    """Describe the training. Raises ConfigError or DataError for one that cannot be done, before anything is written."""
    datasets.locate(config.data)
    classes, own = len(datasets.classes(config.data)), config.specialists
    mistakes = []
    if config.nproc != 1:
        mistakes.append(
            f"nproc={config.nproc}: nets this small are trained in one process; use nproc=1, or a sweep with --jobs"
        )
    if own.count > classes:
        mistakes.append(
            f"specialists.count={own.count}: {config.data.name} has {classes} classes; take at most as many"
        )
    if own.size and not 2 <= own.size < classes:
        mistakes.append(f"specialists.size={own.size}: give each from 2 to {classes - 1} classes, or 0 for its cluster")
    try:
        with torch.device("meta"):
            weights = parameters_in(build(config.model, size=datasets.size(config.data), classes=classes))
    except ValueError as error:
        mistakes.append(f"model.layers={config.model.layers}: {error}")
        weights = 0
    if mistakes:
        raise ConfigError(*mistakes)
    first, each = config.train.steps, -(-own.samples // own.batch_size)
    sizes = f"of {own.size} classes" if own.size else "one for each cluster of classes"
    return {
        "data": datasets.describe(config.data),
        "generalist": f"{describe(config.model)}, {weights:,} weights",
        "specialists": f"{own.count}, {sizes}",
        "schedule": f"{first:,} steps of {config.train.batch_size}, then {own.count} x {each:,} of {own.batch_size}",
    }


def run(config: Specialists, run: Run) -> dict[str, float]:
    """Train the generalist, then its specialists, and score them together; see `engine.task.Task`."""
    training = SpecialistTraining.of(config, run)
    generalist = training.train_generalist()
    sets = training.select_classes(generalist)
    return training.finish(generalist, sets, training.train_specialists(generalist, sets))


def load_model(config: Specialists, run_dir: Path) -> nn.Module:
    """Return the generalist of a run; see `engine.task.LoadsModel`."""
    state, *_ = load_for_evaluation(run_dir / "checkpoints" / GENERALIST, which="last")
    net = build(config.model, size=datasets.size(config.data), classes=len(datasets.classes(config.data)))
    net.load_state_dict(state["weights"])
    return net.eval()
