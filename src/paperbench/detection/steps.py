"""The two kinds of steps that alternating training is made of (section 3.2): proposals learn, or the detector does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.detection.batches import Batch, BatchMaker, coin
from paperbench.detection.detector import FasterRCNN
from paperbench.detection.proposals import Proposals, propose
from paperbench.detection.rpn import objectness_score
from paperbench.detection.unshared import UnsharedFasterRCNN
from paperbench.engine.prefetch import Prefetcher, depth_for
from paperbench.engine.run import Run


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


class Given(NamedTuple):
    """A batch and the proposals that its regions are drawn from."""

    batch: Batch
    proposals: Proposals


class RegionStep(Step):
    """Trains the detector alone, on proposals that were made before: Fast R-CNN."""

    def forward(self, given: Given, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch; `generator` decides which regions are sampled."""
        model, batch = self.model, given.batch
        features = region_features(model, batch)
        regions = model.choose_regions(batch, features, given.proposals, generator)
        return model.region_losses(batch, features, regions)


def proposal_features(model: FasterRCNN, batch: Batch) -> Any:
    """What `model.score_anchors` takes, and of an unshared net nothing else."""
    return model.extract(batch, regions=False) if isinstance(model, UnsharedFasterRCNN) else model.extract(batch)


def region_features(model: FasterRCNN, batch: Batch) -> Any:
    """What `model.classify` takes, and of an unshared net nothing else."""
    return model.extract(batch, proposals=False) if isinstance(model, UnsharedFasterRCNN) else model.extract(batch)


# --- proposals of a whole training set --------------------------------------------------------------------------------


class TrainingProposals:
    """Proposals of every training image, handed out for batches and mirrored with their images.

    boxes: for each image (P, 4) float32 xyxy in pixels of the image as it is stored, best first. `make` is what makes the
    batches that they go with: it decides scale and flips.
    """

    def __init__(self, boxes: Sequence[NDArray[np.float32]], make: BatchMaker) -> None:
        if len(boxes) != len(make.dataset):
            raise ValueError(f"proposals of {len(boxes)} images for {len(make.dataset)} images")
        self._boxes = boxes
        self._make = make

    def __call__(self, indices: NDArray[np.int64], epochs: NDArray[np.int64]) -> Given:
        """The batch of these images and its proposals (B, P, 4), in pixels of the resized, flipped images."""
        batch = self._make(indices, epochs)
        mirrored = coin(self._make.seed, epochs, indices) < self._make.flip
        widths, scales = self._make.store.sizes[indices, 1], self._make.store.scales[indices]
        rows = [self._boxes[index] * scale for index, scale in zip(indices.tolist(), scales, strict=True)]
        for row, mirror, width in zip(rows, mirrored, widths, strict=True):
            if mirror:
                row[:, [0, 2]] = width - row[:, [2, 0]]
        most = max(1, *map(len, rows))
        boxes, valid = np.zeros((len(rows), most, 4), np.float32), np.zeros((len(rows), most), np.bool_)
        for place, row in enumerate(rows):
            boxes[place, : len(row)], valid[place, : len(row)] = row, True
        device = batch.images.device
        present = torch.from_numpy(valid).to(device, non_blocking=True)
        return Given(batch, Proposals(torch.from_numpy(boxes).to(device, non_blocking=True), present.float(), present))


def propose_all(
    model: FasterRCNN, make: BatchMaker, count: int, *, batch_size: int, run: Run, name: str = "propose"
) -> list[NDArray[np.float32]]:
    """The proposals of images 0..count-1 of `make`, as many as training takes: (P, 4) xyxy, best first, stored pixels.

    Batch statistics are those of test mode. Ranks take whole batches in turn, so the boxes do not depend on their number; every
    rank returns all. `name` is the phase under which progress is reported.
    """
    chunks = [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    own = chunks[run.ranks.rank :: run.ranks.world]
    training = model.training
    model.eval()
    answers: dict[int, NDArray[np.float32]] = {}
    with Prefetcher(
        lambda k: make(own[k], np.zeros_like(own[k])), 0, len(own), depth=depth_for(run.device), device=run.device
    ) as batches:
        stream = iter(batches)
        for turn in range(-(-len(chunks) // run.ranks.world)):
            run.raise_if_stopped()  # every rank asks in every turn, also one that has no batch left in the last
            if turn >= len(own):
                continue
            batch = next(stream)
            with run.autocast(), torch.inference_mode():
                boxes = _training_proposals(model, batch)
            answers |= dict(zip(own[turn].tolist(), boxes, strict=True))
            run.reporter.progress(name, min((turn + 1) * batch_size * run.ranks.world, count), count, {})
    model.train(training)
    everything: dict[int, NDArray[np.float32]] = {}
    for part in run.ranks.all_gather(answers):
        everything |= part
    return [everything[index] for index in range(count)]


def _training_proposals(model: FasterRCNN, batch: Batch) -> list[NDArray[np.float32]]:
    logits, deltas, anchors = model.score_anchors(proposal_features(model, batch))
    found = propose(
        objectness_score(logits),
        deltas,
        anchors,
        batch.sizes,
        pre_nms=model.pre_nms_train,
        post_nms=model.post_nms_train,
        nms_iou=model.rpn_nms_iou,
        min_size=model.min_size * batch.scales,
    )
    boxes, valid = (found.boxes / batch.scales.view(-1, 1, 1)).cpu().numpy(), found.valid.cpu().numpy()
    return [row[keep].astype(np.float32) for row, keep in zip(boxes, valid, strict=True)]
