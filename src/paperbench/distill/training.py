"""A distillation from its configuration to its metrics: teachers, then the baseline student, then the distilled one.

Each is a stage of the run with its own checkpoints; what a stage starts from follows from the seed alone, so it does not matter
in how many sessions the stages before it were done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from paperbench.distill import datasets, given, pictures
from paperbench.distill.bias import Correction, best_bias, corrected
from paperbench.distill.build import build
from paperbench.distill.config import Distill
from paperbench.distill.hard import HardStage, Recipe, machine_of, shared_folder
from paperbench.distill.inputs import Images, Jittered
from paperbench.distill.learners import Lessons, SoftLearner
from paperbench.distill.losses import soft_targets
from paperbench.distill.nets import Net
from paperbench.distill.schedule import Plan
from paperbench.distill.scoring import errors, logits_of, of_classes, scores
from paperbench.distill.teachers import GivenTeacher, Opinion, opinion_of
from paperbench.distill.transfer import Division, chosen_classes, divide
from paperbench.engine.order import EpochOrder
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.trainer import Trainer, build_trainer

MEMBER = 101
"""First key of the seeds of an ensemble's further members."""

TEACHER, BASELINE, DISTILLED = "teacher", "baseline", "distilled"


@dataclass(frozen=True)
class Data:
    """Training and test images on the device."""

    train: Images
    test: Images


def load(config: Distill, device: torch.device) -> Data:
    """Reads both splits. Raises DataError."""
    return Data(
        Images.of(datasets.load(config.data, "train"), device), Images.of(datasets.load(config.data, "test"), device)
    )


@dataclass(kw_only=True)
class Part:
    """What one run consists of, in the order in which it is called: `teach`, `baseline`, `trainer`, `conclude`."""

    config: Distill
    run: Run
    data: Data
    division: Division
    folder: Path
    metrics: dict[str, float] = field(default_factory=dict)
    teacher_logits: Tensor | None = None
    """(M, N, K), of the training images."""
    teacher_test: Tensor | None = None
    """(M, Nt, K), of the test images; None where stored logits have none."""

    @classmethod
    def of(cls, config: Distill, run: Run, data: Data) -> Part:
        return cls(
            config=config,
            run=run,
            data=data,
            division=divide(data.train.labels, data.train.classes, config.transfer, config.validation),
            folder=shared_folder(run, config.output.root),
        )

    def __post_init__(self) -> None:
        self.plan = Plan.of(self.config)
        self.affected = chosen_classes(self.config.transfer, self.data.train.classes)
        self.baseline = self._baseline() if self.config.baseline.train else None

    # --- teachers -----------------------------------------------------------------------------------------------------

    def teach(self) -> None:
        """Finds or trains the teachers one after another, and asks them about every image."""
        opinions = self._given() if self.config.teacher else self._taught()
        self.teacher_logits = torch.stack([opinion.train for opinion in opinions])
        tests = [opinion.test for opinion in opinions]
        if all(test is not None for test in tests):
            self.teacher_test = torch.stack([test for test in tests if test is not None])
            together = self._together(self.teacher_test)
            self.metrics |= {
                f"{TEACHER}/{name}": value for name, value in scores(together, self.data.test.labels).items()
            }
        seen = self._together(self.teacher_logits)
        self.metrics[f"{TEACHER}/train/accuracy"] = scores(seen, self.data.train.labels)["test/accuracy"]

    def _given(self) -> list[Opinion]:
        paths = [path for place in self.config.teacher for path in given.find(place)]
        opinions = []
        for number, path in enumerate(paths):
            teacher = GivenTeacher(
                _numbered(TEACHER, number, len(paths)),
                path,
                self.run,
                mean=self.config.teacher_mean,
                std=self.config.teacher_std,
            )
            opinions.append(
                teacher.opinion(
                    train=self.data.train,
                    test=self.data.test,
                    folder=self.folder,
                    batch_size=self.config.evaluation.batch_size,
                )
            )
            self._note_member(number, len(paths), teacher.metrics)
        return opinions

    def _taught(self) -> list[Opinion]:
        members = self.config.teaching.members
        opinions = []
        for number in range(members):
            taught = self._teacher(number)
            taught.train()
            self._note_member(number, members, taught.metrics)
            opinions.append(
                opinion_of(
                    taught.net,
                    train=self.data.train,
                    test=self.data.test,
                    run=self.run,
                    folder=self.folder,
                    batch_size=self.config.evaluation.batch_size,
                )
            )
        return opinions

    def _note_member(self, number: int, count: int, metrics: dict[str, float]) -> None:
        kept = {name: value for name, value in metrics.items() if name.startswith("test/") or count == 1}
        self.metrics |= {f"{_numbered(TEACHER, number, count)}/{name}": value for name, value in kept.items()}

    def _together(self, logits: Tensor) -> Tensor:
        """(M, N, K) -> (N, K): what the ensemble says at T = 1, as log-probabilities; one teacher's own logits."""
        if len(logits) == 1:
            return logits[0]
        return soft_targets(logits, temperature=1.0, average=self.config.teaching.average).log()

    def _teacher(self, number: int) -> HardStage:
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
            images=self.data.train.fingerprint,
            machine=machine_of(self.run),
        )
        return self._hard_stage(
            _numbered(TEACHER, number, teaching.members),
            recipe,
            rows=None,
            before=number * recipe.steps,
            evaluate=self._tested,
        )

    # --- the baseline student -----------------------------------------------------------------------------------------

    def _baseline(self) -> HardStage:
        config, early = self.config, self.config.baseline.early_stopping
        rows = self.division.transfer if config.baseline.images == "transfer" else None
        if rows is None and early:
            rows = self.division.rest
        recipe = Recipe(
            net=config.model,
            optim=config.optim,
            samples=config.train.samples,
            batch_size=config.train.batch_size,
            clip_norm=config.train.clip_norm,
            jitter=config.jitter,
            seed=self.run.seed,
            images=self._fingerprint(rows),
            chosen_on=self._fingerprint(self.division.validation) if early else "",
            evaluate_every=config.train.evaluate_every if early else 0,
            machine=machine_of(self.run),
        )
        return self._hard_stage(
            BASELINE,
            recipe,
            rows=rows,
            before=self.plan.teachers,
            evaluate=self._tested_and_validated if early else self._tested,
            watch="validation/errors" if early else None,
        )

    def _fingerprint(self, rows: Tensor | None) -> str:
        whole = self.data.train
        if rows is None:
            return whole.fingerprint
        return Images(whole.pixels[rows], whole.labels[rows], whole.classes, whole.name).fingerprint

    # --- the distilled student ----------------------------------------------------------------------------------------

    def learner(self) -> SoftLearner:
        """The distilled student at its start: the same weights as the baseline's, for the same seed."""
        config = self.config
        seed_everything(self.run.seed, MODEL_INIT)
        net = build(config.model, size=self.data.train.size, classes=len(self.data.train.classes)).to(self.run.device)
        return SoftLearner(
            net,
            temperature=config.temperature,
            soft_weight=config.soft_weight,
            hard_weight=config.hard_weight,
            match_logits=config.targets == "logits",
        )

    def targets(self) -> Tensor:
        """(N, K): what the student is to learn about every training image."""
        assert self.teacher_logits is not None
        if self.config.targets == "logits":
            return self.teacher_logits.mean(0)
        return soft_targets(
            self.teacher_logits, temperature=self.config.temperature, average=self.config.teaching.average
        )

    def trainer(self) -> Trainer:
        """The trainer of the distilled student; its module is a `SoftLearner`. Call it after `teach`."""
        config = self.config
        learner = self.learner()
        batches = Jittered(self.data.train, reach=config.jitter, seed=self.run.seed, chosen=self.division.transfer)

        return build_trainer(
            stage(self.run, DISTILLED, before=self.plan.teachers + self.plan.baseline, total=self.plan.total),
            learner,
            optim=config.optim,
            loop=config.train,
            order=EpochOrder(len(batches), config.train.batch_size, self.run.seed),
            fetch=Lessons(batches, self.targets()),
            evaluate=lambda: self._tested(learner.net),
        )

    # --- numbers ------------------------------------------------------------------------------------------------------

    def conclude(self, student: Net, metrics: dict[str, float]) -> dict[str, float]:
        """All metrics of the run; draws the pictures. `metrics` are those of the distilled student's training."""
        found = {**self.metrics}
        if self.baseline is not None:
            found |= {f"{BASELINE}/{name}": value for name, value in self.baseline.metrics.items()}
            found[f"{BASELINE}/train/accuracy"] = self._fit(self.baseline.net, self.baseline.rows)
        found |= {f"{DISTILLED}/{name}": value for name, value in metrics.items()}
        found[f"{DISTILLED}/train/accuracy"] = self._fit(student, self.division.transfer)
        logits = self._logits(student, self.data.test)
        if self.affected:
            found |= self._of_omitted(student, logits)
        self._draw(logits, found)
        return found

    def _draw(self, logits: Tensor, found: dict[str, float]) -> None:
        """logits: (Nt, K) of the distilled student for the test images."""
        config, figures = self.config, self.run.directory.figures
        stages = {name: "teachers" if name.startswith(f"{TEACHER}-") else name for name in _stage_names(config)}
        pictures.course(self.run.directory.metrics_file, stages, figures / "course.png")
        if self.teacher_test is not None and config.evaluation.examples:
            pictures.targets(
                self.data.test,
                self.teacher_test,
                temperature=config.temperature,
                average=config.teaching.average,
                count=config.evaluation.examples,
                output=figures / "targets.png",
            )
        if self.affected:
            chosen = {"on the test set": found["corrected/bias"]}
            if "validated/bias" in found:
                chosen["on validation images"] = found["validated/bias"]
            names = ", ".join(self.data.train.classes[number] for number in self.affected)
            pictures.bias_curve(
                logits, self.data.test.labels, self.affected, names, chosen=chosen, output=figures / "bias.png"
            )

    def _of_omitted(self, student: Net, logits: Tensor) -> dict[str, float]:
        """Errors on classes that the student did not see, and what a constant on some logits mends (section 3).

        `corrected/*`: the constant has the fewest errors on the test images, as in the paper. `validated/*`: it has the fewest on
        training images held back from the student.
        """
        labels, affected = self.data.test.labels, self.affected
        unseen = self._unseen()
        chosen: dict[str, Correction] = {"corrected": best_bias(logits, labels, affected)}
        held = self.division.validation
        if len(held):
            whole = self.data.train
            images = Images(whole.pixels[held], whole.labels[held], whole.classes, whole.name)
            chosen["validated"] = best_bias(self._logits(student, images), images.labels, affected)
        found = {f"{DISTILLED}/omitted/{name}": v for name, v in of_classes(logits, labels, unseen).items()}
        for name, correction in chosen.items():
            after = corrected(logits, affected, correction.bias)
            found |= {f"{name}/{key}": value for key, value in scores(after, labels).items() if key != "test/nll"}
            found |= {f"{name}/omitted/{key}": value for key, value in of_classes(after, labels, unseen).items()}
            found[f"{name}/bias"] = correction.bias
            # Of the images that were mistaken before, so many per cent are right now, on balance.
            before = errors(logits, labels)
            found[f"{name}/removed"] = 100 * (1 - errors(after, labels) / before) if before else 0.0
        return found

    def _unseen(self) -> tuple[int, ...]:
        if not self.config.transfer.only:
            return self.affected
        return tuple(number for number in range(len(self.data.train.classes)) if number not in self.affected)

    def _logits(self, net: Net, images: Images) -> Tensor:
        return logits_of(net, images, batch_size=self.config.evaluation.batch_size)

    def _tested(self, net: Net) -> dict[str, float]:
        return scores(self._logits(net, self.data.test), self.data.test.labels)

    def _tested_and_validated(self, net: Net) -> dict[str, float]:
        held, whole = self.division.validation, self.data.train
        images = Images(whole.pixels[held], whole.labels[held], whole.classes, whole.name)
        return {**self._tested(net), **scores(self._logits(net, images), images.labels, split="validation")}

    def _fit(self, net: Net, rows: Tensor | None) -> float:
        """Accuracy on the images that a net has learnt from, in percent."""
        whole = self.data.train
        images = whole if rows is None else Images(whole.pixels[rows], whole.labels[rows], whole.classes, whole.name)
        return scores(self._logits(net, images), images.labels)["test/accuracy"]

    def _hard_stage(
        self,
        name: str,
        recipe: Recipe,
        *,
        rows: Tensor | None,
        before: int,
        evaluate: Callable[[Net], dict[str, float]],
        watch: str | None = None,
    ) -> HardStage:
        loop = self.config.train
        return HardStage(
            name=name,
            recipe=recipe,
            run=self.run,
            folder=self.folder,
            images=self.data.train,
            rows=rows,
            evaluate=evaluate,
            log_every=loop.log_every,
            checkpoint_every=loop.checkpoint_every,
            evaluate_every=loop.evaluate_every,
            watch=watch,
            before=before,
            total=self.plan.total,
        )


def _numbered(name: str, number: int, count: int) -> str:
    return name if count == 1 else f"{name}-{number}"


def _stage_names(config: Distill) -> list[str]:
    members = 0 if config.teacher else config.teaching.members
    return [*(_numbered(TEACHER, number, members) for number in range(members)), BASELINE, DISTILLED]
