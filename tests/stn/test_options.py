"""Every key of the models changes a net or what it gives; each split, seed and limit is its own."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from paperbench.config.compose import compose
from paperbench.data.image_sets import ImageSet
from paperbench.engine.order import BatchKey
from paperbench.engine.ranks import Ranks
from paperbench.stn import colocalise_task, data, photograph_task, training
from paperbench.stn.birds import PartsNet
from paperbench.stn.data import Photographs
from paperbench.stn.house_numbers import HouseNumberNet
from paperbench.stn.training import load_digits, make_net
from paperbench.stn.transformer import SpatialTransformer

CPU = torch.device("cpu")


class _CaughtError(Exception):
    pass


def changed(config: Any, key: str, value: Any) -> Any:
    section, _, rest = key.partition(".")
    return replace(config, **{section: changed(getattr(config, section), rest, value) if rest else value})


KEYS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "st-cnn": (
        "stn-mnist", ("model=st-cnn", "model.filters=4", "distortion=rts", "transform=tps"),
        {
            "transform": "affine", "model.side": 24, "model.antialias": False, "model.transformers": 2,
            "model.control_points": 3, "model.sampler": "bicubic", "model.padding": "border", "model.filters": 6,
        },
    ),
    "st-fcn": (
        "stn-mnist", ("model=st-fcn", "model.units=8"),
        {"model.units": 9, "model.parameters": 60000, "transform": "projective"},
    ),
    "cnn": ("stn-mnist", ("model=cnn", "model.filters=4"), {"model.filters": 5, "model.side": 24, "model.parameters": 9000}),
    "dcn": (
        "stn-mnist", ("model=dcn", "model.filters=4", "model.width=3"),
        {"model.filters": 5, "model.width": 4, "model.side": 24},
    ),
}  # fmt: skip


def behaviour(config: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    net: Any = make_net(config).eval()
    for name, value in net.named_parameters():
        if "localisation" in name and value.dim() > 1:
            torch.nn.init.normal_(value, std=0.05)
    images = torch.rand(3, 1, 42, 42, generator=torch.Generator().manual_seed(2))
    return {
        "parts": [(name, tuple(value.shape)) for name, value in net.state_dict().items()],
        "logits": net(images).detach().round(decimals=4).tolist(),
    }


@lru_cache
def config_of(kind: str) -> Any:
    experiment, overrides, _ = KEYS[kind]
    return compose(experiment, ["scale=smoke", *overrides]).config


@lru_cache
def as_it_is(kind: str) -> dict[str, Any]:
    return behaviour(config_of(kind))


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, (_, _, own) in KEYS.items() for key in own])
def test_the_key_changes_something(kind: str, key: str) -> None:
    assert behaviour(changed(config_of(kind), key, KEYS[kind][2][key])) != as_it_is(kind)


def photograph_net(model: Any, net: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    own = net(model)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    for name, value in own.named_parameters():
        if "localisation" in name and value.dim() > 1:
            torch.nn.init.normal_(value, std=0.02)
    rates = {part.p for part in own.modules() if isinstance(part, torch.nn.Dropout)}
    torch.manual_seed(1)
    return {
        "parts": [tuple(value.shape) for value in own.state_dict().values()],
        "rates": sorted(rates),
        "padding": {part.padding for part in own.modules() if isinstance(part, SpatialTransformer)},
        "learning": own.train()(images).detach().round(decimals=4).tolist(),
        "logits": own.eval()(images).detach().round(decimals=4).tolist(),
    }


HOUSES = {"name": "svhn-cnn", "filters": 0.1, "hidden": 12, "dropout": 0.25, "padding": "border"}
BIRDS = {"windows": 0, "side": 48, "dropout": 0.25}


@pytest.mark.parametrize("key", list(HOUSES))
def test_the_key_of_house_numbers_changes_something(key: str) -> None:
    model = replace(
        compose("stn-svhn", ["scale=smoke"]).config.model, filters=0.05, hidden=16, name="svhn-st-multi", dropout=0.5
    )
    one, other = (
        photograph_net(own, lambda own: HouseNumberNet(own, side=64))
        for own in (model, replace(model, **{key: HOUSES[key]}))
    )
    assert one != other
    if key == "dropout":
        assert one["logits"] == other["logits"]


def test_dropout_of_convolutions_is_that_of_the_configuration() -> None:
    model = replace(compose("stn-svhn", ["scale=smoke"]).config.model, filters=0.05, hidden=16, dropout=0.125)
    assert HouseNumberNet(model, side=64).dropout == 0.125


@pytest.mark.parametrize("key", list(BIRDS))
def test_the_key_of_birds_changes_something(key: str) -> None:
    model = replace(
        compose("stn-birds", ["scale=smoke"]).config.model, backbone="small", side=32, windows=2, dropout=0.5
    )
    one, other = (
        photograph_net(own, lambda own: PartsNet(own, classes=3, pretrained=False))
        for own in (model, replace(model, **{key: BIRDS[key]}))
    )
    assert one != other


# --- photographs ------------------------------------------------------------------------------------------------------


def a_run(seed: int = 0) -> Any:
    return SimpleNamespace(device=CPU, seed=seed, ranks=Ranks(), reporter=SimpleNamespace(progress=lambda *_: None))


def photographs(level: int) -> Photographs:
    images = torch.full((4, 3, 8, 8), level, dtype=torch.uint8)
    return Photographs(images, torch.zeros(4, dtype=torch.int64), size=8, key=1, device=CPU, mirror=False)


@pytest.mark.parametrize("experiment", ["stn-svhn", "stn-birds"])
def test_photographs_are_learned_and_tested_on_their_own_split(
    monkeypatch: pytest.MonkeyPatch, experiment: str
) -> None:
    config = compose(experiment, ["scale=smoke"]).config
    seen: dict[str, Any] = {}

    def build_trainer(run: Any, module: Any, **settings: Any) -> Any:
        seen.update(settings)
        raise _CaughtError

    monkeypatch.setattr(photograph_task, "build_trainer", build_trainer)
    net: Any = torch.nn.Linear(1, 1)
    net.parameter_groups = lambda **_: []
    unused: Any = None
    with pytest.raises(_CaughtError):
        photograph_task._fit(
            config, a_run(), net, photographs(200), photographs(50), loss=unused, wrong=unused, draw=unused
        )
    learned, _ = seen["fetch"](BatchKey(0, np.arange(4), np.zeros(4, int)))
    assert learned.unique().tolist() == pytest.approx([200 / 255])
    tested, _ = next(seen["evaluate"].test_set.batches(4))
    assert tested.unique().tolist() == pytest.approx([50 / 255])


@pytest.mark.parametrize(("size", "mirror"), [(8, False), (8, True), (6, True)])
def test_photographs_are_in_0_to_1(size: int, mirror: bool) -> None:
    images = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
    own = Photographs(images, torch.zeros(4, dtype=torch.int64), size=size, key=1, device=CPU, mirror=mirror)
    learned, _ = own.fetch(BatchKey(0, np.arange(4), np.zeros(4, int)))
    tested, _ = next(own.batches(4))
    assert learned.unique().tolist() == tested.unique().tolist() == [1.0]


@pytest.mark.parametrize("split", ["train", "test"])
def test_options_reach_the_readers(monkeypatch: pytest.MonkeyPatch, split: Any) -> None:
    asked: dict[str, Any] = {}

    def note(*given: Any, **settings: Any) -> Any:
        asked.clear()
        asked.update(settings, given=given)
        return "images"

    for module, name in ((data.svhn, "load"), (data.numbers, "generate"), (data.cub, "load"), (data.parts, "generate")):
        monkeypatch.setattr(module, name, note)
    limits: dict[str, Any] = {"max_train_images": 3, "max_test_images": 5}
    limit = 3 if split == "train" else 5
    for extra in (False, True):
        config = data.SvhnData(size=32, context=0.75, extra=extra, **limits)
        data.load_numbers(config, split)
        folders = ("test",) if split == "test" else ("train", "extra") if extra else ("train",)
        assert asked["given"][1] == folders
        assert (asked["size"], asked["context"], asked["limit"]) == (32, config.margin(), limit)
    counts: dict[str, Any] = {"train_images": 20, "test_images": 30}
    count = 20 if split == "train" else 30
    data.load_numbers(data.GeneratedNumbers(size=32, data_seed=9, **counts), split)
    assert (asked["given"][0], asked["images"], asked["size"], asked["data_seed"]) == (split, count, 32, 9)
    data.load_numbers(data.GeneratedNumbers(size=32, **counts, **limits), split)
    assert asked["images"] == limit
    data.load_birds(data.CubData(size=64, **limits), split)
    assert (asked["given"][1], asked["side"], asked["limit"]) == (split, 72, limit)
    data.load_birds(data.PartsData(size=64, data_seed=9, **counts), split)
    assert (asked["given"][0], asked["images"], asked["side"], asked["data_seed"]) == (split, count, 72, 9)


# --- digits and scenes ------------------------------------------------------------------------------------------------


def test_test_digits_are_distorted_as_training_digits_are(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(training.labelled, "load", lambda config, split: digits)
    for distortion in ("none", "rts", "e"):
        config = compose("stn-mnist", ["scale=smoke", f"distortion={distortion}"]).config
        train, test = load_digits(config, a_run())
        assert type(train.distortion) is type(test.distortion)
        assert train.side == test.side
        assert train.distortion.draws == test.distortion.draws


def test_the_encoder_has_options_of_its_own(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(colocalise_task.labelled, "load", lambda config, split: digits)
    monkeypatch.setattr(colocalise_task, "stage", lambda run, *_, **__: run)
    seen: dict[str, Any] = {}

    def build_trainer(run: Any, module: Any, **settings: Any) -> Any:
        seen.update(settings)
        raise _CaughtError

    monkeypatch.setattr(colocalise_task, "build_trainer", build_trainer)
    config = compose(
        "stn-colocalise", ["scale=smoke", "encoder.samples=90", "encoder.batch_size=9", "encoder.lr=0.375",
                           "encoder.distortion=e", "train.samples=40", "train.batch_size=20"],
    ).config  # fmt: skip
    with pytest.raises(_CaughtError):
        colocalise_task._train_encoder(config, digits, a_run())
    assert (seen["loop"].samples, seen["loop"].batch_size, seen["optim"].lr) == (90, 9, 0.375)
    plain = colocalise_task.make_distortion("none")
    for inputs in (seen["fetch"].__self__, seen["evaluate"].inputs):
        assert type(inputs.distortion) is not type(plain) or inputs.distortion.draws != plain.draws


def test_each_digit_has_a_scene_of_its_own(digits: ImageSet) -> None:
    config = compose("stn-colocalise", ["scale=smoke", "clutter=0"]).config
    members = torch.arange(6)
    one, other, cluttered, reseeded = (
        colocalise_task._make_scene(own, digits, members, digit, a_run(seed))
        for own, digit, seed in ((config, 1, 0), (config, 2, 0), (replace(config, clutter=16), 1, 0), (config, 1, 1))
    )
    assert not torch.equal(one.boxes, other.boxes)
    assert not torch.equal(one.boxes, reseeded.boxes)
    assert (cluttered.images > 0).sum() > 1.3 * (one.images > 0).sum()


def test_windows_of_co_localisation_are_those_of_the_configuration() -> None:
    config = compose("stn-colocalise", ["scale=smoke"]).config
    config = replace(config, initial_scale=0.75, min_scale=0.5)
    torch.manual_seed(0)
    made = colocalise_task._make_colocaliser(config, colocalise_task._make_encoder(config), torch.rand(4, 1, 28, 28))
    images = torch.rand(3, 1, config.canvas, config.canvas)
    assert made.transformer.theta(images)[:, 0].tolist() == pytest.approx([0.75] * 3, abs=1e-4)
    assert made.transformer.min_scale == 0.5
    torch.nn.init.normal_(list(made.transformer.parameters())[-1], std=50)
    theta = made.transformer.theta(images).detach()
    assert (theta[:, 0] >= 0.5 - 1e-4).all()
    assert (theta[:, 1:].abs() <= made.reach + 1e-4).all(), "windows of the least size stay within the image"
