"""The module: its place in a net, its start, its gradients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paperbench.stn.grids import Affine, Affine3d, Attention, Projective, ThinPlateSpline, make_grid
from paperbench.stn.networks import FullyConnectedNet, SpatialTransformerNet
from paperbench.stn.sampling import sample
from paperbench.stn.transformer import (
    SpatialTransformer,
    convolutional,
    fully_connected,
    padded_convolutional,
    strided_convolutional,
)


def transformer(grid: nn.Module | None = None, side: int = 12, **options: object) -> SpatialTransformer:
    torch.manual_seed(0)
    localisation, features = fully_connected(1, side, width=8)
    return SpatialTransformer(
        localisation=localisation,
        features=features,
        grid=grid or Affine((side, side)),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("family", [Affine, Attention, Projective, ThinPlateSpline])
def test_it_starts_as_the_identity_whatever_the_input(family: type[nn.Module]) -> None:
    module = transformer(family((12, 12)))
    images = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(images), images, atol=1e-5, rtol=0)
    assert torch.equal(module.theta(images), module.theta(images.flip(0)))


def test_it_learns_where_to_look() -> None:
    """The gradient reaches the localisation net through the sampler, and its first step already."""
    module = transformer(start=torch.tensor([0.8, 0.1, 0.0, 0.0, 0.8, 0.0]))
    module(torch.rand(3, 1, 12, 12)).square().sum().backward()
    assert module.regression.weight.grad is not None
    assert module.regression.weight.grad.abs().sum() > 0
    nn.init.normal_(module.regression.weight)
    module(torch.rand(3, 1, 12, 12)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_another_start_and_another_output_size() -> None:
    module = transformer(Attention((5, 9)), start=torch.tensor([0.5, 0.0, 0.0]))
    assert module.theta(torch.rand(2, 1, 12, 12)).tolist() == [[0.5, 0.0, 0.0]] * 2
    assert module(torch.rand(2, 1, 12, 12)).shape == (2, 1, 5, 9)


def test_antialiasing_averages_a_finer_sample() -> None:
    images = torch.rand(2, 1, 12, 12)
    module = transformer(Affine((12, 12)), antialias=2)
    torch.testing.assert_close(module(images), nn.functional.avg_pool2d(images, 2), atol=1e-5, rtol=0)


def test_several_in_a_row_and_in_parallel() -> None:
    images = torch.rand(3, 1, 12, 12)
    row = nn.Sequential(transformer(), nn.Conv2d(1, 1, 3, padding=1), transformer())
    assert row(images).shape == images.shape
    net = SpatialTransformerNet(
        [transformer(), transformer()], FullyConnectedNet(channels=2, side=12, units=4, classes=3)
    )
    torch.testing.assert_close(net.classifier_input(images), torch.cat([images, images], 1), atol=1e-5, rtol=0)
    assert net(images).shape == (3, 3)


def test_inside_a_net_it_warps_feature_maps_and_passes_their_gradient() -> None:
    features = torch.rand(2, 4, 6, 6, requires_grad=True)
    localisation, count = fully_connected(4, 6, width=8, layers=2)
    module = SpatialTransformer(localisation=localisation, features=count, grid=Affine((6, 6)))
    module(features).sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, torch.ones_like(features), atol=1e-4, rtol=0)


def test_volumes() -> None:
    module = SpatialTransformer(
        localisation=nn.Sequential(nn.Flatten(), nn.Linear(60, 4)), features=4, grid=Affine3d((3, 4, 5))
    )
    volume = torch.rand(2, 1, 3, 4, 5)
    torch.testing.assert_close(module(volume), volume, atol=1e-5, rtol=0)


def test_grids_stay_in_float32_under_autocast() -> None:
    module = transformer()
    nn.init.normal_(module.regression.weight, std=0.1)
    images = torch.rand(2, 1, 12, 12)
    with torch.autocast("cpu", torch.bfloat16):
        theta = module.theta(images)
        warped = module.warp(images, theta)
    assert theta.dtype == torch.float32
    assert warped.dtype == torch.float32
    torch.testing.assert_close(warped, module.warp(images, theta))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("transform", ["affine", "attention", "similarity", "projective", "tps"])
@pytest.mark.parametrize("cast_back", [False, True])
def test_a_network_in_a_shorter_type_still_starts_with_the_identity(
    dtype: torch.dtype, transform: str, cast_back: bool
) -> None:
    module = SpatialTransformer(
        localisation=nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(16, 4)),
        features=4,
        grid=make_grid(transform, (256, 256)),
    ).to(dtype)
    if cast_back:
        module = module.float().to(dtype)
    images = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    warped = module(images)
    assert warped.dtype == dtype
    # A pixel's own value, to the rounding of its type and to a hundredth of the distance to its neighbour.
    torch.testing.assert_close(warped.float(), images.float(), atol=1e-2, rtol=0)
    warped.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_volumes_and_grids_of_a_shorter_type(dtype: torch.dtype) -> None:
    grid = Affine3d((64, 64, 64)).to(dtype)
    theta = grid.identity()[None].to(dtype)
    exact = Affine3d((64, 64, 64))(Affine3d((1, 1, 1)).identity()[None])
    torch.testing.assert_close(grid(theta), exact, atol=0, rtol=0)
    volume = torch.rand(1, 1, 64, 64, 64).to(dtype)
    assert (sample(volume, grid(theta)).float() - volume.float()).abs().max() < 1e-2


@pytest.mark.parametrize("transform", ["affine", "attention", "similarity", "projective", "tps"])
def test_a_grid_of_its_own_is_float32_under_autocast(transform: str) -> None:
    grid = make_grid(transform, (6, 5))
    theta = grid.identity()[None] + 0.01
    points = torch.rand(7, 2)
    with torch.autocast("cpu", torch.bfloat16):
        values = grid(theta), grid.map_points(theta, points)
    torch.testing.assert_close(values, (grid(theta), grid.map_points(theta, points)), atol=0, rtol=0)


def test_a_grid_of_volumes_is_float32_under_autocast() -> None:
    grid = Affine3d((3, 4, 5))
    theta = grid.identity()[None] + 0.01
    with torch.autocast("cpu", torch.bfloat16):
        inside = grid(theta)
    torch.testing.assert_close(inside, grid(theta), atol=0, rtol=0)


def test_gradients_of_the_whole_module_in_double() -> None:
    module = transformer(ThinPlateSpline((4, 4)), side=5).double()
    nn.init.normal_(module.regression.weight, std=0.05)
    images = torch.rand(2, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    weight = module.regression.weight

    def warp(values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {"regression.weight": values}, (images,))

    assert torch.autograd.gradcheck(warp, (weight.detach().clone().requires_grad_(),), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "side", "weights"),
    [
        (convolutional, 28, 10_960),
        (convolutional, 60, 42_960),
        (fully_connected, 28, 27_232),
        (strided_convolutional, 84, 5_920),
    ],
)
def test_localisation_nets_are_those_of_the_paper(build: object, side: int, weights: int) -> None:
    """Without the last layer: 11,086 with 6 outputs at 28, 43,632 with 32 at 60, 27,430 fully connected, 5,947 for three."""
    module, features = build(1, side)  # type: ignore[operator]
    assert sum(p.numel() for p in module.parameters()) == weights
    assert module(torch.zeros(2, 1, side, side)).shape == (2, features)


def test_an_input_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="10x10 pixels is too small"):
        convolutional(1, 10)
    assert padded_convolutional(3, 16)[1] == 32


def test_the_example_of_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "stn.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], names)
    assert names["warped"].shape == (8, 1, 28, 28)
