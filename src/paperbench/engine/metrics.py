"""Metrics that the engine itself writes, whatever the task. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import MetricSpec

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="seconds_per_image",
        meaning="time to process one test image, pre-processing and post-processing included",
        unit="s",
        direction="lower",
        format=".4f",
        headline=True,
        timed=True,
    ),
    MetricSpec(
        name="train/samples_per_second",
        meaning="training samples processed in a second",
        unit="/s",
        direction="higher",
        format=".1f",
        headline=True,
        timed=True,
    ),
    MetricSpec(name="seconds", meaning="wall time of the run", unit="s", direction="lower", format=".1f", timed=True),
    MetricSpec(name="train/loss", meaning="loss of the training batches", direction="lower"),
    MetricSpec(name="train/loss*", meaning="one term of the loss of the training batches", direction="lower"),
    MetricSpec(name="train/lr", meaning="learning rate"),
)
