from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.detection.backbones import BACKBONES, freeze, small
from paperbench.detection.detectors.faster_rcnn import build_faster_rcnn
from paperbench.detection.tasks.train import plan
from paperbench.detection.training.joint import parameter_groups
from paperbench.errors import ConfigError, DataError


@pytest.mark.parametrize("name", BACKBONES)
def test_features_have_the_stated_channels_and_stride(name: str) -> None:
    with torch.device("meta"):  # shapes alone: VGG-16 has 138 million parameters
        backbone = BACKBONES[name](None)
        features = backbone.features(torch.zeros(1, 3, 256, 320))
    assert features.shape[1] == backbone.channels
    for size, side in zip(features.shape[2:], (256, 320), strict=True):
        assert abs(size - side / backbone.stride) <= 1
    if backbone.head is not None:
        pooled = torch.zeros(2, backbone.channels, backbone.pool_size, backbone.pool_size, device="meta")
        assert backbone.head(pooled).shape == (2, backbone.head_channels)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_detector_is_built_on_every_backbone(name: str) -> None:
    model = compose(
        "faster-rcnn", ["scale=paper", "data=voc", f"model.backbone={name}", "model.weights=null"]
    ).config.model
    model.frozen_layers = 1
    with torch.device("meta"):
        detector = build_faster_rcnn(model, classes=["cat", "dog"])
    assert detector.predictor.scores.out_features == 3
    groups = parameter_groups(detector, backbone_lr_scale=0.5)
    counted = sum(parameter.numel() for group in groups for _, parameter in group["params"])
    assert counted == sum(p.numel() for p in detector.parameters() if p.requires_grad)
    assert counted < sum(p.numel() for p in detector.parameters())


def test_vgg16_freezes_the_layers_before_conv3_1() -> None:
    with torch.device("meta"):
        backbone = BACKBONES["vgg16"](None)
    freeze(backbone)
    channels = [layer.weight.shape[0] for layer in backbone.layers if layer.weight.requires_grad]  # pyright: ignore
    assert channels == [256] * 3 + [512] * 6


def test_freezing_more_layers_than_there_are_is_a_mistake_that_says_how_many() -> None:
    with pytest.raises(ConfigError, match=r"small has 5 layers"):
        freeze(small(), 6)


def test_frozen_batch_norm_keeps_its_statistics() -> None:
    model = compose("faster-rcnn", ["scale=smoke"]).config.model
    model.frozen_layers = 2
    detector = build_faster_rcnn(model, classes=["cat"]).train()
    state = [module.training for module in detector.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert state == [False, False, True, True, True]


def test_weights_from_a_file_in_half_precision(tmp_path: Path) -> None:
    saved = small().features.state_dict()
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in saved.items()}, tmp_path / "w.pth"
    )
    loaded = small(str(tmp_path / "w.pth"))
    assert loaded.pretrained
    for key, value in loaded.features.state_dict().items():
        assert value.dtype == saved[key].dtype
        torch.testing.assert_close(value, saved[key], atol=1e-3, rtol=1e-3)


def test_weights_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    wrong, cut, code = tmp_path / "wrong.pth", tmp_path / "cut.pth", tmp_path / "code.pth"
    torch.save({"0.0.weight": torch.zeros(1)}, wrong)
    cut.write_bytes(wrong.read_bytes()[:100])
    torch.save({"x": Path("x")}, code)
    with pytest.raises(DataError, match=r"wrong\.pth.*not the weights of this backbone"):
        small(str(wrong))
    for path in (cut, code):
        with pytest.raises(DataError, match=rf"{path.name}.*cannot be read as a state dict"):
            small(str(path))
    with pytest.raises(ConfigError, match=r"DEFAULT.*no such file"):
        small("DEFAULT")
    with pytest.raises(ConfigError, match=r"IMAGENET1K_V1"):
        BACKBONES["squeezenet1_1"]("IMAGENET1K")


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for overrides, message in {
        ("model.weights=nowhere.pth",): r"nowhere\.pth: no such file",
        ("model.backbone=vgg16", "model.head.hidden=0", "model.projection=64"): r"model\.projection=64",
        ("model.frozen_layers=9",): r"small has 5 layers",
        ("data=voc", f"data.root={tmp_path}"): r"no data set 'voc' here",
        ("data=coco", f"data.root={tmp_path}"): r"no data set 'coco' here",
        ("data=pennfudan", f"data.root={tmp_path}"): r"no data set 'pennfudan' here",
    }.items():
        with pytest.raises((ConfigError, DataError), match=message):
            plan(compose("faster-rcnn", ["scale=smoke", *overrides]).config)
    assert list(tmp_path.iterdir()) == []
