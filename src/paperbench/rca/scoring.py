"""Scores of masks: a reverse classifier segments the references, and each of these segmentations is compared with the truth.

The result of each case is a file, so that a stopped run continues with the next case.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from paperbench.engine.files import write_atomic
from paperbench.rca.cases import CaseError, Image, Remark
from paperbench.rca.label_order import Exchange, exchange, remarks_on_exchange
from paperbench.rca.labels import Labels, narrow
from paperbench.rca.mask_metrics import compare


@dataclass(frozen=True, kw_only=True)
class ReferenceLabels:
    """Predicted label maps (...) of one reference, one for each segmenter of the image.

    `failure`: the reason where there are none.
    """

    reference: str
    maps: dict[str, Tensor]
    failure: str = ""


class ReverseClassifier(Protocol):
    """A classifier that learns from one image and its masks, and segments references (Valindria et al., section III-B)."""

    def segment(self, image: Image, references: Sequence[Image]) -> Iterator[ReferenceLabels]:
        """Yield the labels of each of `references`, in their order; one that fails does not end the others."""
        ...


# --- scores of one case -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MaskScores:
    """Scores of one mask and label by one metric. real: the metric against the truth, NaN where that is unknown."""

    case: str
    segmenter: str
    label: str
    metric: str
    scores: tuple[tuple[str, float], ...]
    """(reference, score) in the order of the names; NaN where both masks are empty and the metric is undefined."""
    real: float = math.nan


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Scores of all masks of one case. failures: (reference, reason) of references that could not be used."""

    case: str
    masks: tuple[MaskScores, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()
    problems: dict[str, str] = field(default_factory=dict)
    """Reason for each segmenter, or under the empty name for the whole case, without scores."""
    remarks: tuple[Remark, ...] = ()
    seconds: float = 0.0


def score_masks(
    image: Image,
    references: Sequence[Image],
    classifier: ReverseClassifier,
    labels: Labels,
    metrics: Sequence[str],
) -> CaseResult:
    """Score every mask of `image` on every reference. Raises CaseError when no reference can be used."""
    if not image.masks:
        return CaseResult(case=image.name, problems=dict(image.problems) or {"": "no mask"}, remarks=image.remarks)
    if not references:
        raise CaseError("no reference is left to score it")
    scores: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in image.masks}
    failures: list[tuple[str, str]] = []
    exchanges: dict[str, list[Exchange]] = {name: [] for name in image.masks}
    by_name = {reference.name: reference for reference in references}
    for labelled in classifier.segment(image, references):
        if labelled.failure:
            failures.append((labelled.reference, labelled.failure))
            continue
        reference = by_name[labelled.reference]
        truth = truth_planes(reference, labels)
        for name, predicted in labelled.maps.items():
            planes = labels.planes(predicted)
            there = truth.to(planes.device)
            scores[name][labelled.reference] = compare(planes, there, reference.spacing, metrics)
            exchanges[name].append(exchange(planes, there))
    if len(failures) == len(references):
        raise CaseError(
            f"none of {len(references)} references could be used; the first, {failures[0][0]}: {failures[0][1]}"
        )
    masks = [
        MaskScores(
            case=image.name,
            segmenter=name,
            label=label,
            metric=metric,
            scores=tuple((reference, rows[k][metric]) for reference, rows in sorted(by_reference.items())),
            real=real[k][metric] if real else math.nan,
        )
        for name, by_reference in scores.items()
        for real in [true_scores(image, name, labels, metrics)]
        for k, label in enumerate(labels.names)
        for metric in metrics
    ]
    return CaseResult(
        case=image.name,
        masks=tuple(masks),
        failures=tuple(failures),
        problems=dict(image.problems),
        remarks=(*image.remarks, *remarks_on_exchange(exchanges, _exchanged_in_truth(image, labels), labels.names)),
    )


def _exchanged_in_truth(image: Image, labels: Labels) -> dict[str, Exchange]:
    if image.truth is None:
        return {}
    truth = truth_planes(image, labels)
    return {name: exchange(labels.planes(torch.from_numpy(narrow(mask))), truth) for name, mask in image.masks.items()}


def true_scores(image: Image, segmenter: str, labels: Labels, metrics: Sequence[str]) -> list[dict[str, float]] | None:
    """Return the metrics of a mask against the truth, one row for each label; None where the truth is unknown."""
    if image.truth is None:
        return None
    planes = labels.planes(torch.from_numpy(narrow(image.masks[segmenter])))
    return compare(planes, truth_planes(image, labels), image.spacing, metrics)


def truth_planes(image: Image, labels: Labels) -> Tensor:
    """Return the true masks (L, ...) of an image that has them."""
    assert image.truth is not None
    return labels.planes(torch.from_numpy(narrow(image.truth)))


# --- files ------------------------------------------------------------------------------------------------------------


FOLDER = "cases"


def result_file(folder: Path, group: str, case: str) -> Path:
    """Return the file of a case's result. Names of cases may hold any character: the file is named by their hash."""
    return folder / group / f"{hashlib.sha256(case.encode()).hexdigest()[:24]}.json"


def write_result(folder: Path, group: str, result: CaseResult) -> None:
    """Write the result of one case, entirely or not at all."""
    content = {
        "case": result.case,
        "seconds": round(result.seconds, 4),
        "problems": result.problems,
        "failures": [list(pair) for pair in result.failures],
        "remarks": [[remark.segmenter, remark.label, remark.text] for remark in result.remarks],
        "judged": [
            {
                "segmenter": mask.segmenter,
                "label": mask.label,
                "metric": mask.metric,
                "real": _text(mask.real),
                "scores": [[name, _text(score)] for name, score in mask.scores],
            }
            for mask in result.masks
        ],
    }
    path = result_file(folder, group, result.case)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, allow_nan=False))


def read_result(folder: Path, group: str, case: str) -> CaseResult | None:
    """Return the result of a case; None if none can be read: the case is then scored again."""
    try:
        content = json.loads(result_file(folder, group, case).read_text(encoding="utf-8"))
        return CaseResult(
            case=content["case"],
            seconds=content["seconds"],
            problems=content["problems"],
            failures=tuple((name, text) for name, text in content["failures"]),
            remarks=tuple(
                Remark(segmenter=segmenter, label=label, text=text)
                for segmenter, label, text in content.get("remarks", ())  # earlier versions wrote none
            ),
            masks=tuple(
                MaskScores(
                    case=content["case"],
                    segmenter=row["segmenter"],
                    label=row["label"],
                    metric=row["metric"],
                    real=float(row["real"]),
                    scores=tuple((name, float(score)) for name, score in row["scores"]),
                )
                for row in content["judged"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def of_metric(results: Sequence[CaseResult], metric: str) -> list[MaskScores]:
    """Return all scores of one metric, in the order of the cases."""
    return [mask for result in results for mask in result.masks if mask.metric == metric]


def _text(value: float) -> float | str:
    """Return a number, or text for NaN and infinity, which JSON lacks."""
    return value if math.isfinite(value) else str(value)
