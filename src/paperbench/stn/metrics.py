"""Every metric of the spatial transformer tasks. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import MetricSpec

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="test/error",
        meaning="misclassified test images; of house numbers, those with any digit wrong",
        unit="%",
        direction="lower",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/errors",
        meaning="number of misclassified test images",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="test/accuracy",
        meaning="correctly classified test images",
        unit="%",
        direction="higher",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="encoder/error",
        meaning="test digits that the encoder of co-localisation misclassifies",
        unit="%",
        direction="lower",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="colocalise/mean",
        meaning="images whose digit is found with an IoU above 0.5, mean over the digits",
        unit="%",
        direction="higher",
        format=".1f",
        headline=True,
    ),
    MetricSpec(
        name="colocalise/lowest",
        meaning="images whose digit is found, of the digit with the fewest",
        unit="%",
        direction="higher",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="colocalise/highest",
        meaning="images whose digit is found, of the digit with the most",
        unit="%",
        direction="higher",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="colocalise/iou/*",
        meaning="IoU of predicted window and digit, mean over the images of one digit",
        direction="higher",
        format=".3f",
        headline=True,
    ),
    MetricSpec(
        name="colocalise/*",
        meaning="images of one digit that is found with an IoU above 0.5",
        unit="%",
        direction="higher",
        format=".0f",
        headline=True,
    ),
    MetricSpec(name="model/parameters", meaning="number of trainable weights of the net", format=",.0f", headline=True),
    MetricSpec(name="test/loss", meaning="cross-entropy of a test image", unit="nats", direction="lower", format=".4f"),
    MetricSpec(
        name="validation/error",
        meaning="misclassified digits of those held back from training",
        unit="%",
        direction="lower",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="validation/errors",
        meaning="number of misclassified digits of those held back from training",
        direction="lower",
        format=".0f",
    ),
    MetricSpec(
        name="validation/loss",
        meaning="cross-entropy of a digit held back from training",
        unit="nats",
        direction="lower",
        format=".4f",
    ),
    MetricSpec(name="train/triplet", meaning="triplet loss of co-localisation", direction="lower"),
    MetricSpec(
        name="train/coarse",
        meaning="weighted squared distance of the windows of co-localisation from those of the search",
        direction="lower",
    ),
)
