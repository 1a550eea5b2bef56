"""House numbers and birds: their nets, their batches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch

from paperbench.data.image_sets import NONE
from paperbench.engine.order import EpochOrder
from paperbench.errors import ConfigError, DataError
from paperbench.stn.birds import PartsNet, check_weights, make_trunk, tiles
from paperbench.stn.config import Backbone, HouseNumberModel, PartsModel
from paperbench.stn.data import Photographs
from paperbench.stn.house_numbers import HouseNumberNet, input_theta, sequence_loss, to_number, wrong_sequences
from paperbench.stn.layers import count_parameters

CPU = torch.device("cpu")
Nets = Literal["svhn-cnn", "svhn-st-single", "svhn-st-multi"]


def small(name: Nets) -> HouseNumberModel:
    return HouseNumberModel(name=name, filters=0.1, hidden=16)


def parts_net(windows: Literal[0, 2, 4], classes: int) -> PartsNet:
    return PartsNet(PartsModel(windows=windows, backbone="small", side=32, dropout=0.0), classes=classes)


# --- house numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "transformers"), [("svhn-cnn", 0), ("svhn-st-single", 1), ("svhn-st-multi", 4)])
@pytest.mark.parametrize("side", [32, 64])
def test_transformers_stand_where_the_paper_has_them(name: Nets, transformers: int, side: int) -> None:
    torch.manual_seed(0)
    net = HouseNumberNet(small(name), side=side)
    assert [int(number) for number in net.transformers] == list(range(transformers))
    images = torch.rand(2, 3, side, side)
    logits = net(images)
    assert logits.shape == (2, 5, 11)
    sequence_loss(logits, torch.full((2, 5), NONE)).backward()
    assert all(p.grad is not None for p in net.parameters())
    theta = input_theta(net, images)
    assert (theta is None) == (name == "svhn-cnn")
    grouped = [p for group in net.parameter_groups(localisation_lr=0.1) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}


def test_transformers_that_stand_still_change_nothing() -> None:
    torch.manual_seed(0)
    multi = HouseNumberNet(small("svhn-st-multi"), side=32).eval()
    plain = HouseNumberNet(small("svhn-cnn"), side=32).eval()
    plain.load_state_dict({k: v for k, v in multi.state_dict().items() if not k.startswith("transformers")})
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(multi(images), plain(images), atol=1e-4, rtol=1e-4)


def test_widths_are_the_papers() -> None:
    with torch.device("meta"):
        net = HouseNumberNet(HouseNumberModel(name="svhn-cnn"), side=64)
    assert [layer.weight.shape[0] for layer in net.convolutions] == [48, 64, 128, 160, 192, 192, 192, 192]  # type: ignore[union-attr]
    assert net.body[0].weight.shape == (3072, 3072)  # type: ignore[union-attr]
    with torch.device("meta"), pytest.raises(ValueError, match="8x8 pixels is too small"):
        HouseNumberNet(HouseNumberModel(name="svhn-cnn"), side=8)


def test_a_number_is_wrong_if_any_place_is() -> None:
    labels = torch.tensor([[1, 2, NONE, NONE, NONE]] * 3)
    logits = torch.zeros(3, 5, 11).scatter_(2, labels[..., None], 5.0)
    logits[1, 1, 7] = 9.0
    logits[2, 4, 0] = 9.0
    assert wrong_sequences(logits, labels).tolist() == [False, True, True]
    assert [to_number(row) for row in logits.argmax(2)] == ["12", "17", "12"]
    assert to_number(torch.tensor([NONE] * 5)) == ""
    by_place = sum(torch.nn.functional.cross_entropy(logits[:, k], labels[:, k]) for k in range(5))
    torch.testing.assert_close(sequence_loss(logits, labels), torch.as_tensor(by_place))


# --- birds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [0, 2, 4])
def test_windows_begin_as_tiles_and_learn(windows: Literal[0, 2, 4]) -> None:
    torch.manual_seed(0)
    net = parts_net(windows, 7)
    images = torch.rand(3, 3, 48, 48)
    assert [part.shape for part in net.parts(images)] == [(3, 3, 32, 32)] * max(1, windows)
    if windows:
        assert torch.equal(net.centres(images)[1], tiles(windows))
    logits = net(images)
    assert logits.shape == (3, 7)
    logits.square().sum().backward()
    grouped = [p for group in net.parameter_groups(localisation_lr=0.1) for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in net.parameters()}
    if windows:
        assert net.placer is not None
        assert net.placer.regression.weight.grad is not None
        assert net.placer.regression.weight.grad.abs().sum() > 0


def test_a_window_shows_its_quarter() -> None:
    net = parts_net(4, 2).eval()
    images = torch.zeros(1, 3, 64, 64)
    images[:, :, 32:, :32] = 1  # lower left
    with torch.no_grad():
        means = [float(part.mean()) for part in net.parts(images)]
    assert means == pytest.approx([0, 0, 1, 0], abs=0.05)
    with pytest.raises(ValueError, match="2 or 4"):
        tiles(3)


def test_the_small_trunk_pools_by_the_maximum_and_others_by_the_mean() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        small, squeezenet = make_trunk("small", None).eval(), make_trunk("squeezenet1_1", None).eval()
        torch.testing.assert_close(small.pooled(images), small(images).amax((2, 3)))
        torch.testing.assert_close(squeezenet.pooled(images), squeezenet(images).mean((2, 3)))


@pytest.mark.parametrize("name", get_args(Backbone))
def test_trunks_have_the_channels_they_state(name: Backbone) -> None:
    trunk = make_trunk(name, None).eval()
    with torch.inference_mode():
        assert trunk(torch.rand(1, 3, 64, 64)).shape[1] == trunk.channels


def test_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    model = squeezenet1_1()
    half = {key: value.half() for key, value in model.state_dict().items()}
    torch.save(half, tmp_path / "squeezenet.pth")
    trunk = make_trunk("squeezenet1_1", str(tmp_path / "squeezenet.pth"))
    torch.testing.assert_close(trunk.body[0].weight, half["features.0.weight"].float())  # type: ignore[index, union-attr]
    with pytest.raises(DataError, match="not the weights of resnet18"):
        make_trunk("resnet18", str(tmp_path / "squeezenet.pth"))
    with pytest.raises(ConfigError, match="no such file"):
        check_weights("resnet18", str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match="small backbone has no published weights"):
        check_weights("small", "DEFAULT.pth")
    check_weights("resnet18", "DEFAULT")


# --- batches ----------------------------------------------------------------------------------------------------------


def photographs(*, size: int, mirror: bool) -> Photographs:
    images = torch.arange(6 * 3 * 10 * 10).view(6, 3, 10, 10).remainder(251).to(torch.uint8)
    return Photographs(images, torch.arange(6), size=size, key=4, device=CPU, mirror=mirror)


def pixels_of(source: Photographs) -> torch.Tensor:
    assert isinstance(source.images, torch.Tensor)
    return source.images


def test_crops_come_from_their_images_and_are_mirrored_at_times() -> None:
    source = photographs(size=7, mirror=True)
    crops, labels = source.fetch(EpochOrder(6, 30, 0).batch(2))
    whole = pixels_of(source).float() / 255
    found = set()
    for crop, label in zip(crops, labels.tolist(), strict=True):
        places = [
            (y, x, flipped)
            for y in range(4)
            for x in range(4)
            for flipped in (False, True)
            if torch.equal(
                crop,
                (whole[label, :, y : y + 7, x : x + 7].flip(2) if flipped else whole[label, :, y : y + 7, x : x + 7]),
            )
        ]
        assert places
        found.add(places[0])
    assert {flipped for _, _, flipped in found} == {False, True}
    assert len(found) > 8
    again, _ = photographs(size=7, mirror=True).fetch(EpochOrder(6, 30, 0).batch(2))
    assert torch.equal(crops, again)


def test_test_images_are_the_middle_and_complete() -> None:
    source = photographs(size=6, mirror=False)
    parts = list(source.batches(4))
    images = torch.cat([part[0] for part in parts])
    assert torch.equal(images, pixels_of(source)[:, :, 2:8, 2:8].float() / 255)
    assert torch.cat([part[1] for part in parts]).tolist() == list(range(6))


def test_images_of_their_own_size_are_taken_as_they_are() -> None:
    source = photographs(size=10, mirror=False)
    images, labels = source.fetch(EpochOrder(6, 3, 0).batch(0))
    assert torch.equal(images, source.images[labels].float() / 255)


def test_the_weights_of_the_paper_sizes() -> None:
    """The localisation nets of ST-CNN Multi are small beside the rest."""
    with torch.device("meta"):
        nets = [HouseNumberNet(HouseNumberModel(name=name), side=64) for name in get_args(Nets)]
    plain, single, multi = (count_parameters(net) for net in nets)
    assert plain < single < multi
    assert np.isclose(multi / plain, 1.2, atol=0.1)
