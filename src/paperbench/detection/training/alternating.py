"""Alternating training (section 3.2): proposals and detector in turn, in four steps if they share convolutions, else in two.

1. The region proposal network, from the initial weights.
2. The detector, from the initial weights as well, on the proposals of step 1: nothing is shared yet.
3. With the convolutions of step 2, which stay as they are from here on, the layers that only the proposals have.
4. The layers that only the detector has, on the proposals of step 3.

"Unshared" is what there is after step 2. Every step is a training of its own, with checkpoints of its own that hold the whole
detector; the last one's are the run's. A resumed run goes on in the step it was in and makes that step's proposals again, the
same ones, from the weights of the step before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.config.schema import OptimConfig
from paperbench.detection import datasets
from paperbench.detection.batches import Batch, BatchMaker, ProposalBatchMaker
from paperbench.detection.config import DetectTrain
from paperbench.detection.detectors.faster_rcnn import FasterRCNN
from paperbench.detection.detectors.unshared import PROPOSALS, REGIONS, UnsharedFasterRCNN
from paperbench.detection.evaluation.inference import Scorer, map_batches
from paperbench.detection.model_config import FasterRCNNModel
from paperbench.detection.proposals.source import proposals_of
from paperbench.detection.rcnn_config import ProposalConfig
from paperbench.detection.rpn import objectness_score, propose
from paperbench.detection.training.joint import parameter_groups
from paperbench.engine.run import Run
from paperbench.engine.seeding import hashed
from paperbench.engine.stages import stage
from paperbench.engine.trainer import build_trainer

STEP = 110
"""First key of the streams of a step: each has its own order of images, flips and samples."""


@dataclass(frozen=True, kw_only=True)
class AlternatingStep:
    """One of the steps: what it is called, the parts of the detector that it trains, and those that begin anew."""

    name: str
    trains: tuple[str, ...]
    resets: tuple[str, ...] = ()

    @property
    def proposes(self) -> bool:
        """True if it trains the proposals; otherwise it trains the detector."""
        return "rpn" in self.trains


def turns(*, shared: bool) -> tuple[AlternatingStep, ...]:
    """The steps of the schedule."""
    if not shared:
        return (
            AlternatingStep(name="1-proposals", trains=(f"backbone.{PROPOSALS}", f"neck.{PROPOSALS}", "rpn")),
            AlternatingStep(name="2-detector", trains=(f"backbone.{REGIONS}", f"neck.{REGIONS}", "head", "predictor")),
        )
    return (
        AlternatingStep(name="1-proposals", trains=("backbone", "neck", "rpn")),
        AlternatingStep(
            name="2-detector", trains=("backbone", "neck", "head", "predictor"), resets=("backbone", "neck")
        ),
        AlternatingStep(name="3-proposals", trains=("rpn",), resets=("rpn",)),
        AlternatingStep(name="4-detector", trains=("head", "predictor")),
    )


def precomputed_proposals(config: DetectTrain) -> ProposalConfig | None:
    """Return the method of the proposals that an unshared detector is trained on; None for those of its own network."""
    method = config.train.alternation.detector_proposals
    if config.train.schedule != "alternating" or method == "rpn":
        return None
    return ProposalConfig(method=method)


def sizes(config: DetectTrain, plan: Sequence[AlternatingStep]) -> tuple[list[int], list[int]]:
    """Images in a batch of each step, and the optimizer steps it makes."""
    own = config.train.alternation
    batch = [own.rpn_batch_size or config.train.batch_size if t.proposes else config.train.batch_size for t in plan]
    samples = own.samples or config.train.samples
    seen = [(own.rpn_samples or samples) if turn.proposes else samples for turn in plan]
    return batch, [-(-count // images) for count, images in zip(seen, batch, strict=True)]


class AlternatingTraining:
    """Trains `model`, on the run's device and with its initial weights, by the schedule of `config`."""

    def __init__(
        self, config: DetectTrain, model: FasterRCNN, train_set: datasets.DetectionSet, run: Run, scorer: Scorer
    ) -> None:
        self.config = config
        self.model = model
        self.train_set = train_set
        self.run = run
        self.scorer = scorer
        self.store = datasets.store(config.data, train_set, run.device)
        assert isinstance(config.model, FasterRCNNModel)
        self.turns = turns(shared=config.model.shared)
        self.batch_sizes, self.steps = sizes(config, self.turns)
        self._trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        again = {part for turn in self.turns for part in turn.resets}
        self._initial = {
            name: value.clone()
            for name, value in model.state_dict().items()
            if isinstance(value, Tensor) and _below(name, again)
        }

    def fit(self) -> dict[str, float]:
        """Train the steps that are left; return the metrics of the last one."""
        runs = [self._view(index) for index in range(len(self.turns))]
        first = max((index for index, run in enumerate(runs) if run.checkpoints.exists()), default=0)
        # A step whose last checkpoint is damaged is finished again, from an older one or from its beginning.
        while first and not self._load_step(first - 1, runs[first - 1]):
            first -= 1
        metrics: dict[str, float] = {}
        for index in range(first, len(self.turns)):
            metrics = self._make(index, runs[index])
        return metrics

    def _view(self, index: int) -> Run:
        """The run as a step sees it: named progress, a record that counts on, checkpoints of its own."""
        before, last = sum(self.steps[:index]), index == len(self.turns) - 1
        folder: Path = self.run.checkpoints.directory
        return stage(
            self.run,
            self.turns[index].name,
            before=before,
            total=sum(self.steps),
            seed=hashed(self.run.seed, STEP, index),
            checkpoints=folder if last else folder / self.turns[index].name,
            log_prefix="",
            log_offset=before,
        )

    def _load_step(self, index: int, run: Run) -> bool:
        """Load the weights that a step ended with; False where there are none."""
        loaded = run.ranks.on_main(lambda: run.checkpoints.load("last") if run.checkpoints.exists() else None)
        if loaded is None or loaded[1] != self.steps[index]:
            return False
        self.model.load_state_dict(loaded[0]["module"])
        return True

    def _make(self, index: int, run: Run) -> dict[str, float]:
        turn, config = self.turns[index], self.config
        make = self._batches(run, None if turn.proposes else self._proposals(run))
        self.prepare(turn)
        last = index == len(self.turns) - 1
        batch_size = self.batch_sizes[index]
        return build_trainer(
            run,
            ProposalStep(self.model) if turn.proposes else DetectorStep(self.model),
            optim=self._optim(),
            loop=replace(
                config.train,
                samples=self.steps[index] * batch_size,
                batch_size=batch_size,
                evaluate_every=config.train.evaluate_every if last else 0,
            ),
            order=len(self.train_set),
            fetch=lambda key: make(key.indices, key.epochs),
            groups=parameter_groups(self.model, backbone_lr_scale=config.optim.backbone_lr_scale),
            evaluate=self.scorer if last else None,
            watch="coco/AP50" if last else None,
        ).fit()

    def _optim(self) -> OptimConfig:
        own = self.config.train.alternation.milestones
        return replace(self.config.optim, milestones=own) if own else self.config.optim

    def _proposals(self, run: Run) -> Sequence[NDArray[np.float32]]:
        """Of the training images as they are stored, by the net as it is now or by what the configuration names."""
        given = precomputed_proposals(self.config)
        if given is not None:
            count, root = self.model.rpn_config.post_nms_topk_train, self.config.output.root
            return proposals_of(self.train_set, given, run, root=root, count=count).boxes
        make = self._batches(run, None, flip=0.0)
        return propose_all(self.model, make, batch_size=self.config.evaluation.batch_size, run=run)

    def _batches(
        self, run: Run, proposals: Sequence[NDArray[np.float32]] | None, *, flip: float | None = None
    ) -> BatchMaker:
        settings: dict[str, Any] = {
            "flip": self.config.data.flip if flip is None else flip,
            "seed": run.seed,
            "multiple": self.model.multiple,
            "square": self.model.square,
            "training": True,
        }
        if proposals is None:
            return BatchMaker(self.train_set, self.store, **settings)
        return ProposalBatchMaker(self.train_set, self.store, proposals, **settings)

    def prepare(self, turn: AlternatingStep) -> None:
        """Initial weights where the step begins anew; gradients for what it trains and nothing else."""
        state = self.model.state_dict()
        for name, value in self._initial.items():
            if _below(name, turn.resets):
                state[name].copy_(value)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in self._trainable and _below(name, turn.trains))


def _below(name: str, parts: Sequence[str] | set[str]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)


class Step(nn.Module):
    """A detector of which a part is trained; its weights are saved as the detector's own, so that any step's can be loaded."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model = model

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Of the detector, whole."""
        return self.model.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Into the detector."""
        return self.model.load_state_dict(state_dict, *args, **kwargs)


class ProposalStep(Step):
    """Trains the region proposal network alone: the losses of equation 1."""

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch; `generator` decides which anchors are sampled."""
        model = self.model
        outputs = model.score_anchors(proposal_features(model, batch))
        return model.proposal_losses(batch, outputs, generator)


class DetectorStep(Step):
    """Trains the detector alone, on proposals that were made before: Fast R-CNN."""

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch that carries proposals; `generator` decides which regions are sampled."""
        assert batch.proposals is not None
        model = self.model
        features = detector_features(model, batch)
        regions = model.choose_regions(batch, features, batch.proposals, generator)
        return model.region_losses(batch, features, regions)


def proposal_features(model: FasterRCNN, batch: Batch) -> Any:
    """Return the input of `model.score_anchors`; of an unshared net, nothing else is computed."""
    return model.extract(batch, regions=False) if isinstance(model, UnsharedFasterRCNN) else model.extract(batch)


def detector_features(model: FasterRCNN, batch: Batch) -> Any:
    """Return the input of `model.classify`; of an unshared net, nothing else is computed."""
    return model.extract(batch, proposals=False) if isinstance(model, UnsharedFasterRCNN) else model.extract(batch)


# --- proposals of a whole training set --------------------------------------------------------------------------------


def propose_all(model: FasterRCNN, make: BatchMaker, *, batch_size: int, run: Run) -> list[NDArray[np.float32]]:
    """The proposals of every image of `make`, as many as training takes: (P, 4) xyxy, best first, stored pixels.

    Batch statistics are those of test mode. Every rank returns all.
    """
    return map_batches(
        model, make, lambda batch: _training_proposals(model, batch), batch_size=batch_size, run=run, name="propose"
    )


def _training_proposals(model: FasterRCNN, batch: Batch) -> list[NDArray[np.float32]]:
    logits, deltas, anchors = model.score_anchors(proposal_features(model, batch))
    found = propose(
        objectness_score(logits),
        deltas,
        anchors,
        batch.sizes,
        batch.scales,
        model.rpn_config,
        training=True,
    )
    boxes, valid = (found.boxes / batch.scales.view(-1, 1, 1)).cpu().numpy(), found.valid.cpu().numpy()
    return [row[keep].astype(np.float32) for row, keep in zip(boxes, valid, strict=True)]
