"""Classifiers of torchvision: found by their parameters, refused with a reason, and the same function as torchvision's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms.functional import normalize

from paperbench.distill import torchvision_nets
from paperbench.distill.config import TorchvisionNet
from paperbench.distill.nets import absorb_normalisation, from_weights
from paperbench.distill.torchvision_nets import IMAGENET, Classifier
from paperbench.errors import ConfigError, DataError, PaperbenchError

SIZE = (3, 32, 32)


def body(arch: str, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(arch, weights=None, num_classes=classes).eval()


def saved(path: Path, arch: str, classes: int = 3) -> Path:
    torch.save(body(arch, classes).state_dict(), path)
    return path


@pytest.mark.parametrize(
    "arch", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5"]
)
def test_an_architecture_is_found_by_its_parameters(arch: str) -> None:
    tensors = torchvision_nets.plain(body(arch).state_dict())
    assert torchvision_nets.architecture(tensors) == arch
    assert torchvision_nets.classes_in(arch, tensors) == 3


@pytest.mark.parametrize(("arch", "other"), [("resnet50", "wide_resnet50_2"), ("resnet18", "resnet34")])
def test_relatives_are_told_apart(arch: str, other: str) -> None:
    given = torchvision_nets._given(
        {name: torch.empty(shape, device="meta") for name, shape in torchvision_nets._shapes(arch).items()}
    )
    assert torchvision_nets._matches(arch, given)
    assert not torchvision_nets._matches(other, given)


def test_a_teacher_is_torchvisions_function_of_its_pixels() -> None:
    plain = body("resnet18")
    for name, value in plain.named_buffers():  # those of a trained net are not zero and one
        if name.endswith(("running_mean", "running_var")):
            value.add_(torch.rand_like(value))
    net = from_weights({f"module.{name}": value for name, value in plain.state_dict().items()}, size=SIZE, classes=3)
    x = torch.rand(2, 3 * 32 * 32)
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x.view(2, *SIZE)))
        absorb_normalisation(net, mean=IMAGENET[0], std=IMAGENET[1], size=SIZE)
        normalised = normalize(x.view(2, *SIZE), list(IMAGENET[0]), list(IMAGENET[1]))
        torch.testing.assert_close(net(x), plain(normalised))


def test_a_net_of_a_run_keeps_its_normalisation() -> None:
    torch.manual_seed(0)
    net = torchvision_nets.build(TorchvisionNet(arch="squeezenet1_1"), size=(1, 32, 32), classes=3).eval()
    again = from_weights(net.state_dict(), size=(1, 32, 32), classes=3)
    x = torch.rand(2, 32 * 32)
    with torch.no_grad():
        torch.testing.assert_close(again(x), net(x))


def test_a_training_starts_from_weights(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.pth", "resnet18")
    net = torchvision_nets.build(TorchvisionNet(arch="resnet18", weights=str(file)), size=SIZE, classes=3)
    torch.testing.assert_close(net.body.state_dict(), body("resnet18").state_dict())
    fresh = TorchvisionNet(arch="resnet18", weights=str(saved(tmp_path / "v.pth", "resnet18", 7)), head="new")
    torchvision_nets.check(fresh, "model", size=SIZE, classes=3)
    net = torchvision_nets.build(fresh, size=SIZE, classes=3)
    assert net.body.fc.weight.shape == (3, 512)  # type: ignore[union-attr]
    torch.testing.assert_close(net.body.conv1.weight, body("resnet18", 7).conv1.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        ({"arch": "resnet81"}, SIZE, "no classifier of torchvision. Nearest: resnet"),
        ({"arch": "maskrcnn_resnet50_fpn"}, SIZE, "no classifier of torchvision"),
        ({"arch": "vit_b_16"}, SIZE, "takes no images of 32x32 pixels"),
        ({"arch": "resnet18", "head": "new"}, SIZE, "belongs to model.weights"),
        (
            {"arch": "resnet18", "weights": "FILE"},
            SIZE,
            "holds the weights of resnet34, not of resnet18: model.arch=resnet34",
        ),
        ({"arch": "resnet34", "weights": "FILE"}, SIZE, "has 5 classes, the data have 3; model.head=new"),
        ({"arch": "resnet18", "weights": "/no/file.pth"}, SIZE, "no such file"),
    ],
)
def test_what_does_not_fit_is_refused(
    config: dict[str, str], size: tuple[int, int, int], message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if config.get("weights") == "FILE":
        config = {**config, "weights": str(saved(tmp_path_factory.mktemp("w") / "w.pth", "resnet34", 5))}
    with pytest.raises((ConfigError, DataError)) as caught:
        torchvision_nets.check(TorchvisionNet(**config), "model", size=size, classes=3)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_weights_of_another_net_and_pickles_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "linear.pth")
    torch.save(nn.Linear(3, 3), tmp_path / "pickle.pth")
    for name, message in (("linear", "not the weights of resnet18"), ("pickle", "holds no plain tensors")):
        config = TorchvisionNet(arch="resnet18", weights=str(tmp_path / f"{name}.pth"))
        with pytest.raises(PaperbenchError, match=message):
            torchvision_nets.check(config, "model", size=SIZE, classes=3)


def test_a_teacher_of_other_classes_is_named() -> None:
    with pytest.raises(ValueError, match="it is a resnet18 of 7 classes, the data have 3"):
        from_weights(body("resnet18", 7).state_dict(), size=SIZE, classes=3)
    with pytest.raises(ValueError, match="only convnets of this program and classifiers of torchvision"):
        from_weights(nn.Conv2d(3, 4, 3).state_dict(), size=SIZE, classes=3)


def test_grey_images_become_three_channels() -> None:
    net = Classifier(body("squeezenet1_1"), size=(1, 32, 32)).eval()
    x = torch.rand(1, 32 * 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    with torch.no_grad():
        torch.testing.assert_close(net(x), net.body((x.view(1, 1, 32, 32).expand(-1, 3, -1, -1) - mean) / std))
