"""Every metric of the distillation tasks. Imports no torch.

Names begin with the net they belong to: `teacher` (`teacher-0`, `teacher-1` in an ensemble), `baseline`, `distilled`, `generalist`,
`specialists`; `corrected` and `validated` are the distilled student with a bias on the logits of omitted classes (section 3).
"""

from __future__ import annotations

from paperbench.catalog import MetricSpec

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="distilled/test/errors",
        meaning="test images that the distilled student misclassifies",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="specialists/test/errors",
        meaning="test images that generalist and specialists together misclassify",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="*/test/errors", meaning="misclassified test images", direction="lower", format=".0f", headline=True
    ),
    MetricSpec(
        name="*/omitted/errors",
        meaning="misclassified test images of the classes that the student never saw",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="*/omitted/right",
        meaning="correctly classified test images of the classes that the student never saw",
        unit="%",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="*/test/accuracy",
        meaning="correctly classified test images",
        unit="%",
        direction="higher",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="distilled/train/agreement",
        meaning="images of a transfer set without classes that student and teacher classify alike",
        unit="%",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="*/conditional/accuracy",
        meaning="correctly classified test images of a specialist's classes when only these classes may be predicted (table 3)",
        unit="%",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="specialists/relative_gain",
        meaning="gain in correctly classified test images over the generalist alone",
        unit="%",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(name="*/test/error", meaning="misclassified test images", unit="%", direction="lower", format=".2f"),
    MetricSpec(
        name="*/test/nll",
        meaning="negative log-likelihood of the labels per test image",
        unit="nats",
        direction="lower",
        format=".4f",
    ),
    MetricSpec(
        name="*/train/accuracy",
        meaning="correctly classified images of those that the net learned from",
        unit="%",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(name="*/validation/errors", meaning="misclassified validation images", direction="lower", format=".0f"),
    MetricSpec(
        name="*/validation/error", meaning="misclassified validation images", unit="%", direction="lower", format=".2f"
    ),
    MetricSpec(
        name="*/validation/accuracy",
        meaning="correctly classified validation images",
        unit="%",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="*/validation/nll",
        meaning="negative log-likelihood of the labels per validation image",
        unit="nats",
        direction="lower",
        format=".4f",
    ),
    MetricSpec(
        name="corrected/bias",
        meaning="constant on the logits of the omitted classes with the fewest errors on the test images",
        format="+.3f",
    ),
    MetricSpec(
        name="validated/bias",
        meaning="constant on the logits of the omitted classes with the fewest errors on validation images",
        format="+.3f",
    ),
    MetricSpec(
        name="corrected/removed",
        meaning="test errors that the bias chosen on the test images removes",
        unit="%",
        direction="higher",
        format=".1f",
    ),
    MetricSpec(
        name="validated/removed",
        meaning="test errors that the bias chosen on validation images removes",
        unit="%",
        direction="higher",
        format=".1f",
    ),
    MetricSpec(name="specialists/count", meaning="specialists", format=".0f"),
    MetricSpec(name="specialists/classes", meaning="classes that at least one specialist knows", format=".0f"),
    MetricSpec(
        name="coverage/*/examples",
        meaning="test images whose class this number of specialists know (table 4)",
        format=".0f",
    ),
    MetricSpec(
        name="coverage/*/more_correct",
        meaning="correctly classified of these test images, less those of the generalist alone (table 4)",
        direction="higher",
        format="+.0f",
    ),
    MetricSpec(
        name="coverage/*/relative_gain",
        meaning="the same, relative to the generalist alone (table 4)",
        unit="%",
        direction="higher",
        format="+.1f",
    ),
    MetricSpec(name="*/train/loss", meaning="sum of the losses", direction="lower", format=".4f"),
    MetricSpec(
        name="*/train/loss_soft",
        meaning="weighted loss of the soft targets, multiplied by the squared temperature",
        direction="lower",
        format=".4f",
    ),
    MetricSpec(
        name="*/train/loss_hard", meaning="weighted cross-entropy with the labels", direction="lower", format=".4f"
    ),
    MetricSpec(
        name="*/train/samples_per_second",
        meaning="training samples per second of this stage",
        unit="/s",
        direction="higher",
        format=".1f",
        timed=True,
    ),
)
