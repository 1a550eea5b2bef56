"""A random forest on the offset box features of the reverse classifier, taught by voxels of all training images.

A stage is the forest with its first so many trees. Voxels are drawn so that rare labels are met, and weigh as often as they occur:
the trees know how rare they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from paperbench.engine.run import Run
from paperbench.engine.seeding import hashed
from paperbench.rca.cases import Picture, normalised
from paperbench.rca.forest import Boxes, balanced, boxes, features
from paperbench.rca.segmenters.config import ForestModel
from paperbench.rca.segmenters.masks import MaskFolder
from paperbench.rca.segmenters.shares import Shares

GROWN: Final = 126
LEAF: Final = 3
"""Fewest voxels of a leaf."""


class ForestSegmenter:
    """Grows and segments; see `making.Segmenter`."""

    def __init__(self, model: ForestModel) -> None:
        self.model = model
        self.stages = tuple(f"forest-{trees}" for trees in model.trees)

    def segment(self, shares: Shares, masks: MaskFolder, run: Run) -> dict[str, float]:
        """Writes the masks of every stage that are not there yet. Every rank grows the same forest and segments its share."""
        lacking = {number for stage in self.stages for number in masks.missing(stage)}
        todo = [number for number in shares.segmented if number in lacking]
        if not run.ranks.any(bool(todo)):
            return {}
        dims = shares.read(shares.training[0]).image.ndim
        chosen = boxes(dims, seed=run.seed)
        forest = self._grown(shares, chosen, run)
        share = todo[run.ranks.rank :: run.ranks.world]
        longest = -(-len(todo) // run.ranks.world)
        for position in range(longest):
            run.raise_if_stopped()
            run.reporter.progress("segmenting", position, longest, {})
            if position < len(share):
                number = share[position]
                drawn = drawn_by(forest, features(normalised(shares.read(number).image), chosen), self.model.trees)
                shape = shares.read(number).image.shape
                for stage, labels in zip(self.stages, drawn, strict=True):
                    masks.write(stage, number, labels.reshape(shape))
        return {}

    def _grown(self, shares: Shares, chosen: Boxes, run: Run) -> Any:
        from sklearn.ensemble import RandomForestClassifier

        seen, labels, weights = [], [], []
        for position, number in enumerate(shares.training):
            run.raise_if_stopped()
            run.reporter.progress("reading", position, len(shares.training), {})
            picture = shares.read(number)
            sample = sampled(picture, self.model.voxels, np.random.default_rng(hashed(run.seed, GROWN, number)))
            assert picture.truth is not None
            seen.append(features(normalised(picture.image), chosen)[sample])
            labels.append(picture.truth.ravel()[sample])
            weights.append(weighed(picture.truth.ravel(), labels[-1]))
        run.reporter.progress("growing", 0, 1, {})
        forest = RandomForestClassifier(
            n_estimators=max(self.model.trees),
            min_samples_leaf=LEAF,
            random_state=hashed(run.seed, GROWN) % 2**32,
            n_jobs=1,
        )
        return forest.fit(np.concatenate(seen), np.concatenate(labels), sample_weight=np.concatenate(weights))


def sampled(picture: Picture, voxels: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Places of voxels to learn from, at most so many, rare labels among them."""
    assert picture.truth is not None
    return balanced(picture.truth.ravel(), rng, voxels)


def weighed(whole: NDArray[np.int64], sample: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many voxels of the image each sampled one stands for: labels (V,) of all, (S,) of the sample -> (S,)."""
    values, counts = np.unique(whole, return_counts=True)
    taken = np.array([max(1, int((sample == value).sum())) for value in values])
    return (counts / taken)[np.searchsorted(values, sample)]


def drawn_by(forest: Any, seen: NDArray[np.float32], trees: Sequence[int]) -> list[NDArray[np.int64]]:
    """Labels (V,) that the first so many trees agree on, for each of the ascending numbers `trees`; seen (V, F)."""
    out: list[NDArray[np.int64]] = []
    total = np.zeros((len(seen), len(forest.classes_)))
    for count, tree in enumerate(forest.estimators_[: max(trees)], start=1):
        total += tree.predict_proba(seen)
        if count in trees:
            out.append(np.asarray(forest.classes_[total.argmax(1)], np.int64))
    return out
