"""Task `distill`: a teacher, a student that learns from labels, and one that learns from the teacher (sections 2, 3 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from paperbench.data import class_folders, photographs
from paperbench.data.image_sets import TransferFoldersData
from paperbench.distill import datasets, torchvision_nets
from paperbench.distill.config import Distill, NetConfig, TorchvisionNet
from paperbench.distill.export import export_model, load_model
from paperbench.distill.losses import DistillationLoss
from paperbench.distill.nets import Pixels, build, describe, parameters_in
from paperbench.distill.predict import predict
from paperbench.distill.stacked import run_stacked, stack_key
from paperbench.distill.teachers import find_teachers, load_teacher, remarks_on
from paperbench.distill.training import Distillation, load
from paperbench.distill.transfer import selected_classes
from paperbench.engine.class_names import record_classes
from paperbench.engine.run import Run
from paperbench.errors import ConfigError

__all__ = ["export_model", "load_model", "plan", "predict", "run", "run_stacked", "stack_key"]


def plan(config: Distill) -> Mapping[str, str]:
    """Describe the training.

    Raises ConfigError, DataError or CheckpointError for one that cannot be done, before anything is written.
    """
    mistakes = _mistakes(config)
    if mistakes:
        raise ConfigError(*mistakes)
    datasets.locate(config.data)
    selected_classes(config.transfer, datasets.classes(config.data))
    unlabelled = _unlabelled(config)
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
        "targets": _described_targets(config, unlabelled),
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
    normalisation: dict[str, Pixels] = {"mean": config.teacher_mean, "std": config.teacher_std}
    cut = config.data.max_train_images, config.data.max_test_images
    remarks: list[str] = []
    for path in paths:
        teacher = load_teacher(
            path, train=data.train, test=data.test, values=config.teacher_values, cut=cut, **normalisation
        )
        remarks += remarks_on(teacher, path, train=data.train, test=data.test, **normalisation)
    return remarks


def _unlabelled(config: Distill) -> int:
    """Return the number of training images without a class. Raises ConfigError for keys that need one."""
    if not isinstance(config.data, TransferFoldersData):
        return 0
    labels = photographs.files_of(config.data, class_folders.find(config.data), "train").labels
    count = int((labels < 0).sum())
    if not count:
        return 0
    transfer, mistakes = config.transfer, []
    if transfer.omit or transfer.only or transfer.fraction < 1:
        mistakes.append(
            "transfer.omit, only and fraction: choose by class, and the transfer set has no classes; leave them out"
        )
    if config.soft_weight == 0:
        mistakes.append(
            "soft_weight=0: the transfer set has no classes, so the soft targets are all there is to learn from"
        )
    if config.baseline.images == "transfer" and config.baseline.train:
        mistakes.append(
            "baseline.images=transfer: the transfer set has no labels for a baseline; take baseline.images=all"
        )
    if count == len(labels):
        if config.baseline.train:
            mistakes.append("baseline.train=true: no training image has a class; set baseline.train=false")
        if not config.teacher:
            mistakes.append("teacher is empty: no training image has a class to train one on; give teacher=FILE")
        if config.validation.fraction:
            mistakes.append(
                f"validation.fraction={config.validation.fraction:g}: no training image has a class; leave it out"
            )
    if mistakes:
        raise ConfigError(*mistakes)
    return count


def _weights(config: Distill, key: str, net: NetConfig | TorchvisionNet) -> int:
    """Return the number of weights of a net. Raises ConfigError for one that the images are too small for."""
    import torch

    if isinstance(net, TorchvisionNet):
        size, classes = datasets.size(config.data), len(datasets.classes(config.data))
        return torchvision_nets.check(net, key, size=size, classes=classes)

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


def _described_targets(config: Distill, unlabelled: int) -> str:
    soft = "logits" if config.targets == "logits" else f"soft at T = {config.temperature:g}"
    if unlabelled:
        return f"{config.soft_weight:g} x {soft} of {unlabelled:,} images without a class; no hard targets, hard_weight counts as 0"
    return f"{config.soft_weight:g} x {soft}, {config.hard_weight:g} x hard"


def run(config: Distill, run: Run) -> dict[str, float]:
    """Train teachers and students and score them; see `engine.task.Task`."""
    data = load(config, run.device)
    if isinstance(config.data, TransferFoldersData):
        photographs.record(run, config.data)
    else:
        record_classes(run, data.train.classes)
    distillation = Distillation.of(config, run, data)
    distillation.prepare_teachers()
    if distillation.baseline is not None:
        distillation.baseline.train()
    trainer = distillation.trainer()
    metrics = trainer.fit()
    return distillation.finish(cast(DistillationLoss, trainer.module).net, metrics)
