"""A random forest on the offset box features of the reverse classifier, trained on voxels of all training images.

A stage is the forest with a number of its first trees. Voxels are sampled with balanced labels and weighted by the frequency of
their label, so that the trees learn how rare it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.engine.run import Run
from paperbench.engine.seeding import hashed
from paperbench.rca.cases import Image, normalised
from paperbench.rca.forest import Boxes, balanced, boxes, features
from paperbench.rca.segmenters.config import ForestModel
from paperbench.rca.segmenters.splits import MaskFolder, Splits

FOREST: Final = 126
LEAF: Final = 3
"""Fewest voxels of a leaf."""


class ForestSegmenter:
    """Trains and segments; see `factory.Segmenter`."""

    def __init__(self, model: ForestModel) -> None:
        self.model = model
        self.stages = tuple(f"forest-{trees}" for trees in model.trees)

    def segment(self, splits: Splits, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Write the missing masks of every stage. Every rank trains the same forest and segments its part."""
        missing = {number for stage in self.stages for number in masks.missing(stage)}
        todo = [number for number in splits.segmented if number in missing]
        if not run.ranks.any(bool(todo)):
            return {}
        chosen = boxes(splits.source.dims, seed=run.seed)
        forest = self._fit(splits, chosen, run)
        share = todo[run.ranks.rank :: run.ranks.world]
        longest = -(-len(todo) // run.ranks.world)
        for position in range(longest):
            run.raise_if_stopped()
            run.reporter.progress("segmenting", position, longest, {})
            if position < len(share):
                number = share[position]
                image = splits.read(number).intensities
                predicted = predict_stages(forest, features(normalised(image), chosen), self.model.trees)
                for stage, labels in zip(self.stages, predicted, strict=True):
                    masks.write(stage, number, labels.reshape(image.shape))
        return {}

    def _fit(self, splits: Splits, chosen: Boxes, run: Run) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        inputs, labels, weights = [], [], []
        for position, number in enumerate(splits.training):
            run.raise_if_stopped()
            run.reporter.progress("reading", position, len(splits.training), {})
            image = splits.read(number)
            sample = sample_voxels(image, self.model.voxels, np.random.default_rng(hashed(run.seed, FOREST, number)))
            assert image.truth is not None
            inputs.append(features(normalised(image.intensities), chosen)[sample])
            labels.append(image.truth.ravel()[sample])
            weights.append(sample_weights(image.truth.ravel(), labels[-1]))
        run.reporter.progress("training", 0, 1, {})
        forest = RandomForestClassifier(
            n_estimators=max(self.model.trees),
            min_samples_leaf=LEAF,
            random_state=hashed(run.seed, FOREST) % 2**32,
            n_jobs=1,
        )
        return forest.fit(np.concatenate(inputs), np.concatenate(labels), sample_weight=np.concatenate(weights))


def sample_voxels(image: Image, voxels: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return positions of at most `voxels` training voxels, balanced over the labels."""
    assert image.truth is not None
    return balanced(image.truth.ravel(), rng, voxels)


def sample_weights(whole: NDArray[np.int64], sample: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the number of voxels that each sampled one represents: labels (V,) of all, (S,) of the sample -> (S,)."""
    values, counts = np.unique(whole, return_counts=True)
    taken = np.array([max(1, int((sample == value).sum())) for value in values])
    return (counts / taken)[np.searchsorted(values, sample)]


def predict_stages(forest: Any, inputs: NDArray[np.float32], trees: Sequence[int]) -> list[NDArray[np.int64]]:
    """Return labels (V,) predicted by the first trees, for each of the ascending numbers `trees`; inputs: (V, F)."""
    out: list[NDArray[np.int64]] = []
    total = np.zeros((len(inputs), len(forest.classes_)))
    for count, tree in enumerate(forest.estimators_[: max(trees)], start=1):
        total += tree.predict_proba(inputs)
        if count in trees:
            out.append(np.asarray(forest.classes_[total.argmax(1)], np.int64))
    return out
