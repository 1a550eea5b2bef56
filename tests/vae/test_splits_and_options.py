"""Which split is measured, by which units, and which options arrive."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from paperbench.data.image_sets import ImageSet
from paperbench.engine.order import EpochOrder
from paperbench.vae import data
from paperbench.vae.config import FreyData
from paperbench.vae.data import Pixels
from paperbench.vae.evaluation import Evaluator
from paperbench.vae.objectives import Aevb, make_objective
from paperbench.vae.training import Training
from tests.vae.runs import configured, make_run

CPU = torch.device("cpu")


def pixels(level: int, *, images: int = 12, split: Any = "train", binarisation: Any = "grey") -> Pixels:
    grey = torch.full((images, 28, 28), level, dtype=torch.uint8)
    own = ImageSet(images=grey, labels=torch.zeros(images, dtype=torch.int64), classes=("a",), name="grey")
    return Pixels(own, split=split, binarisation=binarisation, divisor=255, device=CPU)


def measured(folder: Path, train: Pixels, test: Pixels, *overrides: str, samples: int = 0) -> dict[str, float]:
    config, resolved = configured("model.latent=2", "model.hidden=8", *overrides)
    config = replace(config, evaluation=replace(config.evaluation, importance_samples=samples))
    run = make_run(folder, config, resolved)
    torch.manual_seed(0)
    objective = make_objective(config, size=train.size, images=len(train))
    evaluator = Evaluator(config, objective, train, test, run)
    return {**evaluator(), **evaluator.likelihood()}


def test_the_test_images_move_the_test_s_numbers_alone(tmp_path: Path) -> None:
    asked = ("evaluation.marginal.images=3", "evaluation.marginal.samples=10", "evaluation.marginal.burn_in=2",)  # fmt: skip
    before = measured(tmp_path / "a", pixels(200), pixels(100), *asked, samples=3)
    other_test = measured(tmp_path / "b", pixels(200), pixels(20), *asked, samples=3)
    other_train = measured(tmp_path / "c", pixels(90), pixels(100), *asked, samples=3)
    assert {"test/bound", "train/bound", "test/marginal", "train/marginal", "test/nll"} <= before.keys()
    for name, value in before.items():
        split = name.partition("/")[0]
        assert (other_test[name] == value) == (split == "train") or name.endswith("acceptance"), name
        assert (other_train[name] == value) == (split == "test"), name
    assert before["test/nll"] == pytest.approx(-before["test/bound"], rel=0.2)


def test_the_error_of_a_mean_falls_with_the_number_of_images(tmp_path: Path) -> None:
    few, many = (
        measured(tmp_path / str(count), pixels(200), pixels(100, images=count), samples=20) for count in (10, 160)
    )
    assert many["test/nll_error"] == pytest.approx(few["test/nll_error"] / 4, rel=0.5)


def test_a_mean_does_not_depend_on_the_number_of_equal_images(tmp_path: Path) -> None:
    few, many = (
        measured(tmp_path / str(count), pixels(200, images=20), pixels(100, images=count))["test/bound"]
        for count in (400, 1100)
    )
    assert many == pytest.approx(few, rel=0.02)


@pytest.mark.parametrize("divisor", [255, 256])
def test_faces_are_divided_by_what_the_configuration_says(monkeypatch: pytest.MonkeyPatch, divisor: Any) -> None:
    def faces(root: Any, split: str, *, test_images: int) -> ImageSet:
        images = torch.full((9, 28, 20), 255, dtype=torch.uint8)
        return ImageSet(images=images, labels=torch.zeros(9, dtype=torch.int64), classes=("face",), name=split)

    monkeypatch.setattr(data.frey, "load", faces)
    config = FreyData(divisor=divisor, max_train_images=7, max_test_images=4)
    train, test = (data.load(config, split, binarisation="grey", device=CPU) for split in ("train", "test"))
    assert (len(train), len(test)) == (7, 4)
    for batch in (test.eval_batch(), train.train_batch(EpochOrder(7, 3, 0).batch(0), seed=0)):
        assert batch.unique().tolist() == pytest.approx([255 / divisor])


def test_each_split_is_binarised_by_a_draw_of_its_own() -> None:
    train, test = (pixels(128, split=split, binarisation="static").eval_batch() for split in ("train", "test"))
    assert not torch.equal(train, test)


def test_the_prior_is_a_decay_of_one_image_s_share_once(tmp_path: Path) -> None:
    config, resolved = configured("prior=true", "optim.name=adagrad", "optim.weight_decay=0.25")
    run = make_run(tmp_path / "run", config, resolved)
    training = Training.build(config, run, pixels(200, images=8), pixels(100))
    assert max(group["weight_decay"] for group in training.trainer.optimizer.param_groups) == pytest.approx(0.375)


def test_the_weight_of_the_divergence_arrives() -> None:
    config, _ = configured()
    torch.manual_seed(0)
    weighted = make_objective(replace(config, model=replace(config.model, beta=4.0)), size=(28, 28), images=1)
    assert isinstance(weighted, Aevb)
    x, noise = torch.rand(1, 3, 784), torch.zeros(1, 1, 3, weighted.encoder.latent)
    losses = {name: loss.item() for name, loss in weighted.losses(x, noise).items()}
    weighted.beta = 1.0
    plain = {name: loss.item() for name, loss in weighted.losses(x, noise).items()}
    assert losses["loss_kl"] == pytest.approx(4 * plain["loss_kl"])
    assert not math.isnan(plain["loss_kl"])
