"""The tasks through the engine: refusals, results and figures, and stopped runs that end as uninterrupted ones."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from paperbench.config.compose import compose
from paperbench.engine import launch, metriclog
from paperbench.engine.checkpoints import CheckpointStore
from paperbench.engine.metrics import METRICS as ENGINE_METRICS
from paperbench.engine.reporter import SilentReporter
from paperbench.errors import EXIT_STOPPED, ConfigError, DataError
from paperbench.records.metrics import MetricRegistry
from paperbench.stn import task
from paperbench.stn.metrics import METRICS
from paperbench.stn.predict import read_digit
from tests.data.test_mnist import write_mnist

DECLARED = MetricRegistry((*METRICS, *ENGINE_METRICS))
"""Every metric that a run of the package may write."""
PLAIN = ("scale=smoke", "device=cpu", "threads=1", "precision=float32")


def start(folder: Path, experiment: str, *overrides: str) -> launch.Outcome:
    composed = compose(experiment, [*PLAIN, *overrides])
    return launch.start(composed.resolved, run_dir=folder, reporter=SilentReporter())


def plan(experiment: str, *overrides: str) -> dict[str, str]:
    composed = compose(experiment, [*PLAIN, *overrides])
    return dict(importlib.import_module(composed.task.module).plan(composed.config))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    loaded = CheckpointStore(folder / "checkpoints", sweep=False).load()
    assert loaded is not None
    return loaded[0]["module"]


# --- plans ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "transform", "text"),
    [
        ("fcn", "affine", "FCN, 520,202 weights"),
        ("st-cnn", "tps", "ST-CNN (tps), "),
        ("st-fcn", "projective", "ST-FCN (projective), "),
        ("dcn", "affine", "DCN, "),
    ],
)
def test_a_plan_names_the_net_and_its_number_of_weights(model: str, transform: str, text: str) -> None:
    facts = plan("stn-mnist", f"model={model}", f"transform={transform}")
    assert facts["model"].startswith(text)
    assert facts["model"].endswith("weights")
    assert "42x42" in facts["data"]


def test_a_plan_names_two_transformers() -> None:
    assert plan("stn-addition")["model"].startswith("2 x ST-FCN (affine)")
    assert plan("stn-addition")["data"].startswith("pairs of")


@pytest.mark.parametrize(
    ("experiment", "overrides", "message"),
    [
        ("stn-mnist", ("model=cnn", "transform=tps"), "transform=tps: model cnn has no transformer"),
        ("stn-mnist", ("model=cnn", "model.side=12"), "model.side=12, distortion=rts: an input of 12x12 pixels"),
        ("stn-mnist", ("model.parameters=50",), "model.parameters=50: the narrowest"),
        ("stn-mnist", ("nproc=5",), "train.batch_size=32 cannot be shared by 5 processes"),
        ("stn-colocalise", ("nproc=2",), "all images of a set take part"),
        ("stn-colocalise", ("digits=[3,3]",), "names a digit twice"),
        ("stn-colocalise", ("initial_scale=0.25",), "initial_scale=0.25: is below min_scale=0.3"),
        ("stn-svhn", ("data.size=16", "model.filters=0.1"), ""),
        ("stn-birds", ("model.weights=absent.pth",), "small backbone has no published weights"),
    ],
)
def test_contradictions_are_refused_before_anything_is_written(
    experiment: str, overrides: tuple[str, ...], message: str
) -> None:
    if not message:
        assert plan(experiment, *overrides)
        return
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        plan(experiment, *overrides)


def test_keys_of_another_model_are_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"model\.units"):
        compose("stn-mnist", ["model=st-cnn", "model.units=3"])
    with pytest.raises(ConfigError, match="distortion"):
        compose("stn-mnist", ["distortion=rt"])


@pytest.mark.parametrize(("experiment", "data"), [("stn-mnist", "mnist"), ("stn-svhn", "svhn"), ("stn-birds", "cub")])
def test_missing_data_are_named_before_anything_is_written(tmp_path: Path, experiment: str, data: str) -> None:
    with pytest.raises(DataError, match=f"paperbench data get {data}"):
        plan(experiment, f"data={data}", f"data.root={tmp_path}")


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("data")
    write_mnist(root)
    return str(root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mnist: str) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    start(folder, "stn-mnist", "data=mnist", f"data.root={mnist}", "distortion=e", "transform=tps", *SHORT)
    return folder


SHORT = (
    "train.samples=24",
    "train.batch_size=4",
    "train.checkpoint_every=2",
    "train.evaluate_every=2",
    "model.filters=2",
)


def test_a_run_measures_and_draws(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    metrics = results["metrics"]
    assert metrics["test/error"] == pytest.approx(100 * metrics["test/errors"] / 20)
    assert metrics["model/parameters"] > 10_000
    assert all(name in DECLARED for name in metrics)
    assert {path.name for path in (finished / "figures").iterdir()} == {"losses.png", "samples.png", "mean_warped.png"}
    logged = [record for record in metriclog.read(finished / "metrics.jsonl") if "test/error" in record]
    assert [record["step"] for record in logged] == [2, 4, 6]


def test_class_means_over_training_are_part_of_the_state(finished: Path, mnist: str) -> None:
    state = weights(finished)
    assert state["means"].shape == (3, 10, 1, 28, 28)
    assert int(state["evaluations"]) == 2  # the last evaluation comes after the last save
    assert (state["means"][:2].flatten(1).sum(1) > 0).all()
    assert (state["means"][2] == 0).all()


@pytest.mark.parametrize("stop_at", [1, 2, 4, 5])
def test_a_stopped_run_ends_as_an_uninterrupted_one(
    finished: Path, mnist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    original = task.make_trainer

    def stopping(config: Any, classifier: Any, train_set: Any, run: Any, evaluate: Any) -> Any:
        trainer = original(config, classifier, train_set, run, evaluate)
        fetch = trainer.fetch

        def fetch_and_stop(key: Any) -> Any:
            if key.step == stop_at:
                run.stop.set("a test")
            return fetch(key)

        trainer.fetch = fetch_and_stop
        return trainer

    monkeypatch.setattr(task, "make_trainer", stopping)
    folder = tmp_path / "run"
    outcome = start(folder, "stn-mnist", "data=mnist", f"data.root={mnist}", "distortion=e", "transform=tps", *SHORT)
    assert outcome.exit_code == EXIT_STOPPED
    monkeypatch.setattr(task, "make_trainer", original)
    launch.resume(folder, SilentReporter())
    expected, found = weights(finished), weights(folder)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


def test_another_seed_is_another_run_on_the_same_test_set(finished: Path, mnist: str, tmp_path: Path) -> None:
    composed = [compose("stn-mnist", [*PLAIN, f"seed={seed}"]).config for seed in (0, 1)]
    assert composed[0].evaluation == composed[1].evaluation
    start(
        tmp_path / "run",
        "stn-mnist",
        "data=mnist",
        f"data.root={mnist}",
        "distortion=e",
        "transform=tps",
        "seed=1",
        *SHORT,
    )
    ours, other = weights(finished), weights(tmp_path / "run")
    assert not torch.equal(ours["net.classifier.first.weight"], other["net.classifier.first.weight"])


def test_co_localisation_resumes_in_the_middle_of_its_stages(mnist: str, tmp_path: Path) -> None:
    overrides = (
        "data=mnist",
        f"data.root={mnist}",
        "digits=[0,3]",
        "images=3",
        "train.batch_size=3",
        "train.samples=9",
    )
    whole = start(tmp_path / "whole", "stn-colocalise", *overrides)
    assert whole.results is not None
    assert {"encoder/error", "colocalise/0", "colocalise/iou/3", "colocalise/mean"} <= whole.results["metrics"].keys()
    assert all(name in DECLARED for name in whole.results["metrics"])
    assert {path.name for path in (tmp_path / "whole" / "figures").iterdir()} == {"digit-0.png", "digit-3.png"}
    stores = {path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()}
    assert stores == {"encoder", "digit-0", "digit-3"}

    again = start(tmp_path / "again", "stn-colocalise", *overrides)
    assert again.results is not None
    assert again.results["metrics"] == whole.results["metrics"]


def test_too_few_images_of_a_digit_are_named(mnist: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 3 images of digit 0, fewer than images=8"):
        start(tmp_path / "run", "stn-colocalise", "data=mnist", f"data.root={mnist}")


# --- trained nets in use ----------------------------------------------------------------------------------------------


def test_predict_draws_and_names_a_class(finished: Path, tmp_path: Path) -> None:
    Image.new("L", (50, 70), 255).save(tmp_path / "paper.png")
    Image.new("L", (20, 20)).save(tmp_path / "night.png")
    config = compose("stn-mnist", [*PLAIN, "distortion=e", "transform=tps", "model.filters=2"]).config
    answers = task.predict(config, finished, [tmp_path / "paper.png", tmp_path / "night.png"], tmp_path / "out")
    assert len(answers) == 2
    for answer in answers:
        assert answer["label"] in set("0123456789")
        assert 0.1 <= answer["probability"] <= 1
        with Image.open(answer["picture"]) as picture:
            assert picture.width > 50


def test_nothing_is_drawn_when_one_file_is_no_picture(finished: Path, tmp_path: Path) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "night.png")
    (tmp_path / "notes.png").write_text("no picture")
    config = compose("stn-mnist", [*PLAIN, "distortion=e", "transform=tps", "model.filters=2"]).config
    with pytest.raises(DataError, match=r"notes\.png"):
        task.predict(config, finished, [tmp_path / "night.png", tmp_path / "notes.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_picture_becomes_light_ink_on_a_black_canvas(tmp_path: Path) -> None:
    page = Image.new("L", (20, 20), 250)
    page.paste(0, (8, 4, 12, 16))
    page.save(tmp_path / "ink.png")
    found = read_digit(tmp_path / "ink.png", 42)
    assert found.shape == (1, 1, 42, 42)
    assert found[0, 0, 20, 21] == 1
    assert float(found[0, 0, :10].max()) == 0
    Image.new("L", (200, 100)).save(tmp_path / "wide.png")
    assert read_digit(tmp_path / "wide.png", 28).shape == (1, 1, 28, 28)
