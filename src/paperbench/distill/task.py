"""Task `distill`: a teacher, a student that learns from labels, and one that learns from the teacher (sections 2, 3 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from paperbench.distill import datasets
from paperbench.distill.config import Distill, NetConfig
from paperbench.distill.export import export_model, load_model
from paperbench.distill.losses import DistillationLoss
from paperbench.distill.nets import build, describe, parameters_in
from paperbench.distill.stacked import run_stacked, stack_key
from paperbench.distill.teachers import find_teachers, load_teacher, remarks_on
from paperbench.distill.training import Distillation, load
from paperbench.distill.transfer import selected_classes
from paperbench.engine.run import Run
from paperbench.errors import ConfigError

__all__ = ["export_model", "load_model", "plan", "run", "run_stacked", "stack_key"]


def plan(config: Distill) -> Mapping[str, str]:
    """Describe the training.

    Raises ConfigError, DataError or CheckpointError for one that cannot be done, before anything is written.
    """
    mistakes = _mistakes(config)
    if mistakes:
        raise ConfigError(*mistakes)
    datasets.locate(config.data)
    selected_classes(config.transfer, datasets.classes(config.data))
    paths = [path for place in config.teacher for path in find_teachers(place)]
    remarks = _refuse_unfit(config, paths)
    sizes = {
        key: _weights(config, key, net) for key, net in (("model", config.model), ("teaching.net", config.teaching.net))
    }
    return {
        "data": f"{datasets.describe(config.data)}{_described_transfer(config)}",
        "teacher": ", ".join(map(str, paths))
        if paths
        else f"{_described_teaching(config)}, {sizes['teaching.net']:,} weights",
        "student": f"{describe(config.model)}, {sizes['model']:,} weights",
        "targets": _described_targets(config),
        "schedule": f"{config.train.steps:,} steps of {config.train.batch_size}, {config.optim.name}, rate {config.optim.lr:g}",
        **({"remark": "; ".join(remarks)} if remarks else {}),
    }


def _mistakes(config: Distill) -> list[str]:
    mistakes = []
    if config.nproc != 1:
        mistakes.append(
            f"nproc={config.nproc}: nets this small are trained in one process; use nproc=1, or a sweep with --jobs"
        )
    if config.soft_weight == config.hard_weight == 0:
        mistakes.append("soft_weight=0, hard_weight=0: the student would learn nothing; give one of them a weight")
    if config.baseline.early_stopping and config.validation.fraction == 0:
        mistakes.append("baseline.early_stopping=true: needs validation images; set validation.fraction=0.1")
    if config.baseline.early_stopping and config.train.evaluate_every == 0:
        mistakes.append("baseline.early_stopping=true: needs evaluations to choose from; set train.evaluate_every")
    if config.teacher and config.teaching.members != 1:
        mistakes.append(
            f"teaching.members={config.teaching.members}: teachers are named by teacher=; leave it out, or name more of them"
        )
    return mistakes


def _refuse_unfit(config: Distill, paths: Sequence[Path]) -> list[str]:
    """Return remarks on the teachers. Raises DataError or CheckpointError for one that does not fit these data."""
    if not paths:
        return []
    import torch

    data = load(config, torch.device("cpu"))
    normalisation = {"mean": config.teacher_mean, "std": config.teacher_std}
    cut = config.data.max_train_images, config.data.max_test_images
    remarks: list[str] = []
    for path in paths:
        teacher = load_teacher(
            path, train=data.train, test=data.test, values=config.teacher_values, cut=cut, **normalisation
        )
        remarks += remarks_on(teacher, path, train=data.train, test=data.test, **normalisation)
    return remarks


def _weights(config: Distill, key: str, net: NetConfig) -> int:
    """Return the number of weights of a net. Raises ConfigError for one that the images are too small for."""
    import torch

    try:
        with torch.device("meta"):
            built = build(net, size=datasets.size(config.data), classes=len(datasets.classes(config.data)))
    except ValueError as error:
        raise ConfigError(f"{key}.layers={net.layers}: {error}") from None
    return parameters_in(built)


def _described_transfer(config: Distill) -> str:
    transfer = config.transfer
    parts = []
    if transfer.omit:
        parts.append(f"student without {', '.join(transfer.omit)}")
    if transfer.only:
        parts.append(f"student with only {', '.join(transfer.only)}")
    if transfer.fraction < 1:
        parts.append(f"student with {100 * transfer.fraction:g} % of the training images")
    return f" ({', '.join(parts)})" if parts else ""


def _described_teaching(config: Distill) -> str:
    teaching = config.teaching
    number = f"{teaching.members} x " if teaching.members > 1 else ""
    jitter = f", jitter {teaching.jitter}" if teaching.jitter else ""
    return f"{number}{describe(teaching.net)}{jitter}"


def _described_targets(config: Distill) -> str:
    soft = "logits" if config.targets == "logits" else f"soft at T = {config.temperature:g}"
    return f"{config.soft_weight:g} x {soft}, {config.hard_weight:g} x hard"


def run(config: Distill, run: Run) -> dict[str, float]:
    """Train teachers and students and score them; see `engine.task.Task`."""
    distillation = Distillation.of(config, run, load(config, run.device))
    distillation.prepare_teachers()
    if distillation.baseline is not None:
        distillation.baseline.train()
    trainer = distillation.trainer()
    metrics = trainer.fit()
    return distillation.finish(cast(DistillationLoss, trainer.module).net, metrics)
