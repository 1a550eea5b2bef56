"""Detections on the test split, their scores, and the pictures of both."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.base import Detector
from paperbench.detection.batches import BatchMaker
from paperbench.detection.config import DataConfig, EvaluationConfig
from paperbench.detection.drawing import precision_recall_curves, recall_curves, sheet
from paperbench.detection.evaluation.files import write_coco, write_voc
from paperbench.detection.evaluation.metrics import Evaluation, measure
from paperbench.detection.inference import Found, detect_all
from paperbench.detection.region_config import RegionEvaluation
from paperbench.engine.run import Run


class Scored(Protocol):
    """What of a configuration decides how a detector is scored."""

    @property
    def data(self) -> DataConfig: ...

    @property
    def evaluation(self) -> EvaluationConfig | RegionEvaluation: ...


class Scorer:
    """Called, it runs the detector over the test split and returns the metrics; it keeps what it found for `draw`."""

    def __init__(
        self, config: Scored, dataset: DetectionSet, model: Detector, run: Run, make: BatchMaker | None = None
    ) -> None:
        """`make`: what makes the batches of `dataset`, where they carry more than images."""
        self.config = config
        self.dataset = dataset
        self.model = model
        self.run = run
        self.make = make or BatchMaker(
            dataset,
            datasets.store(config.data, dataset, run.device),
            flip=0.0,
            seed=run.seed,
            multiple=model.multiple,
            square=model.square,
            training=False,
        )
        self.found: Found | None = None
        self.evaluation: Evaluation | None = None

    def __call__(self) -> dict[str, float]:
        """The metrics of `evaluation.metrics.measure`, the same on every rank."""
        self.found = detect_all(
            self.model,
            self.make,
            len(self.dataset),
            batch_size=self.config.evaluation.batch_size,
            run=self.run,
            progress=lambda done, total: self.run.reporter.progress("evaluate", done, total, {}),
        )
        proposals = self.found.proposals if self.config.evaluation.proposals else None
        found = self.found
        resamples = self.config.evaluation.bootstrap
        self.evaluation = self.run.ranks.on_main(
            lambda: measure(self.dataset, found.detections, proposals, resamples=resamples)
        )
        return self.evaluation.metrics

    @property
    def seconds_per_image(self) -> float:
        """Of the last evaluation: the detector alone, on one process."""
        assert self.found is not None
        return self.found.seconds_per_image

    def write(self, folder: Path) -> None:
        """Writes the detections as `paperbench eval detections` and the official tools read them.

        COCO's results JSON for data with COCO's category ids, else one `comp4_det_<split>_<class>.txt` a class.
        """
        assert self.found is not None
        images = [record.image_id for record in self.dataset.records]
        if self.dataset.category_ids:
            sizes = [(record.height, record.width) for record in self.dataset.records]
            write_coco(folder / "results.json", images, self.dataset.category_ids, self.found.detections, sizes)
        else:
            names = [str(image) for image in images]
            write_voc(folder, self.dataset.split, names, self.found.detections, self.dataset.classes)

    def draw(self, folder: Path) -> None:
        """Writes precision-recall curves, the recall of the proposals, and a sheet of test images into `folder`."""
        assert self.found is not None
        assert self.evaluation is not None
        folder.mkdir(exist_ok=True)
        precision_recall_curves(self.evaluation.voc, folder / "precision_recall.png")
        if self.evaluation.recall is not None:
            recall_curves(self.evaluation.recall, folder / "proposal_recall.png")
        page = sheet(self.dataset, self.found.detections, images=self.config.evaluation.sheet_images)
        if page is not None:
            page.save(folder / "detections.png")
