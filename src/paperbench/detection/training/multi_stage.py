"""What a detector on given proposals goes through, one stage after the other; each is taken up where it was.

==================  ====================================================================================================
`1-convolutions`    SPP-net without weights: the convolutions learn to classify warped regions, then are fixed
`2-net`             the net learns, by the losses that its boxes and classifier ask for
`3-boxes`           stage-wise: the layer of box regression learns, everything else is fixed (Fast R-CNN, section 5.1)
SVMs, ridges        are fitted on features of the net as it is; a resumed run fits them again
==================  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperbench.data.image_store import ImageStore
from paperbench.detection import datasets
from paperbench.detection.batches import Batch, BatchMaker, ProposalBatchMaker
from paperbench.detection.config import RCNNTrain
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.detectors.spp_net import WarpedRegionClassifier
from paperbench.detection.evaluation.inference import Scorer
from paperbench.detection.rcnn_config import RCNNModel, SPPNetModel
from paperbench.detection.training.features import FeatureStore, RegionFeatures
from paperbench.detection.training.joint import parameter_groups
from paperbench.detection.training.linear import fit_ridges, fit_svms
from paperbench.engine.run import Run
from paperbench.engine.seeding import hashed
from paperbench.engine.stages import stage
from paperbench.engine.trainer import build_trainer

MEGABYTE = 2**20
WATCHED = "coco/AP50"
STAGE = 121
"""First key of the seeds of the stages: each has its own order of images, flips and samples."""
FIT_ORDER = 120
"""First key of the stream that decides in which order images are looked at for SVMs and ridges."""


class MultiStageTraining:
    """Trains `model`, on the run's device, on `proposals` of `train_set`; (P, 4) xyxy, best first, in stored pixels."""

    def __init__(
        self,
        config: RCNNTrain,
        model: FastRCNN,
        train_set: datasets.DetectionSet,
        proposals: Sequence[NDArray[np.float32]],
        run: Run,
    ) -> None:
        self.config = config
        self.model = model
        self.train_set = train_set
        self.proposals = proposals
        self.run = run
        self.store = datasets.store(config.data, train_set, run.device)
        self._done = 0
        self._total = sum(self._steps(samples) for samples in self._samples())

    def fit(self, scorer: Scorer) -> dict[str, float]:
        """Train all stages that are left and score the result.

        Returns the last losses and the speed of the last trained stage, and the numbers of `scorer`.
        """
        several = self.config.model.boxes == "multi-task"
        self.model.train().learns = ("classification", "box") if several else ("classification",)
        # Ranks on GPUs wait for the gradient of every parameter that asks for one.
        self.model.predictor.deltas.requires_grad_(several)
        if self.single:
            return self._train("2-net", self.model, self.config.train.samples, scorer)
        metrics = {} if self._finished() else self._fit_all()
        self.model.eval()
        return {**metrics, **scorer()}

    @property
    def single(self) -> bool:
        """True where there is one stage only, with checkpoints and evaluations as of any training."""
        return len(self._samples()) == 1 and not self._fits

    @property
    def _fits(self) -> bool:
        return self.config.needs_svm or self.config.model.boxes == "ridge"

    def _finished(self) -> bool:
        """Load the weights after the last stage; False if it was not reached."""
        loaded = self.run.ranks.on_main(lambda: self.run.checkpoints.load("last"))
        if loaded is not None:
            self.model.load_state_dict(loaded[0]["module"])
        return loaded is not None

    def _fit_all(self) -> dict[str, float]:
        config, metrics = self.config.model, {}
        if isinstance(config, SPPNetModel) and config.pretrain:
            self._pretrain(config)
        if not (isinstance(config, RCNNModel) and not config.fine_tune):
            metrics = self._train("2-net", self.model, self.config.train.samples)
        if config.boxes == "stage-wise":
            metrics |= self._train_boxes()
        if self._fits:
            self._fit_linear()
        state = {"module": self.model.state_dict(), "config_hash": self.run.config_hash}
        self.run.ranks.on_main(lambda: self.run.checkpoints.save(state, step=self._total, best=True))
        return metrics

    def _samples(self) -> list[int]:
        """Images that each stage with a trainer sees."""
        model, samples = self.config.model, self.config.train.samples
        counts = [model.pretrain] if isinstance(model, SPPNetModel) and model.pretrain else []
        if not isinstance(model, RCNNModel) or model.fine_tune:
            counts.append(samples)
        return [*counts, *([samples] if model.boxes == "stage-wise" else [])]

    def _steps(self, samples: int) -> int:
        return -(-samples // self.config.train.batch_size)

    # --- trained ------------------------------------------------------------------------------------------------------

    def _train(self, name: str, module: nn.Module, samples: int, scorer: Scorer | None = None) -> dict[str, float]:
        """One stage: `module` learns with what of it asks for a gradient. With `scorer` it is the whole run."""
        run, config, before = self.run, self.config, self._done
        self._done += self._steps(samples)
        if scorer is None:
            seed = hashed(self.run.seed, STAGE, before)
            prefix = "" if name == "2-net" else None
            run = stage(run, name, before=before, total=self._total, seed=seed, log_prefix=prefix, log_offset=before)
        make = proposal_batches(self.config, self.model, self.train_set, self.proposals, self.store, run.seed)
        return build_trainer(
            run,
            module,
            optim=config.optim,
            loop=replace(config.train, samples=samples),
            order=len(self.train_set),
            fetch=lambda key: make(key.indices, key.epochs),
            groups=parameter_groups(module, backbone_lr_scale=config.optim.backbone_lr_scale),
            evaluate=scorer,
            watch=None if scorer is None else WATCHED,
        ).fit()

    def _train_boxes(self) -> dict[str, float]:
        model = self.model
        wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("predictor.deltas."))
        model.learns = ("box",)
        metrics = self._train("3-boxes", FrozenDetector(model), self.config.train.samples)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])
        return metrics

    def _pretrain(self, model: SPPNetModel) -> None:
        """The convolutions, in a net of their own that is thrown away."""
        own = self.model
        backbone, neck = own.backbone.requires_grad_(True), own.neck.requires_grad_(True)
        self._train(
            "1-convolutions",
            WarpedRegionClassifier(own, crops=model.pretrain_crops).to(self.run.device),
            model.pretrain,
        )
        backbone.requires_grad_(False)
        neck.requires_grad_(False)

    # --- fitted -------------------------------------------------------------------------------------------------------

    def _fit_linear(self) -> None:
        """Every rank fits the same: to wait for one of them would take longer than ranks wait for each other. Rank 0's count."""
        run, config, model = self.run, self.config, self.model
        make = BatchMaker(
            self.train_set, self.store, flip=0.0, seed=0, multiple=model.multiple, square=model.square, training=False
        )
        features = RegionFeatures(model, make, run)
        order = np.random.default_rng([run.seed, FIT_ORDER]).permutation(len(self.train_set))
        if config.needs_svm:
            assert model.svm is not None
            model.svm.set(*run.ranks.all_gather(self._svms(features, order))[0])
        if model.ridge is not None:
            found = fit_ridges(
                self.train_set,
                self.proposals,
                lambda image, boxes: features(image, boxes, "pool5"),
                config=config.model.ridge,
                order=order,
                progress=self._progress("box regression"),
            )
            weights, biases, scale = run.ranks.all_gather(found)[0]
            if weights.shape[-1]:
                model.ridge.set(weights, biases, scale)

    def _svms(self, features: RegionFeatures, order: NDArray[np.int64]) -> tuple[Any, Any, float]:
        layer, ranks = self.config.model.features, self.run.ranks

        def compute(image: int) -> NDArray[np.float32]:
            record = self.train_set.records[image]
            objects = record.boxes[record.wanted].astype(np.float32)
            return features(image, np.concatenate([self.proposals[image], objects]), layer)

        store = FeatureStore(
            self.run.directory.path / "features" / str(ranks.rank),
            limit=self.config.model.features_mb * MEGABYTE // ranks.world,
            compute=compute,
        )
        found = fit_svms(
            self.train_set,
            self.proposals,
            store,
            config=self.config.model.svm,
            order=order,
            progress=self._progress("SVMs"),
        )
        store.remove()
        return found

    def _progress(self, name: str) -> Callable[[int, int], None]:
        def report(done: int, total: int) -> None:
            self.run.raise_if_stopped()  # every rank looks at the same images in the same order
            self.run.reporter.progress(name, done, total, {})

        return report


def proposal_batches(
    config: RCNNTrain,
    model: FastRCNN,
    dataset: datasets.DetectionSet,
    proposals: Sequence[NDArray[np.float32]],
    store: ImageStore,
    seed: int,
    *,
    training: bool = True,
) -> ProposalBatchMaker:
    """Return the maker of batches with their proposals."""
    return ProposalBatchMaker(
        dataset,
        store,
        proposals,
        flip=config.data.flip,
        seed=seed,
        multiple=model.multiple,
        square=model.square,
        training=training,
    )


class FrozenDetector(nn.Module):
    """A detector of which one layer learns: everything else is as at test, batch statistics and dropout too."""

    def __init__(self, model: FastRCNN) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> FrozenDetector:
        """The detector stays in test mode."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The losses of `learns`."""
        return self.model(batch, generator)
