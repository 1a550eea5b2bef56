"""Quality of a mask without ground truth, for arrays in memory: the public entry to reverse classification accuracy."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from paperbench.errors import ConfigError, DataError
from paperbench.rca.atlas import Atlas
from paperbench.rca.cases import Image, without_itself
from paperbench.rca.config import ReferenceConfig, RegistrationConfig
from paperbench.rca.labels import Vocabulary, find_labels
from paperbench.rca.mask_metric_specs import METRIC_SPECS
from paperbench.rca.prediction import Rule, predict
from paperbench.rca.scoring import score_masks
from paperbench.rca.settings import Settings
from paperbench.rca.settings_choice import LeftOutSet, choose_in_memory

Metric = Literal["dsc", "jaccard", "precision", "recall", "asd", "hd", "hd95"]


@dataclass(frozen=True)
class QualityEstimate:
    """Predicted quality of a mask. scores: the best score over the references for each label, NaN where it is undefined."""

    metric: str
    scores: dict[int, float]


def estimate_quality(
    image: NDArray[Any],
    mask: NDArray[Any],
    references: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    *,
    spacing: Sequence[float] | None = None,
    metric: Metric = "dsc",
    choose: bool = True,
    device: torch.device | str = "cpu",
) -> QualityEstimate:
    """Return the predicted quality of `mask` by reverse classification accuracy (Valindria et al. 2017), single-atlas classifier.

    The image with its mask is registered to every reference, the mask is propagated, and the prediction for a label is the best
    score against the references' true masks (equation 2). It is not calibrated: with many references it is optimistic.

    image: (H, W) or (D, H, W), intensities of any scale. mask: labels of the same shape, integers >= 0, 0 is background.
    references: pairs of an image and its true mask, of the same number of dimensions as `image`; their shapes may differ. spacing:
    size of a voxel in millimetres along each axis, of the image and of all references; None where it is unknown (distances are then
    in voxels). metric: an overlap in 0..1 (`dsc`, `jaccard`, `precision`, `recall`), or a surface distance (`asd`, `hd`, `hd95`) in
    the unit of `spacing`. choose: the settings of the registration are those that predict degraded masks of the references best,
    each left out in turn, as in `paperbench estimate rca`; it takes seconds to minutes, once for a set of references in a process.
    False, or fewer than three references: the defaults. Labels are those that the references' masks hold. The result is
    deterministic.

    A reference of the same pixels as `image` is left out, with a warning. Raises ValueError for arrays that do not fit together,
    for a mask with other labels than the references have, and where no reference can be used.
    """
    if metric not in METRIC_SPECS:
        raise ValueError(f"metric={metric!r} is none of {', '.join(METRIC_SPECS)}")
    if not references:
        raise ValueError("references is empty: at least one image with its true mask is needed")
    dims = np.ndim(image)
    case = _image("image", image, mask, dims, spacing)
    known = [_image(f"references[{k}]", *pair, dims, spacing) for k, pair in enumerate(references)]
    try:
        labels = find_labels("values", (), (), [reference.truth for reference in known if reference.truth is not None])
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error
    assert case.truth is not None
    known, same = without_itself(case, known)
    if same:
        text = f"{', '.join(same)} is this very image and is left out: a mask is never scored on its own image"
        if not known:
            raise ValueError(f"{text}; no other reference is given")
        warnings.warn(text, stacklevel=2)
    vocabulary = Vocabulary(labels=labels, held=frozenset(labels.values), chosen=False)
    foreign, missing = vocabulary.foreign(case.truth)
    if foreign and missing:
        raise ValueError(f"the mask {vocabulary.explain(foreign, missing)}")
    case = Image(
        name=case.name,
        intensities=case.intensities,
        spacing=case.spacing,
        physical=case.physical,
        masks={"mask": case.truth},
    )
    registration = RegistrationConfig(choose=choose)
    settings = _chosen(LeftOutSet(known, labels, registration, ReferenceConfig()), device)
    classifier = Atlas(settings.apply(registration, dims), labels=labels, device=device)
    result = score_masks(case, known, classifier, labels, [metric])
    rule = Rule(higher=METRIC_SPECS[metric].higher_is_better, limit=METRIC_SPECS[metric].upper)
    return QualityEstimate(metric, {int(scores.label): predict(scores, rule).best for scores in result.masks})


_CHOSEN: Final[dict[str, Settings]] = {}
"""Settings by the content of the references, of this process."""


def _chosen(left_out: LeftOutSet, device: torch.device | str) -> Settings:
    if left_out.key not in _CHOSEN:
        _CHOSEN[left_out.key] = choose_in_memory(left_out, device).settings
    return _CHOSEN[left_out.key]


def _image(
    name: str, intensities: NDArray[Any], labels: NDArray[Any], dims: int, spacing: Sequence[float] | None
) -> Image:
    intensities, labels = np.asarray(intensities), np.asarray(labels)
    if dims not in (2, 3) or intensities.ndim != dims:
        raise ValueError(f"{name}: has {intensities.ndim} axes; images have two or three, all the same number")
    if labels.shape != intensities.shape:
        raise ValueError(f"{name}: its mask has the shape {labels.shape}, the image {intensities.shape}")
    if labels.dtype.kind not in "iub" or (labels.size and labels.min() < 0):
        raise ValueError(f"{name}: its mask must hold integers >= 0, 0 for background")
    if not np.isfinite(intensities).all():
        raise ValueError(f"{name}: has values that are not finite")
    if spacing is not None and (len(spacing) != dims or min(spacing) <= 0):
        raise ValueError(f"spacing={tuple(spacing)}: give {dims} positive lengths, one for each axis")
    return Image(
        name=name,
        intensities=intensities.astype(np.float32),
        spacing=(1.0,) * dims if spacing is None else tuple(float(value) for value in spacing),
        physical=spacing is not None,
        truth=labels.astype(np.int64),
    )
