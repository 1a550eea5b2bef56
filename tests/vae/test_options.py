"""Every key of models and estimators changes the nets, a loss or a measurement; each number has its split, limit and unit."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from paperbench.config.compose import compose
from paperbench.data.image_sets import ImageSet
from paperbench.engine.ranks import Ranks
from paperbench.vae import data, drawing, predict, semi_task, training
from paperbench.vae.config import FreyData, MarginalConfig
from paperbench.vae.data import Pixels
from paperbench.vae.hmc import LogDensity
from paperbench.vae.likelihood import estimate_marginal
from paperbench.vae.objectives import Mcem, Variational, make_objective
from paperbench.vae.semi import M2, make_classifier
from paperbench.vae.stacked import stack_key
from paperbench.vae.training import Training
from tests.vae.runs import configured, make_run
from tests.vae.test_splits_and_options import measured, pixels

CPU = torch.device("cpu")


class _CaughtError(Exception):
    pass


def changed(config: Any, key: str, value: Any) -> Any:
    section, _, rest = key.partition(".")
    return replace(config, **{section: changed(getattr(config, section), rest, value) if rest else value})


CHANGES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "vae": (
        ("model.hidden=6", "model.latent=2"),
        {
            "model.net": "conv", "model.latent": 3, "model.hidden": 8, "model.activation": "relu", "model.init_std": 0.5,
            "model.likelihood": "gaussian", "model.beta": 3.0, "bound.form": "sampled", "bound.samples": 4,
        },
    ),
    "gaussian": (("model.hidden=6", "model.latent=2", "model.likelihood=gaussian"), {"model.min_log_variance": 0.5}),
    "conv": (("model.net=conv", "model.hidden=6", "model.latent=2"), {"model.channels": 8, "model.activation": "relu"}),
    "autoencoder": (("model=autoencoder", "model.hidden=6"), {"model.activation": "relu", "model.init_std": 0.5}),
    "mcem": (
        ("estimator=mcem", "model.hidden=6", "model.latent=2", "evaluation.marginal.images=1"),
        {"mcem.leapfrog_steps": 3, "mcem.acceptance": 0.3},
    ),
}  # fmt: skip


def behaviour(config: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    objective = make_objective(config, size=(28, 28), images=5)
    x = torch.rand(5, 784, generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {"parts": [(name, tuple(value.shape)) for name, value in objective.state_dict().items()]}
    given: Any = (x, torch.arange(5), 0) if isinstance(objective, Mcem) else x[None]
    losses = objective(given, torch.Generator().manual_seed(1))
    found |= {name: [round(value, 4) for value in loss.flatten().tolist()] for name, loss in losses.items()}
    if isinstance(objective, Mcem):
        found["step size"] = round(float(objective.step_size), 6)
    if isinstance(objective, Variational):
        found["code"] = objective.encoder.posterior(x).mean.detach().round(decimals=4).tolist()
    return found


@lru_cache
def as_it_is(kind: str) -> dict[str, Any]:
    return behaviour(configured(*CHANGES[kind][0])[0])


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, (_, own) in CHANGES.items() for key in own])
def test_the_key_changes_something(kind: str, key: str) -> None:
    config, _ = configured(*CHANGES[kind][0])
    assert behaviour(changed(config, key, CHANGES[kind][1][key])) != as_it_is(kind)


def normal(z: torch.Tensor) -> torch.Tensor:
    return -0.5 * (z.square() / 0.25).sum(-1)


MARGINAL = {"samples": 15, "leapfrog_steps": 1, "transitions": 2, "burn_in": 1, "acceptance": 0.5, "density": "kde"}


@pytest.mark.parametrize("key", [field.name for field in fields(MarginalConfig) if field.name != "images"])
def test_every_key_of_appendix_d_changes_the_estimate(key: str) -> None:
    config = MarginalConfig(samples=10, burn_in=5)
    density: LogDensity = normal
    one, other = (
        estimate_marginal(density, torch.zeros(3, 2), own, torch.Generator().manual_seed(0)).log_likelihood
        for own in (config, replace(config, **{key: MARGINAL[key]}))
    )
    assert not torch.equal(one, other)


# --- measurements -----------------------------------------------------------------------------------------------------


def mixed(level: int, *, images: int, split: Any = "train") -> Pixels:
    """Half of the images of one grey, half of another."""
    grey = torch.full((images, 28, 28), level, dtype=torch.uint8)
    grey[images // 2 :] = 255 - level
    own = ImageSet(images=grey, labels=torch.zeros(images, dtype=torch.int64), classes=("a",), name="grey")
    return Pixels(own, split=split, binarisation="grey", divisor=255, device=CPU)


def test_limits_of_measurements_are_their_own(tmp_path: Path) -> None:
    base = measured(tmp_path / "a", mixed(240, images=20), mixed(240, images=20, split="test"), samples=5)
    limited = measured(
        tmp_path / "b", mixed(240, images=20), mixed(240, images=20, split="test"), "evaluation.train_images=10",
        "evaluation.likelihood_images=10", samples=5,
    )  # fmt: skip
    assert limited["test/bound"] == base["test/bound"], (
        "the limit of the training images is not that of the test images"
    )
    assert limited["train/bound"] != base["train/bound"]
    assert limited["test/nll"] != base["test/nll"]


def test_more_importance_samples_make_a_smaller_error(tmp_path: Path) -> None:
    few, many = (
        measured(tmp_path / str(count), pixels(200), pixels(100), samples=count)["test/nll_error"] for count in (4, 400)
    )
    assert many < few / 3


def test_the_importance_bound_has_the_samples_of_the_objective(tmp_path: Path) -> None:
    one, many = (
        measured(tmp_path / str(count), pixels(200), pixels(100), "bound.form=importance", f"bound.samples={count}")
        for count in (1, 60)
    )
    assert many["test/bound"] == one["test/bound"]
    assert many["test/importance_bound"] > one["test/importance_bound"]


def test_measurements_after_so_many_samples(tmp_path: Path) -> None:
    config, resolved = configured("evaluation.at_samples=[30,61]", "train.batch_size=10", "train.samples=100")
    run = make_run(tmp_path / "run", config, resolved)
    assert Training.build(config, run, pixels(200), pixels(100)).trainer.evaluate_at == {3, 7}


def test_the_prior_is_on_the_generative_model_alone(tmp_path: Path) -> None:
    config, resolved = configured("prior=true", "optim.name=adagrad", "optim.weight_decay=0.25", "train.batch_size=2")
    run = make_run(tmp_path / "run", config, resolved)
    training = Training.build(config, run, pixels(200, images=8), pixels(100))
    names = {id(value): name for name, value in training.objective.named_parameters()}
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in training.trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == set(names.values())
    for name, value in decay.items():
        assert value == pytest.approx(0.25 if name.startswith("encoder.") else 0.375), name


@pytest.mark.parametrize("times", [1, 3])
def test_a_posterior_sample_serves_for_as_many_updates(tmp_path: Path, times: int) -> None:
    config, resolved = configured(
        "estimator=mcem",
        "model.latent=2",
        "evaluation.marginal.images=1",
        f"mcem.updates={times}",
        "train.batch_size=4",
    )
    run = make_run(tmp_path / "run", config, resolved)
    order = Training.build(config, run, pixels(200), pixels(100)).trainer.order
    batches = [order.batch(step).indices.tolist() for step in range(6)]
    assert [batches[k] == batches[k - k % times] for k in range(6)] == [True] * 6
    assert batches[0] != batches[times]


def test_images_are_binarised_by_the_seed_of_the_run(tmp_path: Path) -> None:
    images = []
    for seed in (1, 2):
        config, resolved = configured(f"seed={seed}", "binarisation=dynamic")
        run = make_run(tmp_path / str(seed), config, resolved)
        train = pixels(128, binarisation="dynamic")
        trainer = Training.build(config, run, train, pixels(100)).trainer
        order = trainer.order.batch(0)
        images.append(trainer.fetch(replace(order, indices=np.arange(4), epochs=np.zeros(4, int))))
    assert not torch.equal(*images)


def test_runs_are_stacked_with_their_like_alone() -> None:
    config, _ = configured()
    others: dict[str, Any] = {
        "binarisation": "static", "estimator": "wake-sleep", "train.samples": 7, "train.batch_size": 3, "optim.weight_decay": 0.5,
        "bound.samples": 3, "model.activation": "relu", "model.beta": 2.0, "prior": True, "data.max_train_images": 3,
        "evaluation.train_images": 7,
    }  # fmt: skip
    for key, value in others.items():
        assert stack_key(changed(config, key, value)) != stack_key(config), key
    for key, value in {"seed": 5, "optim.lr": 0.5, "model.latent": 3}.items():
        assert stack_key(changed(config, key, value)) == stack_key(config), key


# --- few labels -------------------------------------------------------------------------------------------------------


def test_the_images_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(config: Any, split: str) -> ImageSet:
        images = torch.full((40, 28, 28), 200 if split == "train" else 50, dtype=torch.uint8)
        images[:, 0, 0] = torch.arange(40)
        return ImageSet(images=images, labels=torch.arange(40) % 10, classes=tuple("0123456789"), name=split)

    monkeypatch.setattr(semi_task.labelled, "load", load)
    chosen = []
    for seed in (0, 1):
        config = compose("vae-semi", ["scale=smoke", "labels=20", f"seed={seed}"]).config
        config = replace(config, binarisation="grey")
        images = semi_task._load(config, SimpleNamespace(device=CPU))  # pyright: ignore[reportArgumentType]
        assert (len(images.train), len(images.labelled), len(images.unlabelled), len(images.test)) == (40, 20, 20, 40)
        assert images.test.eval_batch()[:, 5].unique().tolist() == pytest.approx([50 / 255])
        assert images.train.eval_batch()[:, 5].unique().tolist() == pytest.approx([200 / 255])
        own, rest = (
            {int(value) for value in (part.eval_batch()[:, 0] * 255).round().tolist()}
            for part in (images.labelled, images.unlabelled)
        )
        assert own | rest == set(range(40))
        assert not own & rest
        chosen.append(own)
    assert chosen[0] != chosen[1]


def test_the_weight_of_the_classes_arrives() -> None:
    config: Any = compose("vae-semi", ["scale=smoke"]).config.model
    losses = []
    for alpha in (0.1, 0.4):
        torch.manual_seed(0)
        model = M2(replace(config, alpha=alpha), pixels=9, classes=10, labelled_fraction=0.5)
        batch: Any = (torch.rand(4, 9), torch.rand(4, 9), torch.arange(4))
        losses.append(model(batch, torch.Generator().manual_seed(0)))
    assert losses[1]["loss_classes"].item() == pytest.approx(4 * losses[0]["loss_classes"].item(), rel=1e-4)


@pytest.mark.parametrize("classifier", ["svm", "logistic"])
def test_the_penalty_of_a_classifier_arrives(classifier: Any) -> None:
    config: Any = compose("vae-semi", ["scale=smoke", "model=m1"]).config.model
    made = make_classifier(replace(config, classifier=classifier, regularisation=0.625))
    assert made[-1].C == 0.625
    assert type(made[-1]).__name__ == {"svm": "SVC", "logistic": "LogisticRegression"}[classifier]


# --- faces and pictures -----------------------------------------------------------------------------------------------


def test_as_many_faces_are_held_back_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def load(root: Any, split: str, *, test_images: int) -> ImageSet:
        asked.append(test_images)
        raise _CaughtError

    monkeypatch.setattr(data.frey, "load", load)
    for split in ("train", "test"):
        with pytest.raises(_CaughtError):
            data.load(FreyData(test_images=123), split, binarisation="grey", device=CPU)
    assert asked == [123, 123]


@pytest.mark.parametrize("divisor", [255, 256])
def test_pictures_are_divided_as_the_images_were(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, divisor: Any) -> None:
    seen: list[torch.Tensor] = []

    def encode(objective: Any, x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        raise _CaughtError

    monkeypatch.setattr(predict, "load_objective", lambda *_, **__: (None, 0))
    monkeypatch.setattr(drawing, "encode", encode)
    file = tmp_path / "white.png"
    Image.fromarray(np.full((28, 20), 255, np.uint8)).save(file)
    config: Any = SimpleNamespace(device="cpu", data=FreyData(divisor=divisor))
    with pytest.raises(_CaughtError):
        predict.predict(config, tmp_path, [file], tmp_path / "out")
    assert seen[0].unique().tolist() == pytest.approx([255 / divisor])


def test_curves_are_over_training_samples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    records = [{"step": step, "test/bound": -step, "train/bound": -step} for step in (2, 4)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    figures: list[Any] = []
    monkeypatch.setattr(drawing, "save", lambda figure, output: figures.append(figure))
    drawing.plot_bound(file, tmp_path / "x.png", batch_size=50)
    (axes,) = figures[0].axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[100, 200], [100, 200]]


def test_figures_of_a_run_know_its_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, resolved = configured("train.batch_size=7")
    config = replace(config, evaluation=replace(config.evaluation, pictures=True))
    run = make_run(tmp_path / "run", config, resolved)
    made = Training.build(config, run, pixels(200), pixels(100))
    drawn: dict[str, Any] = {}
    note: Any = SimpleNamespace(
        ranks=Ranks(),
        directory=run.directory,
        draw=lambda function, *given, **more: drawn.update({function.__name__: more}),
    )
    replace(made, run=note, evaluator=SimpleNamespace(likelihood=dict)).finish({})  # pyright: ignore[reportArgumentType]
    assert drawn["plot_bound"] == {"batch_size": 7}
    assert drawn["draw_figures"] == {"seed": config.seed}
    assert training.MIN_STEPS_TO_COMPILE > 0


def test_the_activation_is_that_of_both_halves() -> None:
    config, _ = configured(*CHANGES["vae"][0])
    other = behaviour(changed(config, "model.activation", "relu"))
    assert other["code"] != as_it_is("vae")["code"], "of the encoder alone"


def test_the_classifier_of_m1_learns_from_labelled_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose("vae-semi", ["scale=smoke", "model=m1"]).config
    seen: dict[str, int] = {}

    class Classifier:
        def fit(self, codes: Any, labels: Any) -> None:
            seen["fit"] = len(codes)

        def predict(self, codes: Any) -> Any:
            seen["predict"] = len(codes)
            return np.zeros(len(codes), np.int64)

    monkeypatch.setattr(semi_task, "make_classifier", lambda model: Classifier())
    monkeypatch.setattr(
        semi_task, "build_trainer", lambda *_, evaluate, **__: SimpleNamespace(fit=evaluate)
    )  # fmt: skip
    images: Any = SimpleNamespace(
        train=pixels(9, images=30),
        labelled=pixels(9, images=10),
        test=pixels(9, images=20),
        unlabelled=pixels(9, images=20),
    )
    run: Any = SimpleNamespace(device=CPU, seed=0)
    found = semi_task._run_m1(config, run, images)
    assert seen == {"fit": 10, "predict": 20}
    assert found["test/errors"] == 0
