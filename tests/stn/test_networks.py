"""The digit nets: weights as computed from the paper, equal values by other computations, widths for a number of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import deform_conv2d

from paperbench.errors import ConfigError
from paperbench.stn.config import CnnModel, DcnModel, FcnModel, StCnnModel, StFcnModel
from paperbench.stn.deformable import DeformableFront, deform_conv
from paperbench.stn.layers import OneChannelConv2d, Resize, channels_last, count_parameters
from paperbench.stn.networks import (
    ConvolutionalNet,
    FullyConnectedNet,
    SpatialTransformerNet,
    build_net,
    nearest_width,
    parameter_groups,
)


@pytest.mark.parametrize(
    ("model", "canvas", "weights"),
    [
        (CnnModel(), 28, 208_586),
        (CnnModel(), 42, 222_026),
        (CnnModel(), 60, 270_026),
        (FcnModel(units=128), 28, 118_282),
        (FcnModel(units=128), 42, 243_722),
        (FcnModel(units=128), 60, 478_730),
        (FcnModel(), 28, 269_322),
        (FcnModel(), 42, 520_202),
        (FcnModel(), 60, 990_218),
    ],
)
def test_plain_nets_have_the_weights_of_the_stated_widths(model: Any, canvas: int, weights: int) -> None:
    assert count_parameters(build_net(model, transform="affine", canvas=canvas)) == weights


@pytest.mark.parametrize(("transform", "outputs"), [("affine", 6), ("attention", 3), ("projective", 8), ("tps", 32)])
def test_transformers_add_their_localisation_net(transform: str, outputs: int) -> None:
    net = build_net(StCnnModel(), transform=transform, canvas=28)
    assert count_parameters(net) == 208_586 + 10_960 + 20 * outputs + outputs
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("canvas", [28, 42, 60])
@pytest.mark.parametrize(
    "model",
    [
        FcnModel(units=8),
        CnnModel(filters=3),
        StFcnModel(units=8),
        StCnnModel(filters=3),
        DcnModel(filters=3),
        CnnModel(filters=3, side=28),
    ],
    ids=lambda model: f"{model.name}-{model.side}",
)
def test_every_net_takes_every_canvas(model: Any, canvas: int) -> None:
    torch.manual_seed(0)
    net = build_net(model, transform="affine", canvas=canvas)
    images = torch.rand(3, 1, canvas, canvas)
    logits = net(images)
    assert logits.shape == (3, 10)
    logits.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    rates = {
        id(p): group.get("lr_scale", 1.0)
        for group in parameter_groups(net, localisation_lr=0.1)
        for p in group["params"]
    }
    assert rates.keys() == {id(p) for p in net.parameters()}
    assert all(rates[id(p)] == 1.0 for p in net.classifier.parameters())


def test_front_ends_start_as_the_identity() -> None:
    images = torch.rand(2, 1, 28, 28)
    for model in (StCnnModel(filters=2), DcnModel(filters=2, width=3)):
        net = build_net(model, transform="tps", canvas=28)
        torch.testing.assert_close(net.classifier_input(images), images, atol=1e-5, rtol=0)


def test_a_large_canvas_is_pooled_and_a_small_one_is_not() -> None:
    sizes = {}
    for canvas in (28, 42):
        for antialias in (True, False):
            net = build_net(StFcnModel(units=4, antialias=antialias), transform="affine", canvas=canvas)
            assert isinstance(net, SpatialTransformerNet)
            sizes[canvas, antialias] = net.spatial_transformers()[0].grid.size
    assert sizes == {(28, True): (28, 28), (28, False): (28, 28), (42, True): (56, 56), (42, False): (28, 28)}


def test_two_transformers_feed_four_channels_of_a_pair_of_digits() -> None:
    net = build_net(StFcnModel(units=4, transformers=2), transform="affine", canvas=42, channels=2, classes=19)
    assert isinstance(net, SpatialTransformerNet)
    assert net.classifier_input(torch.rand(2, 2, 42, 42)).shape == (2, 4, 28, 28)
    first, second = ({id(part) for part in own.parameters()} for own in net.spatial_transformers())
    assert first
    assert not first & second, "each looks elsewhere"
    assert net(torch.rand(2, 2, 42, 42)).shape == (2, 19)


# --- widths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [60_000, 400_000])
@pytest.mark.parametrize("model", [FcnModel, CnnModel, StFcnModel, StCnnModel])
def test_the_width_comes_nearest_to_a_number_of_weights(model: Any, target: int) -> None:
    net = build_net(model(parameters=target), transform="affine", canvas=28)
    assert abs(count_parameters(net) - target) < 0.03 * target
    key = "filters" if "cnn" in model().name else "units"
    first = net.classifier.first
    assert isinstance(first, nn.Linear | nn.Conv2d)
    found = len(first.weight)
    for other in (found - 1, found + 1):
        beside = count_parameters(build_net(model(**{key: other}), transform="affine", canvas=28))
        assert abs(beside - target) >= abs(count_parameters(net) - target)


def test_the_deformable_net_has_as_many_weights_as_the_transformed_one() -> None:
    for canvas in (28, 42):
        ours = count_parameters(build_net(DcnModel(), transform="affine", canvas=canvas))
        twin = count_parameters(build_net(StCnnModel(), transform="affine", canvas=canvas))
        assert abs(ours - twin) < 0.01 * twin


def test_widths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.parameters=100: the narrowest such net has 11,268 weights already"):
        build_net(StCnnModel(parameters=100), transform="affine", canvas=28)
    with pytest.raises(ConfigError, match="has only"):
        nearest_width(lambda width: nn.Linear(1, width), 10**9, key="x")


# --- equal values by other computations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_the_one_channel_convolution_has_the_values_and_gradients_of_torch(kernel: int) -> None:
    torch.manual_seed(0)
    ours = OneChannelConv2d(5, kernel).double()
    images = torch.rand(3, 1, 9, 11, dtype=torch.float64, requires_grad=True)
    values = ours(images)
    theirs = F.conv2d(images, ours.weight, ours.bias)
    torch.testing.assert_close(values, theirs)
    assert ours.bias is not None
    inputs = (images, ours.weight, ours.bias)
    passed = torch.rand_like(values)
    for mine, other in zip(
        torch.autograd.grad(values, inputs, passed), torch.autograd.grad(theirs, inputs, passed), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_the_one_channel_convolution_passes_a_numeric_check() -> None:
    ours = OneChannelConv2d(2, 3).double()
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, (images,))


def test_the_one_channel_convolution_under_autocast() -> None:
    torch.manual_seed(0)
    ours = OneChannelConv2d(4, 3)
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        values = ours(images)
        theirs = F.conv2d(images, ours.weight, ours.bias)
    assert values.dtype == theirs.dtype == torch.bfloat16
    for mine, other in zip(
        torch.autograd.grad(values.float().sum(), (images, ours.weight)),
        torch.autograd.grad(theirs.float().sum(), (images, ours.weight)),
        strict=True,
    ):
        assert mine.dtype == other.dtype == torch.float32
        torch.testing.assert_close(mine, other, atol=0.05, rtol=0.05)


def test_without_an_input_gradient_it_is_torchs_own() -> None:
    ours = OneChannelConv2d(4, 3)
    assert "OneChannel" not in type(ours(torch.rand(1, 1, 5, 5)).grad_fn).__name__
    assert "OneChannel" in type(ours(torch.rand(1, 1, 5, 5, requires_grad=True)).grad_fn).__name__
    assert ours.state_dict().keys() == nn.Conv2d(1, 4, 3).state_dict().keys()


def test_pooling_before_the_relu_changes_nothing() -> None:
    torch.manual_seed(0)
    net = ConvolutionalNet(channels=1, side=28, filters=4, classes=10)
    images = torch.rand(2, 1, 28, 28)
    first = F.max_pool2d(F.relu(net.first(images)), 2)
    second = F.max_pool2d(F.relu(net.second(first)), 2)
    activations = net.activations(images)
    torch.testing.assert_close(activations[0], first)
    torch.testing.assert_close(activations[1], second)
    torch.testing.assert_close(net(images), net.classifier(second.flatten(1)))
    assert [part[0].numel() for part in activations] == [400, 16, 10]


def test_all_three_layers_of_the_fully_connected_net() -> None:
    net = FullyConnectedNet(channels=1, side=4, units=7, classes=3)
    activations = net.activations(torch.rand(2, 1, 4, 4))
    assert [part.shape[1] for part in activations] == [7, 7, 3]
    assert activations[0].min() >= 0


def test_channels_last_changes_no_value() -> None:
    for channels in (1, 3):
        images = torch.rand(2, channels, 4, 5)
        moved = channels_last(images)
        assert torch.equal(moved, images)
        assert moved.stride(1) == 1
        assert moved.stride()[2:] == (5 * channels, channels)


def test_a_canvas_is_resized_with_a_filter() -> None:
    images = torch.zeros(1, 1, 40, 40)
    images[:, :, ::2] = 1
    shrunk = Resize(20)(images)
    assert shrunk.shape == (1, 1, 20, 20)
    assert (shrunk[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.01
    assert Resize(40)(images) is images


def test_the_deformable_convolution_is_that_of_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 6, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    offsets = torch.randn(2, 18, 6, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, generator=generator, requires_grad=True)
    inputs = (images, offsets, weight, bias)
    ours, theirs = deform_conv(*inputs), deform_conv2d(*inputs, padding=(1, 1))
    torch.testing.assert_close(ours, theirs)
    passed = torch.rand_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs, passed), torch.autograd.grad(theirs, inputs, passed), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_offsets_learn() -> None:
    torch.manual_seed(0)
    front = DeformableFront(1, width=4)
    front(torch.rand(2, 1, 12, 12)).square().sum().backward()
    last = front.offsets[-1]
    assert last.weight.grad is not None  # type: ignore[union-attr]
    assert last.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
