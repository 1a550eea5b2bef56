"""Every metric of the variational auto-encoder tasks. Likelihoods are means over images, in nats. Imports no torch."""

from __future__ import annotations

from paperbench.catalog import MetricSpec

METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        name="test/error",
        meaning="test images that M1 or M2 misclassifies",
        unit="%",
        direction="lower",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/errors",
        meaning="number of test images that M1 or M2 misclassifies",
        direction="lower",
        format=".0f",
        headline=True,
    ),
    MetricSpec(
        name="test/bound",
        meaning="evidence lower bound of a test image: one sample, KL in closed form",
        unit="nats",
        direction="higher",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/importance_bound",
        meaning="importance-weighted bound of a test image, with as many samples as in training",
        unit="nats",
        direction="higher",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/marginal",
        meaning="log p(x) of a test image by the estimator of appendix D",
        unit="nats",
        direction="higher",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/nll",
        meaning="minus log p(x) of a test image by importance sampling",
        unit="nats",
        direction="lower",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/squared_error",
        meaning="squared error of a test image, summed over its pixels",
        direction="lower",
        format=".2f",
        headline=True,
    ),
    MetricSpec(
        name="test/nll_error",
        meaning="standard error of test/nll due to the samples of the latent variables",
        unit="nats",
        direction="lower",
        format=".3f",
    ),
    MetricSpec(
        name="test/hmc_acceptance",
        meaning="share of the proposals of HMC that were accepted while test/marginal was estimated",
        format=".3f",
    ),
    MetricSpec(
        name="train/bound",
        meaning="evidence lower bound of a training image",
        unit="nats",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="train/importance_bound",
        meaning="importance-weighted bound of a training image",
        unit="nats",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="train/marginal",
        meaning="log p(x) of a training image by the estimator of appendix D",
        unit="nats",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="train/squared_error",
        meaning="squared error of a training image, summed over its pixels",
        direction="lower",
        format=".2f",
    ),
    MetricSpec(name="rates/chosen", meaning="rate that optim.lr=auto chose", key="optim.lr"),
    MetricSpec(
        name="rates/*/train/bound",
        meaning="evidence lower bound of a training image after rate_search.samples with this rate",
        unit="nats",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="rates/*/train/importance_bound",
        meaning="importance-weighted bound of a training image after rate_search.samples with this rate",
        unit="nats",
        direction="higher",
        format=".2f",
    ),
    MetricSpec(
        name="rates/*/train/squared_error",
        meaning="squared error of a training image after rate_search.samples with this rate",
        direction="lower",
        format=".2f",
    ),
    MetricSpec(
        name="rates/*/train/loss*",
        meaning="loss, or one term of it, with this rate; in results, of Monte Carlo EM alone, its mean over the last quarter",
        direction="lower",
    ),
    MetricSpec(name="rates/*/train/lr", meaning="learning rate of the search"),
)
