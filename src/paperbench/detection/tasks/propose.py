"""Task `detect-proposals`: the proposals of a data set in a file, and how much of its objects they cover."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from paperbench.config.words import counted
from paperbench.data.detection import DetectionSet
from paperbench.detection import datasets
from paperbench.detection.config import Propose
from paperbench.detection.describe import describe_data, describe_proposals
from paperbench.detection.drawing import recall_curves
from paperbench.detection.evaluation import recall
from paperbench.detection.proposals import source
from paperbench.detection.proposals.sets import ProposalSet
from paperbench.engine.files import write_atomic
from paperbench.engine.run import Run

__all__ = ["plan", "run"]


def plan(config: Propose) -> Mapping[str, str]:
    """Describe the proposals to make; raise the error of a configuration that cannot work."""
    datasets.locate(config.data)
    source.check(config.proposals, config.splits)
    return {
        "data": describe_data(config.data),
        "proposals": describe_proposals(config.proposals),
        "splits": " and ".join(config.splits),
    }


def run(config: Propose, run: Run) -> dict[str, float]:
    """Write `proposals/<split>.npz` into the run's folder, and for each split the recall of its objects.

    `proposals/recall50@N`, `proposals/recall70@N`, `proposals/AR@N` and `proposals/per_image` are of the test split, or of
    the one that there is; with both, those of the training split have `train/` before them.
    """
    metrics: dict[str, float] = {}
    for split in config.splits:
        dataset = datasets.load(config.data, split)
        run.reporter.message(datasets.describe(dataset))
        own = config.proposals
        found = source.proposals_of(
            dataset,
            own,
            run,
            root=config.output.root,
            file=own.train_file if split == "train" else own.test_file,
            count=own.train_count if split == "train" else own.test_count,
        )
        covered = run.ranks.on_main(partial(_written, dataset, found, split, run))
        prefix = "train/" if split == "train" and "test" in config.splits else ""
        metrics |= {f"{prefix}{name}": value for name, value in covered.items()}
    return metrics


def _written(dataset: DetectionSet, found: ProposalSet, split: str, run: Run) -> dict[str, float]:
    folder = run.directory.path
    file = folder / "proposals" / f"{split}.npz"
    found.write(file)
    covered = recall.evaluate(dataset.records, found.boxes)
    run.draw(recall_curves, covered, run.directory.figures / f"proposal_recall_{split}.png")
    _write_curves(covered, folder / "proposals" / f"recall_{split}.csv")
    run.reporter.message(f"{file}: {counted(sum(map(len, found.boxes)), 'boxes')} of {len(found)} images")
    return complete(covered)


def _write_curves(covered: recall.RecallResult, path: Path) -> None:
    """Recall in percent, one line an overlap, one column a number of proposals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["iou", *(f"recall@{count}" for count in covered.counts)])
    for column, overlap in enumerate(covered.thresholds):
        writer.writerow([f"{overlap:.2f}", *(f"{100 * value:.4f}" for value in covered.recall[:, column])])
    write_atomic(path, text.getvalue())


def complete(covered: recall.RecallResult) -> dict[str, float]:
    """Its metrics, those of larger numbers too: the best N are all boxes where an image has fewer, so recall stays."""
    metrics = covered.metrics()
    for name in ("proposals/recall50@", "proposals/recall70@", "proposals/AR@"):
        for count in recall.COUNTS:
            if metrics:
                metrics.setdefault(f"{name}{count}", metrics[f"{name}{covered.counts[-1]}"])
    return metrics
