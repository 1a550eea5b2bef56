"""A distillation from its configuration to its metrics: teachers, then the baseline student, then the distilled student.

Each is a stage of the run with its own checkpoints. A stage starts from the seed alone, so it does not matter in how many sessions
the stages before it were trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from paperbench.distill import datasets, figures
from paperbench.distill.batches import Images, JitteredBatches, LabelledBatches
from paperbench.distill.config import Distill
from paperbench.distill.evaluation import logits_of, omitted_class_metrics, scores
from paperbench.distill.losses import DistillationLoss, soft_targets
from paperbench.distill.nets import Net, build
from paperbench.distill.supervised import Recipe, SupervisedStage, machine_of, shared_folder
from paperbench.distill.teachers import PretrainedTeacher, TeacherLogits, compute_logits, find_teachers
from paperbench.distill.torchvision_nets import Classifier
from paperbench.distill.transfer import TransferSplit, selected_classes, split_training_set
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.trainer import Trainer, build_trainer

MEMBER = 101
"""First key of the seeds of an ensemble's further members."""

TEACHER, BASELINE, DISTILLED = "teacher", "baseline", "distilled"


@dataclass(frozen=True)
class StageSteps:
    """Optimizer steps of each stage, in their order: teachers that have to be trained, the baseline, the distilled student."""

    teachers: int
    baseline: int
    distilled: int

    @classmethod
    def of(cls, config: Distill) -> StageSteps:
        teaching, student = config.teaching, config.train.steps
        members = 0 if config.teacher else teaching.members
        return cls(
            members * -(-teaching.samples // teaching.batch_size), student if config.baseline.train else 0, student
        )

    @property
    def total(self) -> int:
        return self.teachers + self.baseline + self.distilled


@dataclass(frozen=True)
class Data:
    """Training and test images on the device."""

    train: Images
    test: Images


def load(config: Distill, device: torch.device) -> Data:
    """Read both splits. Raises DataError."""
    return Data(
        Images.of(datasets.load(config.data, "train"), device), Images.of(datasets.load(config.data, "test"), device)
    )


def split_images(images: Images, config: Distill) -> TransferSplit:
    """Split the training images; where some have no class, these are the transfer set."""
    known = images.labelled
    if len(known) == len(images):
        return split_training_set(images.labels, images.classes, config.transfer, config.validation)
    if not len(known):
        return TransferSplit(images.unlabelled, known, images.unlabelled)
    part = split_training_set(images.labels[known], images.classes, config.transfer, config.validation)
    return TransferSplit(images.unlabelled, known[part.validation], known[part.rest])


@dataclass(kw_only=True)
class Distillation:
    """The parts of one run, in the order in which they are called: `prepare_teachers`, `baseline`, `trainer`, `finish`."""

    config: Distill
    run: Run
    data: Data
    split: TransferSplit
    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    teacher_logits: Tensor | None = None
    """(M, N, K), of the training images."""
    teacher_test_logits: Tensor | None = None
    """(M, Nt, K), of the test images; None where stored logits have none."""

    @classmethod
    def of(cls, config: Distill, run: Run, data: Data) -> Distillation:
        return cls(
            config=config,
            run=run,
            data=data,
            split=split_images(data.train, config),
            folder=shared_folder(run, config.output.root),
        )

    def __post_init__(self) -> None:
        self.steps = StageSteps.of(self.config)
        self.corrected_classes = selected_classes(self.config.transfer, self.data.train.classes)
        self.baseline = self._baseline() if self.config.baseline.train else None

    # --- teachers -----------------------------------------------------------------------------------------------------

    def prepare_teachers(self) -> None:
        """Load or train the teachers one after another, and compute their logits for every image."""
        teachers = list(self._pretrained_teachers() if self.config.teacher else self._trained_teachers())
        self.teacher_logits = torch.stack([logits.train for logits in teachers])
        tests = [logits.test for logits in teachers]
        if all(test is not None for test in tests):
            self.teacher_test_logits = torch.stack([test for test in tests if test is not None])
            ensemble = self._ensemble(self.teacher_test_logits)
            self.metrics |= {
                f"{TEACHER}/{name}": value for name, value in scores(ensemble, self.data.test.labels).items()
            }
        rows = self.data.train.labelled
        if len(rows):
            ensemble = self._ensemble(self.teacher_logits)[rows]
            self.metrics[f"{TEACHER}/train/accuracy"] = scores(ensemble, self.data.train.labels[rows])["test/accuracy"]

    def _pretrained_teachers(self) -> Iterator[TeacherLogits]:
        paths = [path for place in self.config.teacher for path in find_teachers(place)]
        for number, path in enumerate(paths):
            teacher = PretrainedTeacher(
                _numbered(TEACHER, number, len(paths)),
                path,
                self.run,
                mean=self.config.teacher_mean,
                std=self.config.teacher_std,
                values=self.config.teacher_values,
                cut=(self.config.data.max_train_images, self.config.data.max_test_images),
            )
            logits = teacher.logits(
                train=self.data.train,
                test=self.data.test,
                folder=self.folder,
                batch_size=self.config.evaluation.batch_size,
            )
            self._record_member(number, len(paths), teacher.metrics)
            yield logits

    def _trained_teachers(self) -> Iterator[TeacherLogits]:
        members = self.config.teaching.members
        for number in range(members):
            teacher = self._teacher(number)
            teacher.train()
            self._record_member(number, members, teacher.metrics)
            yield compute_logits(
                teacher.net,
                train=self.data.train,
                test=self.data.test,
                run=self.run,
                folder=self.folder,
                batch_size=self.config.evaluation.batch_size,
            )

    def _record_member(self, number: int, count: int, metrics: dict[str, float]) -> None:
        own = {name: value for name, value in metrics.items() if name.startswith("test/") or count == 1}
        self.metrics |= {f"{_numbered(TEACHER, number, count)}/{name}": value for name, value in own.items()}

    def _ensemble(self, logits: Tensor) -> Tensor:
        """(M, N, K) -> (N, K): log-probabilities of the ensemble at T = 1; the logits of a single teacher."""
        if len(logits) == 1:
            return logits[0]
        return soft_targets(logits, temperature=1.0, average=self.config.teaching.average).log()

    def _teacher(self, number: int) -> SupervisedStage:
        teaching = self.config.teaching
        base = self.run.seed if teaching.seed is None else teaching.seed
        recipe = Recipe(
            net=teaching.net,
            optim=teaching.optim,
            samples=teaching.samples,
            batch_size=teaching.batch_size,
            clip_norm=self.config.train.clip_norm,
            jitter=teaching.jitter,
            seed=base if number == 0 else hashed(base, MEMBER, number) & 0x7FFFFFFF,
            images=self.data.train.select(self._all_labelled).fingerprint,
            machine=machine_of(self.run),
        )
        return self._supervised_stage(
            _numbered(TEACHER, number, teaching.members),
            recipe,
            rows=self._all_labelled,
            before=number * recipe.steps,
            evaluate=self._test_scores,
        )

    # --- the baseline student -----------------------------------------------------------------------------------------

    def _baseline(self) -> SupervisedStage:
        config, early = self.config, self.config.baseline.early_stopping
        rows = self.split.transfer if config.baseline.images == "transfer" else self._all_labelled
        if rows is None and early:
            rows = self.split.rest
        recipe = Recipe(
            net=config.model,
            optim=config.optim,
            samples=config.train.samples,
            batch_size=config.train.batch_size,
            clip_norm=config.train.clip_norm,
            jitter=config.jitter,
            seed=self.run.seed,
            images=self.data.train.select(rows).fingerprint,
            chosen_on=self.data.train.select(self.split.validation).fingerprint if early else "",
            evaluate_every=config.train.evaluate_every if early else 0,
            machine=machine_of(self.run),
        )
        return self._supervised_stage(
            BASELINE,
            recipe,
            rows=rows,
            before=self.steps.teachers,
            evaluate=self._test_and_validation_scores if early else self._test_scores,
            watch="validation/errors" if early else None,
        )

    # --- the distilled student ----------------------------------------------------------------------------------------

    def student(self) -> DistillationLoss:
        """Return the untrained student in its loss: for the same seed, the same weights as the baseline's."""
        config = self.config
        seed_everything(self.run.seed, MODEL_INIT)
        net = build(config.model, size=self.data.train.size, classes=len(self.data.train.classes)).to(self.run.device)
        return DistillationLoss(
            net,
            temperature=config.temperature,
            soft_weight=config.soft_weight,
            hard_weight=0.0 if len(self.data.train.unlabelled) else config.hard_weight,
            match_logits=config.targets == "logits",
        )

    def targets(self) -> Tensor:
        """(N, K): soft targets of every training image, or the mean logits of the teachers with `targets=logits`."""
        assert self.teacher_logits is not None
        if self.config.targets == "logits":
            return self.teacher_logits.mean(0)
        return soft_targets(
            self.teacher_logits, temperature=self.config.temperature, average=self.config.teaching.average
        )

    def trainer(self) -> Trainer:
        """Return the trainer of the distilled student; its module is a `DistillationLoss`. Call it after `prepare_teachers`."""
        config, loop = self.config, self.config.train
        student = self.student()
        train = self.data.train
        if len(train.unlabelled):  # no loss looks at the labels that are not there
            train = replace(train, labels=train.labels.clamp(min=0))
        batches = JitteredBatches(train, reach=config.jitter, seed=self.run.seed, rows=self.split.transfer)
        return build_trainer(
            stage(self.run, DISTILLED, before=self.steps.teachers + self.steps.baseline, total=self.steps.total),
            student,
            optim=config.optim,
            loop=loop,
            order=EpochOrder(len(batches), loop.batch_size, self.run.seed),
            fetch=LabelledBatches(batches, self.targets()),
            evaluate=lambda: self._test_scores(student.net),
            cast_together=True,
        )

    # --- numbers ------------------------------------------------------------------------------------------------------

    def finish(self, student: Net | Classifier, metrics: dict[str, float]) -> dict[str, float]:
        """Return all metrics of the run and draw its figures. metrics: of the training of the distilled student."""
        out = {**self.metrics}
        if self.baseline is not None:
            out |= {f"{BASELINE}/{name}": value for name, value in self.baseline.metrics.items()}
            out[f"{BASELINE}/train/accuracy"] = self._train_accuracy(self.baseline.net, self.baseline.rows)
        out |= {f"{DISTILLED}/{name}": value for name, value in metrics.items()}
        if len(self.data.train.unlabelled):
            out[f"{DISTILLED}/train/agreement"] = self._agreement(student)
        else:
            out[f"{DISTILLED}/train/accuracy"] = self._train_accuracy(student, self.split.transfer)
        logits = self._logits(student, self.data.test)
        if self.corrected_classes:
            out |= self._omitted_class_metrics(student, logits)
        self._draw(logits, out)
        return out

    def _draw(self, logits: Tensor, metrics: dict[str, float]) -> None:
        """logits: (Nt, K) of the distilled student for the test images."""
        config, folder = self.config, self.run.directory.figures
        stages = {name: "teachers" if name.startswith(f"{TEACHER}-") else name for name in _stage_names(config)}
        draw = self.run.draw
        draw(figures.learning_curves, self.run.directory.metrics_file, stages, folder / "course.png")
        if self.teacher_test_logits is not None and config.evaluation.examples:
            draw(
                figures.targets,
                self.data.test,
                self.teacher_test_logits,
                temperature=config.temperature,
                average=config.teaching.average,
                count=config.evaluation.examples,
                output=folder / "targets.png",
            )
        if self.corrected_classes:
            chosen = {"on the test set": metrics["corrected/bias"]}
            if "validated/bias" in metrics:
                chosen["on validation images"] = metrics["validated/bias"]
            names = ", ".join(self.data.train.classes[number] for number in self.corrected_classes)
            draw(
                figures.bias_curve,
                logits,
                self.data.test.labels,
                self.corrected_classes,
                names,
                chosen=chosen,
                output=folder / "bias.png",
            )

    def _omitted_class_metrics(self, student: Net | Classifier, logits: Tensor) -> dict[str, float]:
        validation = None
        if len(self.split.validation):
            images = self.data.train.select(self.split.validation)
            validation = self._logits(student, images), images.labels
        unseen = self.corrected_classes
        if self.config.transfer.only:
            unseen = tuple(number for number in range(len(self.data.train.classes)) if number not in unseen)
        return omitted_class_metrics(
            logits, self.data.test.labels, self.corrected_classes, unseen, validation=validation, prefix=DISTILLED
        )

    def _logits(self, net: Net | Classifier, images: Images) -> Tensor:
        return logits_of(net, images, batch_size=self.config.evaluation.batch_size)

    def _test_scores(self, net: Net | Classifier) -> dict[str, float]:
        return scores(self._logits(net, self.data.test), self.data.test.labels)

    def _test_and_validation_scores(self, net: Net | Classifier) -> dict[str, float]:
        images = self.data.train.select(self.split.validation)
        return {**self._test_scores(net), **scores(self._logits(net, images), images.labels, split="validation")}

    @property
    def _all_labelled(self) -> Tensor | None:
        """The rows of the training images with a class; None where all have one."""
        return self.data.train.labelled if len(self.data.train.unlabelled) else None

    def _agreement(self, student: Net | Classifier) -> float:
        """Return the percentage of the transfer set that student and teacher classify alike."""
        assert self.teacher_logits is not None
        rows = self.split.transfer
        answers = self._logits(student, self.data.train.select(rows)).argmax(1)
        alike = answers == self._ensemble(self.teacher_logits)[rows].argmax(1)
        return 100 * int(alike.sum()) / len(alike)

    def _train_accuracy(self, net: Net | Classifier, rows: Tensor | None) -> float:
        """Accuracy on the images that a net learned from, in percent."""
        images = self.data.train.select(rows)
        return scores(self._logits(net, images), images.labels)["test/accuracy"]

    def _supervised_stage(
        self,
        name: str,
        recipe: Recipe,
        *,
        rows: Tensor | None,
        before: int,
        evaluate: Callable[[Net | Classifier], dict[str, float]],
        watch: str | None = None,
    ) -> SupervisedStage:
        loop = self.config.train
        return SupervisedStage(
            name=name,
            recipe=recipe,
            run=self.run,
            folder=self.folder,
            images=self.data.train,
            rows=rows,
            evaluate=evaluate,
            log_every=loop.log_every,
            checkpoint_every=loop.checkpoint_every,
            checkpoint_seconds=loop.checkpoint_seconds,
            evaluate_every=loop.evaluate_every,
            watch=watch,
            before=before,
            total=self.steps.total,
        )


def _numbered(name: str, number: int, count: int) -> str:
    return name if count == 1 else f"{name}-{number}"


def _stage_names(config: Distill) -> list[str]:
    members = 0 if config.teacher else config.teaching.members
    return [*(_numbered(TEACHER, number, members) for number in range(members)), BASELINE, DISTILLED]
