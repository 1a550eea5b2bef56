"""Training of a generalist and its specialists, from the configuration to the metrics (section 5)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paperbench.distill import datasets, figures
from paperbench.distill.batches import Batch, Images, JitteredBatches
from paperbench.distill.config import Specialists
from paperbench.distill.evaluation import logits_of, scores
from paperbench.distill.nets import Net
from paperbench.distill.specialists.evaluation import active_specialists, combine, conditional_accuracy, coverage
from paperbench.distill.specialists.model import (
    HalvesOrder,
    SpecialistLoss,
    as_specialist,
    confusable,
    covariance,
    dustbin_correction,
    labels_for,
    membership,
    scattered,
    softmax_corrected,
    specialist_from,
)
from paperbench.distill.supervised import Recipe, SupervisedStage, machine_of, shared_folder
from paperbench.engine.device import where_float64
from paperbench.engine.files import write_json
from paperbench.engine.order import BatchKey
from paperbench.engine.run import Run
from paperbench.engine.seeding import MODEL_INIT, hashed, seed_everything
from paperbench.engine.stages import stage
from paperbench.engine.trainer import build_trainer
from paperbench.errors import DataError, TrainingError

SPECIALIST, CLUSTERS = 102, 103
"""First keys of the streams of the specialists and of k-means."""

GENERALIST = "generalist"
_ROWS_AT_ONCE = 1000
"""Images that are combined at once: their problems take (images, specialists, classes) doubles."""


@dataclass(kw_only=True)
class SpecialistTraining:
    """One run: `train_generalist`, `select_classes`, `train_specialists`, then `finish`."""

    config: Specialists
    run: Run
    train: Images
    test: Images

    @classmethod
    def of(cls, config: Specialists, run: Run) -> SpecialistTraining:
        train, test = (Images.of(datasets.load(config.data, split), run.device) for split in ("train", "test"))
        return cls(config=config, run=run, train=train, test=test)

    def __post_init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._own_steps = -(-self.config.specialists.samples // self.config.specialists.batch_size)
        self._first_steps = self.config.train.steps

    @property
    def classes(self) -> int:
        return len(self.train.classes)

    def train_generalist(self) -> Net:
        """Train the net of all classes, or load it from the store."""
        config, loop = self.config, self.config.train
        recipe = Recipe(
            net=config.model,
            optim=config.optim,
            samples=loop.samples,
            batch_size=loop.batch_size,
            clip_norm=loop.clip_norm,
            jitter=config.jitter,
            seed=self.run.seed,
            images=self.train.fingerprint,
            machine=machine_of(self.run),
        )
        generalist = SupervisedStage(
            name=GENERALIST,
            recipe=recipe,
            run=self.run,
            folder=shared_folder(self.run, config.output.root),
            images=self.train,
            rows=None,
            evaluate=lambda net: scores(self._logits(net, self.test), self.test.labels),
            log_every=loop.log_every,
            checkpoint_every=loop.checkpoint_every,
            checkpoint_seconds=loop.checkpoint_seconds,
            evaluate_every=loop.evaluate_every,
            total=self._first_steps + config.specialists.count * self._own_steps,
        )
        generalist.train()
        self.metrics |= {f"{GENERALIST}/{name}": value for name, value in generalist.metrics.items()}
        net = generalist.net
        assert isinstance(net, Net)  # the configuration of this task has no other
        return net

    # --- classes of the specialists ------------------------------------------------------------------------------------

    def select_classes(self, generalist: Net) -> list[tuple[int, ...]]:
        """Return the classes of each specialist; they are written to a file, so that a resume has the same."""
        file = self.run.directory.checkpoints / "clusters.json"
        if (sets := _read_sets(file)) is not None:
            return sets
        own = self.config.specialists
        try:
            sets = confusable(
                self._covariance(generalist), count=own.count, size=own.size, seed=hashed(self.run.seed, CLUSTERS)
            )
        except ValueError as error:
            raise DataError(f"specialists.count={own.count}, specialists.size={own.size}: {error}") from None
        if not sets:
            raise TrainingError(
                f"no two classes fell into one of {own.count} clusters: nothing to specialise in; take fewer specialists, or "
                "set specialists.size"
            )
        if len(sets) < own.count:
            self.run.reporter.message(
                f"{len(sets)} specialists instead of {own.count}: the other clusters hold one class, or the same classes again"
            )
        write_json(file, {"sets": [list(members) for members in sets]})
        return sets

    def _covariance(self, generalist: Net) -> Tensor:
        own = self.config.clusters
        count = max(2, round(own.fraction * len(self.train)))
        images = self.train.select(torch.arange(count))
        return covariance(F.softmax(self._logits(generalist, images) / own.temperature, dim=1))

    # --- the specialists ----------------------------------------------------------------------------------------------

    def train_specialists(self, generalist: Net, sets: list[tuple[int, ...]]) -> list[tuple[Net, float]]:
        """Train the specialists one after another; return each with the correction of its dustbin's logit."""
        logits = self._logits(generalist, self.train) if self.config.specialists.soft_weight else None
        return [self._specialist(number, members, generalist, logits) for number, members in enumerate(sets)]

    def _specialist(
        self, number: int, members: tuple[int, ...], generalist: Net, logits: Tensor | None
    ) -> tuple[Net, float]:
        config, own = self.config, self.config.specialists
        name = f"specialist-{number}"
        labels = labels_for(members, self.classes).to(self.run.device)[self.train.labels]
        special = (labels < len(members)).nonzero().squeeze(1).cpu().numpy()
        others = (labels == len(members)).nonzero().squeeze(1).cpu().numpy()
        if not len(special) or not len(others):
            raise DataError(
                f"{name}: no training image {'of' if not len(special) else 'outside'} its {len(members)} classes"
            )
        seed = hashed(self.run.seed, SPECIALIST, number) & 0x7FFFFFFF
        seed_everything(seed, MODEL_INIT)
        module = SpecialistLoss(
            specialist_from(generalist, members), soft_weight=own.soft_weight, temperature=own.temperature
        )
        correction = dustbin_correction(len(special), len(others))
        targets = (
            None if logits is None else F.softmax(as_specialist(logits, members, correction) / own.temperature, dim=1)
        )
        batches = JitteredBatches(self.train, reach=config.jitter, seed=seed)

        def fetch(key: BatchKey) -> Batch:
            inputs, _, rows = batches(key)
            return Batch(inputs, labels[rows], None if targets is None else targets[rows])

        loop = replace(config.train, samples=own.samples, batch_size=own.batch_size, evaluate_every=0)
        trainer = build_trainer(
            stage(
                self.run,
                name,
                before=self._first_steps + number * self._own_steps,
                total=self._first_steps + own.count * self._own_steps,
                seed=seed,
            ),
            module,
            optim=own.optim,
            loop=loop,
            order=HalvesOrder(special, others, own.batch_size, seed),
            fetch=fetch,
        )
        trainer.fit()
        return cast(SpecialistLoss, trainer.module).net, correction

    # --- all together -------------------------------------------------------------------------------------------------

    def finish(
        self, generalist: Net, sets: list[tuple[int, ...]], specialists: list[tuple[Net, float]]
    ) -> dict[str, float]:
        """Return all metrics of the run and draw its figures."""
        before = where_float64(self._logits(generalist, self.test))
        known, labels = membership(sets, self.classes).to(before.device), self.test.labels.to(before.device)
        after = self._combined(F.softmax(before.double(), dim=1), sets, specialists, known)
        together = scores(after.log(), labels)
        first = scores(before, labels)["test/accuracy"]
        out = {
            **self.metrics,
            f"{GENERALIST}/conditional/accuracy": conditional_accuracy(before, labels, known),
            **{f"specialists/{name}": value for name, value in together.items()},
            "specialists/conditional/accuracy": conditional_accuracy(after, labels, known),
            "specialists/count": float(len(sets)),
            "specialists/classes": float(known.any(0).sum()),
            **coverage(before, after, labels, known),
        }
        if first > 0:
            out["specialists/relative_gain"] = 100 * (together["test/accuracy"] - first) / first
        self._draw(generalist, sets, out)
        return out

    def _combined(
        self,
        p_g: Tensor,
        sets: list[tuple[int, ...]],
        specialists: list[tuple[Net, float]],
        known: Tensor,
    ) -> Tensor:
        """Return (Nt, K), the combined probabilities of the test images."""
        p_m = torch.stack(
            [
                scattered(softmax_corrected(self._logits(net, self.test), correction), members, self.classes)
                for members, (net, correction) in zip(sets, specialists, strict=True)
            ],
            dim=1,
        )
        active = active_specialists(p_g, known, top=self.config.specialists.top)
        parts = []
        for start in range(0, len(p_g), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            parts.append(combine(p_g[rows], p_m[rows], known, active[rows]))
            self.run.raise_if_stopped()
        return torch.cat(parts)

    def _draw(self, generalist: Net, sets: list[tuple[int, ...]], metrics: dict[str, float]) -> None:
        folder = self.run.directory.figures
        names = {GENERALIST: GENERALIST, **{f"specialist-{number}": "specialists" for number in range(len(sets))}}
        draw = self.run.draw
        draw(figures.learning_curves, self.run.directory.metrics_file, names, folder / "course.png")
        draw(figures.confusion, self._covariance(generalist), sets, self.train.classes, folder / "confusion.png")
        draw(figures.coverage, metrics, folder / "coverage.png")

    def _logits(self, net: nn.Module, images: Images) -> Tensor:
        return logits_of(net, images, batch_size=self.config.evaluation.batch_size)


def _read_sets(file: Path) -> list[tuple[int, ...]] | None:
    try:
        return [
            tuple(int(number) for number in members) for members in json.loads(file.read_text(encoding="utf-8"))["sets"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
