"""Every metric of the tasks of reverse classification accuracy. Imports no torch.

Statistics of predictions stand in `results.json` over all masks (`rca/mae`), by label (`rca/<label>/mae`), and, with several
segmenters, by segmenter (`rca/by/<segmenter>/mae`, `rca/by/<segmenter>/<label>/mae`). They are of the first of `metrics`; of each
further one, correlation, error and number of masks stand below its own name (`hd/mae`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from paperbench.catalog import MetricSpec
from paperbench.rca.mask_metric_specs import DISTANCE_NAMES, OVERLAP_NAMES

Direction = Literal["higher", "lower", "none"]

_STATISTICS: tuple[tuple[str, str, Direction, str], ...] = (
    ("pearson_r", "Pearson correlation of predicted and true quality", "higher", ".3f"),
    ("mae", "mean absolute error of the predicted quality", "lower", ".3f"),
    ("calibrated_mae", "mean absolute error of the calibrated prediction", "lower", ".3f"),
    ("accuracy@*", "masks classified correctly as good or poor at the threshold", "higher", ".3f"),
    ("failure_auroc", "area under the ROC curve of predicted quality as a detector of poor masks", "higher", ".3f"),
    ("coverage", "true values inside their prediction interval", "none", ".3f"),
    ("predicted_mean", "mean predicted quality", "none", ".3f"),
    ("masks", "masks whose true quality is known and predicted", "none", ".0f"),
    ("interval_width", "mean width of the prediction intervals", "lower", ".3f"),
    ("bias", "mean of predicted less true quality", "none", "+.3f"),
    ("mean_pearson_r", "Pearson correlation of the mean reference score and the true quality", "higher", ".3f"),
    ("mean_mae", "mean absolute error of the mean reference score", "lower", ".3f"),
    ("mean_bias", "mean of the mean reference score less the true quality", "none", "+.3f"),
    ("poor", "masks whose true quality is worse than the threshold", "none", ".0f"),
    ("real_mean", "mean true quality of the masks that the mean absolute error is of", "none", ".3f"),
    ("finite", "masks that the mean absolute error is of, where some distances are infinite", "none", ".0f"),
)
_HEADLINES: Final = (
    "pearson_r", "mae", "calibrated_mae", "accuracy@*", "failure_auroc", "coverage", "predicted_mean", "masks",
)  # fmt: skip


def _statistics(*, headline: bool) -> Iterator[MetricSpec]:
    for name, meaning, direction, form in _STATISTICS:
        if (name in _HEADLINES) == headline:
            yield MetricSpec(name=f"rca/{name}", meaning=meaning, direction=direction, format=form, headline=headline)


def _parts() -> Iterator[MetricSpec]:
    for name, meaning, direction, form in _STATISTICS:
        yield MetricSpec(
            name=f"rca/*/{name}", meaning=f"{meaning}, of one label or segmenter", direction=direction, format=form
        )


def _further(metric: str, unit: str) -> tuple[MetricSpec, ...]:
    return (
        MetricSpec(
            name=f"{metric}/pearson_r",
            meaning=f"Pearson correlation of predicted and true {metric}",
            direction="higher",
            format=".3f",
        ),
        MetricSpec(
            name=f"{metric}/mae",
            meaning=f"mean absolute error of the predicted {metric}",
            unit=unit,
            direction="lower",
            format=".3f",
        ),
        MetricSpec(name=f"{metric}/masks", meaning=f"masks whose true {metric} is known and predicted", format=".0f"),
    )


def _registration() -> Iterator[MetricSpec]:
    """The settings of the registration and the evidence on which they were chosen."""
    for name, meaning in (
        ("contrast", "window of the local contrast that was registered, a fraction of the side; 0: intensities"),
        ("window", "standard deviation of the window in which B-splines correlated; 0: whole images"),
        ("focus", "reach of the organs' weight, a fraction of the side; 0: none"),
        ("resolution", "factor on the resolution of all levels"),
        ("stiffness", "weight of the squared differences of neighbouring control points"),
    ):
        yield MetricSpec(name=f"registration/{name}", meaning=meaning, format=".4g")
    for name, meaning in (
        ("mae", "mean absolute error on degraded masks of the references with the chosen settings"),
        ("default_mae", "the same with the settings from which the choice starts"),
    ):
        yield MetricSpec(name=f"registration/{name}", meaning=meaning, direction="lower", format=".4f")
    yield MetricSpec(name="registration/trials", meaning="settings that were tried on the references", format=".0f")


METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="segment/*/dsc",
        meaning="mean true Dice score of a segmenter's masks",
        direction="higher",
        format=".3f",
        headline=True,
    ),
    MetricSpec(name="segment/*/masks", meaning="masks that the mean Dice score is of", format=".0f"),
    MetricSpec(
        name="segment/*/missed",
        meaning="masks with a Dice score of 0, part of the mean",
        direction="lower",
        format=".0f",
    ),
    *_statistics(headline=True),  # first: without ground truth, the mean predicted quality is the result
    MetricSpec(name="rca/cases", meaning="images with a predicted quality", format=".0f", headline=True),
    MetricSpec(
        name="rca/failed_cases",
        meaning="images for which no quality could be predicted",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="rca/flagged",
        meaning="masks whose predicted quality is worse than the threshold",
        format=".0f",
        headline=True,
    ),
    MetricSpec(name="rca/predictions", meaning="predictions, one for each mask and label", format=".0f", headline=True),
    MetricSpec(
        name="rca/undefined",
        meaning="masks and labels for which no reference gives a score",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    *_statistics(headline=False),
    *_parts(),
    *(spec for name in OVERLAP_NAMES for spec in _further(name, "")),
    *(spec for name in DISTANCE_NAMES for spec in _further(name, "mm")),
    *_registration(),
    MetricSpec(
        name="train/loss_cross_entropy", meaning="weighted cross-entropy of the U-Net", direction="lower", format=".4f"
    ),
    MetricSpec(name="train/loss_dice", meaning="1 - soft Dice score of the U-Net", direction="lower", format=".4f"),
    MetricSpec(
        name="*/train/loss_cross_entropy", meaning="the same, of a shared training", direction="lower", format=".4f"
    ),
    MetricSpec(name="*/train/loss_dice", meaning="the same, of a shared training", direction="lower", format=".4f"),
)
