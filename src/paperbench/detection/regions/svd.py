"""Truncated singular value decomposition of fully connected layers (Fast R-CNN, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from paperbench.errors import ConfigError


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
    """Raises `ConfigError` for more ranks than there are layers, and for one that a layer does not have."""
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
