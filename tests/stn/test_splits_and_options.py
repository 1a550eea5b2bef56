"""Which digits are trained on and tested, by which seed, and which options arrive."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from paperbench.config.compose import compose
from paperbench.data.image_sets import ImageSet
from paperbench.engine.ranks import Ranks
from paperbench.errors import ConfigError
from paperbench.stn import colocalise_task, photograph_task, training
from paperbench.stn.data import evaluation_digits, training_digits
from paperbench.stn.distortions import make_distortion
from paperbench.stn.evaluation import DigitEvaluator
from paperbench.stn.training import load_digits, make_classifier, make_trainer

CPU = torch.device("cpu")


class _CaughtError(Exception):
    pass


def a_run(seed: int = 0) -> Any:
    return SimpleNamespace(device=CPU, seed=seed, ranks=Ranks(), autocast=lambda: torch.autocast("cpu", enabled=False))


def by_split(digits: ImageSet) -> Any:
    """Training digits are bright, test digits dark."""

    def load(config: Any, split: str) -> ImageSet:
        return digits if split == "train" else replace(digits, images=digits.images // 5)

    return load


def caught(monkeypatch: pytest.MonkeyPatch, module: Any) -> dict[str, Any]:
    """Replace `build_trainer` of a module; return what it is called with."""
    seen: dict[str, Any] = {}

    def build(run: Any, net: Any, **settings: Any) -> Any:
        seen.update(settings, module=net)
        raise _CaughtError

    monkeypatch.setattr(module, "build_trainer", build)
    return seen


def test_training_and_test_digits_are_those_of_their_splits(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(training.labelled, "load", by_split(digits))
    config = compose("stn-mnist", ["scale=smoke", "distortion=r"]).config
    train, test = load_digits(config, a_run())
    assert train.images.max() == 255
    assert test.images.max() == 255 // 5
    again = load_digits(config, a_run(seed=9))
    samples, epochs = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    assert torch.equal(again[1](samples, epochs)[0], test(samples, epochs)[0]), "the test set is that of no run's seed"
    assert not torch.equal(again[0](samples, epochs)[0], train(samples, epochs)[0])
    other = load_digits(replace(config, evaluation=replace(config.evaluation, seed=77)), a_run())
    assert not torch.equal(other[1](samples, epochs)[0], test(samples, epochs)[0])


def test_images_held_back_are_the_last_and_are_not_trained_on(
    monkeypatch: pytest.MonkeyPatch, digits: ImageSet
) -> None:
    monkeypatch.setattr(training.labelled, "load", by_split(digits))
    config = compose("stn-mnist", ["scale=smoke", "distortion=r", "model=fcn", "validation.images=12"]).config
    train, held_back = load_digits(config, a_run())
    assert torch.equal(train.images, digits.images[:28])
    assert torch.equal(held_back.images, digits.images[28:])
    assert torch.equal(held_back.labels, digits.labels[28:])
    again = load_digits(config, a_run(seed=9))[1]
    samples, epochs = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    assert torch.equal(again(samples, epochs)[0], held_back(samples, epochs)[0])
    with pytest.raises(ConfigError, match=r"validation.images=40: synthetic has 40 training images"):
        load_digits(replace(config, validation=replace(config.validation, images=40)), a_run())


def test_a_score_of_images_held_back_is_no_test_error(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(training.labelled, "load", by_split(digits))
    config = compose("stn-mnist", ["scale=smoke", "distortion=none", "model=fcn", "validation.images=12"]).config
    _, held_back = load_digits(config, a_run())
    classifier = make_classifier(config, held_back, a_run())
    scores = DigitEvaluator(classifier, held_back, a_run(), batch_size=5, split="validation")()
    assert scores.keys() == {"validation/error", "validation/errors", "validation/loss"}
    logits = classifier.net(digits.images[28:, None].float() / 255)
    assert scores["validation/errors"] == int((logits.argmax(1) != digits.labels[28:]).sum())


def test_test_noise_is_not_that_of_training(digits: ImageSet) -> None:
    train, test = (make(digits, make_distortion("r"), 3, CPU) for make in (training_digits, evaluation_digits))
    samples, epochs = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    assert not torch.equal(train(samples, epochs)[0], test(samples, epochs)[0])


def test_partners_are_drawn_anew_every_epoch(digits: ImageSet) -> None:
    pairs = training_digits(digits, make_distortion("none"), 0, CPU, digits=2)
    samples = torch.arange(20)
    first, second = (pairs(samples, torch.full((20,), epoch))[1] for epoch in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rate", [0.25, 3.0])
def test_the_rate_of_the_localisation_net_arrives(
    monkeypatch: pytest.MonkeyPatch, digits: ImageSet, rate: float
) -> None:
    monkeypatch.setattr(training.labelled, "load", by_split(digits))
    config = compose("stn-mnist", ["scale=smoke", "model=st-cnn", "transform=affine"]).config
    config = replace(config, model=replace(config.model, localisation_lr=rate))
    train, test = load_digits(config, a_run())
    classifier = make_classifier(config, test, a_run())
    seen = caught(monkeypatch, training)
    with pytest.raises(_CaughtError):
        make_trainer(config, classifier, train, a_run(), None)
    assert rate in {group.get("lr_scale", 1.0) for group in seen["groups"]}


@pytest.mark.parametrize(("experiment", "rate"), [("stn-svhn", 0.25), ("stn-birds", 3.0)])
def test_the_rate_of_the_localisation_net_of_photographs_arrives(
    monkeypatch: pytest.MonkeyPatch, experiment: str, rate: float
) -> None:
    config = compose(experiment, ["scale=smoke"]).config
    config = replace(config, model=replace(config.model, localisation_lr=rate))
    asked: list[float] = []

    def groups(*, localisation_lr: float) -> list[Any]:
        asked.append(localisation_lr)
        raise _CaughtError

    net: Any = torch.nn.Linear(1, 1)
    net.parameter_groups = groups
    unused: Any = None
    one_image: Any = [1]
    with pytest.raises(_CaughtError):
        photograph_task._fit(
            config,
            a_run(),
            net,
            one_image,
            one_image,
            loss=unused,
            wrong=unused,
            draw=unused,
        )
    assert asked == [rate]


def test_errors_are_a_share_of_the_test_digits(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(training.labelled, "load", by_split(digits))
    config = compose("stn-mnist", ["scale=smoke"]).config
    _, test = load_digits(config, a_run())
    torch.manual_seed(0)
    classifier = make_classifier(config, test, a_run()).eval()
    values = DigitEvaluator(classifier, test, a_run(), batch_size=7)()
    assert values["test/error"] == pytest.approx(100 * values["test/errors"] / len(digits))


def test_the_encoder_of_colocalisation_is_tested_on_test_digits(
    monkeypatch: pytest.MonkeyPatch, digits: ImageSet
) -> None:
    monkeypatch.setattr(colocalise_task.labelled, "load", by_split(digits))
    config = compose("stn-colocalise", ["scale=smoke"]).config
    monkeypatch.setattr(colocalise_task, "stage", lambda run, *_, **__: run)
    seen = caught(monkeypatch, colocalise_task)
    with pytest.raises(_CaughtError):
        colocalise_task._train_encoder(config, digits, a_run())
    assert seen["evaluate"].inputs.images.max() == 255 // 5
    assert seen["fetch"].__self__.images.max() == 255


def test_colocalisation_looks_at_training_digits(monkeypatch: pytest.MonkeyPatch, digits: ImageSet) -> None:
    monkeypatch.setattr(colocalise_task.labelled, "load", by_split(digits))
    found: list[ImageSet] = []

    def train_encoder(config: Any, train_set: ImageSet, run: Any) -> Any:
        found.append(train_set)
        raise _CaughtError

    monkeypatch.setattr(colocalise_task, "_train_encoder", train_encoder)
    config = compose("stn-colocalise", ["scale=smoke"]).config
    with pytest.raises(_CaughtError):
        colocalise_task.run(replace(config, digits=(3,), images=2), a_run())
    assert found[0].images.max() == 255


@pytest.mark.parametrize("key", ["margin", "attraction", "search_weight"])
def test_options_of_the_objective_arrive(key: str) -> None:
    config = replace(compose("stn-colocalise", ["scale=smoke"]).config, **{key: 0.625})
    encoder = colocalise_task._make_encoder(config)
    assert getattr(colocalise_task._make_colocaliser(config, encoder, torch.rand(4, 1, 28, 28)), key) == 0.625
