"""One case judged: a reverse classifier draws its masks on the references, and every drawing is compared with the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paperbench.rca.cases import Picture
from paperbench.rca.classifier import ReverseClassifier
from paperbench.rca.labels import Labels, narrow
from paperbench.rca.mask_metrics import compare


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All scores of one mask and one label by one metric. `real` is the metric against the truth, nan where none is known."""

    case: str
    segmenter: str
    label: str
    metric: str
    scores: tuple[tuple[str, float], ...]
    """(reference, score) in the order of their names; nan where the metric is undefined, both masks being empty."""
    real: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """What came of one case. `failures` (reference, reason) are references that could not be used."""

    case: str
    judged: tuple[Judged, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    """Why a segmenter's mask, or with the empty name the whole case, could not be judged."""
    seconds: float = 0.0


def judge(
    picture: Picture,
    references: Sequence[Picture],
    classifier: ReverseClassifier,
    labels: Labels,
    metrics: Sequence[str],
) -> Verdicts:
    """Scores every mask of `picture` on every reference. Raises ValueError when no reference could be used."""
    if not picture.masks:
        return Verdicts(case=picture.name, problems=dict(picture.problems) or {"": "no mask to judge"})
    found: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in picture.masks}
    failures: list[tuple[str, str]] = []
    known = {reference.name: reference for reference in references}
    for drawn in classifier.draw(picture, references):
        if drawn.failure:
            failures.append((drawn.reference, drawn.failure))
            continue
        reference = known[drawn.reference]
        truth = truth_planes(reference, labels)
        for name, drawing in drawn.maps.items():
            planes = labels.planes(drawing)
            found[name][drawn.reference] = compare(planes, truth.to(planes.device), reference.spacing, metrics)
    if len(failures) == len(references):
        raise ValueError(
            f"none of {len(references)} references could be used; the first, {failures[0][0]}: {failures[0][1]}"
        )
    judged = [
        Judged(
            case=picture.name,
            segmenter=name,
            label=label,
            metric=metric,
            scores=tuple((reference, rows[k][metric]) for reference, rows in sorted(by_reference.items())),
            real=real[k][metric] if real else math.nan,
        )
        for name, by_reference in found.items()
        for real in [real_scores(picture, name, labels, metrics)]
        for k, label in enumerate(labels.names)
        for metric in metrics
    ]
    return Verdicts(case=picture.name, judged=tuple(judged), failures=tuple(failures), problems=dict(picture.problems))


def real_scores(
    picture: Picture, segmenter: str, labels: Labels, metrics: Sequence[str]
) -> list[dict[str, float]] | None:
    """The metrics of a mask against the truth, one row a label; None where the truth is not known."""
    if picture.truth is None:
        return None
    planes = labels.planes(torch.from_numpy(narrow(picture.masks[segmenter])))
    return compare(planes, truth_planes(picture, labels), picture.spacing, metrics)


def truth_planes(picture: Picture, labels: Labels) -> Tensor:
    """The true masks (L, ...) of a picture that has them."""
    assert picture.truth is not None
    return labels.planes(torch.from_numpy(narrow(picture.truth)))
