from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import deform_conv2d

from paperbench.detection.deformable import DeformableConv, deform, sampled_conv2d
from paperbench.errors import ConfigError


@pytest.mark.parametrize(("stride", "padding", "dilation"), [((1, 1), (1, 1), (1, 1)), ((2, 1), (0, 2), (1, 2))])
def test_values_and_gradients_equal_torchvisions(
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 7, requires_grad=True)
    weight, bias = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)
    places = nn.functional.conv2d(x, weight, None, stride, padding, dilation).shape[-2:]
    offset = (2 * torch.randn(2, 18, *places)).requires_grad_()
    inputs = (x, offset, weight, bias)
    common: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    ours, theirs = sampled_conv2d(*inputs, **common), deform_conv2d(*inputs, **common)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    weighting = torch.randn_like(ours)
    for found, expected in zip(
        torch.autograd.grad((ours * weighting).sum(), inputs),
        torch.autograd.grad((theirs * weighting).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_without_offsets_it_is_the_convolution_it_replaces() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
    x = torch.randn(2, 4, 8, 10)
    torch.testing.assert_close(DeformableConv(conv)(x), conv(x), atol=1e-5, rtol=1e-5)


def test_the_last_trained_3x3_convolutions_are_replaced() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 3))
    net[0].requires_grad_(False)
    deform([net], 2)
    kinds = [type(module) for module in (net[0], net[1][0], net[1][1], net[2])]  # pyright: ignore[reportIndexIssue]
    assert kinds == [nn.Conv2d, DeformableConv, nn.Conv2d, DeformableConv]


def test_more_than_there_are_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    with pytest.raises(ConfigError, match=r"model.deformable=2: the backbone has 1 .* from 0 to 1"):
        deform([net], 2)
