"""The same weights used in other ways at test: what ablations of Fast R-CNN compare, truncated SVD among them (section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from paperbench.detection.build import build
from paperbench.detection.config import RCNNTrain, Variant
from paperbench.detection.detectors.fast_rcnn import FastRCNN
from paperbench.detection.rcnn_config import RCNNModel
from paperbench.errors import ConfigError


@contextmanager
def variant(model: FastRCNN, name: Variant, config: RCNNTrain) -> Iterator[None]:
    """`model` as the variant for the length of the block.

    `no-boxes`: proposals are not moved (Fast R-CNN, table 6); `svd`: `model.svd` singular values of each layer of the head
    (section 3.1); `svm`, `softmax`: the other classifier (table 8).
    """
    before = model.head, model.classifier, model.box_source
    try:
        if name == "no-boxes":
            model.box_source = "none"
        elif name == "svd":
            model.head = truncated_head(model.head, config.model.svd)
        else:
            model.classifier = name
        yield
    finally:
        model.head, model.classifier, model.box_source = before


def truncated(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Two layers in place of one: u x v weights become `rank` (u + v), the nearest matrix of that rank.

    W = U S V^T is cut to `rank` singular values; the first layer is S V^T and has no bias, the second U with the old bias.
    """
    u, s, v = torch.linalg.svd(layer.weight.detach().float(), full_matrices=False)
    first = nn.Linear(layer.in_features, rank, bias=False)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_(s[:rank, None] * v[:rank])
        second.weight.copy_(u[:, :rank])
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second).to(layer.weight.device, layer.weight.dtype)


def truncated_head(head: nn.Sequential, ranks: Sequence[int]) -> nn.Sequential:
    """A copy of a head of fully connected layers, the first of them cut to `ranks[0]`, the next to `ranks[1]`, and so on."""
    layers = [place for place, module in enumerate(head) if isinstance(module, nn.Linear)]
    check_ranks([head[place] for place in layers], ranks)  # pyright: ignore[reportArgumentType]
    parts = list(deepcopy(head))
    for place, rank in zip(layers, ranks, strict=False):
        layer = parts[place]
        assert isinstance(layer, nn.Linear)
        parts[place] = truncated(layer, rank)
    return nn.Sequential(*parts).train(head.training)


def check_ranks(layers: Sequence[nn.Linear], ranks: Sequence[int]) -> None:
    """Raise `ConfigError` for more ranks than there are layers, and for one that a layer does not have."""
    if len(ranks) > len(layers):
        raise ConfigError(
            f"model.svd={list(ranks)}: the head has {len(layers)} fully connected layers; give as many numbers"
        )
    for number, (layer, rank) in enumerate(zip(layers, ranks, strict=False), start=1):
        most = min(layer.in_features, layer.out_features)
        if rank > most:
            raise ConfigError(
                f"model.svd={list(ranks)}: layer {number} is {layer.in_features} x {layer.out_features} and has {most} singular "
                f"values; give at most that"
            )


def check_variants(config: RCNNTrain) -> None:
    """Raise `ConfigError` for variants of a net that are the net itself, or that it lacks the means for."""
    model, variants = config.model, config.evaluation.variants
    faults = []
    if model.classifier in variants:
        faults.append(f"evaluation.variants: {model.classifier} is what the model does anyway; leave it out")
    if "no-boxes" in variants and model.boxes == "none":
        faults.append("evaluation.variants: no-boxes is what model.boxes=none does anyway; leave it out")
    if "softmax" in variants and isinstance(model, RCNNModel) and not model.fine_tune:
        faults.append("evaluation.variants: softmax is not trained with model.fine_tune=false; leave it out")
    if "svd" in variants and not model.svd:
        faults.append(
            "evaluation.variants: svd needs model.svd, the singular values kept of each layer, such as [1024, 256]"
        )
    if faults:
        raise ConfigError(*faults)
    if model.svd:
        with torch.device("meta"):
            net = build(model, classes=["object"], pretrained=False)
        assert isinstance(net, FastRCNN)
        check_ranks([part for part in net.head if isinstance(part, nn.Linear)], model.svd)
