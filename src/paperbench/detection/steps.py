"""The two kinds of steps that alternating training is made of (section 3.2): proposals learn, or the detector does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.detection.batches import Batch, BatchMaker
from paperbench.detection.detector import FasterRCNN
from paperbench.detection.passes import over_images
from paperbench.detection.proposals import propose
from paperbench.detection.rpn import objectness_score
from paperbench.detection.unshared import UnsharedFasterRCNN
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


class RegionStep(Step):
    """Trains the detector alone, on proposals that were made before: Fast R-CNN."""

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of a batch that carries proposals; `generator` decides which regions are sampled."""
        assert batch.proposals is not None
        model = self.model
        features = region_features(model, batch)
        regions = model.choose_regions(batch, features, batch.proposals, generator)
        return model.region_losses(batch, features, regions)


def proposal_features(model: FasterRCNN, batch: Batch) -> Any:
    """What `model.score_anchors` takes, and of an unshared net nothing else."""
    return model.extract(batch, regions=False) if isinstance(model, UnsharedFasterRCNN) else model.extract(batch)


def region_features(model: FasterRCNN, batch: Batch) -> Any:
    """What `model.classify` takes, and of an unshared net nothing else."""
    return model.extract(batch, proposals=False) if isinstance(model, UnsharedFasterRCNN) else model.extract(batch)


# --- proposals of a whole training set --------------------------------------------------------------------------------


def propose_all(model: FasterRCNN, make: BatchMaker, *, batch_size: int, run: Run) -> list[NDArray[np.float32]]:
    """The proposals of every image of `make`, as many as training takes: (P, 4) xyxy, best first, stored pixels.

    Batch statistics are those of test mode. Every rank returns all.
    """
    return over_images(
        model, make, lambda batch: _training_proposals(model, batch), batch_size=batch_size, run=run, name="propose"
    )


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
